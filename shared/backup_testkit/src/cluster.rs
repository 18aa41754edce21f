//! A MongoDB cluster, in memory: collections with a history, so that they can be read at an instant. Its `_id`s are
//! 32-bit integers.
//!
//! It lies where the real server lies: a range that is read at an instant the server forgot, or by a name behind
//! which there is another collection, is lost; `_id`s that are there are skipped on insert. Whatever changes it, our
//! own restores as well, is told in its stream of changes.

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
use bson::{RawBson, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};
use bytes::{Bytes, BytesMut};

use crate::changes::{ChangeLog, instant};
use crate::event::{What, id_of, modify_index, with_field, with_id_first};
use crate::fixture::DATABASE;

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
    changes: ChangeLog,
}

/// A cluster with one database. Clones share it. Calls may name any database; in changes it is [`DATABASE`].
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
        self.state.lock().unwrap().write(name, document);
    }

    /// Inserts or replaces a document, and tells the stream nothing.
    pub fn write_silently(&self, name: &str, document: &RawDocument) {
        let mut state = self.state.lock().unwrap();
        state.now += 1;
        let (now, id) = (state.now, id_of(document));
        state.collections.get_mut(name).unwrap().keep(now, id, Some(with_id_first(document)));
    }

    /// Inserts or replaces documents in one transaction.
    pub fn write_together(&self, name: &str, documents: impl IntoIterator<Item = RawDocumentBuf>) {
        let mut state = self.state.lock().unwrap();
        state.now += 1;
        state.changes.begin_transaction();
        documents.into_iter().for_each(|document| state.put(name, &document));
        state.changes.end_transaction();
    }

    /// Sets a top-level field of a document that is there.
    pub fn update(&self, name: &str, id: i32, field: &str, value: impl Into<RawBson>) {
        self.state.lock().unwrap().update(name, id, field, &value.into());
    }

    /// Lets a writer insert into `name` right after each of the next `times` renames of it to another name.
    pub fn haunt(&self, name: &str, times: u32) {
        self.state.lock().unwrap().haunted.insert(name.to_owned(), times);
    }

    /// Deletes a document.
    pub fn delete(&self, name: &str, id: i32) {
        self.state.lock().unwrap().delete(name, id);
    }

    /// Lets time go on without a change, as a server does when it is idle.
    pub fn tick(&self) {
        self.state.lock().unwrap().now += 1;
    }

    /// Forgets every instant before now.
    pub fn forget_history(&self) {
        let mut state = self.state.lock().unwrap();
        state.now += 1;
        state.oldest = state.now;
    }

    /// Forgets every change before now.
    pub fn forget_changes(&self) {
        let mut state = self.state.lock().unwrap();
        state.now += 1;
        let now = state.now;
        state.changes.forget_before(now);
    }

    /// Makes the next change too large for the stream.
    pub fn oversize_next(&self) {
        self.state.lock().unwrap().changes.oversize_next();
    }

    /// Gives what was recorded and the present instant to `read`.
    pub(crate) fn with_changes<T>(&self, read: impl FnOnce(&ChangeLog, u32) -> T) -> T {
        let state = self.state.lock().unwrap();
        read(&state.changes, state.now)
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
        self.drop_namespace(name);
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
        self.changes.record(self.now, &namespace, What::Create);
        let collection = Collection { namespace, named: self.now, documents: BTreeMap::new() };
        self.collections.insert(name.to_owned(), collection);
    }

    fn drop_namespace(&mut self, name: &str) {
        if let Some(dropped) = self.collections.remove(name) {
            self.now += 1;
            self.changes.record(self.now, &dropped.namespace, What::Drop);
        }
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        self.existing(from)?;
        let mut collection = self.collections.remove(from).unwrap();
        let dropped = self.collections.remove(to).and_then(|it| it.namespace.uuid);
        self.now += 1;
        self.changes.record(self.now, &collection.namespace, What::Rename { to, dropped });
        collection.named = self.now;
        to.clone_into(&mut collection.namespace.name);
        self.collections.insert(to.to_owned(), collection);
        let left = self.haunted.get(from).copied().unwrap_or(0);
        if left > 0 {
            self.haunted.insert(from.to_owned(), left - 1);
            self.create(from, &RawDocumentBuf::new());
            self.write(from, &rawdoc! { "_id": -1, "by": "a writer" });
        }
        Ok(())
    }

    fn write(&mut self, name: &str, document: &RawDocument) {
        self.now += 1;
        self.put(name, document);
    }

    /// Inserts or replaces a document without letting time go on.
    fn put(&mut self, name: &str, document: &RawDocument) {
        let collection = self.collections.get_mut(name).unwrap();
        let (id, stored) = (id_of(document), with_id_first(document));
        let is_there = collection.newest(id).is_some();
        let what = if is_there { What::Replace(document) } else { What::Insert(&stored) };
        self.changes.record(self.now, &collection.namespace, what);
        collection.keep(self.now, id, Some(stored));
    }

    fn update(&mut self, name: &str, id: i32, field: &str, value: &RawBson) {
        self.now += 1;
        let collection = self.collections.get_mut(name).unwrap();
        let document = RawDocument::from_bytes(collection.newest(id).unwrap()).unwrap();
        let is_new = document.get(field).unwrap().is_none();
        let changed = with_field(document, field, value.as_raw_bson_ref());
        self.changes.record(self.now, &collection.namespace, What::Update { id, field, value, is_new });
        collection.keep(self.now, id, Some(changed));
    }

    fn delete(&mut self, name: &str, id: i32) {
        self.now += 1;
        let collection = self.collections.get_mut(name).unwrap();
        if collection.newest(id).is_some() {
            self.changes.record(self.now, &collection.namespace, What::Delete(id));
            collection.keep(self.now, id, None);
        }
    }

    fn create_indexes(&mut self, name: &str, indexes: &[RawDocumentBuf]) -> Result<()> {
        let there = &self.existing(name)?.namespace.indexes;
        let new: Vec<_> = indexes.iter().filter(|index| !there.contains(index)).cloned().collect();
        if !new.is_empty() {
            self.now += 1;
            let namespace = &mut self.collections.get_mut(name).unwrap().namespace;
            self.changes.record(self.now, namespace, What::CreateIndexes(&new));
            namespace.indexes.extend(new);
        }
        Ok(())
    }

    fn modify(&mut self, name: &str, fields: &RawDocument) -> Result<()> {
        self.existing(name)?;
        self.now += 1;
        let namespace = &mut self.collections.get_mut(name).unwrap().namespace;
        self.changes.record(self.now, namespace, What::Modify(fields));
        for element in fields {
            let (field, value) = element.unwrap();
            match value {
                RawBsonRef::Document(change) if field.as_str() == "index" => {
                    modify_index(&mut namespace.indexes, change);
                }
                _ => namespace.options = with_field(&namespace.options, field.as_str(), value),
            }
        }
        Ok(())
    }

    fn existing(&mut self, name: &str) -> Result<&mut Collection> {
        let missing = || Error::new(ErrorKind::SnapshotLost, format!("use {name:?}: there is none"));
        self.collections.get_mut(name).ok_or_else(missing)
    }
}

