//! `close`: ends a backup well, if there is evidence that every chunk was read back and found good.

use std::collections::HashSet;

use serde::Serialize;

use crate::audit::{AuditRecord, AuditStatus, iso_8601};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Consistency, ObjectKey, VerifiedChunks, read_work_items};
use crate::id::{ClusterTime, OperationId};
use crate::namespace::Label;
use crate::operation::{OperationKind, OperationState, Totals};
use crate::ports::{Catalog, Clock, DataKeys, ObjectStore, Resource};

/// Work items are short lines; 32,768 of them are below 2 MiB.
const WORK_BYTES_MAX: u64 = 16 * crate::settings::MIB;

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service (to open the manifest).
    pub keys: &'a dyn DataKeys,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
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
    verified_at: String,
}

/// Runs the step for backup `id`.
pub async fn run(ports: Ports<'_>, id: OperationId) -> Result<()> {
    let mut operation = ports.catalog.operation(OperationKind::Backup, id).await?;
    let now = ports.clock.now_millis();
    if operation.state == OperationState::Sealed {
        let place = operation.backup_place()?;
        let manifest = super::open_manifest(ports.store, ports.keys, &operation).await?;
        let work = ports.store.get(ObjectKey::BackupWork(place), WORK_BYTES_MAX).await?;
        let mut verified = HashSet::new();
        for item in read_work_items(&work)? {
            let evidence: VerifiedChunks =
                super::read_json(ports.store, ObjectKey::Verified(place, item.first)).await?;
            verified.extend(evidence.ordinals);
        }
        if let Some((_, chunk)) = manifest.chunks().find(|(_, chunk)| !verified.contains(&chunk.ordinal)) {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("close backup {id}: nothing shows that chunk {} was verified", chunk.ordinal),
            ));
        }
        let labelled = |label| manifest.namespaces.iter().filter(|it| it.label == label).count();
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
            verified_at: iso_8601(now),
        };
        ports.store.put(ObjectKey::BackupReport(place), super::write_json(&report)?).await?;
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
    ports.catalog.release_lease(&Resource::Source, id).await
}
