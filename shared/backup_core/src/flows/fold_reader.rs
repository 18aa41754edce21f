//! The fold, streaming: the documents of a range as they were at an instant, from the chunks of a base and the changes
//! since.
//!
//! The changes of the range are held, document by document; the chunks pass by. Where the changes would take too much
//! memory, the range is folded in several passes, each over a part of it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::bson::{IdKey, IdRange, IdValue, KeyRange, split_documents};
use crate::document_hash::DocumentHash;
use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::fold::documents::{DocumentChange, Pending};
use crate::format::{FoldedChunk, Manifest, ManifestChunk, ManifestNamespace};
use crate::id::{ClusterTime, CollectionUuid};
use crate::namespace::{Label, NamespaceKind};
use crate::plan::point_in_time::PointInTime;
use crate::ports::{DataKeys, ObjectStore};

use super::chunk_reader::{BATCH_BYTES, BATCH_DOCUMENTS, Hashing, read_chunk};
use super::slices::Slices;

/// What a document with changes takes beside them: its key, and its place in the map.
const ENTRY_BYTES: u64 = 128;

/// A chunk of the base, with its collection there.
pub(super) type BaseChunk<'a> = (&'a Manifest, &'a ManifestNamespace, &'a ManifestChunk);

/// What is folded.
pub(super) struct Unit<'a> {
    /// Its number.
    pub(super) ordinal: u32,
    /// The collection.
    pub(super) collection: CollectionUuid,
    /// The `_id`s.
    pub(super) range: &'a IdRange,
    /// Chunks of the base that together hold the range, in order; none for a collection that came later.
    pub(super) bases: Vec<BaseChunk<'a>>,
    /// The instant, included.
    pub(super) until: ClusterTime,
    /// The collection as it is at that instant.
    pub(super) entry: &'a ManifestNamespace,
}

impl<'a> Unit<'a> {
    /// What is folded for `chunk` of the database as of an instant, from the backup with manifest `base`.
    pub(super) fn of(
        at: &PointInTime,
        base: &'a Manifest,
        entry: &'a ManifestNamespace,
        chunk: &'a ManifestChunk,
    ) -> Result<Self> {
        let strange =
            || Error::new(ErrorKind::Internal, format!("fold unit {}: the plan lacks it", chunk.ordinal));
        let unit = at.units.iter().find(|it| it.ordinal == chunk.ordinal).ok_or_else(strange)?;
        let find = |ordinal: &u32| {
            let found = base.chunks().find(|(_, chunk)| chunk.ordinal == *ordinal);
            found.map(|(namespace, chunk)| (base, namespace, chunk)).ok_or_else(strange)
        };
        Ok(Self {
            ordinal: chunk.ordinal,
            collection: entry.namespace.uuid.ok_or_else(strange)?,
            range: &chunk.range,
            bases: unit.bases.iter().map(find).collect::<Result<_>>()?,
            until: at.time,
            entry,
        })
    }

    /// Whether the changes can be assigned; else the documents stay those of the base.
    fn is_followed(&self) -> bool {
        self.entry.label != Label::BaseOnly && self.entry.namespace.kind == NamespaceKind::Collection
    }

    /// Whether the base was read while it changed, so that some changes are in it already.
    fn is_fuzzy(&self) -> bool {
        self.entry.label == Label::Fuzzy
    }
}

/// What holds the changes.
#[derive(Clone, Copy)]
pub(super) struct FoldReader<'a> {
    pub(super) store: &'a dyn ObjectStore,
    pub(super) keys: &'a dyn DataKeys,
    pub(super) slices: &'a Slices,
    /// Changes held at a time, in bytes. Those of one document are held whatever they take.
    pub(super) pending_bytes_max: u64,
}

