//! The only places that know bytes and paths. `docs/FORMAT.md` tells the same for a stranger who writes a reader.

mod chunk_result;
mod drill;
mod evidence;
mod header;
mod manifest;
mod object_key;
mod plan_file;
mod replicated;
mod sampled;
mod sealed_json;
mod slice;
mod slice_builder;

pub use chunk_result::{
    Captured, ChunkOutcome, ChunkResult, FoldedChunk, FoldedChunks, ProvedChunks, SealedAs, VerifiedChunks,
};
pub use drill::{DrillPlan, RehearsedChunks};
pub use evidence::EvidenceKey;
pub use header::{FORMAT_VERSION, Header, ObjectContext, ObjectKind};
pub use manifest::{Consistency, MANIFEST_FORMAT, Manifest, ManifestChunk, ManifestNamespace};
pub use object_key::{BackupPlace, DrillPlace, ObjectKey, Place, Prefix, PrunePlace, RestorePlace};
pub use plan_file::{
    BackupPlan, PlannedChunk, PlannedNamespace, WorkItem, read_work_items, write_work_items,
};
pub use replicated::ReplicatedChunks;
pub use sampled::{Rehearsed, Sampled};
pub use sealed_json::{Opened, open_json, seal_json};
pub use slice::{SliceFrame, SliceGroup, SliceIndex, read_frame};
pub use slice_builder::{FinishedSlice, SliceBuilder};
