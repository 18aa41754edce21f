//! Exact while applications write: every stored chunk is what a snapshot read at its T gives, byte for byte, and what
//! becomes of a collection meanwhile is either in the backup or said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use backup_core::bson::{IdRange, IdValue, split_documents};
use backup_core::format::{Consistency, Manifest, ManifestChunk};
use backup_core::id::{ClusterTime, CollectionUuid};
use backup_core::namespace::{Label, Namespace};
use backup_core::ports::{ChunkRead, DocumentStream, Sampled, ServerFacts, SizeHint, Source};
use backup_core::settings::Settings;
use backup_core::{Error, ErrorKind, Result};
use backup_mongo::Cluster;
use bson::{Document, RawDocumentBuf, Timestamp, doc};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::Database;

use crate::chain::Chain;
use crate::fixture::Fixture;
use crate::numbers::{Numbers, seeds};

/// Databases that are written to and backed up at the same time.
const AT_ONCE: usize = 3;
const DOCUMENTS: i32 = 400;

/// A source whose snapshots are lost now and then, before a read or in the middle of one, so that chunks of one
/// backup have several T.
struct Forgetful {
    cluster: Cluster,
    numbers: Numbers,
}

struct ForgetfulStream {
    inner: Box<dyn DocumentStream>,
    batches_left: Option<u64>,
}

fn forgotten() -> Error {
    Error::new(ErrorKind::SnapshotLost, "read: forced to take another instant")
}

#[async_trait]
impl Source for Forgetful {
    async fn preflight(&self) -> Result<ServerFacts> {
        self.cluster.preflight().await
    }
    async fn cluster_time(&self) -> Result<ClusterTime> {
        self.cluster.cluster_time().await
    }
    async fn databases(&self) -> Result<Vec<String>> {
        self.cluster.databases().await
    }
    async fn namespaces(&self, database: &str) -> Result<Vec<Namespace>> {
        self.cluster.namespaces(database).await
    }
    async fn size_hint(&self, database: &str, name: &str) -> Result<SizeHint> {
        self.cluster.size_hint(database, name).await
    }
    async fn sample(
        &self,
        database: &str,
        name: &str,
        uuid: CollectionUuid,
        count: u32,
    ) -> Result<Vec<Sampled>> {
        self.cluster.sample(database, name, uuid, count).await
    }
    async fn read(&self, read: &ChunkRead) -> Result<Box<dyn DocumentStream>> {
        let inner = self.cluster.read(read).await?;
        match self.numbers.below(5) {
            0 => Err(forgotten()),
            1 => Ok(Box::new(ForgetfulStream { inner, batches_left: Some(self.numbers.below(2)) })),
            _ => Ok(Box::new(ForgetfulStream { inner, batches_left: None })),
        }
    }
}

#[async_trait]
impl DocumentStream for ForgetfulStream {
    async fn next_batch(&mut self) -> Result<Option<Bytes>> {
        if self.batches_left == Some(0) {
            return Err(forgotten());
        }
        self.batches_left = self.batches_left.map(|left| left - 1);
        self.inner.next_batch().await
    }
}

/// Inserts, updates, replaces and deletes until it is told to stop; gives how often.
async fn write(database: Database, seed: u64, stop: &AtomicBool) -> u64 {
    let (numbers, written) = (Numbers::new(seed ^ 0xdead), AtomicU64::new(0));
    let all = database.collection::<Document>("moving");
    while !stop.load(Ordering::Relaxed) {
        let id = i32::try_from(numbers.below(2 * u64::try_from(DOCUMENTS).unwrap())).unwrap();
        let (one, text) = (doc! { "_id": id }, "x".repeat(usize::try_from(numbers.below(400)).unwrap()));
        let done = match numbers.below(4) {
            0 => all.delete_one(one).await.map(|_| ()),
            1 => all.replace_one(one, doc! { "text": text }).upsert(true).await.map(|_| ()),
            2 => {
                all.update_many(doc! { "_id": { "$gt": id } }, doc! { "$inc": { "n": 1 } }).await.map(|_| ())
            }
            _ => all
                .update_one(one, doc! { "$set": { "text": text }, "$inc": { "n": 1 } })
                .upsert(true)
                .await
                .map(|_| ()),
        };
        done.unwrap();
        written.fetch_add(1, Ordering::Relaxed);
    }
    written.into_inner()
}

fn settings() -> Settings {
    Settings { chunk_target_bytes: 16 * 1024, compress_workers: 1, ..Settings::default() }
}

/// What one seeded run found.
#[derive(Default)]
struct Found {
    chunks: usize,
    instants: usize,
    writes: u64,
}

