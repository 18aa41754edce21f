//! The ports in memory keep the contracts that the real ones keep.

use backup_testkit::{DirectoryStore, MemoryCatalog, MemoryKeys, MemoryStore, MemoryTimeline, contract};

#[tokio::test]
async fn the_bucket_in_memory() {
    contract::object_store(&MemoryStore::default()).await;
}

#[tokio::test]
async fn the_bucket_in_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    contract::object_store(&DirectoryStore::new(directory.path().to_owned())).await;
}

#[tokio::test]
async fn the_key_service_in_memory() {
    contract::data_keys(&MemoryKeys::default()).await;
}

#[tokio::test]
async fn the_catalog_in_memory() {
    contract::catalog_rows(&MemoryCatalog::default()).await;
    contract::catalog_leases(&MemoryCatalog::default()).await;
    contract::catalog_audit(&MemoryCatalog::default()).await;
}

#[tokio::test]
async fn the_timeline_in_memory() {
    contract::timeline(&MemoryTimeline::default()).await;
}
