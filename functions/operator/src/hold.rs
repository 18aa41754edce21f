//! `nightsafe hold`, `nightsafe release` and `nightsafe delete`: a person's word about a backup.

use backup_core::audit::AuditRecord;
use backup_core::flows::record;
use backup_core::id::OperationId;
use backup_core::operation::{BackupNote, Hold, Operation, OperationKind, OperationState, Trigger};
use backup_core::ports::Catalog;
use backup_core::watch::newest_good;
use backup_core::{Error, ErrorKind, Result};

use crate::agree;
use crate::arguments::{DeleteArguments, HoldArguments};
use crate::output;
use crate::session::Session;

/// Backups among which the newest good one is looked for.
const LOOKED_AT_MAX: u32 = 10_000;

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
        let attempted = format!("delete {}: nobody agreed", backup.id);
        let question =
            format!("Type the database's name to delete backup {} of {:?}", backup.id, backup.database);
        agree::ask(&attempted, &question, &backup.database)?;
    }
    let user = session.user().await?;
    let mut backups = session.catalog.operations(OperationKind::Backup, LOOKED_AT_MAX).await?;
    backups.retain(|it| it.database == backup.database);
    let backup = note(session, wanted.id, &BackupNote::Unwanted(Some(user))).await?;
    let kept_by = kept_by(&backup, &backups, Session::now_millis())?;
    if session.json {
        let mut value = output::json("backup", &backup);
        if let Some(fields) = value.as_object_mut() {
            fields.insert("kept_by".into(), kept_by.into());
        }
        println!("{value}");
        return Ok(());
    }
    tell(session, &backup, &fate(&kept_by, backup.backup()?.removal.is_some()));
    Ok(())
}

/// What keeps a backup that nobody wants any more, as far as the rows of its database tell. Instants that are promised
/// and whoever reads it may keep it as well.
fn kept_by(backup: &Operation, of_database: &[Operation], now_millis: u64) -> Result<Vec<String>> {
    let detail = backup.backup()?;
    let is_newest = |region| {
        let newest = newest_good(of_database, region, now_millis);
        newest.is_some_and(|newest| newest.id == backup.id)
    };
    let mut reasons = Vec::new();
    if let Some(hold) = &detail.hold {
        reasons.push(format!("{} holds it ({}): release it first", hold.user, hold.reason));
    }
    if !backup.state.is_final() {
        reasons.push("it is not finished".to_owned());
    } else if backup.state == OperationState::Failed && detail.manifest_sha256.is_none() {
        reasons.push("it failed: what is left of it is kept for FailedRetention".to_owned());
    }
    if is_newest(None) {
        let until = "it is the newest good backup of its database, until there is a newer one, however made";
        reasons.push(until.to_owned());
    } else if let Some(region) = detail.replicas.keys().find(|region| is_newest(Some(**region))) {
        reasons.push(format!("it is the newest good backup that {region} has a copy of"));
    }
    if detail.locked_until_millis > now_millis {
        reasons.push(format!("it is locked until {} UTC", output::time(detail.locked_until_millis)));
    }
    Ok(reasons)
}

fn fate(kept_by: &[String], is_marked: bool) -> String {
    if !kept_by.is_empty() {
        return format!("is no longer wanted, but stays for now: {}", kept_by.join("; "));
    }
    let goes = if is_marked { "is marked to be removed already" } else { "is marked by the next prune" };
    format!(
        "{goes} and removed after the grace period, unless something needs it (`nightsafe plan retention` says)"
    )
}

async fn note(session: &Session, id: OperationId, note: &BackupNote) -> Result<Operation> {
    record::note(&session.store, &session.keys, &session.catalog, id, note).await
}

fn tell(session: &Session, backup: &Operation, what: &str) {
    if session.json {
        println!("{}", output::json("backup", backup));
    } else {
        println!("backup {} of {:?} {what}", backup.id, backup.database);
    }
}

