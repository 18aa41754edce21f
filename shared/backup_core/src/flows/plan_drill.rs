//! `plan-drill`: takes the lease on drills, chooses the backup (the one that was named, or the newest good one of the
//! database) and its chunks, and packs them into work items.
//!
//! Everything that is chosen follows from the request and the manifest, so that a repeat comes to the same plan.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::checks::concerning;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    DrillPlan, Manifest, ManifestNamespace, ObjectContext, ObjectKey, ObjectKind, Opened, WorkItem,
    seal_json, write_work_items,
};
use crate::id::{OperationId, RegionName};
use crate::operation::{Level, Operation, OperationKind, OperationState};
use crate::plan::ranges::pack_some;
use crate::plan::sample::{SampleBounds, pick, seed_of};
use crate::ports::{Catalog, Clock, DataKeys, ObjectStore, PutOutcome, Region};
use crate::schedule::is_good;
use crate::settings::Settings;

use super::rehearse::read_checks;
use super::upkeep::BACKUPS_LOOKED_AT_MAX;
use super::uses::{claim, still_there};

/// What the state machine needs next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Whether there are chunks to rehearse: a database of views has none.
    pub proceed: bool,
    /// The key of the work items.
    pub work_key: String,
}

/// Files of collections and indexes that one item restores at most.
const FILES_PER_ITEM_MAX: u64 = 400;

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service.
    pub keys: &'a dyn DataKeys,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The other regions.
    pub regions: &'a [Region<'a>],
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for drill `id`.
pub async fn run(ports: Ports<'_>, settings: &Settings, id: OperationId) -> Result<Planned> {
    let Ports { store, keys, catalog, clock, .. } = ports;
    let mut operation = catalog.operation(OperationKind::Drill, id).await?;
    if operation.state != OperationState::Requested {
        return planned(&operation); // a repeat: the plan is there
    }
    let shelf = Shelf::of((store, keys), ports.regions, operation.drill()?.region)?;
    let backup = find_backup(catalog, &operation, clock.now_millis()).await?;
    let Some(fence) = super::lease_to_begin(catalog, clock, &operation, false).await? else {
        return planned(&catalog.operation(OperationKind::Drill, id).await?); // another run was faster
    };
    operation.fence = Some(fence);
    // From here on nobody begins to remove it.
    let backup = claim(catalog, &mut operation, backup.id).await?;
    let manifest = super::open_manifest(shelf.store, shelf.keys, &backup).await?;
    let plan = make_plan(ports, settings, &operation, &manifest).await?;
    let place = operation.drill_place();
    let context = ObjectContext::of_operation(ObjectKind::Plan, operation.source, id);
    let sealed = seal_json(keys, context, &plan).await?;
    // A killed or doubled run may have put its plan first; everybody goes by that one.
    let plan = match store.put_if_absent(ObjectKey::DrillPlan(place), sealed.into()).await? {
        PutOutcome::Stored => plan,
        PutOutcome::AlreadyThere => open_drill_plan(store, keys, &operation).await?.value,
    };
    store.put(ObjectKey::DrillWork(place), write_work_items(&plan.work)?.into()).await?;
    operation.state = OperationState::Running;
    operation.drill_mut()?.seed = plan.seed;
    operation.totals.chunks = u64::try_from(plan.ordinals().len()).unwrap_or(u64::MAX);
    operation.totals.namespaces = namespaces(&manifest, &plan);
    catalog.update_operation(&mut operation).await?;
    planned(&operation)
}

fn planned(operation: &Operation) -> Result<Planned> {
    let work_key = ObjectKey::DrillWork(operation.drill_place()).to_path()?;
    Ok(Planned { proceed: operation.totals.chunks > 0, work_key })
}

/// Opens the plan of a drill, with the key of its evidence.
pub(super) async fn open_drill_plan(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    operation: &Operation,
) -> Result<Opened<DrillPlan>> {
    let key = ObjectKey::DrillPlan(operation.drill_place());
    super::open_sealed(store, keys, operation, ObjectKind::Plan, key).await
}

/// Where the backup of a drill is read.
#[derive(Clone, Copy)]
pub(super) struct Shelf<'a> {
    pub(super) store: &'a dyn ObjectStore,
    pub(super) keys: &'a dyn DataKeys,
}

impl<'a> Shelf<'a> {
    /// The copy in `region`; what is at home, if none is named.
    pub(super) fn of(
        (store, keys): (&'a dyn ObjectStore, &'a dyn DataKeys),
        regions: &[Region<'a>],
        region: Option<RegionName>,
    ) -> Result<Self> {
        let Some(name) = region else { return Ok(Self { store, keys }) };
        let found = regions.iter().find(|it| it.name == name);
        found.map(|it| Self { store: it.store, keys: it.keys }).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("drill in region {name}: no copies are kept there"))
                .hint("name one of the regions that backups are replicated to, or none")
        })
    }
}

