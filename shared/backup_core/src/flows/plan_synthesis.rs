//! `plan-synthesis`: chooses the backup to fold and the instant to fold it to, and plans the chunks. The database is
//! not touched: this step cannot reach it.

use serde::{Deserialize, Serialize};

use crate::compress::FrameIndex;
use crate::error::Result;
use crate::format::{Manifest, ObjectContext, ObjectKey, ObjectKind, seal_json, write_work_items};
use crate::id::OperationId;
use crate::operation::{Operation, OperationKind, OperationState, RestoreTime};
use crate::plan::ranges::pack;
use crate::plan::synthesis::{SynthesisPlan, parts, regroup, split_bounds};
use crate::ports::{Catalog, Clock, DataKeys, ObjectStore, PutOutcome, Timeline};
use crate::settings::Settings;

use super::fold_reader::BaseChunk;
use super::point_in_time::{Purpose, database_at, find_base};
use super::sealed_ranges::SealedRanges;

/// What the state machine needs next: where the work items are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// The key of the work items.
    pub work_key: String,
}

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service.
    pub keys: &'a dyn DataKeys,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The timeline.
    pub timeline: &'a dyn Timeline,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for backup `id`.
pub async fn run(ports: Ports<'_>, settings: &Settings, id: OperationId) -> Result<Planned> {
    let mut operation = ports.catalog.operation(OperationKind::Backup, id).await?;
    let place = operation.backup_place()?;
    let planned = Planned { work_key: ObjectKey::BackupWork(place).to_path()? };
    if operation.state != OperationState::Requested {
        ports.catalog.check_lease(&operation).await?;
        return Ok(planned); // a repeat: the plan is there
    }
    let fence = super::lease_to_begin(ports.catalog, ports.clock, &operation, false).await?;
    let Some(fence) = fence else { return Ok(planned) }; // another run was faster
    operation.fence = Some(fence);
    let plan = make_plan(ports, settings, &mut operation).await?;
    let context = ObjectContext::of_operation(ObjectKind::Plan, operation.source, id);
    let sealed = seal_json(ports.keys, context, &plan).await?;
    let stored = ports.store.put_if_absent(ObjectKey::BackupPlan(place), sealed.into()).await?;
    // A killed or doubled run may have put its plan first; everybody goes by that one.
    let plan = match stored {
        PutOutcome::Stored => plan,
        PutOutcome::AlreadyThere => {
            super::open_synthesis_plan(ports.store, ports.keys, &operation).await?.value
        }
    };
    // A plan that was there already may fold another backup than this run has claimed.
    super::uses::claim(ports.catalog, &mut operation, plan.base).await?;
    let sizes: Vec<u64> = plan.at.manifest.chunks().map(|(_, chunk)| chunk.stored.bson_bytes).collect();
    let items = pack(&sizes, settings.chunk_target_bytes);
    ports.store.put(ObjectKey::BackupWork(place), write_work_items(&items)?.into()).await?;
    operation.state = OperationState::Running;
    operation.totals.chunks = u64::try_from(sizes.len()).unwrap_or(u64::MAX);
    operation.totals.namespaces = u64::try_from(plan.at.manifest.namespaces.len()).unwrap_or(u64::MAX);
    operation.backup_mut()?.cluster_time = Some(plan.at.time);
    ports.catalog.update_operation(&mut operation).await?;
    Ok(planned)
}

async fn make_plan(
    ports: Ports<'_>,
    settings: &Settings,
    operation: &mut Operation,
) -> Result<SynthesisPlan> {
    let Ports { store, keys, catalog, timeline, .. } = ports;
    let (base, time) = find_base(catalog, timeline, &operation.database, RestoreTime::Latest).await?;
    let row = super::uses::claim(catalog, operation, base).await?;
    let manifest = super::open_manifest(store, keys, &row).await?;
    let at = database_at(store, keys, timeline, &manifest, time, Purpose::Backup).await?;
    let mut bounds = std::collections::HashMap::new();
    for (namespace, chunk) in manifest.chunks() {
        let parts = parts(&chunk.stored, settings.chunk_target_bytes);
        if parts > 1 {
            let ids = first_ids(store, keys, (&manifest, namespace, chunk)).await?;
            bounds.insert(chunk.ordinal, split_bounds(ids, &chunk.range, parts)?);
        }
    }
    let at = regroup(at, |base| bounds.get(&base).cloned().unwrap_or_default(), settings.chunk_target_bytes);
    at.manifest.check()?;
    Ok(SynthesisPlan { base, at })
}

/// The first `_id` of each frame of a stored chunk.
async fn first_ids(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    (manifest, namespace, chunk): BaseChunk<'_>,
) -> Result<Vec<crate::bson::IdValue>> {
    let frames = frames(store, keys, (manifest, namespace, chunk)).await?.1;
    Ok(frames.into_iter().filter_map(|frame| frame.first_id).collect())
}

/// A stored chunk for reading single frames, and its frames.
pub(super) async fn frames(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    (manifest, namespace, chunk): BaseChunk<'_>,
) -> Result<(SealedRanges, Vec<crate::compress::FrameEntry>)> {
    /// The index's last bytes: its length and its mark.
    const TAIL_BYTES: u64 = 8;
    let key = ObjectKey::Chunk(manifest.place(), chunk.ordinal, chunk.stored.attempt);
    let context = Manifest::chunk_context(manifest, namespace, chunk)?;
    let ranges = SealedRanges::open(store, keys, key, &context, chunk.stored.stored_bytes).await?;
    let plain = ranges.plain_bytes();
    let tail = ranges.read(store, plain.saturating_sub(TAIL_BYTES), TAIL_BYTES).await?;
    let length = FrameIndex::length_from_tail(&tail)?.min(plain);
    let index = ranges.read(store, plain - length, length).await?;
    let frames = FrameIndex::parse(&index, plain - length)?;
    Ok((ranges, frames))
}