async fn one_run(fixture: &Fixture, seed: u64) -> Found {
    let database = fixture.client.database(&format!("moving-{}", seed % 1000));
    database.drop().await.unwrap();
    let documents = (0..DOCUMENTS).map(|n| doc! { "_id": n * 2, "n": 0, "text": "y".repeat(200) });
    database.collection::<Document>("moving").insert_many(documents).await.unwrap();
    let cluster = Cluster::connect(&fixture.users().backup).await.unwrap();
    let forgetful = Forgetful { cluster: cluster.clone(), numbers: Numbers::new(seed) };
    let chain = Chain::new(cluster, settings()).reading(Arc::new(forgetful));
    let stop = AtomicBool::new(false);
    let backing_up = async {
        let done = chain.back_up(database.name(), &[]).await;
        stop.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|why| panic!("seed {seed}: {why}"))
    };
    let (manifest, writes) = tokio::join!(backing_up, write(database.clone(), seed, &stop));
    let instants = check_chunks(&chain, &database, &manifest, seed).await;
    database.drop().await.unwrap();
    Found { chunks: manifest.chunks().count(), instants, writes }
}

/// Compares every chunk with a read of the whole collection at the chunk's T; gives how many T there are.
async fn check_chunks(chain: &Chain, database: &Database, manifest: &Manifest, seed: u64) -> usize {
    let mut instants: BTreeMap<(u32, u32), BTreeMap<i32, Vec<u8>>> = BTreeMap::new();
    for (namespace, chunk) in manifest.chunks() {
        let time = chunk.stored.cluster_time.unwrap();
        let at = (time.seconds, time.ordinal);
        if let std::collections::btree_map::Entry::Vacant(e) = instants.entry(at) {
            e.insert(at_instant(database, &namespace.namespace.name, at).await);
        }
        let expected: Vec<&Vec<u8>> = in_range(&instants[&at], chunk).collect();
        let stored = chain.documents(manifest, namespace, chunk).await;
        let stored: Vec<&[u8]> = split_documents(&stored).map(|document| document.unwrap()).collect();
        assert!(stored == expected, "seed {seed}: chunk {} is not what was there at its T", chunk.ordinal);
        assert_eq!(chunk.stored.documents, u64::try_from(stored.len()).unwrap());
    }
    let single = manifest.consistency == Consistency::SingleInstant;
    assert!(!single || instants.len() <= 1, "seed {seed}: it is not of one instant");
    instants.len()
}

/// The collection at an instant, by the plain driver.
async fn at_instant(
    database: &Database,
    name: &str,
    (time, increment): (u32, u32),
) -> BTreeMap<i32, Vec<u8>> {
    let at = Timestamp { time, increment };
    let find = doc! { "find": name, "readConcern": { "level": "snapshot", "atClusterTime": at } };
    let cursor = database.run_cursor_command(find).await.unwrap().with_type::<RawDocumentBuf>();
    let all: Vec<RawDocumentBuf> = cursor.try_collect().await.unwrap();
    all.into_iter().map(|it| (it.get_i32("_id").unwrap(), it.into_bytes())).collect()
}

fn in_range<'a>(all: &'a BTreeMap<i32, Vec<u8>>, chunk: &ManifestChunk) -> impl Iterator<Item = &'a Vec<u8>> {
    let bound = |bound: &Option<IdValue>| bound.as_ref().map(|it| it.as_document().get_i32("_id").unwrap());
    let IdRange { lower, upper } = &chunk.range;
    let (lower, upper) = (bound(lower), bound(upper));
    let inside = move |id: i32| lower.is_none_or(|lower| id >= lower) && upper.is_none_or(|upper| id < upper);
    all.iter().filter(move |(id, _)| inside(**id)).map(|(_, document)| document)
}

pub(crate) fn every_chunk_is_a_snapshot_read_at_its_t(fixture: &Fixture) {
    let runs = stream::iter(seeds(100)).map(|seed| one_run(fixture, seed)).buffer_unordered(AT_ONCE);
    let all: Vec<Found> = fixture.run(runs.collect());
    let (chunks, writes): (usize, u64) =
        (all.iter().map(|it| it.chunks).sum(), all.iter().map(|it| it.writes).sum());
    let several = all.iter().filter(|it| it.instants > 1).count();
    eprintln!(
        "{} runs, {several} of them with several T: {chunks} chunks equal, {writes} writes meanwhile",
        all.len()
    );
    assert!(several * 2 > all.len(), "snapshots were not lost as they should have been");
    assert!(writes > u64::try_from(all.len()).unwrap(), "nobody wrote");
}

/// A collection with a past: where it came from, and whether it was complete before the backup began.
struct Life {
    database: Database,
    numbers: Numbers,
    next_origin: AtomicU64,
}

/// Documents of each collection; all have its origin.
const MEMBERS: u64 = 40;
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

impl Life {
    async fn create(&self, name: &str) {
        let origin = i64::try_from(self.next_origin.fetch_add(1, Ordering::Relaxed)).unwrap();
        let members = (0..i64::try_from(MEMBERS).unwrap()).map(|n| doc! { "_id": n, "origin": origin });
        let _ = self.database.collection::<Document>(name).insert_many(members).await; // the name may be taken
    }

