//! The outside, as a few small traits with their contracts. Every implementation passes the same contract suite
//! (`backup_testkit::contract`), the one in memory as well as the real one.

use async_trait::async_trait;
use bson::RawDocumentBuf;
use bytes::Bytes;

use crate::alert::Alert;
use crate::audit::AuditRecord;
use crate::bson::{IdRange, IdValue};
use crate::error::Result;
use crate::format::{ObjectContext, ObjectKey};
use crate::id::{ClusterTime, CollectionUuid, Fence, OperationId};
use crate::namespace::Namespace;
use crate::operation::{ChainProof, Failure, Operation, OperationKind};
use crate::seal::MessageKey;
use crate::timeline::{Break, EventBatch, Position, SliceRecord, TimelineHead};

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970 UTC.
    fn now_millis(&self) -> u64;

    /// Milliseconds until this step is killed.
    fn left_millis(&self) -> u64;
}

/// What became of a conditional put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object is stored.
    Stored,
    /// There was one already; it is as it was.
    AlreadyThere,
}

/// The bucket.
///
/// An object that was stored is read back by everybody at once, as a whole or not at all. Every put carries a
/// checksum that the store checks.
#[async_trait]
pub trait ObjectStore: Send + Sync {
    /// Stores a small object, replacing any that is there.
    async fn put(&self, key: ObjectKey, body: Bytes) -> Result<()>;

    /// Stores a small object unless there is one. Two at once: exactly one is [`PutOutcome::Stored`].
    async fn put_if_absent(&self, key: ObjectKey, body: Bytes) -> Result<PutOutcome>;

    /// Begins an object of unknown size. Nothing is visible before [`Upload::finish`] returns.
    async fn upload(&self, key: ObjectKey) -> Result<Box<dyn Upload>>;

    /// A whole object of at most `bytes_max` bytes; `NotFound` if there is none.
    async fn get(&self, key: ObjectKey, bytes_max: u64) -> Result<Bytes>;

    /// `length` bytes from `offset`, exactly; `Corrupt` if the object is shorter.
    async fn get_range(&self, key: ObjectKey, offset: u64, length: u64) -> Result<Bytes>;

    /// Copies an object inside the bucket, as it is.
    async fn copy(&self, from: ObjectKey, to: ObjectKey) -> Result<()>;

    /// The object's length; `None` if there is none.
    async fn size(&self, key: ObjectKey) -> Result<Option<u64>>;
}

/// An object being written. Dropping it stores nothing (what was uploaded is reaped by the bucket's lifecycle rule).
#[async_trait]
pub trait Upload: Send {
    /// Appends bytes. Returns before they are sent, unless too many are waiting.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// Makes the object visible.
    async fn finish(self: Box<Self>) -> Result<()>;

    /// Gives the object up and frees what was uploaded.
    async fn abort(self: Box<Self>);
}

/// A fresh data key: for use, and for keeping.
pub struct DataKey {
    /// The key itself.
    pub plain: MessageKey,
    /// The key as the key service wrapped it.
    pub wrapped: Vec<u8>,
}

/// The key service. Keys are bound to the encryption context of the object they are for.
#[async_trait]
pub trait DataKeys: Send + Sync {
    /// Draws a new key for an object.
    async fn generate(&self, context: &ObjectContext) -> Result<DataKey>;

    /// Opens a wrapped key; `Corrupt` if it was wrapped for another context, `Denied` if we may not or the key is
    /// disabled.
    async fn unwrap(&self, wrapped: &[u8], context: &ObjectContext) -> Result<MessageKey>;
}

/// What a lease is held on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// The source: one backup at a time.
    Source,
    /// What was taken of the source: one folded backup at a time.
    Folding,
    /// A database of the target: one restore at a time.
    Target(String),
}

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The operation that holds it.
    pub holder: OperationId,
    /// Who asked for that operation.
    pub user: String,
    /// Counts the holders.
    pub fence: Fence,
    /// When it was taken, in milliseconds since 1970 UTC.
    pub since_millis: u64,
    /// When it ends by itself, in milliseconds since 1970 UTC.
    pub expires_millis: u64,
}

/// The index of what exists, the leases, and the audit trail. Everything read was written before (strong reads).
#[async_trait]
pub trait Catalog: Send + Sync {
    /// Adds a request; `Conflict` if the id exists.
    async fn create_operation(&self, operation: &Operation) -> Result<()>;

