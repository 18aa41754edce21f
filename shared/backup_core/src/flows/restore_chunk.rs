//! `restore-chunk`: reads the stored chunks of one work item and inserts their documents into staging.
//!
//! Repeated or doubled, it inserts the same documents, and those that are there are skipped; whether staging is
//! right in the end is what [`super::validate_chunk`] decides.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore};

use crate::at_once::at_once;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    EvidenceKey, FoldedChunk, FoldedChunks, Manifest, ManifestChunk, ManifestNamespace, ObjectKey, Opened,
    VerifiedChunks, WorkItem,
};
use crate::id::OperationId;
use crate::namespace::{NamespaceKind, OwnName};
use crate::operation::{Operation, OperationKind};
use crate::plan::restore::RestorePlan;
use crate::ports::{Catalog, Clock, DataKeys, InsertRules, ObjectStore, Target, Timeline};
use crate::settings::Settings;

use super::chunk_reader::{Hashing, read_chunk};
use super::fold_reader::{FoldReader, Unit};
use super::slices::Slices;

/// What is being inserted at a time. A command is copied on its way, so that large documents take several times
/// their size.
const IN_FLIGHT_MIB_MAX: usize = 16;

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The target.
    pub target: &'a dyn Target,
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

/// What restoring steps share: the restore, its plan, its backup and the manifest.
pub(super) struct Restoring {
    pub(super) operation: Operation,
    pub(super) plan: RestorePlan,
    pub(super) evidence: EvidenceKey,
    /// What is restored: the backup's manifest, or the database as of the plan's instant.
    pub(super) manifest: Manifest,
    /// What the database is folded from, where the plan has an instant; else none.
    pub(super) base: Option<Manifest>,
}

impl Restoring {
    pub(super) async fn open(
        catalog: &dyn Catalog,
        store: &dyn ObjectStore,
        keys: &dyn DataKeys,
        id: OperationId,
    ) -> Result<Self> {
        let operation = catalog.operation(OperationKind::Restore, id).await?;
        catalog.check_lease(&operation).await?;
        let Opened { value: plan, evidence } =
            super::open_restore_plan_and_key(store, keys, &operation).await?;
        let backup = catalog.operation(OperationKind::Backup, plan.backup).await?;
        let manifest = super::open_manifest(store, keys, &backup).await?;
        let (manifest, base) = match &plan.at {
            Some(at) => (at.manifest.clone(), Some(manifest)),
            None => (manifest, None),
        };
        Ok(Self { operation, plan, evidence, manifest, base })
    }

    /// The chunks of a work item, with their collections.
    pub(super) fn chunks(
        &self,
        item: WorkItem,
    ) -> impl Iterator<Item = (&ManifestNamespace, &ManifestChunk)> {
        self.manifest.chunks().filter(move |(_, chunk)| item.ordinals().contains(&chunk.ordinal))
    }

    /// The changes to fold, where the plan has an instant.
    async fn slices(&self, ports: Ports<'_>) -> Result<Option<Slices>> {
        let Ports { store, keys, timeline, .. } = ports;
        let (Some(at), Some(base)) = (&self.plan.at, &self.base) else { return Ok(None) };
        let source = self.operation.source;
        Slices::open(store, keys, timeline, source, base.cluster_time, at.time).await.map(Some)
    }

    fn unit<'a>(&'a self, entry: &'a ManifestNamespace, chunk: &'a ManifestChunk) -> Result<Unit<'a>> {
        let strange = || Error::new(ErrorKind::Internal, "fold a unit of a plan without an instant");
        let (at, base) = self.plan.at.as_ref().zip(self.base.as_ref()).ok_or_else(strange)?;
        Unit::of(at, base, entry, chunk)
    }

    /// The name of the staging collection of a namespace.
    pub(super) fn staging(&self, namespace: &ManifestNamespace) -> Result<String> {
        let item = self.plan.item(&namespace.namespace.name)?;
        Ok(OwnName::Staging(self.operation.id, item.number).to_string())
    }
}

