//! What a finished attempt at a chunk says. Clear JSON without names, bounds or any document content.

use serde::{Deserialize, Serialize};

use crate::document_hash::DocumentHash;
use crate::id::{Attempt, ClusterTime, OperationId};

/// The outcome of one chunk. Written with `If-None-Match: *`: the first attempt that finishes wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkResult {
    /// The chunk's number in its backup.
    pub ordinal: u32,
    /// What became of it.
    pub outcome: ChunkOutcome,
}

/// What became of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChunkOutcome {
    /// Its documents are stored.
    Captured(Captured),
    /// Its collection was dropped before it could be read: there is no object.
    Dropped,
}

/// What is stored of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Captured {
    /// The attempt that wrote the object.
    pub attempt: Attempt,
    /// The T at which every document was read; none for a scan without a snapshot.
    pub cluster_time: Option<ClusterTime>,
    /// Documents.
    pub documents: u64,
    /// Bytes of BSON.
    pub bson_bytes: u64,
    /// Bytes of the stored object.
    pub stored_bytes: u64,
    /// SHA-256 of the stored object, in hexadecimal digits.
    pub stored_sha256: String,
    /// The documents' hash, independent of their order.
    pub document_hash: DocumentHash,
    /// Where the object was sealed, if it was copied from an earlier backup as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_as: Option<SealedAs>,
}

/// The chunk that an object was sealed as: its context stays that one's wherever it is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedAs {
    /// The backup.
    pub backup: OperationId,
    /// The chunk's number in it.
    pub ordinal: u32,
}

/// Evidence of what some units of folding came to, and that it was inserted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoldedChunks {
    /// The units.
    pub chunks: Vec<FoldedChunk>,
}

/// What one unit of folding came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoldedChunk {
    /// The unit's number.
    pub ordinal: u32,
    /// Documents.
    pub documents: u64,
    /// Bytes of BSON.
    pub bson_bytes: u64,
    /// The documents' hash, independent of their order.
    pub document_hash: DocumentHash,
}

/// Evidence of what became of the proof of the chain for some chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvedChunks {
    /// The fold of the earlier backup is what was read.
    pub equal: Vec<u32>,
    /// It is not.
    pub different: Vec<u32>,
    /// It cannot be known: their collections are not held exactly, or not followed.
    pub skipped: Vec<u32>,
}

/// Evidence that these chunks were read as a whole and are what the manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifiedChunks {
    /// The chunks' numbers.
    pub ordinals: Vec<u32>,
    /// Documents in them.
    pub documents: u64,
}
