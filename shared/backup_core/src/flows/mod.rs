//! One file per pipeline step. A flow takes ports, and its parameters are its permissions: what is not in its
//! signature is not in its role either. Steps do not call steps; the state machines do.
//!
//! Every flow may run twice, at once or again later, or be killed anywhere: what it leaves is what one clean run
//! leaves.

pub mod abandon_restore;
pub mod build_indexes;
pub mod capture_log;
mod chain_proof;
mod chosen_backup;
mod chunk_reader;
mod chunk_writer;
pub mod close;
mod copied;
pub mod dump_chunk;
pub mod finish_drill;
pub mod finish_restore;
pub mod fold_chunk;
mod fold_reader;
pub mod lookup;
pub mod plan_drill;
pub mod plan_proof;
pub mod plan_restore;
pub mod plan_synthesis;
mod point_in_time;
pub mod prove_chunk;
pub mod prune_retention;
pub mod raise_alert;
pub mod rebuild_catalog;
mod rebuild_timeline;
pub mod record;
mod rehearse;
pub mod rehearse_chunk;
pub mod replicate_regions;
pub mod replicate_timeline;
pub mod restore_chunk;
pub mod sample_restore;
pub mod seal_backup;
pub mod seal_replicas;
pub mod seal_synthesis;
mod sealed_ranges;
mod slice_reader;
mod slice_writer;
mod slices;
pub mod start_pipeline;
mod swap;
pub mod thaw;
pub mod trigger_backup;
mod unrecorded;
mod upkeep;
mod uses;
pub mod validate_chunk;
pub mod verify_checksums;
pub mod watch;

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::at_once::at_once;
use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::format::{
    BackupPlan, EvidenceKey, Manifest, ObjectContext, ObjectKey, ObjectKind, Opened, open_json,
};
use crate::id::Fence;
use crate::operation::{Operation, OperationKind, OperationState, Trigger};
use crate::plan::restore::RestorePlan;
use crate::plan::synthesis::SynthesisPlan;
use crate::ports::{Catalog, Clock, DataKeys, ObjectStore};
use crate::retention::RetentionPlan;
use crate::settings::MIB;

/// How long a lease holds beyond the longest run of its machine: it only ends by itself if even the alarm for a dead
/// machine failed.
const LEASE_MARGIN_SECONDS: u64 = 900;
/// Sealed plans and manifests are compressed; none comes near this.
const SEALED_BYTES_MAX: u64 = 64 * MIB;
/// Small objects that are read at the same time: a backup may have tens of thousands of results.
const READS_AT_ONCE: usize = 16;
/// Small clear JSON.
const RESULT_BYTES_MAX: u64 = MIB;
/// What an operator can do about a backup that cannot be read.
const DAMAGED: &str = "this backup is damaged: restore another one with --backup (`nightsafe list` shows them), and take a new one";
/// How often an object is read before it is called damaged: it may have been damaged on its way.
const READS_MAX: u32 = 3;
/// A chunk is not begun with less time than this: one is read in a minute at most.
const CHUNK_MILLIS_MIN: u64 = 90_000;

async fn open_plan(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    operation: &Operation,
) -> Result<Opened<BackupPlan>> {
    let key = ObjectKey::BackupPlan(operation.backup_place()?);
    let plan: Opened<BackupPlan> = open_sealed(store, keys, operation, ObjectKind::Plan, key).await?;
    let asked_for = (&operation.database, &operation.collections);
    if (&plan.value.database, &plan.value.collections) != asked_for {
        return Err(corrupt(format!("open {}: the catalog tells of other collections", path(key))));
    }
    Ok(plan)
}

async fn open_synthesis_plan(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    operation: &Operation,
) -> Result<Opened<SynthesisPlan>> {
    let key = ObjectKey::BackupPlan(operation.backup_place()?);
    let plan: Opened<SynthesisPlan> = open_sealed(store, keys, operation, ObjectKind::Plan, key).await?;
    if plan.value.at.manifest.database != operation.database {
        return Err(corrupt(format!("open {}: the catalog tells of another database", path(key))));
    }
    Ok(plan)
}

/// Opens the plan of a restore.
pub async fn open_restore_plan(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    operation: &Operation,
) -> Result<RestorePlan> {
    open_restore_plan_and_key(store, keys, operation).await.map(|opened| opened.value)
}

async fn open_restore_plan_and_key(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    operation: &Operation,
) -> Result<Opened<RestorePlan>> {
    let key = ObjectKey::RestorePlan(operation.restore_place());
    let plan: Opened<RestorePlan> = open_sealed(store, keys, operation, ObjectKind::Plan, key).await?;
    if plan.value.database != operation.database {
        return Err(corrupt(format!("open {}: the catalog tells of another database", path(key))));
    }
    Ok(plan)
}

/// Opens what a run of the pruner planned.
pub async fn open_retention_plan(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    operation: &Operation,
) -> Result<RetentionPlan> {
    let key = ObjectKey::PrunePlan(operation.prune_place());
    open_sealed(store, keys, operation, ObjectKind::Plan, key).await.map(|opened| opened.value)
}

/// Opens the manifest of a backup and checks it, also against the checksum in the catalog.
pub async fn open_manifest(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    backup: &Operation,
) -> Result<Manifest> {
    open_manifest_and_key(store, keys, backup).await.map(|opened| opened.value)
}

async fn open_manifest_and_key(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    backup: &Operation,
) -> Result<Opened<Manifest>> {
    let mut reads = 1;
    loop {
        match try_open_manifest(store, keys, backup).await {
            Err(why) if why.kind() == ErrorKind::Corrupt && reads < READS_MAX => reads += 1,
            Err(why) if why.kind() == ErrorKind::Corrupt => return Err(why.hint(DAMAGED)),
            other => return other,
        }
    }
}

