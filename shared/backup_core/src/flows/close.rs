//! `close`: ends a backup well, if there is evidence that every chunk was read back and found good.

use std::collections::HashSet;

use bytes::Bytes;
use serde::Serialize;

use crate::audit::{AuditRecord, AuditStatus, iso_8601};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Consistency, ObjectKey, VerifiedChunks, WorkItem, read_work_items};
use crate::id::{ClusterTime, OperationId};
use crate::namespace::Label;
use crate::operation::{ChainProof, OperationKind, OperationState, Totals};
use crate::ports::{Alerts, Catalog, Clock, DataKeys, ObjectStore, Timeline};

/// Work items are short lines; 32,768 of them are below 2 MiB.
const WORK_BYTES_MAX: u64 = 16 * crate::settings::MIB;

pub(super) async fn work_items(store: &dyn ObjectStore, key: ObjectKey) -> Result<Vec<WorkItem>> {
    let mut reads = 1;
    loop {
        let told = |why: Error| why.while_doing(format!("read {}", super::path(key)));
        match read_work_items(&store.get(key, WORK_BYTES_MAX).await?).map_err(told) {
            Err(_) if reads < super::READS_MAX => reads += 1,
            other => return other,
        }
    }
}

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service (to open the manifest).
    pub keys: &'a dyn DataKeys,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The timeline.
    pub timeline: &'a dyn Timeline,
    /// The channels to people.
    pub alerts: &'a dyn Alerts,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// The integrity report beside the manifest. It has no names.
#[derive(Debug, Serialize)]
struct IntegrityReport {
    backup: OperationId,
    cluster_time: ClusterTime,
    consistency: Consistency,
    totals: Totals,
    namespaces_exact: usize,
    namespaces_fuzzy: usize,
    namespaces_base_only: usize,
    namespaces_not_captured: usize,
    manifest_sha256: Option<String>,
    chunks_verified: usize,
    chain_proof: Option<ChainProof>,
    verified_at: String,
}

impl IntegrityReport {
    fn to_json(&self) -> Result<Bytes> {
        let json = serde_json::to_vec(self);
        json.map(Bytes::from).map_err(|why| Error::new(ErrorKind::Internal, "write JSON").because(why))
    }
}

/// Runs the step for backup `id`.
pub async fn run(ports: Ports<'_>, id: OperationId) -> Result<()> {
    let mut operation = ports.catalog.operation(OperationKind::Backup, id).await?;
    let now = ports.clock.now_millis();
    if operation.state == OperationState::Sealed {
        let place = operation.backup_place()?;
        let opened = super::open_manifest_and_key(ports.store, ports.keys, &operation).await?;
        let manifest = &opened.value;
        let mut verified = HashSet::new();
        for item in work_items(ports.store, ObjectKey::BackupWork(place)).await? {
            let key = ObjectKey::Verified(place, item.first);
            let found: VerifiedChunks = super::read_evidence(ports.store, &opened.evidence, key).await?;
            verified.extend(found.ordinals);
        }
        if let Some((_, chunk)) = manifest.chunks().find(|(_, chunk)| !verified.contains(&chunk.ordinal)) {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("close backup {id}: nothing shows that chunk {} was verified", chunk.ordinal),
            ));
        }
        let labelled = |label| manifest.namespaces.iter().filter(|it| it.label == label).count();
        let proof = super::chain_proof::conclude(ports, &operation, &opened).await?;
        let report = IntegrityReport {
            backup: id,
            cluster_time: manifest.cluster_time,
            consistency: manifest.consistency,
            totals: manifest.totals(),
            namespaces_exact: labelled(Label::Exact),
            namespaces_fuzzy: labelled(Label::Fuzzy),
            namespaces_base_only: labelled(Label::BaseOnly),
            namespaces_not_captured: labelled(Label::NotCaptured),
            manifest_sha256: operation.backup()?.manifest_sha256.clone(),
            chunks_verified: verified.len(),
            chain_proof: proof,
            verified_at: iso_8601(now),
        };
        ports.store.put(ObjectKey::BackupReport(place), report.to_json()?).await?;
        // Those of the manifest that is stored: a doubled `seal-backup` may have had another one in mind.
        operation.totals = manifest.totals();
        operation.backup_mut()?.consistency = Some(manifest.consistency);
        operation.backup_mut()?.lost = manifest.lost();
        operation.backup_mut()?.proof = proof;
        operation.state = OperationState::Verified;
        operation.finished_millis = Some(now);
        operation.failure = None;
        ports.catalog.update_operation(&mut operation).await?;
    }
    if operation.state != OperationState::Verified {
        return Err(Error::new(ErrorKind::Internal, format!("close backup {id}: it is {}", operation.state)));
    }
    let finished = operation.finished_millis.unwrap_or(now);
    ports.catalog.append_audit(id, &AuditRecord::of(&operation, AuditStatus::Success, finished)).await?;
    ports.catalog.release_lease(&operation.resource(), id).await
}
