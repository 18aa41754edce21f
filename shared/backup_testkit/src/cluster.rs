//! A MongoDB cluster, in memory: collections with a history, so that they can be read at an instant. Its `_id`s are
//! 32-bit integers.
//!
//! It lies where the real server lies: a range that is read at an instant the server forgot, or by a name behind
//! which there is another collection, is lost; `_id`s that are there are skipped on insert.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::bson::{IdRange, IdValue, split_documents};
use backup_core::id::{ClusterTime, CollectionUuid};
use backup_core::namespace::{Namespace, NamespaceKind};
use backup_core::ports::{
    ChunkRead, DocumentStream, InsertRules, Sampled, ServerFacts, SizeHint, Source, Target,
};
use backup_core::{Error, ErrorKind, Result};
use bson::{RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};
use bytes::{Bytes, BytesMut};

const SECONDS: u32 = 1_795_312_800;
/// Documents in one batch.
const BATCH: usize = 7;

#[derive(Clone)]
struct Collection {
    namespace: Namespace,
    /// When it got its name.
    named: u32,
    /// What each document was, from when on.
    documents: BTreeMap<i32, Vec<(u32, Option<Bytes>)>>,
}

#[derive(Default)]
struct State {
    now: u32,
    oldest: u32,
    created: u64,
    collections: BTreeMap<String, Collection>,
    haunted: BTreeMap<String, u32>,
}

/// A cluster with one database (its name does not matter). Clones share it.
#[derive(Clone, Default)]
pub struct MemoryCluster {
    state: Arc<Mutex<State>>,
}

impl MemoryCluster {
    /// Creates a collection with these documents, each of which needs a 32-bit `_id`.
    pub fn fill(&self, name: &str, documents: impl IntoIterator<Item = RawDocumentBuf>) {
        self.state.lock().unwrap().create(name, &RawDocumentBuf::new());
        documents.into_iter().for_each(|document| self.write(name, &document));
    }

    /// Creates a collection or view with these options.
    pub fn define(&self, name: &str, options: &RawDocumentBuf) {
        self.state.lock().unwrap().create(name, options);
    }

    /// Inserts or replaces a document.
    pub fn write(&self, name: &str, document: &RawDocument) {
        self.state.lock().unwrap().write(name, document.as_bytes());
    }

    /// Lets a writer insert into `name` right after each of the next `times` renames of it to another name.
    pub fn haunt(&self, name: &str, times: u32) {
        self.state.lock().unwrap().haunted.insert(name.to_owned(), times);
    }

    /// Deletes a document.
    pub fn delete(&self, name: &str, id: i32) {
        let mut state = self.state.lock().unwrap();
        state.now += 1;
        let now = state.now;
        let versions = state.collections.get_mut(name).unwrap().documents.entry(id).or_default();
        versions.push((now, None));
    }

    /// Forgets every instant before now.
    pub fn forget_history(&self) {
        let mut state = self.state.lock().unwrap();
        state.now += 1;
        state.oldest = state.now;
    }

    /// Every collection and view with its documents, but for our own staging and aside collections.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<String, Vec<Bytes>> {
        let state = self.state.lock().unwrap();
        let users = state.collections.iter().filter(|(name, _)| !name.starts_with("nightsafe."));
        users.map(|(name, it)| (name.clone(), it.at(state.now, &IdRange::ALL))).collect()
    }

    /// The names of staging collections.
    #[must_use]
    pub fn staging(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.collections.keys().filter(|name| name.starts_with("nightsafe.staging.")).cloned().collect()
    }
}

impl State {
    fn create(&mut self, name: &str, options: &RawDocumentBuf) {
        self.now += 1;
        self.created += 1;
        let is_view = matches!(options.get("viewOn"), Ok(Some(_)));
        let mut uuid = [0; 16];
        uuid[8..].copy_from_slice(&self.created.to_be_bytes());
        let namespace = Namespace {
            name: name.to_owned(),
            kind: if is_view { NamespaceKind::View } else { NamespaceKind::Collection },
            uuid: (!is_view).then_some(CollectionUuid(uuid)),
            options: options.clone(),
            indexes: if is_view {
                vec![]
            } else {
                vec![rawdoc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" }]
            },
            unfinished_indexes: vec![],
        };
        let collection = Collection { namespace, named: self.now, documents: BTreeMap::new() };
        self.collections.insert(name.to_owned(), collection);
    }

    fn write(&mut self, name: &str, document: &[u8]) {
        self.now += 1;
        let now = self.now;
        let versions = self.collections.get_mut(name).unwrap().documents.entry(id_of(document)).or_default();
        versions.push((now, Some(Bytes::copy_from_slice(document))));
    }

    fn existing(&mut self, name: &str) -> Result<&mut Collection> {
        let missing = || Error::new(ErrorKind::SnapshotLost, format!("use {name:?}: there is none"));
        self.collections.get_mut(name).ok_or_else(missing)
    }
}

impl Collection {
    fn at(&self, time: u32, range: &IdRange) -> Vec<Bytes> {
        let lower = range.lower.as_ref().map_or(i32::MIN, |id| id_of(id.as_document().as_bytes()));
        let upper = range.upper.as_ref().map(|id| id_of(id.as_document().as_bytes()));
        let inside =
            self.documents.range(lower..).take_while(|(id, _)| upper.is_none_or(|upper| **id < upper));
        inside
            .filter_map(|(_, versions)| versions.iter().rfind(|(from, _)| *from <= time)?.1.clone())
            .collect()
    }
}

fn id_of(document: &[u8]) -> i32 {
    match RawDocument::from_bytes(document).unwrap().get("_id") {
        Ok(Some(RawBsonRef::Int32(id))) => id,
        other => panic!("the cluster in memory needs a 32-bit _id, not {other:?}"),
    }
}

struct Batches(std::vec::IntoIter<Bytes>);

#[async_trait]
impl DocumentStream for Batches {
    async fn next_batch(&mut self) -> Result<Option<Bytes>> {
        let mut batch = BytesMut::new();
        self.0.by_ref().take(BATCH).for_each(|document| batch.extend_from_slice(&document));
        Ok((!batch.is_empty()).then(|| batch.freeze()))
    }
}

#[async_trait]
impl Source for MemoryCluster {
    async fn preflight(&self) -> Result<ServerFacts> {
        Ok(ServerFacts { version: "6.0.5".to_owned() })
    }

