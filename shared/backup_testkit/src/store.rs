//! The bucket, the key service and the clock, in memory.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use backup_core::format::{ObjectContext, ObjectKey};
use backup_core::ports::{Clock, DataKey, DataKeys, ObjectStore, PutOutcome, Upload};
use backup_core::seal::MessageKey;
use backup_core::{Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// What a bucket keeps besides its objects.
#[derive(Default)]
pub(crate) struct Settings {
    /// Until when objects are locked, in milliseconds since 1970 UTC.
    pub(crate) locked: BTreeMap<String, u64>,
    /// Objects in cold storage, and whether they were asked for.
    pub(crate) cold: BTreeMap<String, bool>,
    /// Whether nobody reaches it.
    pub(crate) is_down: bool,
}

/// A bucket. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryStore {
    pub(crate) objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
    pub(crate) settings: Arc<Mutex<Settings>>,
    pub(crate) clock: TestClock,
    /// The bucket that objects are brought from.
    pub(crate) home: Option<Box<MemoryStore>>,
}

impl MemoryStore {
    /// A bucket that judges locks by this clock.
    #[must_use]
    pub fn with_clock(clock: &TestClock) -> Self {
        Self { clock: clock.clone(), ..Self::default() }
    }

    /// The bucket of another region, into which objects of this one are brought.
    #[must_use]
    pub fn in_another_region(&self) -> Self {
        Self { home: Some(Box::new(self.clone())), ..Self::with_clock(&self.clock) }
    }

    /// Makes it unreachable, or reachable again.
    pub fn set_down(&self, is_down: bool) {
        self.settings.lock().unwrap().is_down = is_down;
    }

    /// Until when each object is locked, in milliseconds since 1970 UTC.
    #[must_use]
    pub fn locked(&self) -> BTreeMap<String, u64> {
        self.settings.lock().unwrap().locked.clone()
    }

    /// The objects in cold storage that nobody has asked for.
    #[must_use]
    pub fn frozen(&self) -> Vec<String> {
        let settings = self.settings.lock().unwrap();
        settings.cold.iter().filter(|(_, asked)| !**asked).map(|(path, _)| path.clone()).collect()
    }

    /// Lets what was asked for arrive.
    pub fn let_thaw(&self) {
        self.settings.lock().unwrap().cold.retain(|_, asked| !*asked);
    }

    pub(crate) fn reach(&self) -> Result<()> {
        if self.settings.lock().unwrap().is_down {
            return Err(Error::new(ErrorKind::Transient, "reach the bucket: the region is down"));
        }
        Ok(())
    }

    /// Every key with its object.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.objects.lock().unwrap().clone()
    }

    /// Replaces an object behind everybody's back.
    pub fn tamper(&self, path: &str, body: Bytes) {
        self.objects.lock().unwrap().insert(path.to_owned(), body);
    }

    /// Removes an object behind everybody's back.
    pub fn lose(&self, path: &str) {
        self.objects.lock().unwrap().remove(path);
    }

    pub(crate) fn find(&self, key: ObjectKey) -> Result<Option<Bytes>> {
        self.reach()?;
        Ok(self.objects.lock().unwrap().get(&key.to_path()?).cloned())
    }

    fn get_existing(&self, key: ObjectKey) -> Result<Bytes> {
        let path = key.to_path()?;
        if self.settings.lock().unwrap().cold.contains_key(&path) {
            return Err(Error::new(ErrorKind::Refused, format!("get {path}: it is in cold storage")));
        }
        self.find(key)?.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("get {path}")))
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    async fn put(&self, key: ObjectKey, body: Bytes) -> Result<()> {
        self.reach()?;
        self.objects.lock().unwrap().insert(key.to_path()?, body);
        Ok(())
    }

    async fn put_if_absent(&self, key: ObjectKey, body: Bytes) -> Result<PutOutcome> {
        self.reach()?;
        let mut objects = self.objects.lock().unwrap();
        let path = key.to_path()?;
        if objects.contains_key(&path) {
            return Ok(PutOutcome::AlreadyThere);
        }
        objects.insert(path, body);
        Ok(PutOutcome::Stored)
    }

    async fn upload(&self, key: ObjectKey) -> Result<Box<dyn Upload>> {
        Ok(Box::new(MemoryUpload { store: self.clone(), key, body: BytesMut::new() }))
    }

    async fn get(&self, key: ObjectKey, bytes_max: u64) -> Result<Bytes> {
        let body = self.get_existing(key)?;
        if u64::try_from(body.len()).unwrap() > bytes_max {
            return Err(Error::new(ErrorKind::Corrupt, "get an object: it is too large"));
        }
        Ok(body)
    }

    async fn get_range(&self, key: ObjectKey, offset: u64, length: u64) -> Result<Bytes> {
        let body = self.get_existing(key)?;
        let (start, end) = (usize::try_from(offset).unwrap(), usize::try_from(offset + length).unwrap());
        if end > body.len() {
            return Err(Error::new(ErrorKind::Corrupt, "get a range: the object is shorter"));
        }
        Ok(body.slice(start..end))
    }

    async fn copy(&self, from: ObjectKey, to: ObjectKey) -> Result<()> {
        let object = self.get_existing(from)?;
        self.put(to, object).await
    }

    async fn size(&self, key: ObjectKey) -> Result<Option<u64>> {
        Ok(self.find(key)?.map(|body| u64::try_from(body.len()).unwrap()))
    }

    async fn stored_sha256(&self, key: ObjectKey) -> Result<Option<[u8; 32]>> {
        // Of every other object, as if S3 had been given the others with another checksum.
        let body = self.find(key)?.filter(|body| body.len() % 2 == 0);
        Ok(body.map(|body| Sha256::digest(&body).into()))
    }

    async fn store_millis(&self) -> Result<u64> {
        self.reach()?;
        Ok(self.clock.now_millis())
    }
}

