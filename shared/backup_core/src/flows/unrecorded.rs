//! The row of a backup that has a manifest, but no record of its end: its process died in between, its record is
//! damaged, or a release made it that kept none.
//!
//! The manifest says that the backup exists, and signed evidence whether every chunk was read back. With all of it the
//! backup is verified, as `close` would have found; else it has failed, and can still be restored by its id. Nothing
//! tells who asked for it, what the proof of the chain found, or what was noted later (drills, copies, a hold); it
//! ended when it was sealed, or later.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use crate::at_once::at_once;
use crate::error::{ErrorKind, Result, corrupt};
use crate::format::{
    BackupPlace, Consistency, Manifest, ObjectKey, ObjectKind, Opened, Sampled, VerifiedChunks, WorkItem,
};
use crate::id::{ClusterTime, SourceName};
use crate::namespace::Label;
use crate::operation::{BackupDetail, BackupNote, Detail, Level, Operation, OperationState};
use crate::ports::{DataKeys, ObjectStore};

use super::close::work_items;
use super::rebuild_catalog::{Ports, is_of_the_object, lost};
use super::{READS_AT_ONCE, READS_MAX, SEALED_BYTES_MAX, open_object, open_plan, path};

/// Stands for who asked.
const USER: &str = "unknown";
/// The source's clock and ours are never further apart. It is added where the end of a backup is known by ours only.
const CLOCKS_APART_MILLIS_MAX: u64 = 3_600_000;

/// The row of the backup at `place`, which is in the bucket. What its record says, if there is one, stays.
pub(super) async fn row(
    ports: Ports<'_>,
    source: SourceName,
    place: BackupPlace,
    recorded: Option<Operation>,
) -> Result<Operation> {
    let recorded = recorded.unwrap_or_else(|| {
        let detail = Detail::Backup(BackupDetail::requested(place.trigger, false));
        Operation::requested(place.backup, source, String::new(), Vec::new(), USER.to_owned(), detail)
    });
    let (opened, sha256) = open_manifest(ports, place, &recorded).await?;
    let manifest = &opened.value;
    let sealed_millis = sealed_millis(manifest).unwrap_or_else(|| place.backup.requested_millis());
    let mut row = sealed_row(recorded, manifest, sha256)?;
    if row.backup()?.restorable_from.is_none() {
        let from = restorable_from(ports.store, ports.keys, &row, manifest, sealed_millis).await?;
        row.backup_mut()?.restorable_from = Some(from);
    }
    if every_chunk_was_verified(ports.store, place, &opened).await? {
        row.state = OperationState::Verified;
        row.finished_millis = Some(sealed_millis);
        row.failure = None;
        let mut levels = vec![Level::Present, Level::Checksums, Level::Decoded];
        levels.extend(sample_level(ports.store, place, &opened).await?);
        BackupNote::Proved(levels, sealed_millis).apply(row.backup_mut()?);
    } else {
        row.state = OperationState::Failed;
        row.finished_millis = Some(ports.clock.now_millis());
        row.failure = Some(lost(
            "the catalog was lost while it ran, and nothing shows that every chunk was verified",
            "take a new backup; this one can be restored by its id, and its chunks are read back then",
        ));
    }
    Ok(row)
}

/// The manifest, and its SHA-256 in hexadecimal digits.
async fn open_manifest(
    ports: Ports<'_>,
    place: BackupPlace,
    row: &Operation,
) -> Result<(Opened<Manifest>, String)> {
    let mut reads = 1;
    loop {
        match try_open_manifest(ports, place, row).await {
            Err(why) if why.kind() == ErrorKind::Corrupt && reads < READS_MAX => reads += 1,
            other => return other,
        }
    }
}

async fn try_open_manifest(
    ports: Ports<'_>,
    place: BackupPlace,
    row: &Operation,
) -> Result<(Opened<Manifest>, String)> {
    let key = ObjectKey::Manifest(place);
    let object = ports.store.get(key, SEALED_BYTES_MAX).await?;
    let opened: Opened<Manifest> = open_object(ports.keys, row, ObjectKind::Manifest, key, &object).await?;
    let manifest = &opened.value;
    manifest.check().map_err(|why| why.while_doing(format!("open {}", path(key))))?;
    if manifest.place() != place || manifest.source != row.source {
        return Err(corrupt(format!("open {}: it is another backup's", path(key))));
    }
    Ok((opened, hex::encode(Sha256::digest(&object))))
}

