//! What a drill is going to do, sealed, and what it found for some chunks: signed, in clear, without names of
//! collections and without any document content.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::WorkItem;
use crate::checks::{Check, CheckCount};
use crate::id::{OperationId, RegionName};
use crate::operation::Level;

/// The plan of a drill. Stored sealed: the owner's checks have names and values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillPlan {
    /// The backup that is drilled with.
    pub backup: OperationId,
    /// How far to verify.
    pub level: Level,
    /// The region whose copy is read; none for the region of the stack.
    pub region: Option<RegionName>,
    /// The chunks to restore, or to read, in work items. Every one of the backup, unless there is a seed.
    pub work: Vec<WorkItem>,
    /// How many chunks the backup has.
    pub chunks_of_backup: u64,
    /// When the drill began, in milliseconds since 1970 UTC.
    pub began_millis: u64,
    /// What the choice of chunks follows from, where only some are restored.
    pub seed: Option<u64>,
    /// The owner's checks, as they stood when the drill began.
    pub checks: Vec<Check>,
}

impl DrillPlan {
    /// The numbers of the chunks.
    #[must_use]
    pub fn ordinals(&self) -> BTreeSet<u32> {
        self.work.iter().flat_map(|item| item.ordinals()).collect()
    }
}

/// Evidence of what a drill found for the chunks of a work item. All of them are what the manifest says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RehearsedChunks {
    /// The chunks' numbers.
    pub ordinals: Vec<u32>,
    /// Documents that were read, or restored and read back.
    pub documents: u64,
    /// Bytes of BSON of them.
    pub bson_bytes: u64,
    /// Bytes of the chunks' objects.
    pub stored_bytes: u64,
    /// Indexes that were built, if anything was restored.
    pub indexes: u64,
    /// The server that was restored to, if anything was.
    pub server: Option<String>,
    /// What the owner's checks counted in what was restored.
    pub counts: Vec<CheckCount>,
    /// How long it took, in milliseconds.
    pub millis: u64,
}
