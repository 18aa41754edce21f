//! One backup or restore as the catalog knows it: who asked for what, how far it is, how it ended.
//!
//! The row is made by whoever asks; an execution's event carries its id only. Every step reads it, few write it.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::format::{BackupPlace, Consistency, RestorePlace};
use crate::id::{ClusterTime, Fence, OperationId, SourceName};

/// What started a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// A schedule.
    Automated,
    /// A person.
    Manual,
}

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
    /// It ended without success.
    Failed,
}

impl OperationState {
    /// Whether no step will change it any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Verified | Self::Restored | Self::Failed)
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

/// What only a backup has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupDetail {
    /// What started it.
    pub trigger: Trigger,
    /// Whether it may take the lease from another backup.
    pub force: bool,
    /// The T of its plan, once there is one.
    pub cluster_time: Option<ClusterTime>,
    /// Whether all chunks share that T, once it is sealed.
    pub consistency: Option<Consistency>,
    /// SHA-256 of the stored manifest in hexadecimal digits, once it is sealed.
    pub manifest_sha256: Option<String>,
    /// Collections that existed at T but were dropped or replaced before they were read.
    pub lost: u64,
    /// The first instant that it can be folded to, once it is sealed: its T, unless some of it was read later.
    #[serde(default)]
    pub restorable_from: Option<ClusterTime>,
    /// The backup it was folded from, if its documents were not read from the source.
    #[serde(default)]
    pub folded_from: Option<OperationId>,
    /// Whether it is to be folded from an earlier backup, without touching the source.
    #[serde(default)]
    pub folds: bool,
    /// The earlier backup that it is compared with, once there is one.
    #[serde(default)]
    pub proof_base: Option<OperationId>,
    /// What the comparison with the earlier backup found.
    #[serde(default)]
    pub proof: Option<ChainProof>,
    /// What the newest comparison of a later backup with this one found.
    #[serde(default)]
    pub proved_by: Option<ChainProof>,
}

/// What the proof of a chain found: an earlier backup, folded to the instants of a later one, is that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainProof {
    /// The other backup.
    pub with: OperationId,
    /// Chunks of the later one that the fold gave.
    pub equal: u64,
    /// Chunks of the later one that the fold did not give.
    pub different: u64,
    /// Chunks of the later one that cannot be compared.
    pub skipped: u64,
    /// Chunks of the later one that should have been compared, and were not.
    pub unproved: u64,
}

impl BackupDetail {
    /// A request that nobody has begun to carry out.
    #[must_use]
    pub const fn requested(trigger: Trigger, force: bool) -> Self {
        Self {
            trigger,
            force,
            cluster_time: None,
            consistency: None,
            manifest_sha256: None,
            lost: 0,
            restorable_from: None,
            folded_from: None,
            folds: false,
            proof_base: None,
            proof: None,
            proved_by: None,
        }
    }
}

/// A collection that was replaced, and the name under which it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAside {
    /// The name it had.
    pub name: String,
    /// The name it has now.
    pub aside: String,
}

/// What only a restore has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreDetail {
    /// The backup to restore; none asks for the newest good one of the database. Filled in by the plan.
    pub backup: Option<OperationId>,
    /// The whole database is restored: what is live but not in the backup is moved aside too.
    pub full: bool,
    /// The operator agreed that live collections are replaced.
    pub may_replace: bool,
    /// Only plan, change nothing.
    pub dry_run: bool,
    /// What was replaced and where it is kept (the first hundred).
    pub kept_aside: Vec<KeptAside>,
    /// The instant to restore to; none restores what the backup holds. Made exact by the plan.
    #[serde(default)]
    pub at: Option<RestoreTime>,
}

impl RestoreDetail {
    /// A request to restore the newest good backup, that replaces nothing.
    #[must_use]
    pub const fn requested(full: bool) -> Self {
        Self { backup: None, full, may_replace: false, dry_run: false, kept_aside: Vec::new(), at: None }
    }
}

/// An instant to restore to, as an operator gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreTime {
    /// The newest one that is restorable.
    Latest,
    /// This one; every change of it is in.
    At(ClusterTime),
}

impl std::str::FromStr for RestoreTime {
    type Err = Error;

    /// Reads `latest`, `SECONDS,ORDINAL`, or `YYYY-MM-DD HH:MM:SS` in UTC, which includes the whole second.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Ok(exact) = text.parse() {
            return Ok(Self::At(exact));
        }
        let civil = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]
            .iter()
            .find_map(|form| jiff::civil::DateTime::strptime(form, text).ok());
        let seconds = civil
            .and_then(|civil| civil.to_zoned(jiff::tz::TimeZone::UTC).ok())
            .and_then(|time| u32::try_from(time.timestamp().as_second()).ok());
        let seconds = seconds.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "read a time to restore to").hint(
                "write \"YYYY-MM-DD HH:MM:SS\" (UTC, with the whole second), SECONDS,ORDINAL, or latest",
            )
        })?;
        Ok(Self::At(ClusterTime { seconds, ordinal: u32::MAX }))
    }
}

/// What kind of operation it is, with what only that kind has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Detail {
    /// A backup.
    Backup(BackupDetail),
    /// A restore.
    Restore(RestoreDetail),
}

/// The two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperationKind {
    /// From the source into the bucket.
    Backup,
    /// From the bucket into a cluster.
    Restore,
}

impl std::fmt::Display for OperationKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
        })
    }
}

/// One row of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// The protected cluster.
    pub source: SourceName,
    /// The database.
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
        }
    }

    /// The detail of a backup.
    pub fn backup(&self) -> Result<&BackupDetail, Error> {
        match &self.detail {
            Detail::Backup(detail) => Ok(detail),
            Detail::Restore(_) => Err(self.wrong_kind("a backup")),
        }
    }

    /// The detail of a backup, to be changed.
    pub fn backup_mut(&mut self) -> Result<&mut BackupDetail, Error> {
        let error = self.wrong_kind("a backup");
        match &mut self.detail {
            Detail::Backup(detail) => Ok(detail),
            Detail::Restore(_) => Err(error),
        }
    }

    /// The detail of a restore.
    pub fn restore(&self) -> Result<&RestoreDetail, Error> {
        match &self.detail {
            Detail::Restore(detail) => Ok(detail),
            Detail::Backup(_) => Err(self.wrong_kind("a restore")),
        }
    }

    /// The detail of a restore, to be changed.
    pub fn restore_mut(&mut self) -> Result<&mut RestoreDetail, Error> {
        let error = self.wrong_kind("a restore");
        match &mut self.detail {
            Detail::Restore(detail) => Ok(detail),
            Detail::Backup(_) => Err(error),
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

    /// The hold on the lease that its steps write under.
    pub fn held_fence(&self) -> Result<Fence, Error> {
        self.fence.ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("go on with {}: it has no lease", self.id))
        })
    }

    /// What its lease is for: a backup holds its source, a restore the database it writes.
    #[must_use]
    pub fn resource(&self) -> crate::ports::Resource {
        match self.detail {
            Detail::Backup(ref detail) if detail.folds => crate::ports::Resource::Folding,
            Detail::Backup(_) => crate::ports::Resource::Source,
            Detail::Restore(_) => crate::ports::Resource::Target(self.database.clone()),
        }
    }
}
