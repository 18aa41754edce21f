//! A rehearsal of a restore: chunks of a backup are put into a server that is thrown away, with the options and indexes
//! of their collections, read back from it, and compared with the manifest. Then the owner's checks are counted there.
//!
//! What it shows besides a read of the stored chunks: that a server takes these documents, options and indexes, and
//! gives back what it took. Views hold no documents and are not rehearsed.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use crate::at_once::at_once;
use crate::checks::{CHECKS_BYTES_MAX, Check, CheckCount, concerning, parse};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Manifest, ManifestChunk, ManifestNamespace, ObjectKey};
use crate::id::CollectionUuid;
use crate::namespace::{Namespace, NamespaceKind};
use crate::plan::metadata::{creation_options, index_specs, last_options};
use crate::ports::{ChunkRead, Clock, DataKeys, InsertRules, ObjectStore, ScratchDatabase, Target};

use super::chunk_reader::{Hashing, read_chunk};
use super::finish_restore::compare_whole;
use super::validate_chunk::count_and_hash;

pub(super) use crate::format::Rehearsed;

/// Collections that are created at once: a server waits for its journal at each of them.
const CREATED_AT_ONCE: usize = 8;
const DAMAGED: &str = "this backup cannot be trusted: take another one, and keep the older ones";
const OTHER_SERVER: &str =
    "is the server it was restored to of the source's version? if it is, this backup cannot be trusted";

/// The owner's checks; none if there is no file of them.
pub(super) async fn read_checks(store: &dyn ObjectStore) -> Result<Vec<Check>> {
    match store.get(ObjectKey::Checks, CHECKS_BYTES_MAX).await {
        Ok(json) => parse(&json),
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(why) => Err(why),
    }
}

/// What a rehearsal needs.
#[derive(Clone, Copy)]
pub(super) struct Rehearsal<'a> {
    /// The bucket that the backup is read from.
    pub(super) store: &'a dyn ObjectStore,
    /// The key service.
    pub(super) keys: &'a dyn DataKeys,
    /// The clock.
    pub(super) clock: &'a dyn Clock,
}

impl Rehearsal<'_> {
    /// Rehearses these chunks in a place that was opened for it, which is closed whatever happens. `Corrupt` or
    /// `ValidationFailed`, naming collection and chunk, if one is damaged or comes back as another. `checks` are counted.
    pub(super) async fn run(
        &self,
        scratch: Box<dyn ScratchDatabase>,
        manifest: &Manifest,
        ordinals: &BTreeSet<u32>,
        checks: &[Check],
    ) -> Result<Rehearsed> {
        let began = self.clock.now_millis();
        let stage = Stage { rehearsal: *self, scratch: scratch.as_ref(), manifest };
        let found = stage.rehearse(ordinals, checks).await;
        let closed = scratch.close().await;
        let mut rehearsed = found?; // the first failure is the one to tell
        closed?;
        rehearsed.millis = self.clock.now_millis().saturating_sub(began);
        Ok(rehearsed)
    }
}

/// Where one rehearsal happens.
#[derive(Clone, Copy)]
struct Stage<'a> {
    rehearsal: Rehearsal<'a>,
    scratch: &'a dyn ScratchDatabase,
    manifest: &'a Manifest,
}

/// The chunks of one collection, and the name it has on the stage.
struct Part<'a> {
    entry: &'a ManifestNamespace,
    chunks: Vec<&'a ManifestChunk>,
    name: String,
}

impl<'a> Stage<'a> {
    async fn rehearse(&self, ordinals: &BTreeSet<u32>, checks: &[Check]) -> Result<Rehearsed> {
        let checks = concerning(checks, self.manifest)?;
        let parts = self.parts(ordinals)?;
        at_once(CREATED_AT_ONCE, parts.iter().map(|part| self.create(part))).await?;
        let created = self.target().namespaces(self.database()).await?;
        let created = by_name(&created);
        let (mut indexes, mut documents, mut bson_bytes) = (0, 0, 0);
        for part in &parts {
            let uuid =
                created.get(part.name.as_str()).and_then(|it| it.uuid).ok_or_else(|| part.vanished())?;
            self.fill(part).await?;
            indexes += self.build_indexes(part).await?;
            documents += self.read_back(part, uuid).await?;
            bson_bytes += part.chunks.iter().map(|chunk| chunk.stored.bson_bytes).sum::<u64>();
        }
        let counts = self.count(&checks, &parts).await?;
        // Last, because what comes back with it may delete documents.
        self.complete_metadata(&parts).await?;
        Ok(Rehearsed {
            ordinals: ordinals.iter().copied().collect(),
            documents,
            bson_bytes,
            indexes,
            server: self.scratch.description().to_owned(),
            counts,
            millis: 0,
        })
    }