impl FoldReader<'_> {
    /// Folds `unit`, and gives its documents in batches to `give`: those of the base in its order, then what came later.
    pub(super) async fn fold<F: Future<Output = Result<()>>>(
        &self,
        unit: &Unit<'_>,
        give: impl FnMut(Bytes) -> F,
    ) -> Result<FoldedChunk> {
        self.fold_on(unit, self.begin(unit).await?, give).await
    }

    /// Loads the first changes of `unit`.
    pub(super) async fn begin(&self, unit: &Unit<'_>) -> Result<Pass> {
        self.load(unit, None).await
    }

    /// As [`FoldReader::fold`], after [`FoldReader::begin`].
    pub(super) async fn fold_on<F: Future<Output = Result<()>>>(
        &self,
        unit: &Unit<'_>,
        first: Pass,
        mut give: impl FnMut(Bytes) -> F,
    ) -> Result<FoldedChunk> {
        let figures = FoldedChunk {
            ordinal: unit.ordinal,
            documents: 0,
            bson_bytes: 0,
            document_hash: DocumentHash::default(),
        };
        let mut output = Output { figures, batch: Vec::new(), batch_documents: 0, ready: Vec::new() };
        let mut pass = first;
        loop {
            let next = pass.upper.clone();
            output = self.stream(unit, pass, output, &mut give).await?;
            if next.is_none() {
                break;
            }
            pass = self.load(unit, next).await?;
        }
        output.close_batch();
        for batch in output.ready {
            give(batch).await?;
        }
        Ok(output.figures)
    }

    /// Loads the changes of as much of the range, from `lower` on, as memory takes.
    async fn load(&self, unit: &Unit<'_>, lower: Option<IdKey>) -> Result<Pass> {
        let range = KeyRange::new(unit.range)?;
        let is_cut = !unit.range.is_all() || lower.is_some();
        let mut pass = Pass { range, is_cut, lower, upper: None, pending: BTreeMap::new(), bytes: 0 };
        if !unit.is_followed() || !self.slices.has_changes_of(unit.collection) {
            return Ok(pass);
        }
        let bases = unit.bases.iter().map(|(manifest, _, chunk)| {
            let since = chunk.stored.cluster_time.unwrap_or(manifest.cluster_time);
            Ok((KeyRange::new(&chunk.range)?, since))
        });
        let bases: Vec<(KeyRange, ClusterTime)> = bases.collect::<Result<_>>()?;
        // Of a capped collection the order of insertion counts; it is small.
        let is_capped = unit.entry.namespace.is_capped();
        let bytes_max = if is_capped { u64::MAX } else { self.pending_bytes_max };
        self.slices
            .each_of_collection(self.store, unit.collection, |event| {
                let Some((key, change)) = DocumentChange::of(&event.change)? else { return Ok(()) };
                let since = bases.iter().find(|(range, _)| range.contains(&key)).map(|(_, since)| *since);
                if event.time <= unit.until && since.is_none_or(|since| event.time > since) {
                    pass.push(key, change, bytes_max);
                }
                Ok(())
            })
            .await?;
        Ok(pass)
    }

    async fn stream<F: Future<Output = Result<()>>>(
        &self,
        unit: &Unit<'_>,
        pass: Pass,
        output: Output,
        give: &mut impl FnMut(Bytes) -> F,
    ) -> Result<Output> {
        let mut folding =
            Folding { pass, output, is_fuzzy: unit.is_fuzzy(), is_capped: unit.entry.namespace.is_capped() };
        for which @ (manifest, _, _) in &unit.bases {
            read_chunk(self.store, self.keys, manifest.place(), *which, Hashing::Later, |batch| {
                let taken = folding.take(&batch);
                // Futures do nothing before they are awaited.
                let given: Vec<F> = folding.output.ready.drain(..).map(&mut *give).collect();
                async move {
                    taken?;
                    for one in given {
                        one.await?;
                    }
                    Ok(())
                }
            })
            .await?;
        }
        let mut output = folding.finish()?;
        for batch in output.ready.drain(..) {
            give(batch).await?;
        }
        Ok(output)
    }
}