    async fn cluster_time(&self) -> Result<ClusterTime> {
        Ok(ClusterTime { seconds: SECONDS, ordinal: self.state.lock().unwrap().now })
    }

    async fn databases(&self) -> Result<Vec<String>> {
        Ok(vec!["crm".to_owned()])
    }

    async fn namespaces(&self, _database: &str) -> Result<Vec<Namespace>> {
        Ok(self.state.lock().unwrap().collections.values().map(|it| it.namespace.clone()).collect())
    }

    async fn size_hint(&self, _database: &str, name: &str) -> Result<SizeHint> {
        let mut state = self.state.lock().unwrap();
        let now = state.now;
        let documents = state.existing(name)?.at(now, &IdRange::ALL);
        let bytes = documents.iter().map(|it| u64::try_from(it.len()).unwrap()).sum();
        Ok(SizeHint { documents: u64::try_from(documents.len()).unwrap(), bytes })
    }

    async fn sample(
        &self,
        _database: &str,
        name: &str,
        _uuid: CollectionUuid,
        count: u32,
    ) -> Result<Vec<Sampled>> {
        let mut state = self.state.lock().unwrap();
        let now = state.now;
        let documents = state.existing(name)?.at(now, &IdRange::ALL);
        let step = documents.len().div_ceil(usize::try_from(count).unwrap()).max(1);
        let sampled = |them: &[Bytes]| {
            let bytes = them.iter().map(|it| u64::try_from(it.len()).unwrap()).sum();
            Ok(Sampled { id: IdValue::of_document(&them[0])?.unwrap(), bytes })
        };
        documents.chunks(step).map(sampled).collect()
    }

    async fn read(&self, read: &ChunkRead) -> Result<Box<dyn DocumentStream>> {
        let mut state = self.state.lock().unwrap();
        let (now, oldest) = (state.now, state.oldest);
        let collection = state.existing(&read.name)?;
        let time = read.at.map_or(now, |at| at.ordinal);
        let lost =
            |why: &str| Err(Error::new(ErrorKind::SnapshotLost, format!("read {:?}: {why}", read.name)));
        if collection.namespace.uuid != Some(read.uuid) {
            return lost("another collection has this name");
        }
        if read.at.is_some() && (time < oldest || time < collection.named) {
            return lost("the instant is not readable");
        }
        Ok(Box::new(Batches(collection.at(time, &read.range).into_iter())))
    }
}

#[async_trait]
impl Target for MemoryCluster {
    async fn create(&self, _database: &str, name: &str, options: &RawDocumentBuf) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        if !state.collections.contains_key(name) {
            state.create(name, options);
        }
        Ok(())
    }

    async fn insert(&self, _database: &str, name: &str, documents: Bytes, _rules: InsertRules) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        for document in split_documents(&documents) {
            let document = document?;
            let there = state.existing(name)?.documents.contains_key(&id_of(document));
            if !there {
                state.write(name, document);
            }
        }
        Ok(())
    }

    async fn create_indexes(&self, _database: &str, name: &str, indexes: &[RawDocumentBuf]) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let there = &mut state.existing(name)?.namespace.indexes;
        for index in indexes {
            if !there.contains(index) {
                there.push(index.clone());
            }
        }
        Ok(())
    }

    async fn modify(&self, _database: &str, name: &str, fields: &RawDocumentBuf) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let namespace = &mut state.existing(name)?.namespace;
        if let Ok(change) = fields.get_document("index") {
            let wanted = change.get_str("name").unwrap();
            let index =
                namespace.indexes.iter_mut().find(|it| it.get_str("name").unwrap() == wanted).unwrap();
            if matches!(index.get("expireAfterSeconds"), Ok(None)) {
                index
                    .append(bson::cstr!("expireAfterSeconds"), change.get_i32("expireAfterSeconds").unwrap());
            }
        }
        Ok(())
    }

    async fn rename(&self, _database: &str, from: &str, to: &str) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.collections.contains_key(to) {
            return Err(Error::new(ErrorKind::Conflict, format!("rename to {to:?}: the name is taken")));
        }
        state.existing(from)?;
        let mut collection = state.collections.remove(from).unwrap();
        state.now += 1;
        collection.named = state.now;
        to.clone_into(&mut collection.namespace.name);
        state.collections.insert(to.to_owned(), collection);
        let left = state.haunted.get(from).copied().unwrap_or(0);
        if left > 0 {
            state.haunted.insert(from.to_owned(), left - 1);
            state.create(from, &RawDocumentBuf::new());
            state.write(from, rawdoc! { "_id": -1, "by": "a writer" }.as_bytes());
        }
        Ok(())
    }

    async fn replace(&self, database: &str, from: &str, to: &str) -> Result<()> {
        self.state.lock().unwrap().collections.remove(to);
        self.rename(database, from, to).await
    }

    async fn drop_namespace(&self, _database: &str, name: &str) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        state.now += 1;
        state.collections.remove(name);
        Ok(())
    }
}