    fn target(&self) -> &'a dyn Target {
        self.scratch.target()
    }

    fn database(&self) -> &'a str {
        self.scratch.database()
    }

    fn parts(&self, ordinals: &BTreeSet<u32>) -> Result<Vec<Part<'a>>> {
        let mut parts = Vec::new();
        for (number, entry) in self.manifest.namespaces.iter().enumerate() {
            let wanted = entry.chunks.iter().filter(|chunk| ordinals.contains(&chunk.ordinal));
            let chunks: Vec<_> = wanted.collect();
            if !chunks.is_empty() {
                parts.push(Part { entry, chunks, name: format!("rehearsed.{number}") });
            }
        }
        if parts.iter().map(|part| part.chunks.len()).sum::<usize>() != ordinals.len() {
            return Err(Error::new(ErrorKind::Internal, "rehearse a chunk that the manifest has not"));
        }
        Ok(parts)
    }

    /// The buckets of a time series come into an ordinary collection, as in the staging of a restore.
    async fn create(&self, part: &Part<'_>) -> Result<()> {
        let options = creation_options(&part.entry.namespace)?;
        let created = self.target().create(self.database(), &part.name, &options).await;
        created.map_err(|why| part.told(why))
    }

    async fn fill(&self, part: &Part<'_>) -> Result<()> {
        for chunk in &part.chunks {
            super::time_for_a_chunk(self.rehearsal.clock)?;
            let mut reads = 1;
            let inserted = loop {
                match self.insert(part, chunk).await {
                    // Damaged on its way, perhaps. What was inserted is skipped by the next try.
                    Err(why) if why.kind() == ErrorKind::Corrupt && reads < super::READS_MAX => reads += 1,
                    other => break other,
                }
            };
            inserted.map_err(|why| part.told_of(chunk, why))?;
        }
        Ok(())
    }

    async fn insert(&self, part: &Part<'_>, chunk: &ManifestChunk) -> Result<()> {
        let Rehearsal { store, keys, .. } = self.rehearsal;
        let (target, database, name) = (self.target(), self.database(), part.name.as_str());
        let rules = InsertRules { ordered: part.entry.namespace.is_capped() };
        let which = (self.manifest, part.entry, chunk);
        let give = |batch: Bytes| target.insert(database, name, batch, rules);
        read_chunk(store, keys, self.manifest.place(), which, Hashing::Compare, give).await
    }

    /// How many were built.
    async fn build_indexes(&self, part: &Part<'_>) -> Result<u64> {
        let indexes = index_specs(&part.entry.namespace)?;
        if !indexes.is_empty() {
            let built = self.target().create_indexes(self.database(), &part.name, &indexes).await;
            built.map_err(|why| part.told(why.while_doing("build its indexes")))?;
        }
        Ok(u64::try_from(indexes.len()).unwrap_or(u64::MAX))
    }

    /// How many documents there are.
    async fn read_back(&self, part: &Part<'_>, uuid: CollectionUuid) -> Result<u64> {
        let mut all = 0;
        for chunk in &part.chunks {
            super::time_for_a_chunk(self.rehearsal.clock)?;
            let read = ChunkRead {
                database: self.database().to_owned(),
                name: part.name.clone(),
                uuid,
                range: chunk.range.clone(),
                at: None,
                document_bytes_hint: chunk.stored.bson_bytes / chunk.stored.documents.max(1),
            };
            let told = |why| part.told_of(chunk, why);
            let stream = self.target().read(&read).await.map_err(told)?;
            let (documents, hash) = count_and_hash(stream).await.map_err(told)?;
            let differs = |what: String| Err(told(Error::new(ErrorKind::ValidationFailed, what)));
            if documents != chunk.stored.documents {
                return differs(format!("{documents} documents came back of {}", chunk.stored.documents));
            }
            if hash != chunk.stored.document_hash {
                return differs("a document came back as another".to_owned());
            }
            all += documents;
        }
        Ok(all)
    }

    async fn count(&self, checks: &[&Check], parts: &[Part<'_>]) -> Result<Vec<CheckCount>> {
        let mut counts = Vec::new();
        for check in checks {
            let part = parts.iter().find(|part| part.entry.namespace.name == check.collection);
            let count = match part {
                Some(part) => self.target().count(self.database(), &part.name, &check.filter).await,
                None => Ok(0),
            };
            let count = count.map_err(|why| why.while_doing(format!("count for check {:?}", check.name)))?;
            counts.push(check.counted(count));
        }
        Ok(counts)
    }

    /// Brings back what could delete or refuse documents, and compares options and indexes as a restore does before it
    /// swaps.
    async fn complete_metadata(&self, parts: &[Part<'_>]) -> Result<()> {
        let ordinary = || parts.iter().filter(|it| it.entry.namespace.kind == NamespaceKind::Collection);
        for part in ordinary() {
            for fields in last_options(&part.entry.namespace)? {
                let modified = self.target().modify(self.database(), &part.name, &fields).await;
                modified.map_err(|why| part.told(why))?;
            }
        }
        let now = self.target().namespaces(self.database()).await?;
        let now = by_name(&now);
        for part in ordinary() {
            let found = now.get(part.name.as_str()).ok_or_else(|| part.vanished())?;
            compare_whole(part.entry, found).map_err(|why| why.hint(OTHER_SERVER))?;
        }
        Ok(())
    }
}

impl Part<'_> {
    /// A failure with what was rehearsed.
    fn told(&self, why: Error) -> Error {
        why.while_doing(format!("rehearse {:?}", self.entry.namespace.name))
    }

    /// A failure with the chunk that was rehearsed.
    fn told_of(&self, chunk: &ManifestChunk, why: Error) -> Error {
        let is_damaged = matches!(why.kind(), ErrorKind::Corrupt | ErrorKind::ValidationFailed);
        let (name, ordinal) = (&self.entry.namespace.name, chunk.ordinal);
        let why = why.while_doing(format!("rehearse {name:?}, chunk {ordinal}"));
        if is_damaged { why.hint(DAMAGED) } else { why }
    }

    fn vanished(&self) -> Error {
        self.told(Error::new(ErrorKind::Transient, "find it again: it vanished"))
    }
}

fn by_name(namespaces: &[Namespace]) -> HashMap<&str, &Namespace> {
    namespaces.iter().map(|it| (it.name.as_str(), it)).collect()
}
