//! `rehearse-chunk`: does with the chunks of one work item what the level of the drill asks for: looks at their sizes,
//! reads them back, or restores them into a server that is thrown away. Leaves evidence; [`super::finish_drill`] wants
//! it for every chunk.

use std::collections::BTreeSet;

use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::format::{
    DrillPlan, Manifest, ManifestChunk, ManifestNamespace, ObjectKey, Opened, RehearsedChunks, WorkItem,
};
use crate::id::OperationId;
use crate::operation::{Level, OperationKind};
use crate::ports::{Catalog, Clock, DataKeys, ObjectStore, Region, Scratch};

use super::chunk_reader::{Hashing, read_chunk};
use super::plan_drill::{Shelf, open_drill_plan};
use super::rehearse::Rehearsal;

/// What an operator can do where nothing can be restored.
const NO_SCRATCH: &str = "give the stack a layer with mongod (MongodLayerArn) or a cluster to restore samples to \
                          (VerificationSecretArn); up to L2 nothing is restored";

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service.
    pub keys: &'a dyn DataKeys,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// Where to restore to.
    pub scratch: &'a dyn Scratch,
    /// The other regions.
    pub regions: &'a [Region<'a>],
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for the chunks of `item` of drill `id`.
pub async fn run(ports: Ports<'_>, id: OperationId, item: WorkItem) -> Result<()> {
    let Ports { store, keys, catalog, .. } = ports;
    let operation = catalog.operation(OperationKind::Drill, id).await?;
    let evidence = ObjectKey::Rehearsed(operation.drill_place(), item.first);
    if store.size(evidence).await?.is_some() {
        return Ok(()); // a repeat
    }
    catalog.check_lease(&operation).await?;
    let opened = open_drill_plan(store, keys, &operation).await?;
    let rehearsed = rehearse(ports, &opened, item).await?;
    store.put(evidence, opened.evidence.sign(evidence, &rehearsed)?).await
}

async fn rehearse(ports: Ports<'_>, opened: &Opened<DrillPlan>, item: WorkItem) -> Result<RehearsedChunks> {
    let (plan, began) = (&opened.value, ports.clock.now_millis());
    if !plan.work.contains(&item) {
        let what = format!("rehearse chunks from {} on: the plan has no such work item", item.first);
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    let shelf = Shelf::of((ports.store, ports.keys), ports.regions, plan.region)?;
    let backup = ports.catalog.operation(OperationKind::Backup, plan.backup).await?;
    let manifest = super::open_manifest(shelf.store, shelf.keys, &backup).await?;
    let found = match plan.level {
        Level::Present => look(ports.clock, shelf, &manifest, item).await,
        Level::Checksums | Level::Decoded => read(ports.clock, shelf, &manifest, item).await,
        Level::SampleRestored | Level::FullyRestored | Level::ApplicationChecked => {
            restore(ports, shelf, plan, &manifest, item).await
        }
    };
    let found = found.map_err(|why| told(plan, why))?;
    Ok(RehearsedChunks { millis: ports.clock.now_millis().saturating_sub(began), ..found })
}

fn told(plan: &DrillPlan, why: Error) -> Error {
    let place = plan.region.map_or(String::new(), |region| format!(" in region {region}"));
    let is_damaged = why.kind() == ErrorKind::Corrupt;
    let why = why.while_doing(format!("drill with backup {}{place}", plan.backup));
    match plan.region {
        _ if !is_damaged => why,
        Some(_) => why.hint("this copy cannot be trusted: drill with the one at home as well"),
        None => why.hint("this backup cannot be trusted: take another one, and keep the older ones"),
    }
}

/// The chunks of a work item, with their collections.
fn chunks(manifest: &Manifest, item: WorkItem) -> impl Iterator<Item = (&ManifestNamespace, &ManifestChunk)> {
    manifest.chunks().filter(move |(_, chunk)| item.ordinals().contains(&chunk.ordinal))
}

/// Whether every object is there, with its size.
async fn look(
    clock: &dyn Clock,
    shelf: Shelf<'_>,
    manifest: &Manifest,
    item: WorkItem,
) -> Result<RehearsedChunks> {
    let mut found = RehearsedChunks::default();
    for (_, chunk) in chunks(manifest, item) {
        super::time_for_a_chunk(clock)?;
        let (stored, ordinal) = (&chunk.stored, chunk.ordinal);
        let key = ObjectKey::Chunk(manifest.place(), ordinal, stored.attempt);
        let actual = shelf.store.size(key).await?;
        if actual != Some(stored.stored_bytes) {
            let what = match actual {
                None => "the object is missing".to_owned(),
                Some(actual) => format!("the object has {actual} bytes, not {}", stored.stored_bytes),
            };
            return Err(corrupt(format!("look at chunk {ordinal} ({}): {what}", super::path(key))));
        }
        found.ordinals.push(ordinal);
        found.stored_bytes += stored.stored_bytes;
    }
    Ok(found)
}

/// Whether every object has its checksum, and its documents are those that were stored.
async fn read(
    clock: &dyn Clock,
    shelf: Shelf<'_>,
    manifest: &Manifest,
    item: WorkItem,
) -> Result<RehearsedChunks> {
    let (Shelf { store, keys }, place) = (shelf, manifest.place());
    let mut found = RehearsedChunks::default();
    for (namespace, chunk) in chunks(manifest, item) {
        super::time_for_a_chunk(clock)?;
        let which = (manifest, namespace, chunk);
        let mut reads = 1;
        loop {
            match read_chunk(store, keys, place, which, Hashing::Compare, |_| async { Ok(()) }).await {
                Err(why) if why.kind() == ErrorKind::Corrupt && reads < super::READS_MAX => reads += 1,
                other => break other?,
            }
        }
        found.ordinals.push(chunk.ordinal);
        found.documents += chunk.stored.documents;
        found.bson_bytes += chunk.stored.bson_bytes;
        found.stored_bytes += chunk.stored.stored_bytes;
    }
    Ok(found)
}

/// Whether a server takes it all, and gives the same back.
async fn restore(
    ports: Ports<'_>,
    shelf: Shelf<'_>,
    plan: &DrillPlan,
    manifest: &Manifest,
    item: WorkItem,
) -> Result<RehearsedChunks> {
    let Ports { scratch, clock, .. } = ports;
    super::time_for_a_chunk(clock)?;
    let place = scratch.open().await.map_err(|why| match why.kind() {
        ErrorKind::NotFound => why.hint(NO_SCRATCH),
        _ => why,
    })?;
    let rehearsal = Rehearsal { store: shelf.store, keys: shelf.keys, clock };
    let ordinals: BTreeSet<u32> = item.ordinals().collect();
    let found = rehearsal.run(place, manifest, &ordinals, &plan.checks).await?;
    Ok(RehearsedChunks {
        ordinals: found.ordinals,
        documents: found.documents,
        bson_bytes: found.bson_bytes,
        stored_bytes: chunks(manifest, item).map(|(_, chunk)| chunk.stored.stored_bytes).sum(),
        indexes: found.indexes,
        server: Some(found.server),
        counts: found.counts,
        millis: 0,
    })
}
