//! One operation (a backup, a restore, a drill, a run of the pruner) as the catalog knows it: who asked for what, how
//! far it is, how it ended.
//!
//! The row is made by whoever asks; an execution's event carries its id only. Every step reads it, few write it.

mod backup;
mod restore;
mod upkeep;

pub use backup::{BackupDetail, BackupNote, ChainProof, Hold, Level, Removal, Replica, Trigger};
pub use restore::{KeptAside, RestoreDetail, RestoreTime};
pub use upkeep::{DrillDetail, PruneDetail};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::format::{BackupPlace, DrillPlace, Place, PrunePlace, RestorePlace};
use crate::id::{Fence, OperationId, SourceName};
use crate::ports::Resource;

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperationState {
    /// Asked for; no step has run.
    Requested,
    /// A plan exists; a restore that is only planned stays here.
    Planned,
    /// Documents are being moved.
    Running,
    /// The manifest is written: the backup exists.
    Sealed,
    /// Every chunk was read back and found good.
    Verified,
    /// The restored collections are live.
    Restored,
    /// A drill found what it was to prove, or the pruner did what it had planned.
    Done,
    /// It ended without success.
    Failed,
}

impl OperationState {
    /// Whether no step will change it any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Verified | Self::Restored | Self::Done | Self::Failed)
    }
}

impl std::fmt::Display for OperationState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Requested => "requested",
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Sealed => "sealed",
            Self::Verified => "verified",
            Self::Restored => "restored",
            Self::Done => "done",
            Self::Failed => "failed",
        })
    }
}

/// Why an operation failed, as the step that failed told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step.
    pub step: String,
    /// The kind of failure.
    pub kind: ErrorKind,
    /// What was attempted, and why it failed.
    pub message: String,
    /// What the operator can do.
    pub hint: Option<String>,
}

impl Failure {
    /// Stands for the step where an execution ended outside every step.
    pub const STATE_MACHINE: &str = "state machine";

    /// The failure of `step` with `error`.
    #[must_use]
    pub fn of(step: &str, error: &Error) -> Self {
        /// Keeps a row far below the table's 400 KB.
        const MESSAGE_CHARACTERS_MAX: usize = 2000;
        Self {
            step: step.to_owned(),
            kind: error.kind(),
            message: error.to_string().chars().take(MESSAGE_CHARACTERS_MAX).collect(),
            hint: error.hint_text().map(str::to_owned),
        }
    }
}

/// Sums over an operation's chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Collections and views.
    pub namespaces: u64,
    /// Chunks.
    pub chunks: u64,
    /// Documents.
    pub documents: u64,
    /// Bytes of BSON.
    pub bson_bytes: u64,
    /// Bytes stored: compressed and sealed.
    pub stored_bytes: u64,
}

/// What kind of operation it is, with what only that kind has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "most rows are those of backups")]
pub enum Detail {
    /// A backup.
    Backup(BackupDetail),
    /// A restore.
    Restore(RestoreDetail),
    /// A drill.
    Drill(DrillDetail),
    /// A run of the pruner.
    Prune(PruneDetail),
}

/// The kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperationKind {
    /// From the source into the bucket.
    Backup,
    /// From the bucket into a cluster.
    Restore,
    /// From the bucket into a server that is thrown away.
    Drill,
    /// Out of the bucket.
    Prune,
}

impl OperationKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Backup, Self::Restore, Self::Drill, Self::Prune];
}

impl std::fmt::Display for OperationKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::Drill => "drill",
            Self::Prune => "prune",
        })
    }
}

/// A state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pipeline {
    /// Backups that read the source.
    Protect,
    /// Backups that are folded.
    Synthesize,
    /// Copies of backups to other regions.
    Replicate,
    /// Restores.
    Restore,
    /// Drills.
    Drill,
    /// Runs of the pruner.
    Prune,
}

/// One row of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// The protected cluster.
    pub source: SourceName,
    /// The database; empty for the pruner, whose work is on all of them.
    pub database: String,
    /// The collections that were named; empty means all of them.
    pub collections: Vec<String>,
    /// Who asked.
    pub user: String,
    /// How far it is.
    pub state: OperationState,
    /// Its hold on the lease, once it has one.
    pub fence: Option<Fence>,
    /// Sums, once they are known.
    pub totals: Totals,
    /// When it ended, in milliseconds since 1970 UTC.
    pub finished_millis: Option<u64>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// What only its kind has.
    pub detail: Detail,
    /// Counts the writes of this row: a write with an older count is refused.
    pub revision: u64,
}

impl Operation {
    /// A request that nobody has begun to carry out.
    #[must_use]
    pub fn requested(
        id: OperationId,
        source: SourceName,
        database: String,
        collections: Vec<String>,
        user: String,
        detail: Detail,
    ) -> Self {
        Self {
            id,
            source,
            database,
            collections,
            user,
            state: OperationState::Requested,
            fence: None,
            totals: Totals::default(),
            finished_millis: None,
            failure: None,
            detail,
            revision: 0,
        }
    }

    /// What kind of operation it is.
    #[must_use]
    pub const fn kind(&self) -> OperationKind {
        match self.detail {
            Detail::Backup(_) => OperationKind::Backup,
            Detail::Restore(_) => OperationKind::Restore,
            Detail::Drill(_) => OperationKind::Drill,
            Detail::Prune(_) => OperationKind::Prune,
        }
    }

