//! `dump-chunk`: reads the chunks of one work item, each as a whole at one T, and stores them.

use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    BackupPlan, Captured, ChunkOutcome, ChunkResult, ObjectContext, ObjectKey, ObjectKind, PlannedChunk,
    PlannedNamespace, WorkItem,
};
use crate::id::{Attempt, ClusterTime, OperationId};
use crate::namespace::{Label, NamespaceKind};
use crate::operation::{Operation, OperationKind};
use crate::ports::{Catalog, ChunkRead, Clock, DataKeys, ObjectStore, Source};
use crate::settings::Settings;

use super::chunk_writer::write_chunk;

/// How often a chunk is begun at a new T within one invocation before the state machine takes over.
const TRIES: u32 = 3;

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The source.
    pub source: &'a dyn Source,
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service (to open the plan; chunks are only sealed).
    pub keys: &'a dyn DataKeys,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for the chunks of `item` of backup `id`. Chunks that have a result are left as they are.
pub async fn run(ports: Ports<'_>, settings: &Settings, id: OperationId, item: WorkItem) -> Result<()> {
    let operation = ports.catalog.operation(OperationKind::Backup, id).await?;
    let place = operation.backup_place()?;
    let opened = super::open_plan(ports.store, ports.keys, &operation).await?;
    let plan = &opened.value;
    for ordinal in item.ordinals() {
        let result_key = ObjectKey::ChunkResult(place, ordinal);
        if ports.store.size(result_key).await?.is_some() {
            continue;
        }
        super::time_for_a_chunk(ports.clock)?;
        let (namespace, chunk) = plan.chunk(ordinal)?;
        let dump = Dump { ports, settings, operation: &operation, plan, namespace, chunk };
        let outcome = dump
            .at_some_instant()
            .await
            .map_err(|why| why.while_doing(format!("back up chunk {ordinal}")))?;
        ports.catalog.check_lease(&operation).await?;
        let result = opened.evidence.sign(result_key, &ChunkResult { ordinal, outcome })?;
        // The first attempt that finishes wins; ours is garbage if another one did.
        ports.store.put_if_absent(result_key, result).await?;
    }
    Ok(())
}

struct Dump<'a> {
    ports: Ports<'a>,
    settings: &'a Settings,
    operation: &'a Operation,
    plan: &'a BackupPlan,
    namespace: &'a PlannedNamespace,
    chunk: &'a PlannedChunk,
}

impl Dump<'_> {
    /// At the plan's T if that can be read; else looks again where the collection is, and takes a new T.
    async fn at_some_instant(&self) -> Result<ChunkOutcome> {
        let name = self.namespace.namespace.documents_name();
        if self.namespace.label == Label::Fuzzy {
            return match self.attempt(&name, None).await {
                Err(why) if why.kind() == ErrorKind::SnapshotLost => match self.name_now().await? {
                    Some(name) => self.attempt(&name, None).await,
                    None => Ok(ChunkOutcome::Dropped),
                },
                other => other,
            };
        }
        let mut lost = match self.attempt(&name, Some(self.plan.cluster_time)).await {
            Err(why) if why.kind() == ErrorKind::SnapshotLost => why,
            other => return other,
        };
        for _ in 0..TRIES {
            let time = self.ports.source.cluster_time().await?;
            let Some(name) = self.name_now().await? else { return Ok(ChunkOutcome::Dropped) };
            match self.attempt(&name, Some(time)).await {
                Err(why) if why.kind() == ErrorKind::SnapshotLost => lost = why,
                other => return other,
            }
        }
        Err(lost)
    }

    /// The name the collection has now, wherever it was renamed to within its database.
    async fn name_now(&self) -> Result<Option<String>> {
        let all = self.ports.source.namespaces(&self.operation.database).await?;
        let same = |uuid| uuid == self.namespace.namespace.uuid;
        Ok(all
            .iter()
            .find(|it| it.kind != NamespaceKind::View && same(it.uuid))
            .map(super::super::namespace::Namespace::documents_name))
    }

    async fn attempt(&self, name: &str, at: Option<ClusterTime>) -> Result<ChunkOutcome> {
        let Ports { source, store, keys, clock, .. } = self.ports;
        let uuid = self.namespace.namespace.uuid.ok_or_else(|| {
            Error::new(ErrorKind::Internal, "back up a chunk: the plan has no UUID for its collection")
        })?;
        let attempt = Attempt::generate(clock.now_millis())?;
        let context = ObjectContext {
            kind: ObjectKind::Chunk,
            source: self.operation.source,
            operation: self.operation.id,
            collection: uuid,
            ordinal: self.chunk.ordinal,
            cluster_time: at.unwrap_or(ClusterTime { seconds: 0, ordinal: 0 }),
        };
        let read = ChunkRead {
            database: self.operation.database.clone(),
            name: name.to_owned(),
            uuid,
            range: self.chunk.range.clone(),
            at,
            document_bytes_hint: self.namespace.document_bytes_hint,
        };
        let documents = source.read(&read).await?;
        let key = keys.generate(&context).await?;
        let place = self.operation.backup_place()?;
        let mut upload = store.upload(ObjectKey::Chunk(place, self.chunk.ordinal, attempt)).await?;
        let written = match write_chunk(documents, upload.as_mut(), key, context, self.settings).await {
            Ok(written) => written,
            Err(why) => {
                upload.abort().await;
                return Err(why);
            }
        };
        upload.finish().await?;
        Ok(ChunkOutcome::Captured(Captured {
            attempt,
            cluster_time: at,
            documents: written.documents,
            bson_bytes: written.bson_bytes,
            stored_bytes: written.stored_bytes,
            stored_sha256: written.stored_sha256,
            document_hash: written.document_hash,
            sealed_as: None,
        }))
    }
}
