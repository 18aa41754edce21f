//! The one error type: what was attempted on which object, why it failed, and what the operator can do.
//!
//! The kind decides three things at once: whether a retry is worth it, the name that state machines match, and the
//! exit code of the command line. No secret and no document content may be put into any text of an error.

use std::error::Error as StdError;
use std::fmt;

/// Short for a result with Nightsafe's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it was. Stable: state machines, exit codes and the catalog refer to the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The network, a server or a service hiccuped; the same call may succeed later.
    Transient,
    /// A service asked us to slow down.
    Throttled,
    /// The instant a read was made at is no longer (or not yet) readable: look again and take a new one.
    SnapshotLost,
    /// The changes that come next can no longer be read.
    HistoryLost,
    /// The step would not end before its deadline; it stopped in time and may be run again.
    OutOfTime,
    /// Something that was named does not exist.
    NotFound,
    /// A resource of the deployment (bucket, table, secret) is not there.
    Gone,
    /// Somebody else holds what is needed.
    Conflict,
    /// Somebody else holds what is needed; its turn comes when that one is done.
    Busy,
    /// Our lease was taken over: nothing more may be written.
    Fenced,
    /// A permission is missing, or credentials were refused.
    Denied,
    /// It could be done, but must not be without the operator's word.
    Refused,
    /// Input that makes no sense.
    Invalid,
    /// The server or the data needs something that is not supported.
    Unsupported,
    /// Stored bytes are not what was written.
    Corrupt,
    /// A restored collection is not equal to its backup.
    ValidationFailed,
    /// It was done, but not for everything that was asked for.
    Partial,
    /// A fault of ours.
    Internal,
}

impl ErrorKind {
    /// Every kind, for tables and tests.
    pub const ALL: [Self; 18] = [
        Self::Transient,
        Self::Throttled,
        Self::SnapshotLost,
        Self::HistoryLost,
        Self::OutOfTime,
        Self::NotFound,
        Self::Gone,
        Self::Conflict,
        Self::Busy,
        Self::Fenced,
        Self::Denied,
        Self::Refused,
        Self::Invalid,
        Self::Unsupported,
        Self::Corrupt,
        Self::ValidationFailed,
        Self::Partial,
        Self::Internal,
    ];

    /// The name state machines match in `Retry` and `Catch`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transient => "Nightsafe.Transient",
            Self::Throttled => "Nightsafe.Throttled",
            Self::SnapshotLost => "Nightsafe.SnapshotLost",
            Self::HistoryLost => "Nightsafe.HistoryLost",
            Self::OutOfTime => "Nightsafe.OutOfTime",
            Self::NotFound => "Nightsafe.NotFound",
            Self::Gone => "Nightsafe.Gone",
            Self::Conflict => "Nightsafe.Conflict",
            Self::Busy => "Nightsafe.Busy",
            Self::Fenced => "Nightsafe.Fenced",
            Self::Denied => "Nightsafe.Denied",
            Self::Refused => "Nightsafe.Refused",
            Self::Invalid => "Nightsafe.Invalid",
            Self::Unsupported => "Nightsafe.Unsupported",
            Self::Corrupt => "Nightsafe.Corrupt",
            Self::ValidationFailed => "Nightsafe.ValidationFailed",
            Self::Partial => "Nightsafe.Partial",
            Self::Internal => "Nightsafe.Internal",
        }
    }

    /// The kind whose [`ErrorKind::name`] this is.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether the same call may succeed when it is simply made again.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Transient | Self::Throttled | Self::SnapshotLost | Self::OutOfTime | Self::Busy)
    }

    /// The exit code of the command line (documented in the README, stable).
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Transient
            | Self::Throttled
            | Self::SnapshotLost
            | Self::HistoryLost
            | Self::OutOfTime
            | Self::Unsupported
            | Self::Internal => 1,
            Self::Invalid => 2,
            Self::Partial => 3,
            Self::Corrupt | Self::ValidationFailed => 4,
            Self::NotFound | Self::Gone => 5,
            Self::Conflict | Self::Busy | Self::Fenced => 6,
            Self::Denied => 7,
            Self::Refused => 8,
        }
    }
}

/// A failure: kind, what was attempted, why, and a hint where the operator can act.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    attempted: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    hint: Option<String>,
}

impl Error {
    /// A failure of `kind`; `attempted` says what was tried on which object, in lower case, without a full stop.
    pub fn new(kind: ErrorKind, attempted: impl Into<String>) -> Self {
        Self { kind, attempted: attempted.into(), source: None, hint: None }
    }

    /// The same failure with what caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same failure with what the operator can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure seen from further out: `outer` says what was being done when it happened.
    #[must_use]
    pub fn while_doing(mut self, outer: impl fmt::Display) -> Self {
        self.attempted = format!("{outer}: {}", self.attempted);
        self
    }

    /// What kind of failure it was.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the operator can do, where we know.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.attempted)?;
        let mut cause = self.source.as_deref().map(|source| source as &dyn StdError);
        while let Some(why) = cause {
            write!(f, ": {why}")?;
            cause = why.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// `corrupt("header of chunk 3")` and the like are so common that they have a short form.
pub fn corrupt(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_again_by_its_name() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_name(kind.name()), Some(kind));
            assert_ne!(kind.exit_code(), 0, "{kind:?} must not look like success");
        }
    }

    #[test]
    fn an_error_tells_the_whole_chain_once() {
        let inner = std::io::Error::other("connection reset");
        let error =
            Error::new(ErrorKind::Transient, "read chunk 3").because(inner).while_doing("back up `crm`");
        assert_eq!(error.to_string(), "back up `crm`: read chunk 3: connection reset");
    }
}