    /// The state machine that carries it out.
    #[must_use]
    pub const fn pipeline(&self) -> Pipeline {
        match &self.detail {
            Detail::Backup(detail) if detail.folds => Pipeline::Synthesize,
            Detail::Backup(_) => Pipeline::Protect,
            Detail::Restore(_) => Pipeline::Restore,
            Detail::Drill(_) => Pipeline::Drill,
            Detail::Prune(_) => Pipeline::Prune,
        }
    }

    /// What started it.
    #[must_use]
    pub const fn trigger(&self) -> Trigger {
        match &self.detail {
            Detail::Backup(detail) => detail.trigger,
            Detail::Restore(_) => Trigger::Manual,
            Detail::Drill(detail) => detail.trigger,
            Detail::Prune(detail) => detail.trigger,
        }
    }

    /// Whether it only says what it would do.
    #[must_use]
    pub const fn is_dry_run(&self) -> bool {
        match &self.detail {
            Detail::Restore(detail) => detail.dry_run,
            Detail::Prune(detail) => detail.dry_run,
            Detail::Backup(_) | Detail::Drill(_) => false,
        }
    }

    /// The backup that it reads, beside the one it makes, once it has chosen one.
    #[must_use]
    pub const fn used_backup(&self) -> Option<OperationId> {
        match &self.detail {
            Detail::Backup(detail) if detail.folds => detail.folded_from,
            Detail::Backup(detail) => detail.proof_base,
            Detail::Restore(detail) => detail.backup,
            Detail::Drill(detail) => detail.backup,
            Detail::Prune(_) => None,
        }
    }

    /// The detail of a backup.
    pub fn backup(&self) -> Result<&BackupDetail, Error> {
        match &self.detail {
            Detail::Backup(detail) => Ok(detail),
            _ => Err(self.wrong_kind("a backup")),
        }
    }

    /// The detail of a backup, to be changed.
    pub fn backup_mut(&mut self) -> Result<&mut BackupDetail, Error> {
        let error = self.wrong_kind("a backup");
        match &mut self.detail {
            Detail::Backup(detail) => Ok(detail),
            _ => Err(error),
        }
    }

    /// The detail of a restore.
    pub fn restore(&self) -> Result<&RestoreDetail, Error> {
        match &self.detail {
            Detail::Restore(detail) => Ok(detail),
            _ => Err(self.wrong_kind("a restore")),
        }
    }

    /// The detail of a restore, to be changed.
    pub fn restore_mut(&mut self) -> Result<&mut RestoreDetail, Error> {
        let error = self.wrong_kind("a restore");
        match &mut self.detail {
            Detail::Restore(detail) => Ok(detail),
            _ => Err(error),
        }
    }

    /// The detail of a drill.
    pub fn drill(&self) -> Result<&DrillDetail, Error> {
        match &self.detail {
            Detail::Drill(detail) => Ok(detail),
            _ => Err(self.wrong_kind("a drill")),
        }
    }

    /// The detail of a drill, to be changed.
    pub fn drill_mut(&mut self) -> Result<&mut DrillDetail, Error> {
        let error = self.wrong_kind("a drill");
        match &mut self.detail {
            Detail::Drill(detail) => Ok(detail),
            _ => Err(error),
        }
    }

    /// The detail of a run of the pruner.
    pub fn prune(&self) -> Result<&PruneDetail, Error> {
        match &self.detail {
            Detail::Prune(detail) => Ok(detail),
            _ => Err(self.wrong_kind("a run of the pruner")),
        }
    }

    /// The detail of a run of the pruner, to be changed.
    pub fn prune_mut(&mut self) -> Result<&mut PruneDetail, Error> {
        let error = self.wrong_kind("a run of the pruner");
        match &mut self.detail {
            Detail::Prune(detail) => Ok(detail),
            _ => Err(error),
        }
    }

    fn wrong_kind(&self, wanted: &str) -> Error {
        Error::new(ErrorKind::Invalid, format!("use {} as {wanted}", self.id))
    }

    /// Where a backup's objects live.
    pub fn backup_place(&self) -> Result<BackupPlace, Error> {
        Ok(BackupPlace { trigger: self.backup()?.trigger, backup: self.id })
    }

    /// Where a restore's objects live.
    #[must_use]
    pub const fn restore_place(&self) -> RestorePlace {
        RestorePlace(self.id)
    }

    /// Where a drill's objects live.
    #[must_use]
    pub const fn drill_place(&self) -> DrillPlace {
        DrillPlace(self.id)
    }

    /// Where the plan of a run of the pruner lives.
    #[must_use]
    pub const fn prune_place(&self) -> PrunePlace {
        PrunePlace(self.id)
    }

    /// Where its objects live.
    pub fn place(&self) -> Result<Place, Error> {
        Ok(match self.detail {
            Detail::Backup(_) => Place::Backup(self.backup_place()?),
            Detail::Restore(_) => Place::Restore(self.restore_place()),
            Detail::Drill(_) => Place::Drill(self.drill_place()),
            Detail::Prune(_) => Place::Prune(self.prune_place()),
        })
    }

    /// The hold on the lease that its steps write under.
    pub fn held_fence(&self) -> Result<Fence, Error> {
        self.fence.ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("go on with {}: it has no lease", self.id))
        })
    }

    /// What its lease is for: a backup holds its source, a restore the database it writes.
    #[must_use]
    pub fn resource(&self) -> Resource {
        match self.detail {
            Detail::Backup(ref detail) if detail.folds => Resource::Folding,
            Detail::Backup(_) => Resource::Source,
            Detail::Restore(_) => Resource::Target(self.database.clone()),
            Detail::Drill(_) => Resource::Drills,
            Detail::Prune(_) => Resource::Shelves,
        }
    }
}
