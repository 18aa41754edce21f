//! Makes a process "die" at any call of any port: the call fails, before or after it did its work, and so does every
//! call after it, as in a process that was killed. A new wrapper is the next process.

mod shelves;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use backup_core::alert::Alert;
use backup_core::audit::AuditRecord;
use backup_core::format::{ObjectContext, ObjectKey};
use backup_core::id::{ClusterTime, CollectionUuid, Fence, OperationId, RegionName};
use backup_core::namespace::Namespace;
use backup_core::operation::{BackupNote, Failure, Operation, OperationKind, Pipeline};
use backup_core::ports::{
    Alerts, Catalog, ChangeStream, Changes, ChunkRead, DataKey, DataKeys, DocumentStream, InsertRules, Lease,
    Machines, ObjectStore, PutOutcome, Resource, Sampled, ServerFacts, SizeHint, Source, Target, Timeline,
    Upload,
};
use backup_core::seal::MessageKey;
use backup_core::timeline::{Break, EventBatch, Position, ReplicatedTimeline, SliceRecord, TimelineHead};
use backup_core::watch::WatchState;
use backup_core::{Error, ErrorKind, Result};
use bson::RawDocumentBuf;
use bytes::Bytes;

/// When to die. Clones count together.
#[derive(Clone)]
pub struct Faults {
    calls: Arc<AtomicU64>,
    /// The call at which the process dies: `2n` before call n does its work, `2n + 1` after it.
    boundary: u64,
}

impl Faults {
    /// Never die; only count.
    #[must_use]
    pub fn none() -> Self {
        Self::at(u64::MAX)
    }

    /// Die at this boundary: there are two at each call.
    #[must_use]
    pub fn at(boundary: u64) -> Self {
        Self { calls: Arc::default(), boundary }
    }

    /// How many boundaries were passed.
    #[must_use]
    pub fn boundaries(&self) -> u64 {
        2 * self.calls.load(Ordering::SeqCst)
    }

    async fn call<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::task::yield_now().await; // lets a run beside this one come in between any two calls
        let number = 2 * self.calls.fetch_add(1, Ordering::SeqCst);
        if number >= self.boundary {
            return Err(dead());
        }
        let done = work.await;
        if number + 1 >= self.boundary { Err(dead()) } else { done }
    }
}

fn dead() -> Error {
    Error::new(ErrorKind::Internal, "the process was killed")
}

/// A port behind [`Faults`].
#[derive(Clone)]
pub struct Faulty<T> {
    inner: T,
    faults: Faults,
}

impl<T> Faulty<T> {
    /// `inner`, dying when `faults` say so.
    pub fn new(inner: T, faults: &Faults) -> Self {
        Self { inner, faults: faults.clone() }
    }
}

#[async_trait]
impl<T: ObjectStore> ObjectStore for Faulty<T> {
    async fn put(&self, key: ObjectKey, body: Bytes) -> Result<()> {
        self.faults.call(self.inner.put(key, body)).await
    }
    async fn put_if_absent(&self, key: ObjectKey, body: Bytes) -> Result<PutOutcome> {
        self.faults.call(self.inner.put_if_absent(key, body)).await
    }
    async fn upload(&self, key: ObjectKey) -> Result<Box<dyn Upload>> {
        let inner = self.faults.call(self.inner.upload(key)).await?;
        Ok(Box::new(FaultyUpload { inner, faults: self.faults.clone() }))
    }
    async fn get(&self, key: ObjectKey, bytes_max: u64) -> Result<Bytes> {
        self.faults.call(self.inner.get(key, bytes_max)).await
    }
    async fn get_range(&self, key: ObjectKey, offset: u64, length: u64) -> Result<Bytes> {
        self.faults.call(self.inner.get_range(key, offset, length)).await
    }
    async fn copy(&self, from: ObjectKey, to: ObjectKey) -> Result<()> {
        self.faults.call(self.inner.copy(from, to)).await
    }
    async fn size(&self, key: ObjectKey) -> Result<Option<u64>> {
        self.faults.call(self.inner.size(key)).await
    }
    async fn stored_sha256(&self, key: ObjectKey) -> Result<Option<[u8; 32]>> {
        self.faults.call(self.inner.stored_sha256(key)).await
    }
    async fn store_millis(&self) -> Result<u64> {
        self.faults.call(self.inner.store_millis()).await
    }
}

struct FaultyUpload {
    inner: Box<dyn Upload>,
    faults: Faults,
}

#[async_trait]
impl Upload for FaultyUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.faults.call(self.inner.write(bytes)).await
    }
    async fn finish(self: Box<Self>) -> Result<()> {
        self.faults.call(self.inner.finish()).await
    }
    async fn abort(self: Box<Self>) {} // a dead process aborts nothing
}

