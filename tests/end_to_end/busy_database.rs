//! A database that applications write to while it is backed up, and the proofs that a backup of it is exact and that
//! a restore brought it back: read by an ordinary client, compared byte for byte.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use backup_core::bson::split_documents;
use backup_core::format::{Manifest, ManifestChunk, ManifestNamespace};
use backup_core::settings::{MIB, Settings};
use backup_mongo::Cluster;
use bson::{Document, RawDocument, RawDocumentBuf, Timestamp, doc};
use futures_util::TryStreamExt;
use mongodb::{Client, Collection, Database};
use tokio::task::JoinHandle;

use crate::chain::Chain;
use crate::replica_set::ReplicaSet;

/// The database.
pub(crate) const BUSY: &str = "busy";
const LARGE: &str = "large";
/// A batch holds 63 of them.
const DOCUMENT_BYTES: usize = 32 * 1024;
/// Enough for a chunk of more than one batch, so that a cursor is read in several calls.
const CHUNK_BYTES: u64 = 3 * MIB;
/// How many documents the writer changes; more than these have to be there.
const CHANGED_DOCUMENTS: i32 = 160;

/// A collection of several chunks with an index that expires documents, a small one, and a view.
pub(crate) async fn fill(database: &Database, documents: i32) {
    let all = (0..documents).map(|n| document(n, DOCUMENT_BYTES));
    database.collection::<Document>(LARGE).insert_many(all).await.unwrap();
    let few = (0..10).map(|n| document(n, 10));
    database.collection::<Document>("small").insert_many(few).await.unwrap();
    for command in [
        doc! { "createIndexes": LARGE, "indexes": [
            { "key": { "n": 1 }, "name": "n" },
            { "key": { "expires": 1 }, "name": "expires", "expireAfterSeconds": 3600 },
        ] },
        doc! { "create": "few", "viewOn": LARGE, "pipeline": [{ "$match": { "_id": { "$lt": 10 } } }] },
    ] {
        database.run_command(command).await.unwrap();
    }
}

fn document(id: i32, bytes: usize) -> Document {
    doc! { "_id": id, "n": 0, "stamp": 0, "text": "x".repeat(bytes) }
}

/// The busy database of a set, filled, and a chain that reaches it by `uri`.
pub(crate) async fn prepare(set: &ReplicaSet, uri: &str, documents: i32) -> (Chain, Database) {
    let database = set.client().database(BUSY);
    fill(&database, documents).await;
    let settings = Settings { chunk_target_bytes: CHUNK_BYTES, ..Settings::default() };
    (Chain::new(Cluster::connect(uri).await.unwrap(), settings), database)
}

/// Something for a restore to replace: documents, and the view's definition.
pub(crate) async fn damage(database: &Database) {
    let large = database.collection::<Document>(LARGE);
    large.delete_many(doc! { "_id": { "$lt": 50 } }).await.unwrap();
    large.update_many(doc! {}, doc! { "$set": { "stamp": -1 } }).await.unwrap();
    let other = vec![doc! { "$match": { "_id": { "$lt": 5 } } }];
    database.run_command(doc! { "collMod": "few", "viewOn": LARGE, "pipeline": other }).await.unwrap();
}

/// Somebody who writes to the large collection all the time, also where it fails.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Inserts, changes and deletes single documents.
    pub(crate) fn ordinary(database: &Database) -> Self {
        let collection = database.collection::<Document>(LARGE);
        Self::start(move |n| {
            let collection = collection.clone();
            async move { write_one(&collection, n).await.is_ok() }
        })
    }

    /// Gives all documents another stamp, all at once: at any instant, all have the same.
    pub(crate) fn stamping(database: &Database) -> Self {
        let collection = database.collection::<Document>(LARGE);
        Self::start(move |n| {
            let collection = collection.clone();
            async move { stamp_all(&collection, n).await.is_ok() }
        })
    }

    fn start<F>(mut write: impl FnMut(i32) -> F + Send + 'static) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, written) = (stop.clone(), writes.clone());
        let task = tokio::spawn(async move {
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                number += 1;
                written.fetch_add(u64::from(write(number).await), Ordering::Relaxed);
            }
        });
        Self { stop, writes, task }
    }

    /// Ends it; gives how many writes succeeded.
    pub(crate) async fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.task).await.unwrap();
        self.writes.load(Ordering::Relaxed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort(); // a test that fails leaves nobody who writes
    }
}