struct MemoryUpload {
    store: MemoryStore,
    key: ObjectKey,
    body: BytesMut,
}

#[async_trait]
impl Upload for MemoryUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.body.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        self.store.put(self.key, self.body.freeze()).await
    }

    async fn abort(self: Box<Self>) {}
}

/// A key service that remembers every key it drew, and panics should one ever be drawn twice.
#[derive(Clone, Default)]
pub struct MemoryKeys {
    drawn: Arc<Mutex<HashSet<[u8; 32]>>>,
    disabled: Arc<Mutex<bool>>,
}

impl MemoryKeys {
    /// Disables the key, as an operator can, or enables it again.
    pub fn set_disabled(&self, disabled: bool) {
        *self.disabled.lock().unwrap() = disabled;
    }

    fn check_enabled(&self) -> Result<()> {
        if *self.disabled.lock().unwrap() {
            return Err(Error::new(ErrorKind::Denied, "use the key: it is disabled"));
        }
        Ok(())
    }
}

/// The "wrapped" key is the key and its context: what KMS binds cryptographically is compared here.
#[async_trait]
impl DataKeys for MemoryKeys {
    async fn generate(&self, context: &ObjectContext) -> Result<DataKey> {
        self.check_enabled()?;
        let mut plain = [0; 32];
        getrandom::fill(&mut plain).unwrap();
        assert!(self.drawn.lock().unwrap().insert(plain), "a data key was drawn twice");
        let wrapped = [plain.as_slice(), format!("{:?}", context.encryption_context()).as_bytes()].concat();
        Ok(DataKey { plain: MessageKey::new(plain), wrapped })
    }

    async fn unwrap(&self, wrapped: &[u8], context: &ObjectContext) -> Result<MessageKey> {
        self.check_enabled()?;
        let refused = || Error::new(ErrorKind::Corrupt, "open a data key: it belongs to another context");
        let (plain, bound) = wrapped.split_first_chunk::<32>().ok_or_else(refused)?;
        if bound != format!("{:?}", context.encryption_context()).as_bytes() {
            return Err(refused());
        }
        Ok(MessageKey::new(*plain))
    }
}

/// A clock that a test sets.
#[derive(Clone)]
pub struct TestClock {
    now_millis: Arc<AtomicU64>,
    left_millis: Arc<AtomicU64>,
}

impl Default for TestClock {
    fn default() -> Self {
        // 2026-11-22 02:00:00 UTC
        let now_millis = Arc::new(AtomicU64::new(1_795_312_800_000));
        Self { now_millis, left_millis: Arc::new(AtomicU64::new(u64::MAX)) }
    }
}

impl TestClock {
    /// Lets time pass.
    pub fn advance(&self, millis: u64) {
        self.now_millis.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets how long the step may still run.
    pub fn set_left(&self, millis: u64) {
        self.left_millis.store(millis, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_millis(&self) -> u64 {
        self.now_millis.load(Ordering::SeqCst)
    }

    fn left_millis(&self) -> u64 {
        self.left_millis.load(Ordering::SeqCst)
    }
}
