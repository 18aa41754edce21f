//! What the driver's and the server's errors mean to us. Messages of the server may quote documents (duplicate keys,
//! failed validation, geo keys that cannot be read): only those of a few codes are passed on.

use backup_core::{Error, ErrorKind};

/// The instant or the collection is not what it was when the read began: look again.
const SNAPSHOT_LOST: [i32; 4] = [
    26,  // NamespaceNotFound: dropped, or dropped and not yet re-created
    239, // SnapshotTooOld
    246, // SnapshotUnavailable: changed after the instant
    361, // CollectionUUIDMismatch: another collection has the name
];
/// The place where a change stream was to go on is not to be found any more.
const HISTORY_LOST: [i32; 3] = [
    260, // InvalidResumeToken: of another cluster, or of one that was set back since
    280, // ChangeStreamFatalError: the change of the token is not in the oplog
    286, // ChangeStreamHistoryLost
];
/// `BSONObjectTooLarge`: a change of a document of nearly 16 MB, with what a change stream adds to it. The stream
/// comes no further, however often it is opened.
const TOO_LARGE: i32 = 10334;
const DENIED: [i32; 3] = [13, 18, 8000];
/// Elections, shutdowns, timeouts, conflicts, pressure on the cache, index builds in the way, cursors that a restart,
/// a drop or a rename ended (read again, the collection tells), and a capped collection that overtook its reader.
const TRANSIENT: [i32; 30] = [
    6, 7, 24, 43, 46, 50, 89, 91, 112, 117, 133, 134, 136, 175, 189, 202, 211, 237, 262, 276, 317, 365, 9001,
    10107, 11600, 11601, 11602, 12587, 13435, 13436,
];
/// Tells which option, and no value of a document.
const INVALID_OPTIONS: i32 = 72;

/// Codes that single callers look at.
pub(crate) mod code {
    pub(crate) const NAMESPACE_NOT_FOUND: i32 = 26;
    pub(crate) const NAMESPACE_EXISTS: i32 = 48;
    pub(crate) const DUPLICATE_KEY: i32 = 11000;
    /// A command, or a stage of one, has a field that the server does not know.
    pub(crate) const UNKNOWN_FIELD: i32 = 40415;
}

/// The server's code, if it refused a command.
pub(crate) fn code_of(error: &mongodb::error::Error) -> Option<i32> {
    match error.kind.as_ref() {
        mongodb::error::ErrorKind::Command(refused) => Some(refused.code),
        _ => None,
    }
}

/// The driver's error as ours; `attempted` says what was tried.
pub(crate) fn told(attempted: impl Into<String>, error: &mongodb::error::Error) -> Error {
    use mongodb::error::ErrorKind as Driver;
    let of = |kind: ErrorKind, why: String| Error::new(kind, attempted).because(why);
    match error.kind.as_ref() {
        Driver::Command(refused) => refusal(refused.code, &refused.code_name, &refused.message)(of),
        // The driver calls every failure while it logs in by this name, that of a server that is shutting down, too.
        Driver::Authentication { .. } if source_code(error).is_some_and(|code| TRANSIENT.contains(&code)) => {
            of(ErrorKind::Transient, "the server could not check the credentials just now".into())
        }
        Driver::Authentication { .. } => of(ErrorKind::Denied, "the server refused the credentials".into())
            .hint("check user, password and authSource in the secret with the connection string"),
        Driver::ServerSelection { message, .. } if message.contains("wire version") => {
            of(ErrorKind::Unsupported, shorten(message)).hint("Nightsafe needs MongoDB 6.0 or newer")
        }
        Driver::ServerSelection { message, .. } => of(ErrorKind::Transient, shorten(message))
            .hint("is the cluster up, and may this network reach it? check the host names in the secret"),
        Driver::DnsResolve { .. } => of(ErrorKind::Transient, "a host name could not be resolved".into()),
        Driver::InvalidArgument { .. } | Driver::InvalidTlsConfig { .. } => {
            of(ErrorKind::Invalid, "the connection string or a command is not valid".into())
        }
        Driver::Io(why) => {
            of(ErrorKind::Transient, why.to_string()).hint("is the server up, and has it connections left?")
        }
        Driver::ConnectionPoolCleared { .. } => of(ErrorKind::Transient, "the connection was lost".into()),
        _ => of(ErrorKind::Internal, "unexpected answer of the driver".into()),
    }
}

