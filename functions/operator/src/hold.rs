//! `nightsafe hold`, `nightsafe release` and `nightsafe delete`: a person's word about a backup.

use std::io::{IsTerminal, Write, stderr, stdin};

use backup_core::audit::AuditRecord;
use backup_core::flows::record;
use backup_core::id::OperationId;
use backup_core::operation::{BackupNote, Hold, Operation, OperationKind, Trigger};
use backup_core::ports::Catalog;
use backup_core::{Error, ErrorKind, Result};

use crate::arguments::{DeleteArguments, HoldArguments};
use crate::output;
use crate::session::Session;

/// `nightsafe hold`.
pub(crate) async fn hold(session: &Session, wanted: &HoldArguments) -> Result<()> {
    let (user, now) = (session.user().await?, Session::now_millis());
    let reason = wanted.reason.trim();
    if reason.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, format!("hold {}: no reason was given", wanted.id)));
    }
    let hold = Hold { reason: reason.to_owned(), user: user.clone(), since_millis: now };
    let backup = note(session, wanted.id, &BackupNote::Hold(Some(hold.clone()))).await?;
    if let Some(other) = backup.backup()?.hold.as_ref().filter(|other| **other != hold) {
        let what = format!("hold {}: {} holds it already: {}", wanted.id, other.user, other.reason);
        return Err(
            Error::new(ErrorKind::Conflict, what).hint("it is kept; release it first to say why anew")
        );
    }
    if backup.backup()?.removal.as_ref().is_some_and(|removal| removal.begun) {
        note(session, wanted.id, &BackupNote::Hold(None)).await?;
        return Err(Error::new(ErrorKind::Conflict, format!("hold {}: it is being removed", wanted.id)));
    }
    session.catalog.append_audit(backup.id, &AuditRecord::held(&backup, reason, &user, now)).await?;
    tell(session, &backup, "held");
    Ok(())
}

/// `nightsafe release`.
pub(crate) async fn release(session: &Session, id: OperationId) -> Result<()> {
    let (user, now) = (session.user().await?, Session::now_millis());
    let held = session.catalog.operation(OperationKind::Backup, id).await?;
    let Some(hold) = held.backup()?.hold.clone() else {
        return Err(Error::new(ErrorKind::NotFound, format!("release {id}: nobody holds it")));
    };
    let backup = note(session, id, &BackupNote::Hold(None)).await?;
    session.catalog.append_audit(id, &AuditRecord::released(&backup, &hold.reason, &user, now)).await?;
    tell(session, &backup, "released");
    Ok(())
}

/// `nightsafe delete`.
pub(crate) async fn delete(session: &Session, wanted: &DeleteArguments) -> Result<()> {
    let backup = session.catalog.operation(OperationKind::Backup, wanted.id).await?;
    if backup.trigger() != Trigger::Manual {
        return Err(Error::new(
            ErrorKind::Refused,
            format!(
                "delete {}: a schedule made it, and the retention rules say how long it is kept",
                wanted.id
            ),
        )
        .hint("`nightsafe plan retention` shows until when"));
    }
    if !wanted.yes {
        ask(&backup)?;
    }
    let user = session.user().await?;
    let backup = note(session, wanted.id, &BackupNote::Unwanted(Some(user))).await?;
    tell(session, &backup, "is to be removed with the next prune");
    Ok(())
}

async fn note(session: &Session, id: OperationId, note: &BackupNote) -> Result<Operation> {
    record::note(&session.store, &session.keys, &session.catalog, id, note).await
}

fn ask(backup: &Operation) -> Result<()> {
    let unsure = || {
        Error::new(ErrorKind::Refused, format!("delete {}: nobody agreed", backup.id))
            .hint("agree with --yes")
    };
    if !stdin().is_terminal() {
        return Err(unsure());
    }
    eprint!("Type the database's name to delete backup {} of {:?}: ", backup.id, backup.database);
    let mut line = String::new();
    let read = stderr().flush().and_then(|()| stdin().read_line(&mut line));
    if read.is_ok() && line.trim_end() == backup.database { Ok(()) } else { Err(unsure()) }
}

fn tell(session: &Session, backup: &Operation, what: &str) {
    if session.json {
        println!("{}", output::json("backup", backup));
    } else {
        println!("backup {} of {:?} {what}", backup.id, backup.database);
    }
}
