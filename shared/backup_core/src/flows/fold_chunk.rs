//! `fold-chunk`: folds the chunks of one work item of a folded backup and stores them. What did not change is copied
//! inside the bucket, without being opened.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    Captured, ChunkOutcome, ChunkResult, Manifest, ManifestChunk, ManifestNamespace, ObjectContext,
    ObjectKey, ObjectKind, SealedAs, WorkItem,
};
use crate::id::{Attempt, ClusterTime, OperationId};
use crate::namespace::Label;
use crate::operation::{Operation, OperationKind};
use crate::plan::synthesis::SynthesisPlan;
use crate::ports::{Catalog, Clock, DataKeys, DocumentStream, ObjectStore, Timeline};
use crate::settings::{MIB, Settings};

use super::chunk_writer::write_chunk;
use super::fold_reader::{FoldReader, Pass, Unit};
use super::slices::Slices;

/// S3 copies no larger object at once.
const COPY_BYTES_MAX: u64 = 5 * 1024 * MIB;
/// Batches folded ahead of the compressors.
const AHEAD: usize = 2;

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

/// Runs the step for the chunks of `item` of backup `id`. Chunks that have a result are left as they are.
pub async fn run(ports: Ports<'_>, settings: &Settings, id: OperationId, item: WorkItem) -> Result<()> {
    let Ports { store, keys, catalog, timeline, clock } = ports;
    let operation = catalog.operation(OperationKind::Backup, id).await?;
    catalog.check_lease(&operation).await?;
    let place = operation.backup_place()?;
    let opened = super::open_synthesis_plan(store, keys, &operation).await?;
    let plan = &opened.value;
    let row = catalog.operation(OperationKind::Backup, plan.base).await?;
    let base = super::open_manifest(store, keys, &row).await?;
    let slices =
        Slices::open(store, keys, timeline, operation.source, base.cluster_time, plan.at.time).await?;
    let folding = Folding { ports, settings, operation: &operation, plan, base: &base, slices: &slices };
    let wanted = plan.at.manifest.chunks().filter(|(_, chunk)| item.ordinals().contains(&chunk.ordinal));
    for (entry, chunk) in wanted {
        let result_key = ObjectKey::ChunkResult(place, chunk.ordinal);
        if store.size(result_key).await?.is_some() {
            continue;
        }
        super::time_for_a_chunk(clock)?;
        let captured = folding.chunk(entry, chunk).await;
        let captured = captured.map_err(|why| why.while_doing(format!("fold chunk {}", chunk.ordinal)))?;
        catalog.check_lease(&operation).await?;
        let result = ChunkResult { ordinal: chunk.ordinal, outcome: ChunkOutcome::Captured(captured) };
        // The first attempt that finishes wins; ours is garbage if another one did.
        store.put_if_absent(result_key, opened.evidence.sign(result_key, &result)?).await?;
    }
    Ok(())
}

struct Folding<'a> {
    ports: Ports<'a>,
    settings: &'a Settings,
    operation: &'a Operation,
    plan: &'a SynthesisPlan,
    base: &'a Manifest,
    slices: &'a Slices,
}

impl Folding<'_> {
    async fn chunk(&self, entry: &ManifestNamespace, chunk: &ManifestChunk) -> Result<Captured> {
        let Ports { store, keys, .. } = self.ports;
        let unit = Unit::of(&self.plan.at, self.base, entry, chunk)?;
        let pending_bytes_max = self.settings.pending_bytes_max;
        let reader = FoldReader { store, keys, slices: self.slices, pending_bytes_max };
        let first = reader.begin(&unit).await?;
        match unit.bases.as_slice() {
            [(_, _, only)]
                if first.is_empty()
                    && only.range == chunk.range
                    && only.stored.stored_bytes <= COPY_BYTES_MAX =>
            {
                self.copy(only, chunk).await
            }
            _ => self.fold(reader, &unit, first).await,
        }
    }

    async fn copy(&self, from: &ManifestChunk, to: &ManifestChunk) -> Result<Captured> {
        let attempt = Attempt::generate(self.ports.clock.now_millis())?;
        let source = ObjectKey::Chunk(self.base.place(), from.ordinal, from.stored.attempt);
        let target = ObjectKey::Chunk(self.operation.backup_place()?, to.ordinal, attempt);
        self.ports.store.copy(source, target).await?;
        let own = SealedAs { backup: self.base.backup, ordinal: from.ordinal };
        Ok(Captured { attempt, sealed_as: from.stored.sealed_as.or(Some(own)), ..from.stored.clone() })
    }

    async fn fold(&self, reader: FoldReader<'_>, unit: &Unit<'_>, first: Pass) -> Result<Captured> {
        let Ports { store, keys, clock, .. } = self.ports;
        let attempt = Attempt::generate(clock.now_millis())?;
        let cluster_time = (unit.entry.label != Label::Fuzzy).then_some(self.plan.at.time);
        let context = ObjectContext {
            kind: ObjectKind::Chunk,
            source: self.operation.source,
            operation: self.operation.id,
            collection: unit.collection,
            ordinal: unit.ordinal,
            cluster_time: cluster_time.unwrap_or(ClusterTime { seconds: 0, ordinal: 0 }),
        };
        let key = keys.generate(&context).await?;
        let place = self.operation.backup_place()?;
        let mut upload = store.upload(ObjectKey::Chunk(place, unit.ordinal, attempt)).await?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let fold = async {
            let sender = sender;
            let folded = reader.fold_on(unit, first, |batch| {
                let sender = sender.clone();
                async move { sender.send(Ok(batch)).await.map_err(|_| nobody_listens()) }
            });
            if let Err(why) = folded.await {
                let _ = sender.send(Err(why)).await; // the writer ends with it, unless it has ended by itself
            }
        };
        let documents = Box::new(Documents(receiver));
        let write = write_chunk(documents, upload.as_mut(), key, context, self.settings);
        let ((), written) = tokio::join!(fold, write);
        let written = match written {
            Ok(written) => written,
            Err(why) => {
                upload.abort().await;
                return Err(why);
            }
        };
        upload.finish().await?;
        Ok(Captured {
            attempt,
            cluster_time,
            documents: written.documents,
            bson_bytes: written.bson_bytes,
            stored_bytes: written.stored_bytes,
            stored_sha256: written.stored_sha256,
            document_hash: written.document_hash,
            sealed_as: None,
        })
    }
}

fn nobody_listens() -> Error {
    Error::new(ErrorKind::Internal, "fold a chunk: it was given up")
}

/// Folded documents on their way to be written.
struct Documents(mpsc::Receiver<Result<Bytes>>);

#[async_trait::async_trait]
impl DocumentStream for Documents {
    async fn next_batch(&mut self) -> Result<Option<Bytes>> {
        self.0.recv().await.transpose()
    }
}
