//! The clusters: the source, a restore's target, and servers that are thrown away.

use async_trait::async_trait;
use bson::RawDocumentBuf;
use bytes::Bytes;

use crate::bson::{IdRange, IdValue};
use crate::error::Result;
use crate::id::{ClusterTime, CollectionUuid};
use crate::namespace::Namespace;
use crate::timeline::{EventBatch, Position};

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

    /// How many documents of a collection match a filter.
    async fn count(&self, database: &str, name: &str, filter: &RawDocumentBuf) -> Result<u64>;
}

/// A place to restore to that is thrown away: a server of one's own, or a database of a cluster that is there for it.
/// Never the source.
#[async_trait]
pub trait Scratch: Send + Sync {
    /// An empty one; `NotFound` if none was configured.
    async fn open(&self) -> Result<Box<dyn ScratchDatabase>>;
}

/// An empty database of one's own.
#[async_trait]
pub trait ScratchDatabase: Send + Sync {
    /// The server.
    fn target(&self) -> &dyn Target;

    /// The database's name.
    fn database(&self) -> &str;

    /// The server's version, and whether it is one's own.
    fn description(&self) -> &str;

    /// Throws it away, and everything that was started for it.
    async fn close(self: Box<Self>) -> Result<()>;
}
