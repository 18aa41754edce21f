//! `seal-backup`: looks at the metadata again, proves that every range is there exactly once, writes the manifest.
//!
//! From the moment the manifest is stored the backup exists. The lease is checked just before, so that a holder that
//! was taken over does not seal.

use std::collections::HashMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use crate::audit::iso_8601;
use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::format::{
    BackupPlan, Captured, ChunkOutcome, ChunkResult, Consistency, EvidenceKey, MANIFEST_FORMAT, Manifest,
    ManifestChunk, ManifestNamespace, ObjectContext, ObjectKey, ObjectKind, PlannedNamespace, seal_json,
};
use crate::id::{ClusterTime, CollectionUuid, OperationId};
use crate::namespace::{Label, Namespace, OwnName};
use crate::operation::{Operation, OperationKind, OperationState};
use crate::ports::{Catalog, Clock, DataKeys, ObjectStore, PutOutcome, Source};

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The source.
    pub source: &'a dyn Source,
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service (to open the plan and seal the manifest).
    pub keys: &'a dyn DataKeys,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for backup `id`.
pub async fn run(ports: Ports<'_>, id: OperationId) -> Result<()> {
    let mut operation = ports.catalog.operation(OperationKind::Backup, id).await?;
    ports.catalog.check_lease(&operation).await?;
    if operation.state != OperationState::Running {
        return Ok(()); // a repeat: it is sealed
    }
    let opened = super::open_plan(ports.store, ports.keys, &operation).await?;
    let plan = &opened.value;
    let ordinals =
        plan.namespaces.iter().flat_map(|it| it.chunks.iter().map(|chunk| chunk.ordinal)).collect();
    let results = read_results(ports.store, &operation, &opened.evidence, ordinals).await?;
    let now = ports.source.namespaces(&operation.database).await?;
    let ended = ports.source.cluster_time().await?; // `now` was listed before this
    let manifest = assemble(&operation, plan, results, &now, iso_8601(ports.clock.now_millis()))?;
    // What was read later than T, or was gone by then, is as it was at some instant up to the end.
    let is_of_one_instant = manifest.consistency == Consistency::SingleInstant
        && plan.metadata_is_exact
        && manifest.lost() == 0
        && manifest.namespaces.iter().all(|it| it.label != Label::Fuzzy);
    let restorable_from = if is_of_one_instant { manifest.cluster_time } else { ended };
    let Ports { store, keys, catalog, .. } = ports;
    store_manifest(store, keys, catalog, &mut operation, &manifest, restorable_from).await
}

/// Stores the manifest unless there is one, and notes it in the row: the backup exists.
pub(super) async fn store_manifest(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    catalog: &dyn Catalog,
    operation: &mut Operation,
    manifest: &Manifest,
    restorable_from: ClusterTime,
) -> Result<()> {
    let context = ObjectContext::of_operation(ObjectKind::Manifest, operation.source, operation.id);
    let sealed = seal_json(keys, context, manifest).await?;
    catalog.check_lease(operation).await?;
    let key = ObjectKey::Manifest(operation.backup_place()?);
    let stored = match store.put_if_absent(key, sealed.clone().into()).await? {
        PutOutcome::Stored => sealed.into(),
        // An earlier run of the step was killed after its put, or runs beside: that manifest is the backup's.
        PutOutcome::AlreadyThere => store.get(key, super::SEALED_BYTES_MAX).await?,
    };
    operation.state = OperationState::Sealed;
    operation.totals = manifest.totals();
    let detail = operation.backup_mut()?;
    detail.lost = manifest.lost();
    detail.consistency = Some(manifest.consistency);
    detail.restorable_from = Some(restorable_from);
    detail.manifest_sha256 = Some(hex::encode(Sha256::digest(&stored)));
    catalog.update_operation(operation).await
}