#[async_trait]
impl<T: DataKeys> DataKeys for Faulty<T> {
    async fn generate(&self, context: &ObjectContext) -> Result<DataKey> {
        self.faults.call(self.inner.generate(context)).await
    }
    async fn unwrap(&self, wrapped: &[u8], context: &ObjectContext) -> Result<MessageKey> {
        self.faults.call(self.inner.unwrap(wrapped, context)).await
    }
}

#[async_trait]
impl<T: Catalog> Catalog for Faulty<T> {
    async fn create_operation(&self, operation: &Operation) -> Result<()> {
        self.faults.call(self.inner.create_operation(operation)).await
    }
    async fn operation(&self, kind: OperationKind, id: OperationId) -> Result<Operation> {
        self.faults.call(self.inner.operation(kind, id)).await
    }
    async fn operations(&self, kind: OperationKind, count_max: u32) -> Result<Vec<Operation>> {
        self.faults.call(self.inner.operations(kind, count_max)).await
    }
    async fn update_operation(&self, operation: &mut Operation) -> Result<()> {
        self.faults.call(self.inner.update_operation(operation)).await
    }
    async fn record_failure(&self, kind: OperationKind, id: OperationId, failure: &Failure) -> Result<()> {
        self.faults.call(self.inner.record_failure(kind, id, failure)).await
    }
    async fn note(&self, id: OperationId, note: &BackupNote) -> Result<Operation> {
        self.faults.call(self.inner.note(id, note)).await
    }
    async fn forget(&self, operation: &Operation) -> Result<()> {
        self.faults.call(self.inner.forget(operation)).await
    }
    async fn fail_operation(&self, operation: &Operation, now_millis: u64) -> Result<bool> {
        self.faults.call(self.inner.fail_operation(operation, now_millis)).await
    }
    async fn acquire_lease(
        &self,
        resource: &Resource,
        holder: &Operation,
        force: bool,
        now_millis: u64,
        seconds: u64,
    ) -> Result<Fence> {
        self.faults.call(self.inner.acquire_lease(resource, holder, force, now_millis, seconds)).await
    }
    async fn check_lease(&self, operation: &Operation) -> Result<()> {
        self.faults.call(self.inner.check_lease(operation)).await
    }
    async fn lease(&self, resource: &Resource, now_millis: u64) -> Result<Option<Lease>> {
        self.faults.call(self.inner.lease(resource, now_millis)).await
    }
    async fn release_lease(&self, resource: &Resource, holder: OperationId) -> Result<()> {
        self.faults.call(self.inner.release_lease(resource, holder)).await
    }
    async fn append_audit(&self, id: OperationId, record: &AuditRecord) -> Result<()> {
        self.faults.call(self.inner.append_audit(id, record)).await
    }
    async fn audit(&self, count_max: u32) -> Result<Vec<AuditRecord>> {
        self.faults.call(self.inner.audit(count_max)).await
    }
    async fn watch_state(&self) -> Result<WatchState> {
        self.faults.call(self.inner.watch_state()).await
    }
    async fn set_watch_state(&self, state: &WatchState) -> Result<()> {
        self.faults.call(self.inner.set_watch_state(state)).await
    }
}

#[async_trait]
impl<T: Timeline> Timeline for Faulty<T> {
    async fn head(&self) -> Result<Option<TimelineHead>> {
        self.faults.call(self.inner.head()).await
    }
    async fn begin(&self, head: &TimelineHead) -> Result<TimelineHead> {
        self.faults.call(self.inner.begin(head)).await
    }
    async fn advance(
        &self,
        head: &TimelineHead,
        slice: Option<&SliceRecord>,
        breaks: &[Break],
    ) -> Result<()> {
        self.faults.call(self.inner.advance(head, slice, breaks)).await
    }
    async fn slices(&self, from: ClusterTime, to: ClusterTime) -> Result<Vec<SliceRecord>> {
        self.faults.call(self.inner.slices(from, to)).await
    }
    async fn breaks(&self) -> Result<Vec<Break>> {
        self.faults.call(self.inner.breaks()).await
    }
    async fn forget_slice(&self, slice: &SliceRecord) -> Result<()> {
        self.faults.call(self.inner.forget_slice(slice)).await
    }
    async fn bring_back(&self, head: &TimelineHead, slices: &[SliceRecord], breaks: &[Break]) -> Result<()> {
        self.faults.call(self.inner.bring_back(head, slices, breaks)).await
    }
    async fn replicated(&self, region: RegionName) -> Result<Option<ReplicatedTimeline>> {
        self.faults.call(self.inner.replicated(region)).await
    }
    async fn set_replicated(&self, region: RegionName, replicated: &ReplicatedTimeline) -> Result<()> {
        self.faults.call(self.inner.set_replicated(region, replicated)).await
    }
}

