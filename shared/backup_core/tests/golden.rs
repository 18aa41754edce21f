//! Backups of every released format are read for ever: the files in `tests/golden` are never edited.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use backup_core::flows::rebuild_catalog;
use backup_core::id::ClusterTime;
use backup_core::operation::{Operation, OperationKind, OperationState};
use backup_core::ports::{Catalog, Timeline};
use backup_core::timeline::{Break, SliceRecord};
use backup_testkit::fixture::World;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The golden folders whose names begin like this; there is at least one.
fn named(beginning: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path());
    let is_such = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(beginning);
    let found: Vec<PathBuf> = all.filter(is_such).collect();
    assert!(!found.is_empty(), "{beginning}");
    found
}

/// Puts what a golden folder has into the bucket.
fn fill(world: &World, folder: &Path) {
    let bucket = folder.join("bucket");
    for file in files(&bucket) {
        let key = file.strip_prefix(&bucket).unwrap().to_str().unwrap().to_owned();
        world.store.tamper(&key, fs::read(&file).unwrap().into());
    }
}

/// The catalog comes back from records, slices and breaks as they were written then.
#[tokio::test]
async fn a_catalog_is_rebuilt_from_every_released_format() {
    for format in named("records-") {
        let world = World::default();
        fill(&world, &format);
        let ports = rebuild_catalog::Ports {
            store: &world.store,
            listing: &world.store,
            keys: &world.keys,
            catalog: &world.catalog,
            timeline: &world.timeline,
            clock: &world.clock,
        };
        let rebuilt = rebuild_catalog::run(ports, "main".parse().unwrap()).await.unwrap();
        assert_eq!((rebuilt.skipped, rebuilt.without_record, rebuilt.without_manifest), (0, 0, 0));
        let expected: Expected =
            serde_json::from_slice(&fs::read(format.join("expected.json")).unwrap()).unwrap();
        let found = Expected::of(&world).await;
        assert_eq!(found.operations, expected.operations, "{}", format.display());
        assert_eq!((found.slices, found.breaks), (expected.slices, expected.breaks), "{}", format.display());
    }
}

/// What a catalog tells.
#[derive(serde::Serialize, serde::Deserialize)]
struct Expected {
    operations: Vec<Operation>,
    slices: Vec<SliceRecord>,
    breaks: Vec<Break>,
}

impl Expected {
    async fn of(world: &World) -> Self {
        let mut operations = Vec::new();
        for kind in OperationKind::ALL {
            operations.extend(world.catalog.operations(kind, 1000).await.unwrap());
        }
        let (first, last) = (ClusterTime::from_u64(0), ClusterTime::from_u64(u64::MAX));
        let slices = world.timeline.slices(first, last).await.unwrap();
        let breaks = world.timeline.breaks().await.unwrap();
        Self { operations, slices, breaks }
    }
}

#[tokio::test]
async fn every_released_format_is_restored() {
    let original = World::with_data().cluster.contents();
    let formats = named("format-");
    for format in formats {
        let world = World::default();
        fill(&world, &format);
        let row: Operation =
            serde_json::from_slice(&fs::read(format.join("operation.json")).unwrap()).unwrap();
        world.catalog.create_operation(&row).await.unwrap();
        let restore = world.restore(&[]).await.unwrap_or_else(|why| panic!("{}: {why}", format.display()));
        assert_eq!(world.operation(OperationKind::Restore, restore).await.state, OperationState::Restored);
        assert_eq!(world.cluster.contents(), original, "{}", format.display());
    }
}
