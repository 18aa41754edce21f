//! What the bucket in memory does beyond storing: it is listed, copied to other regions, locked, emptied, frozen.

use async_trait::async_trait;
use backup_core::format::{ObjectKey, Prefix};
use backup_core::ports::{
    Clock, ColdStorage, Copies, Listing, Locks, ObjectStore, Shelves, StoredVersion, Temperature,
};
use backup_core::{Error, ErrorKind, Result};

use crate::MemoryStore;

/// Small, so that tests see several pages.
const PAGE_MAX: usize = 10;

#[async_trait]
impl Listing for MemoryStore {
    async fn list(&self, prefix: Prefix, after: Option<&str>) -> Result<Vec<(String, u64)>> {
        self.reach()?;
        let prefix = prefix.to_path()?;
        let objects = self.objects.lock().unwrap();
        let wanted = objects.iter().filter(|(path, _)| path.starts_with(&prefix));
        let behind = wanted.filter(|(path, _)| after.is_none_or(|after| path.as_str() > after));
        Ok(behind.take(PAGE_MAX).map(|(path, body)| (path.clone(), length(body))).collect())
    }
}

#[async_trait]
impl Copies for MemoryStore {
    async fn bring(&self, key: ObjectKey) -> Result<()> {
        self.reach()?;
        let home = self.home.as_ref().expect("objects are brought into another region's bucket");
        let path = key.to_path()?;
        let body = home.find(key)?;
        let body = body.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("bring {path}")))?;
        self.put(key, body).await
    }
}

#[async_trait]
impl Locks for MemoryStore {
    async fn lock(&self, key: ObjectKey, until_millis: u64) -> Result<()> {
        let path = key.to_path()?;
        if self.find(key)?.is_none() {
            return Err(Error::new(ErrorKind::NotFound, format!("lock {path}")));
        }
        let mut settings = self.settings.lock().unwrap();
        let until = settings.locked.entry(path).or_insert(until_millis);
        *until = (*until).max(until_millis);
        Ok(())
    }
}

/// There is one version of each object.
#[async_trait]
impl Shelves for MemoryStore {
    async fn versions(&self, prefix: Prefix) -> Result<Vec<StoredVersion>> {
        let all = self.list(prefix, None).await?;
        Ok(all.into_iter().map(|(path, bytes)| StoredVersion { path, version: "1".into(), bytes }).collect())
    }

    async fn versions_of(&self, key: ObjectKey) -> Result<Vec<StoredVersion>> {
        let path = key.to_path()?;
        let found = self.find(key)?;
        let version = |body: bytes::Bytes| StoredVersion { path, version: "1".into(), bytes: length(&body) };
        Ok(found.map(version).into_iter().collect())
    }

    async fn remove(&self, versions: &[StoredVersion]) -> Result<Vec<StoredVersion>> {
        self.reach()?;
        let (mut objects, mut settings) = (self.objects.lock().unwrap(), self.settings.lock().unwrap());
        let now = self.clock.now_millis();
        let is_locked = |it: &StoredVersion| settings.locked.get(&it.path).is_some_and(|until| *until > now);
        let (locked, free): (Vec<_>, Vec<_>) = versions.iter().cloned().partition(is_locked);
        for version in free {
            objects.remove(&version.path);
            settings.locked.remove(&version.path);
            settings.cold.remove(&version.path);
        }
        Ok(locked)
    }
}

#[async_trait]
impl ColdStorage for MemoryStore {
    async fn freeze(&self, key: ObjectKey) -> Result<()> {
        self.reach()?;
        self.settings.lock().unwrap().cold.insert(key.to_path()?, false);
        Ok(())
    }

    async fn temperature(&self, key: ObjectKey) -> Result<Temperature> {
        self.reach()?;
        Ok(match self.settings.lock().unwrap().cold.get(&key.to_path()?) {
            None => Temperature::Warm,
            Some(true) => Temperature::Thawing,
            Some(false) => Temperature::Frozen,
        })
    }

    async fn thaw(&self, key: ObjectKey) -> Result<()> {
        self.reach()?;
        if let Some(asked) = self.settings.lock().unwrap().cold.get_mut(&key.to_path()?) {
            *asked = true;
        }
        Ok(())
    }
}

fn length(body: &[u8]) -> u64 {
    u64::try_from(body.len()).unwrap()
}
