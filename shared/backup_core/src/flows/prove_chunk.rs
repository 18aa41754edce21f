//! `prove-chunk`: proves the chain for the chunks of one work item. What the earlier backup is folded to, at each new
//! chunk's own T, must be what was read from the source: count and document hash.

use crate::bson::KeyRange;
use crate::error::Result;
use crate::format::{Manifest, ManifestChunk, ManifestNamespace, ObjectKey, ProvedChunks, WorkItem};
use crate::id::{ClusterTime, OperationId};
use crate::namespace::{Label, NamespaceKind};
use crate::operation::OperationKind;
use crate::plan::point_in_time::why_not_followed;
use crate::ports::{Catalog, Clock, DataKeys, ObjectStore, Timeline};
use crate::settings::Settings;

use super::fold_reader::{FoldReader, Unit};
use super::slices::Slices;

/// The ports of this step.
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
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for the chunks of `item` of backup `id`.
pub async fn run(ports: Ports<'_>, id: OperationId, item: WorkItem) -> Result<()> {
    let Ports { store, keys, catalog, timeline, clock } = ports;
    let operation = catalog.operation(OperationKind::Backup, id).await?;
    let Some(base) = operation.backup()?.proof_base else { return Ok(()) };
    let opened = super::open_manifest_and_key(store, keys, &operation).await?;
    let base =
        super::open_manifest(store, keys, &catalog.operation(OperationKind::Backup, base).await?).await?;
    let manifest = &opened.value;
    let of_item = || manifest.chunks().filter(|(_, chunk)| item.ordinals().contains(&chunk.ordinal));
    let newest = of_item().filter_map(|(_, chunk)| chunk.stored.cluster_time).max();
    let mut proved = ProvedChunks::default();
    if let Some(newest) = newest {
        let slices = Slices::open(store, keys, timeline, operation.source, base.cluster_time, newest).await?;
        let pending_bytes_max = Settings::default().pending_bytes_max;
        let reader = FoldReader { store, keys, slices: &slices, pending_bytes_max };
        for (entry, chunk) in of_item() {
            super::time_for_a_chunk(clock)?;
            let verdict = prove(reader, &base, entry, chunk).await;
            let verdict = verdict.map_err(|why| why.while_doing(format!("prove chunk {}", chunk.ordinal)))?;
            match verdict {
                Some(true) => proved.equal.push(chunk.ordinal),
                Some(false) => proved.different.push(chunk.ordinal),
                None => proved.skipped.push(chunk.ordinal),
            }
        }
    } else {
        proved.skipped.extend(of_item().map(|(_, chunk)| chunk.ordinal));
    }
    let key = ObjectKey::Proved(operation.backup_place()?, item.first);
    store.put(key, opened.evidence.sign(key, &proved)?).await
}

/// Whether the fold of the base is what was read; none where it cannot be known.
async fn prove(
    reader: FoldReader<'_>,
    base: &Manifest,
    entry: &ManifestNamespace,
    chunk: &ManifestChunk,
) -> Result<Option<bool>> {
    let Some(until) = comparable(base, entry, chunk) else { return Ok(None) };
    let range = KeyRange::new(&chunk.range)?;
    let collection = entry.collection()?;
    let mut bases = Vec::new();
    for (namespace, of_base) in base.chunks().filter(|(it, _)| it.namespace.uuid == Some(collection)) {
        if KeyRange::new(&of_base.range)?.overlaps(&range) {
            bases.push((base, namespace, of_base));
        }
    }
    let unit = Unit { ordinal: chunk.ordinal, collection, range: &chunk.range, bases, until, entry };
    let found = reader.fold(&unit, |_| async { Ok(()) }).await?;
    let stored = &chunk.stored;
    Ok(Some((found.documents, found.document_hash) == (stored.documents, stored.document_hash)))
}

fn comparable(base: &Manifest, entry: &ManifestNamespace, chunk: &ManifestChunk) -> Option<ClusterTime> {
    let of_base = base.namespaces.iter().find(|it| it.namespace.uuid == entry.namespace.uuid);
    let is_exact = |it: &ManifestNamespace| it.label == Label::Exact && why_not_followed(it).is_none();
    let both = is_exact(entry) && of_base.is_none_or(is_exact);
    let until = chunk.stored.cluster_time?;
    (both && entry.namespace.kind == NamespaceKind::Collection && until >= base.cluster_time).then_some(until)
}