/// The row with everything that its manifest says.
fn sealed_row(mut row: Operation, manifest: &Manifest, sha256: String) -> Result<Operation> {
    row.database.clone_from(&manifest.database);
    row.collections.clone_from(&manifest.collections);
    row.totals = manifest.totals();
    let detail = row.backup_mut()?;
    detail.cluster_time = Some(manifest.cluster_time);
    detail.consistency = Some(manifest.consistency);
    detail.lost = manifest.lost();
    detail.folded_from = manifest.folded_from;
    detail.folds = manifest.folded_from.is_some();
    detail.manifest_sha256 = Some(sha256);
    Ok(row)
}

/// The first instant that the backup can be folded to. Only its plan says whether the metadata was still around T; else
/// it is an instant at which it had surely ended.
async fn restorable_from(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    row: &Operation,
    manifest: &Manifest,
    sealed_millis: u64,
) -> Result<ClusterTime> {
    let could_be_exact = manifest.consistency == Consistency::SingleInstant
        && manifest.lost() == 0
        && manifest.namespaces.iter().all(|it| it.label != Label::Fuzzy);
    if manifest.folded_from.is_some() || (could_be_exact && metadata_is_exact(store, keys, row).await?) {
        return Ok(manifest.cluster_time);
    }
    let surely_ended = sealed_millis.saturating_add(CLOCKS_APART_MILLIS_MAX) / 1000;
    Ok(ClusterTime { seconds: u32::try_from(surely_ended).unwrap_or(u32::MAX), ordinal: 0 })
}

async fn metadata_is_exact(store: &dyn ObjectStore, keys: &dyn DataKeys, row: &Operation) -> Result<bool> {
    match open_plan(store, keys, row).await {
        Err(why) if is_of_the_object(&why) => Ok(false),
        plan => plan.map(|plan| plan.value.metadata_is_exact),
    }
}

async fn every_chunk_was_verified(
    store: &dyn ObjectStore,
    place: BackupPlace,
    opened: &Opened<Manifest>,
) -> Result<bool> {
    let items = match work_items(store, ObjectKey::BackupWork(place)).await {
        Err(why) if is_of_the_object(&why) => return Ok(false),
        items => items?,
    };
    let reads = items.into_iter().map(|item| verified(store, place, opened, item));
    let found: HashSet<u32> = at_once(READS_AT_ONCE, reads).await?.into_iter().flatten().collect();
    Ok(opened.value.chunks().all(|(_, chunk)| found.contains(&chunk.ordinal)))
}

/// The level that a sample has proved; none if there is no evidence of one.
async fn sample_level(
    store: &dyn ObjectStore,
    place: BackupPlace,
    opened: &Opened<Manifest>,
) -> Result<Option<Level>> {
    match super::read_evidence::<Sampled>(store, &opened.evidence, ObjectKey::Sampled(place)).await {
        Err(why) if is_of_the_object(&why) => Ok(None),
        found => found.map(|it| it.rehearsed.map(|_| Level::SampleRestored)),
    }
}

/// The chunks of a work item that there is evidence for.
async fn verified(
    store: &dyn ObjectStore,
    place: BackupPlace,
    opened: &Opened<Manifest>,
    item: WorkItem,
) -> Result<Vec<u32>> {
    let key = ObjectKey::Verified(place, item.first);
    match super::read_evidence::<VerifiedChunks>(store, &opened.evidence, key).await {
        Err(why) if is_of_the_object(&why) => Ok(Vec::new()),
        found => found.map(|it| it.ordinals),
    }
}

/// When it was sealed, in milliseconds since 1970 UTC.
fn sealed_millis(manifest: &Manifest) -> Option<u64> {
    let time: jiff::Timestamp = manifest.sealed_at.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}