impl Collection {
    fn at(&self, time: u32, range: &IdRange) -> Vec<Bytes> {
        let lower = range.lower.as_ref().map_or(i32::MIN, |id| id_of(id.as_document()));
        let upper = range.upper.as_ref().map(|id| id_of(id.as_document()));
        let inside =
            self.documents.range(lower..).take_while(|(id, _)| upper.is_none_or(|upper| **id < upper));
        inside
            .filter_map(|(_, versions)| versions.iter().rfind(|(from, _)| *from <= time)?.1.clone())
            .collect()
    }

    fn newest(&self, id: i32) -> Option<&Bytes> {
        self.documents.get(&id)?.last()?.1.as_ref()
    }

    fn keep(&mut self, now: u32, id: i32, document: Option<RawDocumentBuf>) {
        let version = document.map(|document| Bytes::from(document.into_bytes()));
        self.documents.entry(id).or_default().push((now, version));
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
        Ok(instant(self.state.lock().unwrap().now))
    }

    async fn databases(&self) -> Result<Vec<String>> {
        Ok(vec![DATABASE.to_owned()])
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
            let document = RawDocument::from_bytes(document?).unwrap();
            if state.existing(name)?.newest(id_of(document)).is_none() {
                state.write(name, document);
            }
        }
        Ok(())
    }

    async fn create_indexes(&self, _database: &str, name: &str, indexes: &[RawDocumentBuf]) -> Result<()> {
        self.state.lock().unwrap().create_indexes(name, indexes)
    }

    async fn modify(&self, _database: &str, name: &str, fields: &RawDocumentBuf) -> Result<()> {
        self.state.lock().unwrap().modify(name, fields)
    }

    async fn rename(&self, _database: &str, from: &str, to: &str) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.collections.contains_key(to) {
            return Err(Error::new(ErrorKind::Conflict, format!("rename to {to:?}: the name is taken")));
        }
        state.rename(from, to)
    }

    async fn replace(&self, _database: &str, from: &str, to: &str) -> Result<()> {
        self.state.lock().unwrap().rename(from, to)
    }

    async fn drop_namespace(&self, _database: &str, name: &str) -> Result<()> {
        self.state.lock().unwrap().drop_namespace(name);
        Ok(())
    }

    async fn count(&self, _database: &str, name: &str, filter: &RawDocumentBuf) -> Result<u64> {
        let contents = self.contents();
        let matches = |document: &&Bytes| {
            let document = RawDocument::from_bytes(document).unwrap();
            filter.iter().all(|field| {
                let (key, value) = field.unwrap();
                document.get(key).unwrap() == Some(value)
            })
        };
        let found = contents.get(name).map_or(0, |all| all.iter().filter(matches).count());
        Ok(u64::try_from(found).unwrap())
    }
}
