//! `nightsafe backup` and `nightsafe synthesize`.

use backup_core::flows::open_manifest;
use backup_core::namespace::Label;
use backup_core::operation::{BackupDetail, Detail, Operation, OperationKind, Trigger};
use backup_core::{Error, ErrorKind, Result};

use crate::arguments::{BackupArguments, SynthesizeArguments};
use crate::follow::follow;
use crate::output;
use crate::session::Session;

pub(crate) async fn run(session: &Session, wanted: &BackupArguments) -> Result<()> {
    session.must_be_first(&format!("back up {:?}", wanted.database))?;
    let detail = Detail::Backup(BackupDetail::requested(Trigger::Manual, wanted.force));
    carry_out(session, &wanted.database, &wanted.collections, detail).await
}

/// `nightsafe synthesize`: what the timeline does by itself every few hours.
pub(crate) async fn fold(session: &Session, wanted: &SynthesizeArguments) -> Result<()> {
    session.must_be_first(&format!("fold a backup of {:?}", wanted.database))?;
    let detail = BackupDetail { folds: true, ..BackupDetail::requested(Trigger::Manual, false) };
    carry_out(session, &wanted.database, &[], Detail::Backup(detail)).await
}

async fn carry_out(session: &Session, database: &str, collections: &[String], detail: Detail) -> Result<()> {
    let (id, execution) = session.start(database, collections, detail).await?;
    if !session.json {
        eprintln!("backup {id} of {database:?}");
    }
    let operation = follow(session, OperationKind::Backup, id, &execution).await?;
    if session.json {
        println!("{}", output::json("backup", &operation));
        return whole(&operation);
    }
    let consistency = operation.backup()?.consistency.map(|it| it.to_string()).unwrap_or_default();
    println!("{id} {}: {}, {consistency}", operation.state, output::totals(&operation.totals));
    let manifest = open_manifest(&session.store, &session.keys, &operation).await?;
    for entry in manifest.namespaces.iter().filter(|entry| entry.label != Label::Exact) {
        let reason = entry.reason.as_deref().unwrap_or_default();
        println!("  {}: {} ({reason})", entry.namespace.name, entry.label);
    }
    whole(&operation)
}

/// A backup that lacks what was there at T is good for the rest, but nobody may take it for the whole.
fn whole(operation: &Operation) -> Result<()> {
    match operation.backup()?.lost {
        0 => Ok(()),
        lost => Err(Error::new(
            ErrorKind::Partial,
            format!("backup {} lacks {lost} collections", operation.id),
        )
        .hint(
            "they were dropped or replaced before they were read; if they are still needed, back up again",
        )),
    }
}
