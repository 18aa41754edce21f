//! What only a backup has: how it came to be, how far it was verified, where else it is, and what keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::format::Consistency;
use crate::id::{ClusterTime, OperationId, RegionName, serde_as_text};

/// What started a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// A schedule.
    Automated,
    /// A person.
    Manual,
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
    /// When each level of verification was last proved, in milliseconds since 1970 UTC.
    #[serde(default)]
    pub levels: BTreeMap<Level, u64>,
    /// The other regions that hold a complete copy.
    #[serde(default)]
    pub replicas: BTreeMap<RegionName, Replica>,
    /// Why it must not be removed, if somebody said so.
    #[serde(default)]
    pub hold: Option<Hold>,
    /// Who said that it is no longer wanted, if it is one that a person asked for.
    #[serde(default)]
    pub unwanted_by: Option<String>,
    /// That it is to be removed.
    #[serde(default)]
    pub removal: Option<Removal>,
    /// Until when the bucket refuses to delete its objects, in milliseconds since 1970 UTC; 0 for never locked.
    #[serde(default)]
    pub locked_until_millis: u64,
    /// Whether its objects were given to cold storage: they have to be thawed before they can be read.
    #[serde(default)]
    pub is_cold: bool,
}

impl BackupDetail {
    /// Whether it is to be removed, so that nothing new may begin to use it. A hold that came in time keeps it.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.removal.as_ref().is_some_and(|it| it.begun || self.hold.is_none())
    }
}

/// How far a backup was verified. Each level has those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Every object is there, with its size.
    Present,
    /// Every object has its checksum.
    Checksums,
    /// Every document was opened, counted and hashed.
    Decoded,
    /// Some chunks were restored into a server, with their indexes, and read back equal.
    SampleRestored,
    /// Every chunk was restored into a server, with its indexes, and read back equal.
    FullyRestored,
    /// The owner's checks passed on what was restored as a whole.
    ApplicationChecked,
}

impl Level {
    /// Every level, lowest first.
    pub const ALL: [Self; 6] = [
        Self::Present,
        Self::Checksums,
        Self::Decoded,
        Self::SampleRestored,
        Self::FullyRestored,
        Self::ApplicationChecked,
    ];
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Present => "L0",
            Self::Checksums => "L1",
            Self::Decoded => "L2",
            Self::SampleRestored => "L3",
            Self::FullyRestored => "L4",
            Self::ApplicationChecked => "L5",
        })
    }
}

impl std::str::FromStr for Level {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|level| level.to_string() == text);
        found.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "read a level of verification")
                .hint("one of L0, L1, L2, L3, L4, L5")
        })
    }
}
serde_as_text!(Level);

/// A complete copy of a backup in another region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// When its manifest was stored there, in milliseconds since 1970 UTC.
    pub completed_millis: u64,
    /// Objects of it.
    pub objects: u64,
    /// Bytes of them.
    pub stored_bytes: u64,
}

/// Somebody's word that a backup is to be kept, whatever the rules say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Why.
    pub reason: String,
    /// Who said so.
    pub user: String,
    /// When, in milliseconds since 1970 UTC.
    pub since_millis: u64,
}

/// The first phase of a backup's removal: nothing new begins to use it. Its objects go once a grace period is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Which rule let it go.
    pub reason: String,
    /// When it was marked, in milliseconds since 1970 UTC.
    pub marked_millis: u64,
    /// Whether the second phase began: its manifest may be gone.
    pub begun: bool,
}

/// What is written to a backup's row beside its pipeline, at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupNote {
    /// What the proof of a later backup found.
    ProvedBy(ChainProof),
    /// Levels that were proved at this time, in milliseconds since 1970 UTC.
    Proved(Vec<Level>, u64),
    /// A region holds a complete copy of it, or does no more.
    Replica(RegionName, Option<Replica>),
    /// It is held, or no more.
    Hold(Option<Hold>),
    /// A person does not want it any more; none takes that back.
    Unwanted(Option<String>),
    /// It is to be removed, or after all not.
    Removal(Option<Removal>),
    /// Its objects were locked until then, in milliseconds since 1970 UTC.
    Locked(u64),
    /// Its objects were given to cold storage.
    Cold,
}

impl BackupNote {
    /// Writes it into the detail of a backup. Again: nothing changes.
    pub fn apply(&self, detail: &mut BackupDetail) {
        match self {
            Self::ProvedBy(proof) => detail.proved_by = Some(*proof),
            Self::Proved(levels, millis) => {
                for level in levels {
                    let proved = detail.levels.entry(*level).or_insert(*millis);
                    *proved = (*proved).max(*millis);
                }
            }
            Self::Replica(region, Some(replica)) => {
                detail.replicas.insert(*region, *replica);
            }
            Self::Replica(region, None) => {
                detail.replicas.remove(region);
            }
            Self::Hold(Some(hold)) => {
                detail.hold.get_or_insert_with(|| hold.clone()); // the first word counts, until it is taken back
            }
            Self::Hold(None) => detail.hold = None,
            Self::Unwanted(by) => detail.unwanted_by.clone_from(by),
            Self::Removal(removal) => detail.removal.clone_from(removal),
            Self::Locked(until) => detail.locked_until_millis = detail.locked_until_millis.max(*until),
            Self::Cold => detail.is_cold = true,
        }
    }
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
            levels: BTreeMap::new(),
            replicas: BTreeMap::new(),
            hold: None,
            unwanted_by: None,
            removal: None,
            locked_until_millis: 0,
            is_cold: false,
        }
    }
}