#[async_trait]
impl<T: Machines> Machines for Faulty<T> {
    async fn start(&self, pipeline: Pipeline, operation: &Operation) -> Result<()> {
        self.faults.call(self.inner.start(pipeline, operation)).await
    }
    async fn copy_again(&self, backup: &Operation) -> Result<bool> {
        self.faults.call(self.inner.copy_again(backup)).await
    }
}

#[async_trait]
impl<T: Alerts> Alerts for Faulty<T> {
    async fn publish(&self, alert: &Alert) -> Result<()> {
        self.faults.call(self.inner.publish(alert)).await
    }
}

#[async_trait]
impl<T: Source> Source for Faulty<T> {
    async fn preflight(&self) -> Result<ServerFacts> {
        self.faults.call(self.inner.preflight()).await
    }
    async fn cluster_time(&self) -> Result<ClusterTime> {
        self.faults.call(self.inner.cluster_time()).await
    }
    async fn databases(&self) -> Result<Vec<String>> {
        self.faults.call(self.inner.databases()).await
    }
    async fn namespaces(&self, database: &str) -> Result<Vec<Namespace>> {
        self.faults.call(self.inner.namespaces(database)).await
    }
    async fn size_hint(&self, database: &str, name: &str) -> Result<SizeHint> {
        self.faults.call(self.inner.size_hint(database, name)).await
    }
    async fn sample(
        &self,
        database: &str,
        name: &str,
        uuid: CollectionUuid,
        count: u32,
    ) -> Result<Vec<Sampled>> {
        self.faults.call(self.inner.sample(database, name, uuid, count)).await
    }
    async fn read(&self, read: &ChunkRead) -> Result<Box<dyn DocumentStream>> {
        let inner = self.faults.call(self.inner.read(read)).await?;
        Ok(Box::new(FaultyStream { inner, faults: self.faults.clone() }))
    }
}

struct FaultyStream {
    inner: Box<dyn DocumentStream>,
    faults: Faults,
}

#[async_trait]
impl DocumentStream for FaultyStream {
    async fn next_batch(&mut self) -> Result<Option<Bytes>> {
        self.faults.call(self.inner.next_batch()).await
    }
}

#[async_trait]
impl<T: Changes> Changes for Faulty<T> {
    async fn follow(&self, position: &Position) -> Result<Box<dyn ChangeStream>> {
        let inner = self.faults.call(self.inner.follow(position)).await?;
        Ok(Box::new(FaultyChanges { inner, faults: self.faults.clone() }))
    }
}

struct FaultyChanges {
    inner: Box<dyn ChangeStream>,
    faults: Faults,
}

#[async_trait]
impl ChangeStream for FaultyChanges {
    async fn next_batch(&mut self) -> Result<EventBatch> {
        self.faults.call(self.inner.next_batch()).await
    }
}

#[async_trait]
impl<T: Target> Target for Faulty<T> {
    async fn create(&self, database: &str, name: &str, options: &RawDocumentBuf) -> Result<()> {
        self.faults.call(self.inner.create(database, name, options)).await
    }
    async fn insert(&self, database: &str, name: &str, documents: Bytes, rules: InsertRules) -> Result<()> {
        self.faults.call(self.inner.insert(database, name, documents, rules)).await
    }
    async fn create_indexes(&self, database: &str, name: &str, indexes: &[RawDocumentBuf]) -> Result<()> {
        self.faults.call(self.inner.create_indexes(database, name, indexes)).await
    }
    async fn modify(&self, database: &str, name: &str, fields: &RawDocumentBuf) -> Result<()> {
        self.faults.call(self.inner.modify(database, name, fields)).await
    }
    async fn rename(&self, database: &str, from: &str, to: &str) -> Result<()> {
        self.faults.call(self.inner.rename(database, from, to)).await
    }
    async fn replace(&self, database: &str, from: &str, to: &str) -> Result<()> {
        self.faults.call(self.inner.replace(database, from, to)).await
    }
    async fn drop_namespace(&self, database: &str, name: &str) -> Result<()> {
        self.faults.call(self.inner.drop_namespace(database, name)).await
    }
    async fn count(&self, database: &str, name: &str, filter: &RawDocumentBuf) -> Result<u64> {
        self.faults.call(self.inner.count(database, name, filter)).await
    }
}