/// Reads every chunk's result and checks that its object is there with its length.
pub(super) async fn read_results(
    store: &dyn ObjectStore,
    operation: &Operation,
    evidence: &EvidenceKey,
    ordinals: Vec<u32>,
) -> Result<HashMap<u32, ChunkOutcome>> {
    let place = operation.backup_place()?;
    stream::iter(ordinals)
        .map(|ordinal| async move {
            let key = ObjectKey::ChunkResult(place, ordinal);
            let result: ChunkResult = super::read_evidence(store, evidence, key).await?;
            if result.ordinal != ordinal {
                return Err(corrupt(format!("read the result of chunk {ordinal}: it is another chunk's")));
            }
            if let ChunkOutcome::Captured(captured) = &result.outcome {
                let size = store.size(ObjectKey::Chunk(place, ordinal, captured.attempt)).await?;
                if size != Some(captured.stored_bytes) {
                    return Err(corrupt(format!(
                        "seal chunk {ordinal}: its object is missing or has another length"
                    )));
                }
            }
            Ok((ordinal, result.outcome))
        })
        .buffer_unordered(super::READS_AT_ONCE)
        .try_collect()
        .await
}

/// The manifest, from the plan, the results and the metadata as it is now.
fn assemble(
    operation: &Operation,
    plan: &BackupPlan,
    mut results: HashMap<u32, ChunkOutcome>,
    now: &[Namespace],
    sealed_at: String,
) -> Result<Manifest> {
    let by_uuid: HashMap<CollectionUuid, &Namespace> =
        now.iter().filter_map(|it| Some((it.uuid?, it))).collect();
    let mut namespaces = Vec::with_capacity(plan.namespaces.len());
    for planned in &plan.namespaces {
        namespaces.push(assemble_namespace(plan, planned, &mut results, &by_uuid)?);
    }
    name_each_once(plan, &mut namespaces);
    add_created_meanwhile(operation, plan, now, &mut namespaces);
    let another_time =
        |chunk: &ManifestChunk| chunk.stored.cluster_time.is_some_and(|time| time != plan.cluster_time);
    let mosaic = namespaces.iter().any(|namespace| namespace.chunks.iter().any(another_time));
    let manifest = Manifest {
        format: MANIFEST_FORMAT,
        backup: operation.id,
        source: operation.source,
        database: operation.database.clone(),
        collections: operation.collections.clone(),
        trigger: operation.backup()?.trigger,
        server_version: plan.server_version.clone(),
        cluster_time: plan.cluster_time,
        consistency: if mosaic { Consistency::Mosaic } else { Consistency::SingleInstant },
        sealed_at,
        namespaces,
        folded_from: None,
    };
    manifest.check()?;
    Ok(manifest)
}

/// A collection that was renamed over another one would have that one's name: both keep the names they had at T.
fn name_each_once(plan: &BackupPlan, entries: &mut [ManifestNamespace]) {
    loop {
        let names: Vec<String> = entries.iter().map(|entry| entry.namespace.name.clone()).collect();
        let stands_twice = |name: &String| names.iter().filter(|other| *other == name).count() > 1;
        let renamed = entries.iter_mut().zip(&plan.namespaces).find(|(entry, planned)| {
            entry.namespace.name != planned.namespace.name && stands_twice(&entry.namespace.name)
        });
        let Some((entry, planned)) = renamed else { return };
        entry
            .notes
            .push(format!("it took the name {:?} of another collection meanwhile", entry.namespace.name));
        entry.namespace.name.clone_from(&planned.namespace.name);
    }
}

