//! Deaths at what a bucket does beyond storing, and at servers that are thrown away.

use async_trait::async_trait;
use backup_core::Result;
use backup_core::format::{ObjectKey, Prefix};
use backup_core::ports::{
    ColdStorage, Copies, Listing, Locks, Scratch, ScratchDatabase, Shelves, StoredVersion, Temperature,
};

use super::Faulty;

#[async_trait]
impl<T: Listing> Listing for Faulty<T> {
    async fn list(&self, prefix: Prefix, after: Option<&str>) -> Result<Vec<(String, u64)>> {
        self.faults.call(self.inner.list(prefix, after)).await
    }
}

#[async_trait]
impl<T: Copies> Copies for Faulty<T> {
    async fn bring(&self, key: ObjectKey) -> Result<()> {
        self.faults.call(self.inner.bring(key)).await
    }
}

#[async_trait]
impl<T: Locks> Locks for Faulty<T> {
    async fn lock(&self, key: ObjectKey, until_millis: u64) -> Result<()> {
        self.faults.call(self.inner.lock(key, until_millis)).await
    }
}

#[async_trait]
impl<T: Shelves> Shelves for Faulty<T> {
    async fn versions(&self, prefix: Prefix) -> Result<Vec<StoredVersion>> {
        self.faults.call(self.inner.versions(prefix)).await
    }
    async fn versions_of(&self, key: ObjectKey) -> Result<Vec<StoredVersion>> {
        self.faults.call(self.inner.versions_of(key)).await
    }
    async fn remove(&self, versions: &[StoredVersion]) -> Result<Vec<StoredVersion>> {
        self.faults.call(self.inner.remove(versions)).await
    }
}

#[async_trait]
impl<T: ColdStorage> ColdStorage for Faulty<T> {
    async fn freeze(&self, key: ObjectKey) -> Result<()> {
        self.faults.call(self.inner.freeze(key)).await
    }
    async fn temperature(&self, key: ObjectKey) -> Result<Temperature> {
        self.faults.call(self.inner.temperature(key)).await
    }
    async fn thaw(&self, key: ObjectKey) -> Result<()> {
        self.faults.call(self.inner.thaw(key)).await
    }
}

/// What dies with its process needs no closing.
#[async_trait]
impl<T: Scratch> Scratch for Faulty<T> {
    async fn open(&self) -> Result<Box<dyn ScratchDatabase>> {
        self.faults.call(self.inner.open()).await
    }
}
