//! `replicate-regions`: copies the chunks of one work item to every other region, and proves them there: length and
//! SHA-256. Leaves evidence for each region; [`super::seal_replicas`] wants it for every chunk.
//!
//! What is there already and good is not copied again, so that a run goes on where another one was cut off. A region
//! that fails keeps no other one waiting.

use crate::at_once::at_once;
use crate::error::Result;
use crate::format::{BackupPlace, EvidenceKey, Manifest, ObjectKey, ReplicatedChunks, WorkItem};
use crate::id::OperationId;
use crate::operation::OperationKind;
use crate::ports::{Catalog, Clock, DataKeys, ObjectStore, Region};

use super::copied::{COPIES_AT_ONCE, Fingerprint, Wanted, bring, in_each, is_to_be_copied};

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service (to open the manifest).
    pub keys: &'a dyn DataKeys,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The other regions.
    pub regions: &'a [Region<'a>],
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for the chunks of `item` of backup `id`. Does nothing if the backup is to be removed; `Refused` unless
/// it was verified.
pub async fn run(ports: Ports<'_>, id: OperationId, item: WorkItem) -> Result<()> {
    let operation = ports.catalog.operation(OperationKind::Backup, id).await?;
    if !is_to_be_copied(&operation)? {
        return Ok(());
    }
    let opened = super::open_manifest_and_key(ports.store, ports.keys, &operation).await?;
    let (chunks, replicated) = chunks_of(&opened.value, item)?;
    let copying = Copying {
        ports,
        place: operation.backup_place()?,
        locked_until_millis: operation.backup()?.locked_until_millis,
        first: item.first,
        chunks,
        replicated,
        evidence: &opened.evidence,
    };
    in_each(ports.regions, |region| copying.copy_to(region)).await.map(|_| ())
}

type Chunks = Vec<(ObjectKey, Fingerprint)>;

/// The objects of the item, and what their evidence will say.
fn chunks_of(manifest: &Manifest, item: WorkItem) -> Result<(Chunks, ReplicatedChunks)> {
    let (mut chunks, mut told) = (Vec::new(), ReplicatedChunks { ordinals: Vec::new(), stored_bytes: 0 });
    for (_, chunk) in manifest.chunks().filter(|(_, chunk)| item.ordinals().contains(&chunk.ordinal)) {
        let key = ObjectKey::Chunk(manifest.place(), chunk.ordinal, chunk.stored.attempt);
        chunks.push((key, Fingerprint::of_chunk(&chunk.stored)?));
        told.ordinals.push(chunk.ordinal);
        told.stored_bytes += chunk.stored.stored_bytes;
    }
    Ok((chunks, told))
}

struct Copying<'a> {
    ports: Ports<'a>,
    place: BackupPlace,
    locked_until_millis: u64,
    /// What the work item is named by.
    first: u32,
    chunks: Chunks,
    replicated: ReplicatedChunks,
    evidence: &'a EvidenceKey,
}

impl Copying<'_> {
    async fn copy_to(&self, region: Region<'_>) -> Result<()> {
        let chunks = self.chunks.iter().copied();
        at_once(COPIES_AT_ONCE, chunks.map(|(key, wanted)| self.copy(region, key, wanted))).await?;
        let key = ObjectKey::Replicated(self.place, region.name, self.first);
        self.ports.store.put(key, self.evidence.sign(key, &self.replicated)?).await
    }

    async fn copy(&self, region: Region<'_>, key: ObjectKey, wanted: Fingerprint) -> Result<()> {
        super::time_for_a_chunk(self.ports.clock)?;
        bring(region, key, Wanted::Known(wanted)).await?;
        if self.locked_until_millis > self.ports.clock.now_millis() {
            region.locks.lock(key, self.locked_until_millis).await?;
        }
        Ok(())
    }
}