    /// The operation with this id; `Corrupt` if its row is another's.
    async fn operation(&self, kind: OperationKind, id: OperationId) -> Result<Operation>;

    /// The newest operations of a kind, newest first, at most `count_max`.
    async fn operations(&self, kind: OperationKind, count_max: u32) -> Result<Vec<Operation>>;

    /// Writes the row if nobody wrote it since it was read (`Transient` otherwise: a step that is repeated finds what
    /// the other one did) and counts its revision. If the row has a fence, it is written only while its operation
    /// holds the lease (`Fenced` otherwise).
    async fn update_operation(&self, operation: &mut Operation) -> Result<()>;

    /// Notes why a step failed, whatever else is written to the row meanwhile. Of an operation that has ended nothing
    /// is noted: a step that is still alive somewhere has no say any more.
    async fn record_failure(&self, kind: OperationKind, id: OperationId, failure: &Failure) -> Result<()>;

    /// Notes on an earlier backup what the proof of a later one found, whatever else is written to the row meanwhile.
    async fn record_proof(&self, id: OperationId, proof: &ChainProof) -> Result<()>;

    /// Ends an operation as failed, without holding its lease; `false` if it had ended already.
    async fn fail_operation(&self, operation: &Operation, now_millis: u64) -> Result<bool>;

    /// Takes the lease. Again by the same holder: the same fence. By another while it holds: `Conflict`, unless
    /// `force`. The fence is one more than the last holder's.
    async fn acquire_lease(
        &self,
        resource: &Resource,
        holder: &Operation,
        force: bool,
        now_millis: u64,
        seconds: u64,
    ) -> Result<Fence>;

    /// `Ok` while the operation holds the lease; `Fenced` once it was taken over.
    async fn check_lease(&self, operation: &Operation) -> Result<()>;

    /// The lease, if somebody holds it at `now_millis`.
    async fn lease(&self, resource: &Resource, now_millis: u64) -> Result<Option<Lease>>;

    /// Frees the lease if `holder` has it; otherwise does nothing.
    async fn release_lease(&self, resource: &Resource, holder: OperationId) -> Result<()>;

    /// Appends to the audit chain, once for each operation and status: again is no error and adds nothing.
    async fn append_audit(&self, id: OperationId, record: &AuditRecord) -> Result<()>;

    /// The newest audit records, newest first, at most `count_max`.
    async fn audit(&self, count_max: u32) -> Result<Vec<AuditRecord>>;
}

/// The state machines.
#[async_trait]
pub trait Machines: Send + Sync {
    /// Starts the execution of a backup that was asked for. Again: no error, and nothing more is started.
    async fn start_backup(&self, id: OperationId) -> Result<()>;

    /// As [`Machines::start_backup`], of a backup that is folded.
    async fn start_synthesis(&self, id: OperationId) -> Result<()>;
}

/// Tells people.
#[async_trait]
pub trait Alerts: Send + Sync {
    /// Publishes to the channels of the alert's severity.
    async fn publish(&self, alert: &Alert) -> Result<()>;
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its version.
    pub version: String,
}

/// A guess at a collection's size. Never a reason to skip anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeHint {
    /// Documents.
    pub documents: u64,
    /// Bytes of BSON.
    pub bytes: u64,
}

/// A document that was drawn to cut its collection, and those it stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Its `_id`.
    pub id: IdValue,
    /// Bytes of BSON from this document up to the next one that was drawn, or a figure that grows with them.
    pub bytes: u64,
}

/// Which documents of a collection to read, and how.
#[derive(Clone, Debug)]
pub struct ChunkRead {
    /// The database.
    pub database: String,
    /// The name to read under (of the buckets, for time series).
    pub name: String,
    /// The collection that must be behind the name; `SnapshotLost` if it is another or none.
    pub uuid: CollectionUuid,
    /// The `_id`s.
    pub range: IdRange,
    /// The instant; `None` reads what is there now, in one scan in natural order.
    pub at: Option<ClusterTime>,
    /// A guess at the size of one document, to choose the size of batches.
    pub document_bytes_hint: u64,
}

/// Documents of a cluster being read, batch by batch.
#[async_trait]
pub trait DocumentStream: Send {
    /// The next documents, concatenated as the server sent them; `None` after the last. `SnapshotLost` if the
    /// instant is no longer readable: all that was read is to be thrown away.
    async fn next_batch(&mut self) -> Result<Option<Bytes>>;
}

