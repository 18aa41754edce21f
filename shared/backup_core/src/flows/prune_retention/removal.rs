//! The second phase of a removal: once more whether anybody reads the backup, then its copies, then itself, and its row
//! last.
//!
//! In every bucket the manifest goes before anything else of the backup. Where the store refuses that, the whole backup
//! stays; where it refuses only what comes later, the row stays, and a later run goes on.

use crate::alert::Alert;
use crate::audit::AuditRecord;
use crate::error::{ErrorKind, Result};
use crate::format::{BackupPlace, ObjectKey, Place, Prefix};
use crate::id::OperationId;
use crate::operation::{BackupNote, Failure, Operation, OperationKind, Removal, Totals};
use crate::ports::{Clock, Shelves};

use super::{Ports, Trouble, bytes, note, time_for_more};
use crate::flows::uses;

/// How many are announced before it is looked who uses them: what is announced nobody can use any more.
const BEGUN_AT_ONCE: usize = 16;

/// A backup whose time has come.
pub(super) struct Leaving<'a> {
    pub(super) backup: &'a Operation,
    /// An earlier run has removed its manifest already: nobody can use it any more, and nobody can keep it.
    pub(super) manifest_is_gone: bool,
}

/// Removes them; what that comes to is counted in the run's row.
pub(super) async fn remove(
    ports: Ports<'_>,
    run: &mut Operation,
    leaving: &[Leaving<'_>],
    trouble: &mut Trouble,
) -> Result<()> {
    run.prune_mut()?.locked = 0;
    let mut locked_by_others = Vec::new();
    for some in leaving.chunks(BEGUN_AT_ONCE) {
        remove_some(ports, run, some, trouble, &mut locked_by_others).await?;
    }
    trouble.unless(tell(ports, run, &locked_by_others).await).map(|_| ())
}

async fn remove_some(
    ports: Ports<'_>,
    run: &mut Operation,
    leaving: &[Leaving<'_>],
    trouble: &mut Trouble,
    locked_by_others: &mut Vec<OperationId>,
) -> Result<()> {
    let mut begun = Vec::new();
    for it in leaving {
        time_for_more(ports.clock)?;
        if let Some(row) = set_begun(ports, it.backup, true).await? {
            begun.push((row, it.manifest_is_gone));
            continue;
        }
        // Another run has removed it; a record that came late would stay for ever.
        let cleared = clear(ports.clock, ports.shelves, it.backup.backup_place()?).await;
        trouble.unless(cleared)?;
    }
    // From here on it is too late for a hold, and for anybody who wants to use one of them.
    let in_use = uses::in_use(ports.catalog, ports.clock.now_millis()).await?;
    for (row, manifest_is_gone) in &begun {
        let is_wanted = row.backup()?.hold.is_some() || in_use.contains(&row.id);
        if is_wanted && !manifest_is_gone {
            set_begun(ports, row, false).await?;
            run.prune_mut()?.marked += 1;
            continue;
        }
        time_for_more(ports.clock)?;
        ports.catalog.update_operation(run).await?; // refused, if another run has taken over
        let removed = remove_one(ports, run, row).await;
        match trouble.unless(removed)? {
            Some(true) => {}
            Some(false) => {
                run.prune_mut()?.locked += 1;
                if row.backup()?.locked_until_millis <= ports.clock.now_millis() {
                    locked_by_others.push(row.id);
                }
            }
            None => {
                ports.catalog.update_operation(run).await?; // or it would be taken back from another run
                trouble.unless(take_back(ports, row).await)?;
            }
        }
    }
    Ok(())
}

/// What could not be removed is whole as long as its manifest is there, and can be used until the next run.
pub(super) async fn take_back(ports: Ports<'_>, backup: &Operation) -> Result<()> {
    if ports.store.size(ObjectKey::Manifest(backup.backup_place()?)).await?.is_some() {
        set_begun(ports, backup, false).await?;
    }
    Ok(())
}

/// Gives the row as it is then; none if there is none any more.
async fn set_begun(ports: Ports<'_>, backup: &Operation, begun: bool) -> Result<Option<Operation>> {
    let Some(removal) = backup.backup()?.removal.clone() else { return Ok(None) };
    note(ports, backup.id, &BackupNote::Removal(Some(Removal { begun, ..removal }))).await
}

/// Removes a backup from every bucket, and its row; false if locks are in the way.
async fn remove_one(ports: Ports<'_>, run: &mut Operation, row: &Operation) -> Result<bool> {
    let (detail, place) = (row.backup()?, row.backup_place()?);
    let mut is_empty = true;
    // Every region, not only those that have a complete copy: one that was being made leaves chunks as well.
    for region in ports.regions {
        ports.catalog.update_operation(run).await?; // refused, if another run has taken over
        let cleared = clear(ports.clock, region.shelves, place).await?;
        count_freed(run, cleared.freed_bytes)?;
        if !cleared.manifest_is_gone {
            set_begun(ports, row, false).await?;
            return Ok(false);
        }
        if detail.replicas.contains_key(&region.name) {
            note(ports, row.id, &BackupNote::Replica(region.name, None)).await?;
        }
        is_empty &= cleared.is_empty;
    }
    ports.catalog.update_operation(run).await?;
    let now = ports.catalog.operation(OperationKind::Backup, row.id).await?;
    if !now.backup()?.removal.as_ref().is_some_and(|removal| removal.begun) {
        return Ok(false); // somebody has taken it back since
    }
    let cleared = clear(ports.clock, ports.shelves, place).await?;
    count_freed(run, cleared.freed_bytes)?;
    if !cleared.manifest_is_gone {
        set_begun(ports, row, false).await?;
        return Ok(false);
    }
    if !is_empty || !cleared.is_empty {
        return Ok(false);
    }
    forget(ports, run, row).await?;
    add(&mut run.totals, &row.totals);
    run.prune_mut()?.removed += 1;
    Ok(true)
}

/// What became of a bucket's part of a backup.
pub(super) struct Cleared {
    pub(super) freed_bytes: u64,
    pub(super) manifest_is_gone: bool,
    pub(super) is_empty: bool,
}

/// Removes what a bucket has of a backup, the manifest first; nothing else if that is locked.
pub(super) async fn clear(clock: &dyn Clock, shelves: &dyn Shelves, place: BackupPlace) -> Result<Cleared> {
    let mut cleared = Cleared { freed_bytes: 0, manifest_is_gone: true, is_empty: true };
    let manifest = shelves.versions_of(ObjectKey::Manifest(place)).await?;
    if !manifest.is_empty() {
        let locked = shelves.remove(&manifest).await?;
        cleared.freed_bytes = bytes(&manifest).saturating_sub(bytes(&locked));
        if !locked.is_empty() {
            return Ok(Cleared { manifest_is_gone: false, is_empty: false, ..cleared });
        }
    }
    loop {
        time_for_more(clock)?;
        let page = shelves.versions(Prefix::Of(Place::Backup(place))).await?;
        if page.is_empty() {
            return Ok(cleared);
        }
        let locked = shelves.remove(&page).await?;
        let freed = bytes(&page).saturating_sub(bytes(&locked));
        cleared.freed_bytes = cleared.freed_bytes.saturating_add(freed);
        if locked.len() >= page.len() {
            return Ok(Cleared { is_empty: false, ..cleared }); // pages are from the beginning: the next is the same
        }
    }
}

/// The audit trail first: without the row nobody would know what was removed.
async fn forget(ports: Ports<'_>, run: &Operation, row: &Operation) -> Result<()> {
    let Ports { catalog, clock, .. } = ports;
    let detail = row.backup()?;
    let reason = detail.removal.as_ref().map(|it| it.reason.as_str()).unwrap_or_default();
    let (user, now) = (detail.unwanted_by.as_ref().unwrap_or(&run.user), clock.now_millis());
    catalog.append_audit(row.id, &AuditRecord::removed(row, reason, user, now)).await?;
    if !row.state.is_final() {
        let failure = Failure {
            step: "prune-retention".to_owned(),
            kind: ErrorKind::Internal,
            message: "it was begun, and never ended".to_owned(),
            hint: None,
        };
        catalog.fail_operation(&Operation { failure: Some(failure), ..row.clone() }, now).await?;
    }
    match catalog.operation(OperationKind::Backup, row.id).await {
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(()),
        found => catalog.forget(&found?).await,
    }
}

/// Nightsafe's own locks end when the plan says, or a little later; whatever else is in the way people have to know.
async fn tell(ports: Ports<'_>, run: &Operation, locked_by_others: &[OperationId]) -> Result<()> {
    if locked_by_others.is_empty() {
        return Ok(());
    }
    ports.alerts.publish(&Alert::locked_in_the_way(run.source, locked_by_others)).await
}

fn count_freed(run: &mut Operation, bytes: u64) -> Result<()> {
    let freed = &mut run.prune_mut()?.freed_bytes;
    *freed = freed.saturating_add(bytes);
    Ok(())
}

fn add(sum: &mut Totals, more: &Totals) {
    sum.namespaces = sum.namespaces.saturating_add(more.namespaces);
    sum.chunks = sum.chunks.saturating_add(more.chunks);
    sum.documents = sum.documents.saturating_add(more.documents);
    sum.bson_bytes = sum.bson_bytes.saturating_add(more.bson_bytes);
    sum.stored_bytes = sum.stored_bytes.saturating_add(more.stored_bytes);
}
