//! What a database was at an instant: its documents by a real snapshot read, and what it had as the server listed it.
//!
//! The workload does one thing after another, so what is listed right after an operation is what there was at the time
//! of its last change, until the next operation.

use std::fmt;

use backup_core::bson::{IdRange, split_documents};
use backup_core::id::ClusterTime;
use backup_core::namespace::{Namespace, NamespaceKind};
use backup_core::ports::{ChunkRead, Source};
use backup_core::{ErrorKind, Result};
use backup_mongo::Cluster;

use super::Kind;

/// Everything that was taken.
pub(super) struct Truth {
    cluster: Cluster,
    seed: u64,
    pub(super) samples: Vec<Sample>,
}

/// A database at an instant.
pub(super) struct Sample {
    seed: u64,
    /// What happened there.
    pub(super) kind: Kind,
    /// Whether it is the instant right before that.
    is_before: bool,
    pub(super) time: ClusterTime,
    pub(super) database: &'static str,
    /// Sorted by name.
    pub(super) held: Vec<Held>,
}

/// A collection or view.
pub(super) struct Held {
    pub(super) namespace: Namespace,
    /// Its documents, sorted unless they have an order; none for views, and where they are not known.
    pub(super) documents: Option<Vec<Vec<u8>>>,
}

/// For messages.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, kind, time, database, .. } = self;
        let place = if self.is_before { "right before" } else { "at" };
        write!(f, "seed {seed}: {database} at {time} ({place} a {kind:?})")
    }
}

impl Truth {
    pub(super) fn new(cluster: Cluster, seed: u64) -> Self {
        Self { cluster, seed, samples: Vec::new() }
    }

    pub(super) async fn list(&self, database: &str) -> Vec<Namespace> {
        let listed = self.cluster.namespaces(database).await;
        listed.unwrap_or_else(|why| panic!("seed {}: {why}", self.seed))
    }

    /// Takes what the database is right after an operation, whose changes came behind the first of the two times and
    /// ended at the second. `before` is what was listed before it.
    pub(super) async fn take(
        &mut self,
        kind: Kind,
        database: &'static str,
        (began, time): (ClusterTime, ClusterTime),
        before: &[Namespace],
    ) {
        assert!(began <= time, "seed {}: time went back from {began} to {time}", self.seed);
        let listed = self.list(database).await;
        if kind != Kind::Definition && began < time && are_same(before, &listed) {
            let at = Sample {
                seed: self.seed,
                kind,
                is_before: true,
                time: time.previous(),
                database,
                held: vec![],
            };
            self.add(at, listed.clone()).await;
        }
        let at = Sample { seed: self.seed, kind, is_before: false, time, database, held: vec![] };
        self.add(at, listed).await;
    }

    async fn add(&mut self, mut sample: Sample, listed: Vec<Namespace>) {
        // It cannot be read at an instant, but is now what it was then, unless the operation changed it since. No
        // transaction does.
        let capped_is_known = !sample.is_before || sample.kind == Kind::Transaction;
        for namespace in listed {
            let at = match (namespace.kind, namespace.is_capped()) {
                (NamespaceKind::View, _) => None,
                (_, true) => capped_is_known.then_some(None),
                _ => Some(Some(sample.time)),
            };
            let mut documents = None;
            if let Some(at) = at {
                let found = read(&self.cluster, sample.database, &namespace, at).await;
                documents =
                    Some(found.unwrap_or_else(|why| panic!("{sample}: read {:?}: {why}", namespace.name)));
            }
            sample.held.push(Held { namespace, documents });
        }
        self.samples.push(sample);
    }

    /// Reads again, at the old instant, the collections of a sample that are still what they were; gives how many were
    /// equal.
    pub(super) async fn check_again(&self, sample: &Sample) -> usize {
        let listed = self.list(sample.database).await;
        let mut equal = 0;
        for Held { namespace, documents } in &sample.held {
            let is_there = listed.iter().any(|it| it.uuid == namespace.uuid && it.name == namespace.name);
            let Some(documents) = documents.as_ref().filter(|_| is_there && !namespace.is_capped()) else {
                continue;
            };
            let name = &namespace.name;
            match read(&self.cluster, sample.database, namespace, Some(sample.time)).await {
                Ok(found) => {
                    assert!(found == *documents, "{sample}: {name:?} reads otherwise now");
                    equal += 1;
                }
                // It had another name meanwhile: the server does not read it across that.
                Err(why) => assert_eq!(why.kind(), ErrorKind::SnapshotLost, "{sample}: {name:?}: {why}"),
            }
        }
        equal
    }
}

fn are_same(before: &[Namespace], after: &[Namespace]) -> bool {
    before.len() == after.len() && before.iter().zip(after).all(|(before, after)| before.is_same_state(after))
}

/// All documents of a collection, at an instant or now; sorted unless they have an order.
pub(super) async fn read(
    cluster: &Cluster,
    database: &str,
    namespace: &Namespace,
    at: Option<ClusterTime>,
) -> Result<Vec<Vec<u8>>> {
    let read = ChunkRead {
        database: database.to_owned(),
        name: namespace.documents_name(),
        uuid: namespace.uuid.unwrap(),
        range: IdRange::ALL,
        at,
        document_bytes_hint: 0,
    };
    let mut stream = cluster.read(&read).await?;
    let mut all = Vec::new();
    while let Some(batch) = stream.next_batch().await? {
        for document in split_documents(&batch) {
            all.push(document?.to_vec());
        }
    }
    if !namespace.is_capped() {
        all.sort();
    }
    Ok(all)
}
