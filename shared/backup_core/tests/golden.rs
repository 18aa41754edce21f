//! Backups of every released format are read for ever: the files in `tests/golden` are never edited.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use backup_core::operation::{Operation, OperationKind, OperationState};
use backup_core::ports::Catalog;
use backup_testkit::fixture::World;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn every_released_format_is_restored() {
    let original = World::with_data().cluster.contents();
    let formats: Vec<PathBuf> = fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!formats.is_empty());
    for format in formats {
        let world = World::default();
        let bucket = format.join("bucket");
        for file in files(&bucket) {
            let key = file.strip_prefix(&bucket).unwrap().to_str().unwrap().to_owned();
            world.store.tamper(&key, fs::read(&file).unwrap().into());
        }
        let row: Operation =
            serde_json::from_slice(&fs::read(format.join("operation.json")).unwrap()).unwrap();
        world.catalog.create_operation(&row).await.unwrap();
        let restore = world.restore(&[]).await.unwrap_or_else(|why| panic!("{}: {why}", format.display()));
        assert_eq!(world.operation(OperationKind::Restore, restore).await.state, OperationState::Restored);
        assert_eq!(world.cluster.contents(), original, "{}", format.display());
    }
}
