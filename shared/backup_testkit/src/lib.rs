//! Development only: every port in memory, a wrapper that makes calls fail or the process "die" at any of them, the
//! contract suite that the ports in memory and the real ones both pass, fixtures, and hostile input for fuzzing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test's helper panics where the test should fail"
)]

pub mod contract;
pub mod corpus;
pub mod fixture;
pub mod hostile;

mod catalog;
mod changes;
mod cluster;
mod directory;
mod event;
mod faults;
mod scratch;
mod shelves;
mod store;
mod timeline;

pub use catalog::{MemoryAlerts, MemoryCatalog, MemoryMachines};
pub use cluster::MemoryCluster;
pub use directory::DirectoryStore;
pub use faults::{Faults, Faulty};
pub use scratch::MemoryScratch;
pub use store::{MemoryKeys, MemoryStore, TestClock};
pub use timeline::MemoryTimeline;