/// The changes of a part of the range.
pub(super) struct Pass {
    range: KeyRange,
    /// Whether documents of the base may lie outside of it.
    is_cut: bool,
    lower: Option<IdKey>,
    upper: Option<IdKey>,
    /// By `_id`, with the order in which they came first.
    pending: BTreeMap<IdKey, (u64, Pending)>,
    bytes: u64,
}

impl Pass {
    /// Whether nothing changed.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    fn contains(&self, key: &IdKey) -> bool {
        self.range.contains(key)
            && self.lower.as_ref().is_none_or(|lower| key >= lower)
            && self.upper.as_ref().is_none_or(|upper| key < upper)
    }

    fn push(&mut self, key: IdKey, change: DocumentChange, bytes_max: u64) {
        if !self.contains(&key) {
            return;
        }
        let number = u64::try_from(self.pending.len()).unwrap_or(u64::MAX);
        let (_, pending) = self.pending.entry(key).or_insert_with(|| (number, Pending::default()));
        self.bytes -= bytes_of(pending);
        pending.push(change);
        self.bytes += bytes_of(pending);
        if self.bytes <= bytes_max || self.pending.len() < 2 {
            return;
        }
        if let Some(middle) = self.pending.keys().nth(self.pending.len() / 2).cloned() {
            let later = self.pending.split_off(&middle);
            self.bytes -= later.values().map(|(_, pending)| bytes_of(pending)).sum::<u64>();
            self.upper = Some(middle);
        }
    }
}

/// None for a document that has no changes yet.
fn bytes_of(pending: &Pending) -> u64 {
    if pending.is_empty() {
        return 0;
    }
    ENTRY_BYTES + u64::try_from(pending.bytes()).unwrap_or(u64::MAX)
}

/// Documents on their way out.
struct Output {
    figures: FoldedChunk,
    batch: Vec<u8>,
    batch_documents: u32,
    ready: Vec<Bytes>,
}

impl Output {
    fn push(&mut self, document: &[u8]) {
        self.figures.documents += 1;
        self.figures.bson_bytes += u64::try_from(document.len()).unwrap_or(u64::MAX);
        self.figures.document_hash.add(document);
        self.batch.extend_from_slice(document);
        self.batch_documents += 1;
        if self.batch.len() >= BATCH_BYTES || self.batch_documents >= BATCH_DOCUMENTS {
            self.close_batch();
        }
    }

    fn close_batch(&mut self) {
        if !self.batch.is_empty() {
            self.ready.push(std::mem::take(&mut self.batch).into());
            self.batch_documents = 0;
        }
    }
}

/// One pass over the base.
struct Folding {
    pass: Pass,
    output: Output,
    is_fuzzy: bool,
    is_capped: bool,
}

impl Folding {
    fn take(&mut self, batch: &[u8]) -> Result<()> {
        for document in split_documents(batch) {
            let document = document?;
            if self.pass.pending.is_empty() && !self.pass.is_cut {
                self.output.push(document);
                continue;
            }
            let id = IdValue::of_document(document)?;
            let key = IdKey::new(id.ok_or_else(|| corrupt("fold a document: it has no _id"))?)?;
            if !self.pass.contains(&key) {
                continue;
            }
            match self.pass.pending.remove(&key) {
                Some((_, pending)) => self.emit(&pending, Some(document))?,
                None => self.output.push(document),
            }
        }
        Ok(())
    }

    /// What is left was not in the base: it came later.
    fn finish(mut self) -> Result<Output> {
        let mut left: Vec<(u64, Pending)> = std::mem::take(&mut self.pass.pending).into_values().collect();
        if self.is_capped {
            left.sort_by_key(|(number, _)| *number); // the order of insertion
        }
        for (_, pending) in &left {
            self.emit(pending, None)?;
        }
        Ok(self.output)
    }

    fn emit(&mut self, pending: &Pending, base: Option<&[u8]>) -> Result<()> {
        let folded = if self.is_fuzzy { pending.fold_tolerantly(base)? } else { pending.fold(base)? };
        if let Some(document) = folded {
            self.output.push(&document);
        }
        Ok(())
    }
}
