//! Folded backups keep their chunks even: those that grew are split, neighbours that shrank are put together.

#![allow(clippy::unwrap_used, reason = "tests")]

use backup_core::bson::check_coverage;
use backup_core::flows::open_manifest;
use backup_core::operation::OperationKind;
use backup_testkit::fixture::World;
use bson::rawdoc;

/// 600 KB: a chunk with some of these has several frames.
fn noise(id: i32) -> String {
    id.to_string().repeat(150_000)
}

/// Folds the newest backup; gives how many chunks `leads` has then, and the bytes of the largest.
async fn fold(world: &World) -> (usize, u64) {
    world.capture().await.unwrap();
    let id = world.synthesize().await.unwrap();
    let row = world.operation(OperationKind::Backup, id).await;
    let manifest = open_manifest(&world.store, &world.keys, &row).await.unwrap();
    let entry = manifest.namespaces.iter().find(|it| it.namespace.name == "leads").unwrap();
    check_coverage(entry.chunks.iter().map(|chunk| &chunk.range)).unwrap();
    let largest = entry.chunks.iter().map(|chunk| chunk.stored.bson_bytes).max().unwrap();
    (entry.chunks.len(), largest)
}

#[tokio::test]
async fn chunks_stay_even_while_a_collection_grows_and_shrinks() {
    let world = World::with_data();
    let target = World::settings().chunk_target_bytes;
    world.back_up().await;
    let (before, _) = fold(&world).await;

    for id in 1000..1030 {
        world.cluster.write("leads", &rawdoc! { "_id": id, "notes": noise(id) });
    }
    let (_, grown) = fold(&world).await;
    assert!(grown > 2 * target, "the last chunk took them all: {grown}");
    let contents = world.cluster.contents();
    let (split, even) = fold(&world).await; // it is cut by what its frames begin with
    world.restore(&[]).await.unwrap();
    assert_eq!(world.cluster.contents(), contents);
    assert!(split > before + 2 && even <= grown / 2, "{split} chunks, the largest of {even}");

    for id in (0..80).chain(1000..1029) {
        world.cluster.delete("leads", id);
    }
    fold(&world).await;
    let contents = world.cluster.contents();
    let (merged, _) = fold(&world).await;
    assert!(merged < before, "{merged} chunks are left of {before}");
    world.restore(&[]).await.unwrap();
    assert_eq!(world.cluster.contents(), contents);
}