/// The backup that was named, or the newest good one of the database that the region has.
async fn find_backup(catalog: &dyn Catalog, operation: &Operation, now_millis: u64) -> Result<Operation> {
    let region = operation.drill()?.region;
    let backup = match operation.drill()?.backup {
        Some(id) => find_named(catalog, operation, id).await?,
        None => find_newest(catalog, &operation.database, region, now_millis).await?,
    };
    let detail = backup.backup()?;
    // What is at home is given to cold storage, not its copies.
    if detail.is_cold && region.is_none() {
        let what = format!("drill with {}: it is in cold storage", backup.id);
        let hint = "its chunks are in cold storage: verify a copy in another region, with --copy-in";
        return Err(Error::new(ErrorKind::Refused, what).hint(hint));
    }
    Ok(backup)
}

/// One that was sealed is taken, whatever became of it: that is what a drill finds out.
async fn find_named(catalog: &dyn Catalog, operation: &Operation, id: OperationId) -> Result<Operation> {
    let backup = still_there(catalog.operation(OperationKind::Backup, id).await?)?;
    let region = operation.drill()?.region;
    let refused = |kind, what: String| Error::new(kind, format!("drill with {id}: {what}"));
    if backup.database != operation.database {
        let (asked, its) = (&operation.database, &backup.database);
        let what = format!("that is a backup of {its:?}, not of {asked:?}");
        return Err(refused(ErrorKind::Invalid, what).hint(format!("name that database: -d {its}")));
    }
    let detail = backup.backup()?;
    if detail.manifest_sha256.is_none() {
        let what = format!("that backup is {} and has no manifest", backup.state);
        return Err(refused(ErrorKind::NotFound, what).hint("`nightsafe list` shows the backups there are"));
    }
    if let Some(region) = region.filter(|region| !detail.replicas.contains_key(region)) {
        let what = format!("region {region} has no complete copy of it");
        return Err(refused(ErrorKind::NotFound, what).hint("`nightsafe show` tells where its copies are"));
    }
    Ok(backup)
}

async fn find_newest(
    catalog: &dyn Catalog,
    database: &str,
    region: Option<RegionName>,
    now_millis: u64,
) -> Result<Operation> {
    let is_there = |backup: &Operation| {
        let has_copy = |region| backup.backup().is_ok_and(|detail| detail.replicas.contains_key(&region));
        region.is_none_or(has_copy)
    };
    let all = catalog.operations(OperationKind::Backup, BACKUPS_LOOKED_AT_MAX).await?;
    let found = all.into_iter().find(|it| it.database == database && is_good(it, now_millis) && is_there(it));
    found.ok_or_else(|| {
        let place = region.map_or(String::new(), |region| format!(" with a copy in region {region}"));
        let what = format!("drill {database:?}: there is no verified backup of the whole of it{place}");
        Error::new(ErrorKind::NotFound, what).hint("`nightsafe list` shows the backups")
    })
}

async fn make_plan(
    ports: Ports<'_>,
    settings: &Settings,
    operation: &Operation,
    manifest: &Manifest,
) -> Result<DrillPlan> {
    let (level, region) = (operation.drill()?.level, operation.drill()?.region);
    let all = || manifest.chunks().map(|(_, chunk)| chunk.ordinal).collect();
    let seed = (level == Level::SampleRestored).then(|| seed_of(operation.id));
    let ordinals = seed.map_or_else(all, |seed| pick(manifest, seed, SampleBounds::default()));
    // Fixed here: should the owner change them meanwhile, all chunks are still counted by the same ones.
    let checks = if level >= Level::SampleRestored { read_checks(ports.store).await? } else { Vec::new() };
    Ok(DrillPlan {
        backup: manifest.backup,
        level,
        region,
        work: work_items(manifest, &ordinals, settings.chunk_target_bytes),
        chunks_of_backup: manifest.totals().chunks,
        began_millis: ports.clock.now_millis(),
        seed,
        checks: concerning(&checks, manifest)?.into_iter().cloned().collect(),
    })
}

/// These chunks, packed by their true sizes. Only neighbours share an item.
fn work_items(manifest: &Manifest, ordinals: &BTreeSet<u32>, target_bytes: u64) -> Vec<WorkItem> {
    // A server keeps a file open for each collection and index, and a function may have a thousand of them.
    let weight = |entry: &ManifestNamespace, bytes: u64| {
        let files = u64::try_from(1 + entry.namespace.indexes.len()).unwrap_or(u64::MAX);
        bytes.max(files.saturating_mul(target_bytes / FILES_PER_ITEM_MAX))
    };
    let weighed = manifest.chunks().map(|(entry, it)| (it.ordinal, weight(entry, it.stored.bson_bytes)));
    let mut chunks: Vec<(u32, u64)> = weighed.collect();
    chunks.sort_unstable();
    pack_some(chunks.into_iter().filter(|(ordinal, _)| ordinals.contains(ordinal)), target_bytes)
}

/// How many collections have chunks in the plan.
fn namespaces(manifest: &Manifest, plan: &DrillPlan) -> u64 {
    let ordinals = plan.ordinals();
    let has_some =
        |entry: &&ManifestNamespace| entry.chunks.iter().any(|chunk| ordinals.contains(&chunk.ordinal));
    let count = manifest.namespaces.iter().filter(has_some).count();
    u64::try_from(count).unwrap_or(u64::MAX)
}