async fn try_open_manifest(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    backup: &Operation,
) -> Result<Opened<Manifest>> {
    let key = ObjectKey::Manifest(backup.backup_place()?);
    let object = store.get(key, SEALED_BYTES_MAX).await?;
    let expected = backup.backup()?.manifest_sha256.as_deref();
    if expected.is_some_and(|expected| expected != hex::encode(Sha256::digest(&object))) {
        return Err(corrupt(format!("open {}: its SHA-256 is not the one in the catalog", path(key))));
    }
    let opened: Opened<Manifest> = open_object(keys, backup, ObjectKind::Manifest, key, &object).await?;
    let manifest = &opened.value;
    manifest.check().map_err(|why| why.while_doing(format!("open {}", path(key))))?;
    if manifest.backup != backup.id || manifest.source != backup.source {
        return Err(corrupt(format!("open {}: it is another backup's", path(key))));
    }
    if manifest.database != backup.database || manifest.collections != backup.collections {
        return Err(corrupt(format!("open {}: the catalog tells of other collections", path(key))));
    }
    Ok(opened)
}

async fn open_sealed<T: DeserializeOwned>(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    operation: &Operation,
    kind: ObjectKind,
    key: ObjectKey,
) -> Result<Opened<T>> {
    let mut reads = 1;
    loop {
        let object = store.get(key, SEALED_BYTES_MAX).await?;
        match open_object(keys, operation, kind, key, &object).await {
            Err(why) if why.kind() == ErrorKind::Corrupt && reads < READS_MAX => reads += 1,
            other => return other,
        }
    }
}

async fn open_object<T: DeserializeOwned>(
    keys: &dyn DataKeys,
    operation: &Operation,
    kind: ObjectKind,
    key: ObjectKey,
    object: &[u8],
) -> Result<Opened<T>> {
    let context = ObjectContext::of_operation(kind, operation.source, operation.id);
    open_json(keys, &context, object).await.map_err(|why| why.while_doing(format!("open {}", path(key))))
}

/// What steps of the same operation wrote at `keys`, in no order.
async fn read_all_evidence<T: DeserializeOwned>(
    store: &dyn ObjectStore,
    evidence: &EvidenceKey,
    keys: impl Iterator<Item = ObjectKey>,
) -> Result<Vec<T>> {
    at_once(READS_AT_ONCE, keys.map(|key| read_evidence(store, evidence, key))).await
}

/// What they wrote at those of `keys` where something is.
async fn read_what_evidence_there_is<T: DeserializeOwned>(
    store: &dyn ObjectStore,
    evidence: &EvidenceKey,
    keys: impl Iterator<Item = ObjectKey>,
) -> Result<Vec<T>> {
    let reads = keys.map(|key| async move {
        match read_evidence(store, evidence, key).await {
            Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    });
    Ok(at_once(READS_AT_ONCE, reads).await?.into_iter().flatten().collect())
}

/// What a step of the same operation wrote at `key`.
async fn read_evidence<T: DeserializeOwned>(
    store: &dyn ObjectStore,
    evidence: &EvidenceKey,
    key: ObjectKey,
) -> Result<T> {
    let mut reads = 1;
    loop {
        match evidence.check(key, &store.get(key, RESULT_BYTES_MAX).await?) {
            Err(_) if reads < READS_MAX => reads += 1,
            other => return other,
        }
    }
}

/// The key for messages.
fn path(key: ObjectKey) -> String {
    key.to_path().unwrap_or_else(|_| "an object".to_owned())
}

/// How long the machine of an operation runs at most, waiting included, in seconds: its `TimeoutSeconds`.
#[must_use]
pub const fn execution_seconds_max(kind: OperationKind) -> u64 {
    match kind {
        OperationKind::Backup | OperationKind::Prune => 12 * 3600,
        OperationKind::Drill => 60 * 3600,
        OperationKind::Restore => 72 * 3600,
    }
}

/// Takes the lease of an operation that has not begun; no fence if it was begun meanwhile.
///
/// A doubled event may come so late that the other run has ended everything: the lease it takes then would be freed
/// by nobody. If the other run ends only after this look, it frees the lease itself.
async fn lease_to_begin(
    catalog: &dyn Catalog,
    clock: &dyn Clock,
    operation: &Operation,
    force: bool,
) -> Result<Option<Fence>> {
    let resource = operation.resource();
    let seconds = execution_seconds_max(operation.kind()) + LEASE_MARGIN_SECONDS;
    let taken = catalog.acquire_lease(&resource, operation, force, clock.now_millis(), seconds).await;
    let fence = taken.map_err(|why| wait_for_turn(operation, why))?;
    let now = catalog.operation(operation.kind(), operation.id).await?;
    if now.state.is_final() {
        catalog.release_lease(&resource, operation.id).await?;
    }
    Ok((now.state == OperationState::Requested).then_some(fence))
}

/// What a schedule started waits for its turn; a person is told at once who is in the way.
fn wait_for_turn(operation: &Operation, why: Error) -> Error {
    if why.kind() != ErrorKind::Conflict || operation.trigger() == Trigger::Manual {
        return why;
    }
    Error::new(ErrorKind::Busy, "wait for the lease").because(why).hint("it is tried again every minute")
}

/// An error unless there is time for another chunk.
fn time_for_a_chunk(clock: &dyn Clock) -> Result<()> {
    if clock.left_millis() >= CHUNK_MILLIS_MIN {
        return Ok(());
    }
    Err(Error::new(ErrorKind::OutOfTime, "begin another chunk: too little time is left in this invocation"))
}
