//! What `replicate-regions` tells `seal-replicas`.

use serde::{Deserialize, Serialize};

/// Evidence that these chunks are in a region, with the length and the SHA-256 that the manifest tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicatedChunks {
    /// The chunks' numbers.
    pub ordinals: Vec<u32>,
    /// Bytes of their objects.
    pub stored_bytes: u64,
}
