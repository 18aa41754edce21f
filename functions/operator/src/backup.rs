//! `nightsafe backup`.

use backup_core::flows::open_manifest;
use backup_core::namespace::Label;
use backup_core::operation::{BackupDetail, Detail, Operation, OperationKind, Trigger};
use backup_core::{Error, ErrorKind, Result};

use crate::arguments::BackupArguments;
use crate::follow::follow;
use crate::output;
use crate::session::{Machine, Session};

pub(crate) async fn run(session: &Session, wanted: &BackupArguments) -> Result<()> {
    let detail = Detail::Backup(BackupDetail {
        trigger: Trigger::Manual,
        force: wanted.force,
        cluster_time: None,
        consistency: None,
        manifest_sha256: None,
        lost: 0,
    });
    let (id, execution) =
        session.start(Machine::Protect, &wanted.database, &wanted.collections, detail).await?;
    if !session.json {
        eprintln!("backup {id} of {:?}", wanted.database);
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
