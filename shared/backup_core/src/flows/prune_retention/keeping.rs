//! What is done for a backup that is kept: its mark is taken away, its locks are extended, its chunks may go into cold
//! storage, and copies that need not be in another region go.

use bytes::Bytes;

use crate::at_once::at_once;
use crate::error::{ErrorKind, Result};
use crate::format::{Manifest, ObjectKey, Place};
use crate::id::RegionName;
use crate::operation::{BackupNote, Operation, OperationState};
use crate::ports::{Locks, Region};
use crate::retention::{Decision, Policy};

use super::removal::clear;
use super::{AT_ONCE, Ports, Survey, note, time_for_more};
use crate::flows::{DAMAGED, SEALED_BYTES_MAX, open_manifest};

/// Locks that are asked for at once: each is one small request, and a backup may have tens of thousands of chunks.
const LOCKS_AT_ONCE: usize = 64;

/// Does it; what that frees is counted in the run's row.
pub(super) async fn keep(
    (ports, policy): (Ports<'_>, &Policy),
    run: &mut Operation,
    survey: &Survey,
    decision: &Decision,
    backup: &Operation,
) -> Result<()> {
    let secured = secure(ports, survey, decision, backup).await;
    if secured.as_ref().is_err_and(|why| why.kind() == ErrorKind::OutOfTime) {
        return secured;
    }
    drop_copies((ports, policy), run, survey, decision, backup).await?;
    if backup.backup()?.removal.is_some() {
        ports.catalog.update_operation(run).await?; // refused, if another run has taken over
        note(ports, backup.id, &BackupNote::Removal(None)).await?;
    }
    secured
}

/// Extends its locks, and gives its chunks to cold storage.
async fn secure(ports: Ports<'_>, survey: &Survey, decision: &Decision, backup: &Operation) -> Result<()> {
    let detail = backup.backup()?;
    let until = decision.keep_until_millis.filter(|until| {
        *until > detail.locked_until_millis
            && *until > survey.now_millis
            && backup.state == OperationState::Verified
    });
    // From cold storage nothing can be copied any more.
    let is_everywhere = survey.regions.iter().all(|region| detail.replicas.contains_key(region));
    let is_free = is_everywhere && !survey.in_use.contains(&backup.id);
    let to_freeze = decision.cold && !detail.is_cold && is_free;
    if until.is_none() && !to_freeze {
        return Ok(());
    }
    let manifest = open_manifest(ports.store, ports.keys, backup).await?;
    if let Some(until_millis) = until {
        lock(ports, decision, backup, &manifest, until_millis).await?;
        // As long as a region with a copy does not answer, the next run locks all of it again.
        let keeps = |region: &&RegionName| {
            detail.replicas.contains_key(region) && decision.copies.get(region) != Some(&false)
        };
        let answers = |name: &RegionName| ports.regions.iter().any(|region| region.name == *name);
        if survey.regions.iter().filter(keeps).all(answers) {
            note(ports, backup.id, &BackupNote::Locked(until_millis)).await?;
        }
    }
    if to_freeze {
        at_once(AT_ONCE, chunks(&manifest).into_iter().map(|key| freeze(ports, key))).await?;
        note(ports, backup.id, &BackupNote::Cold).await?;
    }
    Ok(())
}

/// What was noted on a backup since it was copied (a hold, a level) is told in the regions that keep their copy, too.
pub(super) async fn bring_record(ports: Ports<'_>, decision: &Decision, backup: &Operation) -> Result<()> {
    let key = ObjectKey::Record(Place::Backup(backup.backup_place()?));
    time_for_more(ports.clock)?;
    let copied = &backup.backup()?.replicas;
    let is_kept = |region: &&Region<'_>| {
        copied.contains_key(&region.name) && decision.copies.get(&region.name) != Some(&false)
    };
    let regions: Vec<&Region<'_>> = ports.regions.iter().filter(is_kept).collect();
    if regions.is_empty() {
        return Ok(());
    }
    let here = match ports.store.get(key, SEALED_BYTES_MAX).await {
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    for region in regions {
        if let Err(why) = bring_to(ports, region, backup, (key, &here)).await {
            // A region that is down is told of by the watch; the next run brings the record.
            tracing::warn!(region = %region.name, backup = %backup.id, why = %why, "a record was not brought");
        }
    }
    Ok(())
}

/// A copy without its manifest is none, whoever took it: the watch has it made again.
async fn bring_to(
    ports: Ports<'_>,
    region: &Region<'_>,
    backup: &Operation,
    (key, here): (ObjectKey, &Bytes),
) -> Result<()> {
    if region.store.size(ObjectKey::Manifest(backup.backup_place()?)).await?.is_none() {
        return note(ports, backup.id, &BackupNote::Replica(region.name, None)).await.map(|_| ());
    }
    match region.store.get(key, SEALED_BYTES_MAX).await {
        Ok(there) if there == *here => Ok(()),
        Err(why) if why.kind() != ErrorKind::NotFound => Err(why),
        _ => region.copies.bring(key).await,
    }
}

/// Removes the copies that the plan lets go, and what is left of one whose removal was cut off. A copy stays for the
/// grace period: whoever made it is still at work until then. One that is locked stays as well, until its lock ends.
async fn drop_copies(
    (ports, policy): (Ports<'_>, &Policy),
    run: &mut Operation,
    survey: &Survey,
    decision: &Decision,
    backup: &Operation,
) -> Result<()> {
    let (detail, place) = (backup.backup()?, backup.backup_place()?);
    let has_begun = detail.removal.as_ref().is_some_and(|removal| removal.begun);
    for region in ports.regions {
        let Some(copy) = detail.replicas.get(&region.name) else { continue };
        let is_let_go = decision.copies.get(&region.name) == Some(&false)
            && policy.grace.end(copy.completed_millis) <= survey.now_millis
            && !survey.in_use.contains(&backup.id);
        let is_half_gone = has_begun && region.store.size(ObjectKey::Manifest(place)).await?.is_none();
        if !is_let_go && !is_half_gone {
            continue;
        }
        ports.catalog.update_operation(run).await?;
        let cleared = clear(ports.clock, region.shelves, place).await?;
        let freed = &mut run.prune_mut()?.freed_bytes;
        *freed = freed.saturating_add(cleared.freed_bytes);
        if cleared.manifest_is_gone {
            note(ports, backup.id, &BackupNote::Replica(region.name, None)).await?;
        }
    }
    Ok(())
}

/// Locks what a restore needs, at home and in the regions that keep their copy.
async fn lock(
    ports: Ports<'_>,
    decision: &Decision,
    backup: &Operation,
    manifest: &Manifest,
    until_millis: u64,
) -> Result<()> {
    let (detail, place) = (backup.backup()?, backup.backup_place()?);
    let needed = chunks(manifest).into_iter().chain([ObjectKey::Manifest(place)]);
    let beside = [
        ObjectKey::Record(Place::Backup(place)),
        ObjectKey::BackupReport(place),
        ObjectKey::BackupPage(place),
    ];
    let keys: Vec<(ObjectKey, bool)> =
        needed.map(|key| (key, true)).chain(beside.map(|key| (key, false))).collect();
    let keeps = |region: &&Region<'_>| {
        detail.replicas.contains_key(&region.name) && decision.copies.get(&region.name) != Some(&false)
    };
    let mut buckets = vec![ports.locks];
    buckets.extend(ports.regions.iter().filter(keeps).map(|region| region.locks));
    let mut trouble = Ok(());
    for locks in buckets {
        let each = keys.clone().into_iter();
        let locked = each.map(|(key, is_needed)| lock_one(ports, locks, key, is_needed, until_millis));
        let locked = at_once(LOCKS_AT_ONCE, locked).await.map(|_| ()).map_err(|why| match why.kind() {
            ErrorKind::NotFound => why.while_doing(format!("lock backup {}", backup.id)).hint(DAMAGED),
            _ => why,
        });
        trouble = trouble.and(locked); // a region that is down takes no lock from the others
    }
    trouble
}

async fn lock_one(
    ports: Ports<'_>,
    locks: &dyn Locks,
    key: ObjectKey,
    is_needed: bool,
    until_millis: u64,
) -> Result<()> {
    time_for_more(ports.clock)?;
    match locks.lock(key, until_millis).await {
        Err(why) if why.kind() == ErrorKind::NotFound && !is_needed => Ok(()),
        locked => locked,
    }
}

async fn freeze(ports: Ports<'_>, chunk: ObjectKey) -> Result<()> {
    time_for_more(ports.clock)?;
    ports.cold.freeze(chunk).await
}

fn chunks(manifest: &Manifest) -> Vec<ObjectKey> {
    let place = manifest.place();
    manifest.chunks().map(|(_, chunk)| ObjectKey::Chunk(place, chunk.ordinal, chunk.stored.attempt)).collect()
}