#[cfg(test)]
mod tests {
    use backup_core::id::RegionName;
    use backup_core::operation::{BackupDetail, Detail, Removal, Replica};

    use super::*;

    const HOUR: u64 = 3_600_000;
    /// 2026-11-22 02:00:00 UTC.
    const NOW: u64 = 1_795_312_800_000;

    type Edit = fn(&mut Operation, &mut BackupDetail);

    /// A good manual backup that was asked for so many hours before [`NOW`].
    fn good(hours: u64, edit: Edit) -> Operation {
        let id = OperationId::of_slot(NOW - hours * HOUR, &["crm"]);
        let mut detail = BackupDetail {
            manifest_sha256: Some("00".into()),
            ..BackupDetail::requested(Trigger::Manual, false)
        };
        let source = "main".parse().unwrap();
        let asked = Detail::Backup(detail.clone());
        let mut row = Operation::requested(id, source, "crm".into(), vec![], "ana".into(), asked);
        row.state = OperationState::Verified;
        edit(&mut row, &mut detail);
        row.detail = Detail::Backup(detail);
        row
    }

    fn region() -> RegionName {
        "eu-west-1".parse().unwrap()
    }

    fn copied(detail: &mut BackupDetail) {
        let copy = Replica { completed_millis: NOW, objects: 1, stored_bytes: 1 };
        detail.replicas.insert(region(), copy);
    }

    #[test]
    fn what_keeps_an_unwanted_backup_is_told() {
        let plain: Edit = |_, _| ();
        let cases: [(&str, Edit, Option<Operation>, &[&str]); 10] = [
            ("there is a newer one", plain, Some(good(1, plain)), &[]),
            ("the only one", plain, None, &["the newest good backup of its database"]),
            (
                "a newer one failed",
                plain,
                Some(good(1, |row, _| row.state = OperationState::Failed)),
                &["the newest good backup of its database"],
            ),
            ("a newer one was folded", plain, Some(good(1, |_, it| it.folds = true)), &[]),
            (
                "a newer one was not copied",
                |_, it| copied(it),
                Some(good(1, plain)),
                &["eu-west-1 has a copy of"],
            ),
            ("a newer one was copied", |_, it| copied(it), Some(good(1, |_, it| copied(it))), &[]),
            (
                "held",
                |_, it| {
                    it.hold = Some(Hold { reason: "a dispute".into(), user: "ana".into(), since_millis: 0 });
                },
                Some(good(1, plain)),
                &["ana holds it (a dispute): release it first"],
            ),
            (
                "locked, and the newest",
                |_, it| it.locked_until_millis = NOW + HOUR,
                None,
                &["the newest good backup", "locked until 2026-11-22 03:00:00 UTC"],
            ),
            ("no longer locked", |_, it| it.locked_until_millis = NOW, Some(good(1, plain)), &[]),
            (
                "failed",
                |row, it| (row.state, it.manifest_sha256) = (OperationState::Failed, None),
                Some(good(1, plain)),
                &["it failed"],
            ),
        ];
        for (name, edit, other, expected) in cases {
            let backup = good(2, edit);
            let rows: Vec<Operation> = other.into_iter().chain([backup.clone()]).collect();
            let found = kept_by(&backup, &rows, NOW).unwrap();
            assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.contains(expected), "{name}: {found:?}");
            }
            let told = fate(&found, false);
            assert_eq!(told.contains("stays for now"), !expected.is_empty(), "{name}: {told}");
        }
        let marked = good(2, |_, it| {
            it.removal = Some(Removal { reason: "bogus".into(), marked_millis: NOW, begun: false });
        });
        let found = kept_by(&marked, &[good(1, plain), marked.clone()], NOW).unwrap();
        assert!(found.is_empty(), "{found:?}");
        assert!(fate(&found, true).starts_with("is marked to be removed already"));
    }
}
