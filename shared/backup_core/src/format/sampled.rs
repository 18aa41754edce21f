//! Evidence that something of a backup was restored into a server that was thrown away. Signed, in clear, without names
//! of collections and without any document content.

use serde::{Deserialize, Serialize};

use crate::checks::CheckCount;

/// What a rehearsal restored, read back and found equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rehearsed {
    /// The chunks' numbers.
    pub ordinals: Vec<u32>,
    /// Documents in them.
    pub documents: u64,
    /// Bytes of BSON of them.
    pub bson_bytes: u64,
    /// Indexes that were built, besides those that come with a collection.
    pub indexes: u64,
    /// The server.
    pub server: String,
    /// What the owner's checks counted.
    pub counts: Vec<CheckCount>,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// Evidence of what became of a backup's sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampled {
    /// What the choice of chunks follows from.
    pub seed: u64,
    /// What was restored.
    pub rehearsed: Option<Rehearsed>,
    /// Why nothing was restored.
    pub skipped: Option<String>,
    /// Why the owner's checks did not pass, or could not be read. The backup is what the source was all the same.
    #[serde(default)]
    pub checks_failed: Option<String>,
}

impl Sampled {
    /// The sample was restored and found equal.
    #[must_use]
    pub const fn restored(seed: u64, rehearsed: Rehearsed, checks_failed: Option<String>) -> Self {
        Self { seed, rehearsed: Some(rehearsed), skipped: None, checks_failed }
    }

    /// Nothing could be restored.
    #[must_use]
    pub fn skipped(seed: u64, why: &str) -> Self {
        Self { seed, rehearsed: None, skipped: Some(why.to_owned()), checks_failed: None }
    }
}
