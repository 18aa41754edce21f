//! The outside, as a few small traits with their contracts. Every implementation passes the same contract suite
//! (`backup_testkit::contract`), the one in memory as well as the real one.

mod bucket;
mod catalog;
mod cluster;

pub use bucket::{
    ColdStorage, Copies, DataKey, DataKeys, Listing, Locks, ObjectStore, PutOutcome, Region, Shelves,
    StoredVersion, Temperature, Upload,
};
pub use catalog::{Alerts, Catalog, Lease, Machines, Resource, Timeline};
pub use cluster::{
    ChangeStream, Changes, ChunkRead, DocumentStream, InsertRules, Sampled, Scratch, ScratchDatabase,
    ServerFacts, SizeHint, Source, Target,
};

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970 UTC.
    fn now_millis(&self) -> u64;

    /// Milliseconds until this step is killed.
    fn left_millis(&self) -> u64;
}
