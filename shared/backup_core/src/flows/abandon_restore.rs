//! `abandon-restore`: after a restore failed, brings back what was live, should a swap have been cut off, and drops
//! the staging collections.

use crate::error::Result;
use crate::id::OperationId;
use crate::operation::{OperationKind, OperationState};
use crate::ports::{Catalog, DataKeys, ObjectStore, Target};

use super::swap::{swap_back, tidy_up};

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The target.
    pub target: &'a dyn Target,
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service (to open the plan).
    pub keys: &'a dyn DataKeys,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
}

/// Runs the step for restore `id`.
pub async fn run(ports: Ports<'_>, id: OperationId) -> Result<()> {
    let mut operation = ports.catalog.operation(OperationKind::Restore, id).await?;
    if operation.state == OperationState::Restored || operation.restore()?.dry_run {
        return Ok(());
    }
    // Before it ran, nothing can have been swapped; afterwards only the holder of the lease may touch what is live.
    if operation.state == OperationState::Running {
        ports.catalog.check_lease(&operation).await?;
        // A run of `finish-restore` that is still alive somewhere cannot call it restored after this.
        ports.catalog.update_operation(&mut operation).await?;
        let plan = super::open_restore_plan(ports.store, ports.keys, &operation).await?;
        swap_back(ports.target, id, &plan).await?;
    }
    tidy_up(ports.target, id, &operation.database).await
}
