//! What keeps the promise of the backups: drills, and the removal of what is no longer to be kept.

use serde::{Deserialize, Serialize};

use super::{Level, Trigger};
use crate::id::{OperationId, RegionName};

/// A rehearsal of a restore: what only it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillDetail {
    /// What started it.
    pub trigger: Trigger,
    /// How far to verify.
    pub level: Level,
    /// The region whose copy is read; none for the region of the stack.
    pub region: Option<RegionName>,
    /// The backup; none asks for the newest good one of the database. Filled in by the plan.
    pub backup: Option<OperationId>,
    /// The highest level that was proved, once it has ended.
    pub reached: Option<Level>,
    /// Chunks that were restored, or read.
    pub chunks: u64,
    /// What the choice of chunks follows from, where only some are restored.
    pub seed: Option<u64>,
}

impl DrillDetail {
    /// A request that nobody has begun to carry out.
    #[must_use]
    pub const fn requested(trigger: Trigger, level: Level, region: Option<RegionName>) -> Self {
        Self { trigger, level, region, backup: None, reached: None, chunks: 0, seed: None }
    }
}

/// A run of the pruner: what only it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneDetail {
    /// What started it.
    pub trigger: Trigger,
    /// Only plan, change nothing.
    pub dry_run: bool,
    /// The operator agreed that more than the configured share goes in one run.
    pub force: bool,
    /// Backups that are kept.
    pub kept: u64,
    /// Backups that were marked to be removed.
    pub marked: u64,
    /// Backups that were removed.
    pub removed: u64,
    /// Backups that are to be removed, but locked.
    pub locked: u64,
    /// Bytes that were freed, in all regions.
    pub freed_bytes: u64,
}

impl PruneDetail {
    /// A request that nobody has begun to carry out.
    #[must_use]
    pub const fn requested(trigger: Trigger, dry_run: bool, force: bool) -> Self {
        Self { trigger, dry_run, force, kept: 0, marked: 0, removed: 0, locked: 0, freed_bytes: 0 }
    }
}