/// Following the source's changes.
#[async_trait]
pub trait Changes: Send + Sync {
    /// Opens the stream of every change of every database. `HistoryLost` if the changes from there on can no longer be
    /// read; `Unsupported` if the next one is too large to be sent.
    async fn follow(&self, position: &Position) -> Result<Box<dyn ChangeStream>>;
}

/// Changes being followed.
#[async_trait]
pub trait ChangeStream: Send {
    /// The next changes, after at most a second or so; an empty batch if there are none. Errors as
    /// [`Changes::follow`]'s.
    async fn next_batch(&mut self) -> Result<EventBatch>;
}

/// What the catalog knows of a source's timeline. Everything read was written before (strong reads).
#[async_trait]
pub trait Timeline: Send + Sync {
    /// How far it is; none before it began.
    async fn head(&self) -> Result<Option<TimelineHead>>;

    /// Begins the timeline, unless it has begun; gives the head there is then.
    async fn begin(&self, head: &TimelineHead) -> Result<TimelineHead>;

    /// Moves the head, and adds a slice and breaks, all or nothing. The head is given as it was read; what is stored
    /// has the next revision. `Transient` if somebody else moved it since.
    async fn advance(&self, head: &TimelineHead, slice: Option<&SliceRecord>, breaks: &[Break])
    -> Result<()>;

    /// The slices that have instants from `from` up to and without `to`, in order.
    async fn slices(&self, from: ClusterTime, to: ClusterTime) -> Result<Vec<SliceRecord>>;

    /// Every break, in the order of [`Break::from`].
    async fn breaks(&self) -> Result<Vec<Break>>;
}

/// Reading collections, of the source as of a restore's target.
#[async_trait]
pub trait Source: Send + Sync {
    /// Checks that the server can be backed up (a replica set, version 6.0 or newer), and who it is.
    async fn preflight(&self) -> Result<ServerFacts>;

    /// The newest instant a majority of the members has.
    async fn cluster_time(&self) -> Result<ClusterTime>;

    /// The names of the databases we may see.
    async fn databases(&self) -> Result<Vec<String>>;

    /// Every collection, time series and view of a database with its metadata, sorted by name. Time series stand
    /// once (not with their buckets).
    async fn namespaces(&self, database: &str) -> Result<Vec<Namespace>>;

    /// A guess at the size of a collection.
    async fn size_hint(&self, database: &str, name: &str) -> Result<SizeHint>;

    /// Documents of a collection, at least about `count` of them, drawn evenly and sorted by `_id` as the server sorts.
    async fn sample(
        &self,
        database: &str,
        name: &str,
        uuid: CollectionUuid,
        count: u32,
    ) -> Result<Vec<Sampled>>;

    /// Opens a range for reading.
    async fn read(&self, read: &ChunkRead) -> Result<Box<dyn DocumentStream>>;
}

/// How documents are put into a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsertRules {
    /// Keep their order (capped collections).
    pub ordered: bool,
}

/// Writing collections of a restore's target. Every call may be repeated and then changes nothing more.
#[async_trait]
pub trait Target: Source {
    /// Creates a collection or view with these options; if one of this name exists, it is left as it is.
    async fn create(&self, database: &str, name: &str, options: &RawDocumentBuf) -> Result<()>;

    /// Inserts concatenated documents as they are, past validators. A document whose `_id` is there already is
    /// skipped: the read-back decides whether it is the right one.
    async fn insert(&self, database: &str, name: &str, documents: Bytes, rules: InsertRules) -> Result<()>;

    /// Builds indexes; those that exist are left as they are.
    async fn create_indexes(&self, database: &str, name: &str, indexes: &[RawDocumentBuf]) -> Result<()>;

    /// Runs `collMod` with these fields.
    async fn modify(&self, database: &str, name: &str, fields: &RawDocumentBuf) -> Result<()>;

    /// Renames within a database; `Conflict` if the new name is taken, `SnapshotLost` if there is no `from`.
    async fn rename(&self, database: &str, from: &str, to: &str) -> Result<()>;

    /// Renames within a database, and drops what has the new name, in one atomic step.
    async fn replace(&self, database: &str, from: &str, to: &str) -> Result<()>;

    /// Drops a collection or view; no error if there is none.
    async fn drop_namespace(&self, database: &str, name: &str) -> Result<()>;
}
