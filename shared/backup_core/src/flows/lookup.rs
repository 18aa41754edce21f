//! One document as it was, straight from the bucket: single frames of a base's chunk, and of the slices only those of
//! its collection. What an operator's `get` and `history` do.

use crate::bson::{IdKey, IdValue, KeyRange, split_documents};
use crate::compress::{FrameEntry, decompress_whole};
use crate::error::{Error, ErrorKind, Result};
use crate::fold::documents::{DocumentChange, Pending};
use crate::format::{Manifest, ManifestNamespace};
use crate::id::{ClusterTime, OperationId, SourceName};
use crate::namespace::Label;
use crate::operation::{OperationKind, RestoreTime};
use crate::ports::{Catalog, DataKeys, ObjectStore, Timeline};

use super::fold_reader::BaseChunk;
use super::plan_synthesis::frames;
use super::point_in_time::{Oldest, Purpose, database_at, find_base, find_oldest_base};
use super::slices::Slices;

/// What is read.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service.
    pub keys: &'a dyn DataKeys,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The timeline.
    pub timeline: &'a dyn Timeline,
}

/// Which document.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The protected cluster.
    pub source: SourceName,
    /// The database.
    pub database: String,
    /// The collection's name at the instant that is asked for.
    pub collection: String,
    /// The document's `_id`.
    pub id: IdValue,
    /// The instant; of a history, its end.
    pub at: RestoreTime,
}

/// What a document was from an instant on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Since when; of the first one, since when it is known.
    pub since: ClusterTime,
    /// The document's BSON; none while there was none.
    pub document: Option<Vec<u8>>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The backup it was folded from.
    pub base: OperationId,
    /// The instant that was asked for.
    pub time: ClusterTime,
    /// How exactly the collection is held.
    pub label: Label,
    /// Why it is not exact.
    pub reason: Option<String>,
    /// Its versions, oldest first: exactly one where one instant was asked for.
    pub versions: Vec<Version>,
}

/// The document as it was at one instant.
pub async fn document_at(ports: Ports<'_>, wanted: &Wanted) -> Result<Found> {
    let (base, time) = find_base(ports.catalog, ports.timeline, &wanted.database, wanted.at).await?;
    let found = versions(ports, wanted, base, time).await?;
    let last = found.versions.last().cloned();
    Ok(Found { versions: last.into_iter().collect(), ..found })
}

/// Every version of the document in the window of the instant, up to that instant.
pub async fn history(ports: Ports<'_>, wanted: &Wanted) -> Result<Found> {
    let Oldest { base, time } =
        find_oldest_base(ports.catalog, ports.timeline, &wanted.database, wanted.at).await?;
    versions(ports, wanted, base, time).await
}

async fn versions(ports: Ports<'_>, wanted: &Wanted, base: OperationId, time: ClusterTime) -> Result<Found> {
    let Ports { store, keys, catalog, timeline } = ports;
    let row = catalog.operation(OperationKind::Backup, base).await?;
    let manifest = super::open_manifest(store, keys, &row).await?;
    let at = database_at(store, keys, timeline, &manifest, time, Purpose::Restore).await?;
    let entry = at.manifest.namespaces.iter().find(|it| it.namespace.name == wanted.collection);
    let entry = entry.ok_or_else(|| no_such_collection(wanted, time))?;
    let collection = entry.namespace.uuid.ok_or_else(|| no_such_collection(wanted, time))?;
    let key = IdKey::new(wanted.id.clone())?;
    let (since, document) = in_base(ports, &manifest, entry, &key).await?;
    let mut versions = vec![Version { since, document }];
    let slices = Slices::open(store, keys, timeline, wanted.source, manifest.cluster_time, time).await?;
    let mut changes = Vec::new();
    slices
        .each_of_collection(store, collection, |event| {
            if let Some((of, change)) = DocumentChange::of(&event.change)?
                && of == key
                && event.time > since
            {
                changes.push((event.time, change));
            }
            Ok(())
        })
        .await?;
    for (since, change) in changes {
        let before = versions.last().and_then(|it| it.document.as_deref());
        let mut pending = Pending::default();
        pending.push(change);
        let is_fuzzy = entry.label == Label::Fuzzy;
        let document = if is_fuzzy { pending.fold_tolerantly(before)? } else { pending.fold(before)? };
        match versions.last_mut() {
            // Within a transaction, only its end was ever seen.
            Some(last) if last.since == since => last.document = document,
            _ => versions.push(Version { since, document }),
        }
    }
    Ok(Found { base, time, label: entry.label, reason: entry.reason.clone(), versions })
}

fn no_such_collection(wanted: &Wanted, time: ClusterTime) -> Error {
    let what =
        format!("look into {:?}.{:?}: there was no such collection", wanted.database, wanted.collection);
    Error::new(ErrorKind::NotFound, what)
        .hint(format!("at {} UTC; it may have had another name then", time.utc()))
}

/// The document in the base, and the instant of its chunk.
async fn in_base(
    ports: Ports<'_>,
    base: &Manifest,
    entry: &ManifestNamespace,
    key: &IdKey,
) -> Result<(ClusterTime, Option<Vec<u8>>)> {
    let mut since = base.cluster_time;
    for (namespace, chunk) in base.chunks().filter(|(it, _)| it.namespace.uuid == entry.namespace.uuid) {
        if KeyRange::new(&chunk.range)?.contains(key) {
            since = chunk.stored.cluster_time.unwrap_or(since);
            let found = in_chunk(ports, (base, namespace, chunk), key).await?;
            return Ok((since, found));
        }
    }
    Ok((since, None))
}

/// Reads the frames of a chunk one by one, the likeliest first, until the document is found.
async fn in_chunk(ports: Ports<'_>, which: BaseChunk<'_>, key: &IdKey) -> Result<Option<Vec<u8>>> {
    let (ranges, entries) = frames(ports.store, ports.keys, which).await?;
    for frame in likeliest_first(entries, key)? {
        let stored = ranges.read(ports.store, frame.offset, frame.stored_bytes).await?;
        let plain = decompress_whole(&stored, frame.plain_bytes)?;
        for document in split_documents(&plain) {
            let document = document?;
            let id = IdValue::of_document(document)?.map(IdKey::new).transpose()?;
            if id.as_ref() == Some(key) {
                return Ok(Some(document.to_vec()));
            }
        }
    }
    Ok(None)
}

/// Most chunks are in the order of `_id`, so the frame is the last one that begins at the document or before it.
fn likeliest_first(mut frames: Vec<FrameEntry>, key: &IdKey) -> Result<Vec<FrameEntry>> {
    let mut likeliest = None;
    for (number, frame) in frames.iter().enumerate() {
        let first = frame.first_id.clone().map(IdKey::new).transpose()?;
        if first.is_some_and(|first| first <= *key) {
            likeliest = Some(number);
        }
    }
    if let Some(number) = likeliest {
        frames.swap(0, number);
    }
    Ok(frames)
}