async fn write_one(collection: &Collection<Document>, n: i32) -> mongodb::error::Result<()> {
    const FIRST_NEW_ID: i32 = 1_000_000;
    let one = doc! { "_id": n.wrapping_mul(7).rem_euclid(CHANGED_DOCUMENTS) };
    match n % 16 {
        0 => collection.insert_one(document(FIRST_NEW_ID + n, 1000)).await.map(|_| ()),
        1 => collection.delete_one(one).await.map(|_| ()),
        _ => collection.update_one(one, doc! { "$inc": { "n": 1 } }).await.map(|_| ()),
    }
}

async fn stamp_all(collection: &Collection<Document>, stamp: i32) -> mongodb::error::Result<()> {
    let mut session = collection.client().start_session().await?;
    session.start_transaction().await?;
    collection.update_many(doc! {}, doc! { "$set": { "stamp": stamp } }).session(&mut session).await?;
    session.commit_transaction().await
}

/// Every stored chunk is exactly what was in its range at its T, as the server tells the referee.
pub(crate) async fn check_exact(chain: &Chain, manifest: &Manifest, referee: &Client) {
    let database = referee.database(&manifest.database);
    for (namespace, chunk) in manifest.chunks() {
        let (name, stored) = (&namespace.namespace.name, stored(chain, manifest, namespace, chunk).await);
        let then = at_its_instant(&database, name, chunk).await;
        assert!(stored == then, "chunk {} of {name:?} is not what was there at its T", chunk.ordinal);
    }
    assert!(manifest.totals().documents > 0);
}

/// What is live is what the backup holds, and no staging is left.
pub(crate) async fn check_restored(chain: &Chain, manifest: &Manifest, database: &Database) {
    for namespace in manifest.namespaces.iter().filter(|it| !it.chunks.is_empty()) {
        let mut expected = Vec::new();
        for chunk in &namespace.chunks {
            expected.extend(stored(chain, manifest, namespace, chunk).await);
        }
        expected.sort_unstable();
        let name = &namespace.namespace.name;
        let live = find(database, doc! { "find": name }).await;
        assert!(live == expected, "{name:?}: what is live is not what was backed up");
    }
    let names = database.list_collection_names().await.unwrap();
    assert!(!names.iter().any(|name| name.starts_with("nightsafe.staging.")), "{names:?}");
}

/// The stamps of each chunk of the large collection. A chunk that is of one instant has only one.
pub(crate) async fn stamps(chain: &Chain, manifest: &Manifest) -> Vec<BTreeSet<i32>> {
    let mut all = Vec::new();
    for (namespace, chunk) in manifest.chunks().filter(|(namespace, _)| namespace.namespace.name == LARGE) {
        let documents = stored(chain, manifest, namespace, chunk).await;
        let stamp = |document: &Vec<u8>| RawDocument::from_bytes(document).unwrap().get_i32("stamp").unwrap();
        all.push(documents.iter().map(stamp).collect());
    }
    all
}

async fn stored(
    chain: &Chain,
    manifest: &Manifest,
    namespace: &ManifestNamespace,
    chunk: &ManifestChunk,
) -> Vec<Vec<u8>> {
    let documents = chain.documents(manifest, namespace, chunk).await;
    let mut all: Vec<Vec<u8>> = split_documents(&documents).map(|it| it.unwrap().to_vec()).collect();
    all.sort_unstable();
    all
}

/// A plain range over numbers and a plain snapshot read: neither is made as ours are.
async fn at_its_instant(database: &Database, name: &str, chunk: &ManifestChunk) -> Vec<Vec<u8>> {
    let time = chunk.stored.cluster_time.unwrap();
    let at = Timestamp { time: time.seconds, increment: time.ordinal };
    let mut range = Document::new();
    for (operator, bound) in [("$gte", &chunk.range.lower), ("$lt", &chunk.range.upper)] {
        if let Some(bound) = bound {
            range.insert(operator, bound.as_document().get_i32("_id").unwrap());
        }
    }
    let mut command = doc! { "find": name, "readConcern": { "level": "snapshot", "atClusterTime": at } };
    if !range.is_empty() {
        command.insert("filter", doc! { "_id": range });
    }
    find(database, command).await
}

/// What a `find` gives, sorted.
async fn find(database: &Database, command: Document) -> Vec<Vec<u8>> {
    let cursor = database.run_cursor_command(command).await.unwrap().with_type::<RawDocumentBuf>();
    let documents: Vec<RawDocumentBuf> = cursor.try_collect().await.unwrap();
    let mut all: Vec<Vec<u8>> = documents.into_iter().map(RawDocumentBuf::into_bytes).collect();
    all.sort_unstable();
    all
}