fn assemble_namespace(
    plan: &BackupPlan,
    planned: &PlannedNamespace,
    results: &mut HashMap<u32, ChunkOutcome>,
    now: &HashMap<CollectionUuid, &Namespace>,
) -> Result<ManifestNamespace> {
    let mut entry = ManifestNamespace {
        namespace: planned.namespace.clone(),
        label: planned.label,
        reason: planned.reason.clone(),
        notes: Vec::new(),
        chunks: Vec::new(),
    };
    let mut dropped = false;
    for chunk in &planned.chunks {
        let outcome = results.remove(&chunk.ordinal).ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("seal chunk {}: it has no result", chunk.ordinal))
        })?;
        match outcome {
            ChunkOutcome::Captured(stored) => {
                entry.chunks.push(ManifestChunk {
                    ordinal: chunk.ordinal,
                    range: chunk.range.clone(),
                    stored,
                });
            }
            ChunkOutcome::Dropped if planned.namespace.uuid.is_some_and(|uuid| now.contains_key(&uuid)) => {
                let what = "its result says that its collection was dropped, but it is there";
                return Err(corrupt(format!("seal chunk {}: {what}", chunk.ordinal)));
            }
            ChunkOutcome::Dropped => dropped = true,
        }
    }
    if dropped {
        // Some ranges are gone for good, so the others are no collection.
        entry.label = Label::NotCaptured;
        entry.reason = Some(ManifestNamespace::LOST.to_owned());
        entry.chunks.clear();
        return Ok(entry);
    }
    if !planned.namespace.unfinished_indexes.is_empty() {
        entry
            .notes
            .push("an index was being built when the backup began: it is not part of the backup".to_owned());
    }
    reconcile(plan, planned, &mut entry, now);
    Ok(entry)
}

/// Metadata is exact at the plan's T. Where chunks were read later, the later state is the truer one.
fn reconcile(
    plan: &BackupPlan,
    planned: &PlannedNamespace,
    entry: &mut ManifestNamespace,
    now: &HashMap<CollectionUuid, &Namespace>,
) {
    let read_later = |stored: &Captured| stored.cluster_time.is_some_and(|time| time != plan.cluster_time);
    let later = entry.chunks.iter().any(|chunk| read_later(&chunk.stored));
    if !plan.metadata_is_exact {
        entry.notes.push(
            "collections or indexes kept changing when T was taken: metadata is of just after T".to_owned(),
        );
    }
    let Some(uuid) = planned.namespace.uuid else { return };
    match now.get(&uuid) {
        None if !entry.chunks.is_empty() => {
            entry.notes.push("dropped while the backup ran, after it was read".to_owned());
        }
        Some(current) if !current.is_same_state(&planned.namespace) => {
            if later {
                entry.notes.push(
                    "name, options or indexes changed while the backup ran: they are as at its end"
                        .to_owned(),
                );
                entry.namespace = (*current).clone();
                if OwnName::parse(&current.name).is_some() {
                    // A restore moved it aside meanwhile; that name is not its own.
                    entry.namespace.name.clone_from(&planned.namespace.name);
                }
            } else {
                entry.notes.push(
                    "name, options or indexes changed while the backup ran: they are as at T".to_owned(),
                );
            }
        }
        _ => {}
    }
}

/// What came into being after T is not in the backup, and the backup says so. Under a name that was planned, the
/// planned entry says it.
fn add_created_meanwhile(
    operation: &Operation,
    plan: &BackupPlan,
    now: &[Namespace],
    entries: &mut Vec<ManifestNamespace>,
) {
    let is_planned = |it: &Namespace| match it.uuid {
        Some(uuid) => plan.namespaces.iter().any(|planned| planned.namespace.uuid == Some(uuid)),
        None => plan.namespaces.iter().any(|planned| planned.namespace.name == it.name),
    };
    let is_wanted =
        |it: &Namespace| operation.collections.is_empty() || operation.collections.contains(&it.name);
    for it in now.iter().filter(|it| OwnName::parse(&it.name).is_none() && is_wanted(it) && !is_planned(it)) {
        if let Some(entry) = entries.iter_mut().find(|entry| entry.namespace.name == it.name) {
            entry.notes.push("another collection has this name since: it is not in the backup".to_owned());
            continue;
        }
        entries.push(ManifestNamespace {
            namespace: it.clone(),
            label: Label::NotCaptured,
            reason: Some(ManifestNamespace::LATER.to_owned()),
            notes: Vec::new(),
            chunks: Vec::new(),
        });
    }
}