/// Runs the step for the chunks of `item` of restore `id`.
pub async fn run(ports: Ports<'_>, settings: &Settings, id: OperationId, item: WorkItem) -> Result<()> {
    let evidence = ObjectKey::Inserted(crate::format::RestorePlace(id), item.first);
    if ports.store.size(evidence).await?.is_some() {
        return Ok(()); // a repeat
    }
    let restoring = Restoring::open(ports.catalog, ports.store, ports.keys, id).await?;
    let slices = restoring.slices(ports).await?;
    let mut inserted = VerifiedChunks { ordinals: Vec::new(), documents: 0 };
    let mut folded = FoldedChunks { chunks: Vec::new() };
    for (namespace, chunk) in restoring.chunks(item) {
        super::time_for_a_chunk(ports.clock)?;
        let mut reads = 1;
        let came_to = loop {
            match insert_chunk(ports, settings, (&restoring, slices.as_ref()), namespace, chunk).await {
                // Damaged on its way, perhaps. What was inserted is skipped by the next try.
                Err(why) if why.kind() == ErrorKind::Corrupt && reads < super::READS_MAX => reads += 1,
                Err(why) if why.kind() == ErrorKind::Corrupt => {
                    return Err(why
                        .while_doing(format!("restore chunk {}", chunk.ordinal))
                        .hint(super::DAMAGED));
                }
                done => {
                    break done.map_err(|why| why.while_doing(format!("restore chunk {}", chunk.ordinal)))?;
                }
            }
        };
        folded.chunks.extend(came_to);
        inserted.ordinals.push(chunk.ordinal);
        inserted.documents += chunk.stored.documents;
    }
    let signed = match slices {
        // What they came to is known only now; staging is compared with that.
        Some(_) => restoring.evidence.sign(evidence, &folded)?,
        None => restoring.evidence.sign(evidence, &inserted)?,
    };
    ports.store.put(evidence, signed).await
}

/// Whether its indexes are built before its documents come. Those of larger ones are built faster over all of them.
fn is_small(entry: &ManifestNamespace) -> bool {
    const DOCUMENTS_MAX: u64 = 1000;
    let documents: u64 = entry.chunks.iter().map(|chunk| chunk.stored.documents).sum();
    entry.namespace.kind == NamespaceKind::Collection && documents <= DOCUMENTS_MAX
}

async fn insert_chunk(
    ports: Ports<'_>,
    settings: &Settings,
    (restoring, slices): (&Restoring, Option<&Slices>),
    namespace: &ManifestNamespace,
    chunk: &ManifestChunk,
) -> Result<Option<FoldedChunk>> {
    let ordered = namespace.namespace.is_capped();
    let writers = if ordered { 1 } else { settings.insert_workers.max(1) };
    let (database, staging) = (restoring.operation.database.as_str(), restoring.staging(namespace)?);
    let in_flight = &Semaphore::new(IN_FLIGHT_MIB_MAX);
    let insert = async |batch: Bytes| {
        let mib = (batch.len() >> 20).clamp(1, IN_FLIGHT_MIB_MAX);
        let room = in_flight.acquire_many(u32::try_from(mib).unwrap_or(1)).await;
        let _room = room.map_err(|why| Error::new(ErrorKind::Internal, "insert documents").because(why))?;
        ports.target.insert(database, &staging, batch, InsertRules { ordered }).await
    };
    if is_small(namespace) {
        // On an empty collection an index is there at once; a build would cost more than all its documents.
        super::build_indexes::build(ports.target, restoring, namespace).await?;
    }
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let receiver = Mutex::new(receiver);
    let mut read = pin!(async move {
        let give = |batch| {
            let sender = sender.clone();
            async move {
                let _ = sender.send(batch).await; // a writer that failed tells why itself
                Ok(())
            }
        };
        let Ports { store, keys, .. } = ports;
        let done = if let Some(slices) = slices {
            let unit = restoring.unit(namespace, chunk)?;
            let pending_bytes_max = settings.pending_bytes_max;
            FoldReader { store, keys, slices, pending_bytes_max }.fold(&unit, give).await.map(Some)
        } else {
            let (place, which) = (restoring.manifest.place(), (&restoring.manifest, namespace, chunk));
            read_chunk(store, keys, place, which, Hashing::Later, give).await.map(|()| None)
        };
        drop(sender); // ends the writers
        done
    });
    let failed = &AtomicBool::new(false);
    let write = async || loop {
        let batch = receiver.lock().await.recv().await;
        match batch {
            Some(batch) if !failed.load(Ordering::Relaxed) => {
                insert(batch).await.inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            }
            _ => return Ok(()),
        }
    };
    let mut writing = pin!(at_once(writers, (0..writers).map(|_| write())));
    tokio::select! {
        biased;
        done = &mut read => {
            let written = writing.await; // no insert is left on its way
            written.and(done)
        }
        written = &mut writing => written.map(|_| None), // before the reader only if one failed
    }
}
