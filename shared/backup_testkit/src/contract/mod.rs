//! What every implementation of a port must do, written once and run on the one in memory and on the real one.

mod bucket;
mod catalog;
mod timeline;

use backup_core::id::OperationId;

pub use bucket::{cold_storage, copies, data_keys, listing, object_store, replica_keys, shelves};
pub use catalog::{catalog_audit, catalog_ends, catalog_leases, catalog_notes, catalog_rows, catalog_watch};
pub use timeline::{timeline, timeline_comes_back};

fn fresh_id() -> OperationId {
    OperationId::generate(1_795_312_800_000).unwrap()
}