    async fn change(&self) {
        let name = |at: u64| NAMES[usize::try_from(at).unwrap()];
        let (one, other) = (name(self.numbers.below(8)), name(self.numbers.below(8)));
        let full = |name: &str| format!("{}.{name}", self.database.name());
        let collection = self.database.collection::<Document>(one);
        let rename = |drop_target: bool| doc! { "renameCollection": full(one), "to": full(other), "dropTarget": drop_target };
        let admin = self.database.client().database("admin");
        let command = match self.numbers.below(8) {
            0 => doc! { "drop": one },
            1 => return drop(admin.run_command(rename(false)).await),
            2 => return drop(admin.run_command(rename(true)).await),
            3 => {
                let _ = collection.drop().await;
                return self.create(one).await;
            }
            4 => doc! { "createIndexes": one, "indexes": [{ "key": { "origin": 1 }, "name": "origin" }] },
            5 => doc! { "dropIndexes": one, "index": "*" },
            6 => doc! { "collMod": one, "validator": { "origin": { "$exists": true } } },
            _ => doc! { "convertToCapped": one, "size": 100_000 },
        };
        let _ = self.database.run_command(command).await; // there may be none of that name just now
    }
}

async fn one_life(fixture: &Fixture, seed: u64) -> (u64, u64) {
    let database = fixture.client.database(&format!("lively-{}", seed % 1000));
    database.drop().await.unwrap();
    let life =
        Life { database: database.clone(), numbers: Numbers::new(seed), next_origin: AtomicU64::new(0) };
    for name in NAMES {
        life.create(name).await;
    }
    let cluster = Cluster::connect(&fixture.users().backup).await.unwrap();
    let forgetful = Forgetful { cluster: cluster.clone(), numbers: Numbers::new(seed ^ 0xbeef) };
    let chain = Chain::new(cluster, settings()).reading(Arc::new(forgetful));
    let stop = AtomicBool::new(false);
    let changing = async {
        while !stop.load(Ordering::Relaxed) {
            life.change().await;
        }
    };
    let backing_up = async {
        let done = chain.back_up(database.name(), &[]).await;
        stop.store(true, Ordering::Relaxed);
        done
    };
    let (backup, ()) = tokio::join!(backing_up, changing);
    let result = match backup {
        Ok(manifest) => check_lives(&chain, &manifest, seed).await,
        // Everything may have been gone when it began.
        Err(why) => {
            let told = [ErrorKind::NotFound, ErrorKind::SnapshotLost, ErrorKind::Transient];
            assert!(told.contains(&why.kind()), "seed {seed}: {why}");
            (0, 0)
        }
    };
    database.drop().await.unwrap();
    result
}

/// Each captured collection is one collection, and whole; every other one says why it is not there. Gives how many
/// there are of both.
async fn check_lives(chain: &Chain, manifest: &Manifest, seed: u64) -> (u64, u64) {
    let (mut captured, mut labelled, mut origins) = (0, 0, BTreeMap::new());
    for entry in &manifest.namespaces {
        let name = &entry.namespace.name;
        if entry.label == Label::NotCaptured {
            assert!(entry.reason.is_some() && entry.chunks.is_empty(), "seed {seed}: {name}");
            labelled += 1;
            continue;
        }
        captured += 1;
        assert!(!entry.chunks.is_empty(), "seed {seed}: {name} has no chunk");
        let mut members = Vec::new();
        for chunk in &entry.chunks {
            let stored = chain.documents(manifest, entry, chunk).await;
            members.extend(
                split_documents(&stored)
                    .map(|it| bson::RawDocument::from_bytes(it.unwrap()).unwrap().to_owned()),
            );
        }
        let origin = members.first().map(|it| it.get_i64("origin").unwrap());
        let one = members.iter().all(|it| Some(it.get_i64("origin").unwrap()) == origin);
        assert!(one, "seed {seed}: {name} is mixed of several collections");
        // One of the eight that were there before must be whole; others were perhaps being filled at T.
        let old = origin.is_some_and(|origin| origin < 8);
        let whole = u64::try_from(members.len()).unwrap() == MEMBERS;
        assert!(whole || !old, "seed {seed}: {name} has {} documents", members.len());
        assert!(
            members.is_empty() || origins.insert(origin, name).is_none(),
            "seed {seed}: {name} is there twice"
        );
    }
    (captured, labelled)
}

pub(crate) fn collections_that_change_meanwhile_are_exact_or_labelled(fixture: &Fixture) {
    let runs = stream::iter(seeds(60)).map(|seed| one_life(fixture, seed)).buffer_unordered(AT_ONCE);
    let all: Vec<(u64, u64)> = fixture.run(runs.collect());
    let (captured, labelled) = all.iter().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    eprintln!("{} runs: {captured} collections captured whole, {labelled} labelled", all.len());
    assert!(captured > 0 && labelled > 0, "nothing happened");
}
