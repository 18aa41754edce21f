//! `seal-synthesis`: proves that every chunk of a folded backup is there, and writes the manifest. From then on the
//! backup exists.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::audit::iso_8601;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    ChunkOutcome, MANIFEST_FORMAT, Manifest, ObjectContext, ObjectKey, ObjectKind, seal_json,
};
use crate::id::OperationId;
use crate::operation::{Operation, OperationKind, OperationState};
use crate::plan::synthesis::SynthesisPlan;
use crate::ports::{Catalog, Clock, DataKeys, ObjectStore, PutOutcome};

use super::seal_backup::read_results;

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
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
    let opened = super::open_synthesis_plan(ports.store, ports.keys, &operation).await?;
    let ordinals = opened.value.at.manifest.chunks().map(|(_, chunk)| chunk.ordinal).collect();
    let results = read_results(ports.store, &operation, &opened.evidence, ordinals).await?;
    let sealed_at = iso_8601(ports.clock.now_millis());
    let manifest = assemble(&operation, opened.value, results, sealed_at)?;
    let context = ObjectContext::of_operation(ObjectKind::Manifest, operation.source, id);
    let sealed = seal_json(ports.keys, context, &manifest).await?;
    ports.catalog.check_lease(&operation).await?;
    let key = ObjectKey::Manifest(operation.backup_place()?);
    let stored = match ports.store.put_if_absent(key, sealed.clone().into()).await? {
        PutOutcome::Stored => sealed.into(),
        // An earlier run of this step was killed after its put, or runs beside: that manifest is the backup's.
        PutOutcome::AlreadyThere => ports.store.get(key, super::SEALED_BYTES_MAX).await?,
    };
    operation.state = OperationState::Sealed;
    operation.totals = manifest.totals();
    let detail = operation.backup_mut()?;
    detail.lost = manifest.lost();
    detail.consistency = Some(manifest.consistency);
    detail.restorable_from = Some(manifest.cluster_time);
    detail.manifest_sha256 = Some(hex::encode(Sha256::digest(&stored)));
    ports.catalog.update_operation(&mut operation).await
}

fn assemble(
    operation: &Operation,
    plan: SynthesisPlan,
    mut results: HashMap<u32, ChunkOutcome>,
    sealed_at: String,
) -> Result<Manifest> {
    let mut manifest = Manifest {
        format: MANIFEST_FORMAT,
        backup: operation.id,
        trigger: operation.backup()?.trigger,
        sealed_at,
        folded_from: Some(plan.base),
        ..plan.at.manifest
    };
    for chunk in manifest.namespaces.iter_mut().flat_map(|entry| &mut entry.chunks) {
        let Some(ChunkOutcome::Captured(stored)) = results.remove(&chunk.ordinal) else {
            let what = format!("seal chunk {}: it has no result", chunk.ordinal);
            return Err(Error::new(ErrorKind::Internal, what));
        };
        chunk.stored = stored;
    }
    manifest.check()?;
    Ok(manifest)
}
