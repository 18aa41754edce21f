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
async fn the_shelves_in_memory() {
    let home = MemoryStore::default();
    let other = home.in_another_region();
    contract::listing(&home, &home).await;
    contract::shelves(&home, &home, &home).await;
    contract::cold_storage(&home, &home).await;
    contract::copies(&home, &other, &other).await;
}

#[tokio::test]
async fn the_key_service_in_memory() {
    let keys = MemoryKeys::default();
    contract::data_keys(&keys).await;
    contract::replica_keys(&keys, &keys.clone()).await;
}

#[tokio::test]
async fn the_catalog_in_memory() {
    contract::catalog_rows(&MemoryCatalog::default()).await;
    contract::catalog_ends(&MemoryCatalog::default()).await;
    contract::catalog_notes(&MemoryCatalog::default()).await;
    contract::catalog_watch(&MemoryCatalog::default()).await;
    contract::catalog_leases(&MemoryCatalog::default()).await;
    contract::catalog_audit(&MemoryCatalog::default()).await;
}

#[tokio::test]
async fn the_timeline_in_memory() {
    contract::timeline(&MemoryTimeline::default()).await;
    contract::timeline_comes_back(&MemoryTimeline::default()).await;
}
