//! The bucket, the key service, and other regions'.

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;
use crate::format::{ObjectContext, ObjectKey, Prefix};
use crate::id::RegionName;
use crate::seal::MessageKey;

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

    /// The SHA-256 of the whole object, if the store keeps one that it took itself of what is stored.
    async fn stored_sha256(&self, key: ObjectKey) -> Result<Option<[u8; 32]>>;

    /// The store's own clock, in milliseconds since 1970 UTC.
    async fn store_millis(&self) -> Result<u64>;
}

/// Listing the bucket. For rebuilding what an index told, never for deciding what exists.
#[async_trait]
pub trait Listing: Send + Sync {
    /// Paths and lengths of the objects under a prefix, in the order of paths: one page, of those behind `after`. Empty
    /// at the end.
    async fn list(&self, prefix: Prefix, after: Option<&str>) -> Result<Vec<(String, u64)>>;
}

/// Bringing objects from the bucket of the home region into that of another.
#[async_trait]
pub trait Copies: Send + Sync {
    /// Copies an object as it is, replacing any that is there; `NotFound` if the home region has none.
    async fn bring(&self, key: ObjectKey) -> Result<()>;
}

/// Making objects immutable.
#[async_trait]
pub trait Locks: Send + Sync {
    /// Lets the store refuse to delete the object's newest version until then (milliseconds since 1970 UTC).
    /// A lock that holds longer stays as it is.
    async fn lock(&self, key: ObjectKey, until_millis: u64) -> Result<()>;
}

/// One version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredVersion {
    /// The object's path.
    pub path: String,
    /// Which of its versions.
    pub version: String,
    /// Its length; 0 for the mark of a deletion.
    pub bytes: u64,
}

/// Removing objects for good. Only the pruner may.
#[async_trait]
pub trait Shelves: Send + Sync {
    /// Every version of the objects under a prefix: one page of at most 1000, from the beginning.
    async fn versions(&self, prefix: Prefix) -> Result<Vec<StoredVersion>>;

    /// Every version of one object.
    async fn versions_of(&self, key: ObjectKey) -> Result<Vec<StoredVersion>>;

    /// Removes versions; gives those that are locked, which stay.
    async fn remove(&self, versions: &[StoredVersion]) -> Result<Vec<StoredVersion>>;
}

/// Whether an object in cold storage can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temperature {
    /// It can be read at once.
    Warm,
    /// It was asked for, and is on its way.
    Thawing,
    /// It has to be asked for first.
    Frozen,
}

/// Cold storage.
#[async_trait]
pub trait ColdStorage: Send + Sync {
    /// Gives an object to cold storage, where it is until it is removed.
    async fn freeze(&self, key: ObjectKey) -> Result<()>;

    /// Whether the object can be read.
    async fn temperature(&self, key: ObjectKey) -> Result<Temperature>;

    /// Asks for the object; it can be read hours later, for some days. Again: no error.
    async fn thaw(&self, key: ObjectKey) -> Result<()>;
}

/// Another region: its bucket, and its replica of the key. The copies are those of the home region's objects.
#[derive(Clone, Copy)]
pub struct Region<'a> {
    /// Its name.
    pub name: RegionName,
    /// Its bucket.
    pub store: &'a dyn ObjectStore,
    /// Its replica of the key.
    pub keys: &'a dyn DataKeys,
    /// How objects come into its bucket.
    pub copies: &'a dyn Copies,
    /// How they are made immutable there.
    pub locks: &'a dyn Locks,
    /// How they are removed there.
    pub shelves: &'a dyn Shelves,
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
