//! `seal-synthesis`: proves that every chunk of a folded backup is there, and writes the manifest. From then on the
//! backup exists.

use std::collections::HashMap;

use crate::audit::iso_8601;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ChunkOutcome, MANIFEST_FORMAT, Manifest};
use crate::id::OperationId;
use crate::operation::{Operation, OperationKind, OperationState};
use crate::plan::synthesis::SynthesisPlan;
use crate::ports::{Catalog, Clock, DataKeys, ObjectStore};

use super::seal_backup::{read_results, store_manifest};

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
    let Ports { store, keys, catalog, .. } = ports;
    let from = manifest.cluster_time;
    store_manifest(store, keys, catalog, &mut operation, &manifest, from).await
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