/// The server's code behind an error of the driver's own.
fn source_code(error: &mongodb::error::Error) -> Option<i32> {
    let source = std::error::Error::source(error)?;
    let boxed = source.downcast_ref::<Box<mongodb::error::Error>>().map(|error| &**error);
    code_of(boxed.or_else(|| source.downcast_ref())?)
}

/// What a server's refusal by code means.
fn refusal<F: FnOnce(ErrorKind, String) -> Error>(
    code: i32,
    name: &str,
    message: &str,
) -> impl FnOnce(F) -> Error {
    let text = if quotes_no_document(code) {
        format!("{} ({name}, {code})", shorten(without_command(message)))
    } else {
        format!("{name} ({code}); the server's log says more")
    };
    move |of: F| match code {
        _ if SNAPSHOT_LOST.contains(&code) => of(ErrorKind::SnapshotLost, text),
        _ if HISTORY_LOST.contains(&code) => of(ErrorKind::HistoryLost, text),
        _ if DENIED.contains(&code) => {
            of(ErrorKind::Denied, text).hint("the README lists the privileges each of the two users needs")
        }
        _ if TRANSIENT.contains(&code) => of(ErrorKind::Transient, text),
        _ if code == code::NAMESPACE_EXISTS => of(ErrorKind::Conflict, text),
        _ if code == code::DUPLICATE_KEY => of(ErrorKind::ValidationFailed, text),
        _ if code == TOO_LARGE => of(ErrorKind::Unsupported, text),
        _ => of(ErrorKind::Internal, text),
    }
}

/// Only messages that are known to quote nothing are passed on: those of writes and of index builds can.
fn quotes_no_document(code: i32) -> bool {
    SNAPSHOT_LOST.contains(&code)
        || DENIED.contains(&code)
        || TRANSIENT.contains(&code)
        || [code::NAMESPACE_EXISTS, INVALID_OPTIONS].contains(&code)
}

/// A write the server refused, by its code.
pub(crate) fn write_refused(attempted: String, code: i32) -> Error {
    refusal(code, "write error", "the server refused a document")(|kind, why| {
        Error::new(kind, attempted).because(why)
    })
}

/// What stands before the command that a server quotes, with its documents, when it refuses one.
fn without_command(message: &str) -> &str {
    message.split_once('{').map_or(message, |(before, _)| before).trim_end()
}

fn shorten(message: &str) -> String {
    const CHARACTERS_MAX: usize = 300;
    message.chars().take(CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_meaning_and_documents_are_not_quoted() {
        for (code, kind) in [
            (239, ErrorKind::SnapshotLost),
            (361, ErrorKind::SnapshotLost),
            (286, ErrorKind::HistoryLost),
            (10334, ErrorKind::Unsupported),
            (13, ErrorKind::Denied),
            (11602, ErrorKind::Transient),
            (48, ErrorKind::Conflict),
            (11000, ErrorKind::ValidationFailed),
            (72, ErrorKind::Internal),
            (16755, ErrorKind::Internal),
        ] {
            let error = refusal(code, "Name", "dup key: { email: \"ana@example.com\" }")(|kind, why| {
                Error::new(kind, "insert").because(why)
            });
            assert_eq!(error.kind(), kind, "{code}");
            let told = error.to_string();
            assert!(!told.contains("ana@"), "{told}");
            assert_eq!(told.contains("dup key"), quotes_no_document(code), "{told}");
        }
    }
}
