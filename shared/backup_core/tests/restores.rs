//! Restores over ports in memory: exact or not at all, and what was live is never lost.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use backup_core::audit::AuditStatus;
use backup_core::error::ErrorKind;
use backup_core::namespace::OwnName;
use backup_core::operation::{OperationKind, OperationState};
use backup_core::ports::{Catalog, Resource, Target};
use backup_testkit::Faults;
use backup_testkit::fixture::{DATABASE, OnDeath, Step, World, lead};
use bson::rawdoc;

/// A world with a backup, whose database was changed afterwards.
async fn damaged() -> World {
    let world = World::with_data();
    world.back_up().await;
    world.cluster.write("leads", &rawdoc! { "_id": 7, "damaged": true });
    world.cluster.delete("messages", 1);
    world.cluster.fill("junk", [lead(1)]);
    world.cluster.drop_namespace(DATABASE, "empty").await.unwrap();
    world.cluster.drop_namespace(DATABASE, "active").await.unwrap();
    world.cluster.create(DATABASE, "active", &rawdoc! { "viewOn": "junk", "pipeline": [] }).await.unwrap();
    world
}

#[tokio::test]
async fn a_full_restore_brings_everything_back_and_keeps_what_was_live() {
    let original = World::with_data().cluster.contents();
    let world = damaged().await;
    let id = world.restore(&[]).await.unwrap();
    assert_eq!(world.cluster.contents(), original, "junk is moved aside too");
    let operation = world.operation(OperationKind::Restore, id).await;
    let kept: Vec<&str> = operation.restore().unwrap().kept_aside.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(kept, ["leads", "messages", "junk"]);
    assert!(world.cluster.staging().is_empty());
    assert_eq!(world.catalog.audit(1).await.unwrap()[0].status, AuditStatus::Success);
    assert!(world.catalog.lease(&Resource::Target(DATABASE.into()), 0).await.unwrap().is_none());
    assert_eq!(world.alerts.published().len(), 1, "a restore that begins is told of");
}

#[tokio::test]
async fn a_restore_of_one_collection_leaves_the_rest_as_it_is() {
    let world = damaged().await;
    let mut expected = world.cluster.contents();
    expected.insert("messages".into(), World::with_data().cluster.contents()["messages"].clone());
    world.restore(&["messages"]).await.unwrap();
    assert_eq!(world.cluster.contents(), expected);
}

#[tokio::test]
async fn without_the_operators_word_nothing_is_replaced() {
    let world = damaged().await;
    let before = world.cluster.contents();
    let id = world.request_restore(&[], false).await;
    let refused = world.step(&Faults::none(), id, Step::PlanRestore).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert_eq!(world.cluster.contents(), before);
    let unknown = damaged().await.restore(&["nix"]).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_document_that_differs_in_staging_is_found_before_the_swap() {
    for damage in ["changed", "missing", "extra"] {
        let world = damaged().await;
        let before = world.cluster.contents();
        let id = world.request_restore(&[], true).await;
        world.step(&Faults::none(), id, Step::PlanRestore).await.unwrap();
        let mut failed = None;
        for step in world.steps_after_plan(OperationKind::Restore, id).await {
            if step == Step::BuildIndexes {
                let staging = world.cluster.staging();
                let large = staging.iter().find(|it| it.ends_with(".2")).unwrap(); // active, empty, leads, messages
                match damage {
                    "changed" => world.cluster.write(large, &rawdoc! { "_id": 7, "name": "other" }),
                    "missing" => world.cluster.delete(large, 7),
                    _ => world.cluster.write(large, &lead(-5)),
                }
            }
            if let Err(why) = world.step(&Faults::none(), id, step).await {
                failed = Some((step, why));
                break;
            }
        }
        let (step, why) = failed.unwrap_or_else(|| panic!("{damage} was not found"));
        assert!(matches!(step, Step::ValidateChunk(_)), "{damage}: {step:?}");
        assert_eq!(why.kind(), ErrorKind::ValidationFailed);
        let early = world.step(&Faults::none(), id, Step::FinishRestore).await;
        assert!(early.is_err(), "no swap without evidence for every chunk");
        world.step(&Faults::none(), id, Step::AbandonRestore).await.unwrap();
        assert_eq!(world.cluster.contents(), before, "{damage}");
        assert!(world.cluster.staging().is_empty());
    }
}

/// Every step, killed before and after every call, then run again (and once more): always the restored state.
#[tokio::test]
async fn killed_anywhere_and_run_again_it_is_restored() {
    let original = World::with_data().cluster.contents();
    let mut boundary = 0;
    loop {
        let world = damaged().await;
        let id = world.request_restore(&[], true).await;
        let died = world.run_dying_at(OperationKind::Restore, id, boundary, OnDeath::RunAgain).await;
        assert_eq!(world.operation(OperationKind::Restore, id).await.state, OperationState::Restored);
        assert_eq!(world.cluster.contents(), original, "killed at {boundary}");
        if !died {
            break;
        }
        boundary += 1;
    }
    assert!(boundary > 200, "only {boundary} boundaries were tried");
}

/// Every step, killed before and after every call, then given up: what was live is as it was.
#[tokio::test]
async fn killed_anywhere_and_given_up_nothing_has_changed() {
    let original = World::with_data().cluster.contents();
    let mut boundary = 0;
    loop {
        let world = damaged().await;
        let before = world.cluster.contents();
        let id = world.request_restore(&[], true).await;
        if !world.run_dying_at(OperationKind::Restore, id, boundary, OnDeath::GiveUp).await {
            break;
        }
        let now = world.cluster.contents();
        assert!(now == before || now == original, "killed at {boundary}: neither as it was nor restored");
        assert!(world.cluster.staging().is_empty(), "killed at {boundary}");
        boundary += 1;
    }
}

#[tokio::test]
async fn two_restores_of_one_database_do_not_meet() {
    let world = damaged().await;
    let (first, second) =
        (world.request_restore(&[], true).await, world.request_restore(&["messages"], true).await);
    world.step(&Faults::none(), first, Step::PlanRestore).await.unwrap();
    let refused = world.step(&Faults::none(), second, Step::PlanRestore).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn staging_of_a_dead_restore_is_dropped_by_the_next() {
    let world = damaged().await;
    let dead = world.request_restore(&[], true).await;
    world.step(&Faults::none(), dead, Step::PlanRestore).await.unwrap();
    world.catalog.release_lease(&Resource::Target(DATABASE.into()), dead).await.unwrap();
    world.restore(&[]).await.unwrap();
    assert!(world.cluster.staging().is_empty());
}

#[tokio::test]
async fn a_live_collection_that_changed_its_identity_is_not_swapped_away() {
    let world = damaged().await;
    let id = world.request_restore(&["messages"], true).await;
    world.step(&Faults::none(), id, Step::PlanRestore).await.unwrap();
    let steps = world.steps_after_plan(OperationKind::Restore, id).await;
    world.cluster.drop_namespace(DATABASE, "messages").await.unwrap();
    world.cluster.fill("messages", [lead(99)]);
    let before = world.cluster.contents();
    let mut last = Ok(());
    for step in steps {
        last = world.step(&Faults::none(), id, step).await;
    }
    assert_eq!(last.unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(world.cluster.contents(), before);
}

#[tokio::test]
async fn indexes_come_back_and_expiry_comes_last() {
    let world = World::with_data();
    let ttl = rawdoc! { "v": 2, "key": { "at": 1 }, "name": "at_1", "expireAfterSeconds": 60 };
    let unique = rawdoc! { "v": 2, "key": { "name": 1 }, "name": "name_1", "unique": true };
    world.cluster.create_indexes(DATABASE, "leads", &[ttl, unique]).await.unwrap();
    world.back_up().await;
    let id = world.request_restore(&["leads"], true).await;
    world.step(&Faults::none(), id, Step::PlanRestore).await.unwrap();
    for step in world.steps_after_plan(OperationKind::Restore, id).await {
        let staged = world.cluster.staging();
        if matches!(step, Step::ValidateChunk(_)) {
            use backup_core::ports::Source;
            let all = world.cluster.namespaces(DATABASE).await.unwrap();
            let staging = all.iter().find(|it| staged.contains(&it.name)).unwrap();
            assert_eq!(staging.indexes.len(), 3);
            assert!(
                staging.indexes.iter().all(|it| it.get("expireAfterSeconds").unwrap().is_none()),
                "too early"
            );
        }
        world.step(&Faults::none(), id, step).await.unwrap();
    }
    assert!(matches!(OwnName::parse(&format!("nightsafe.aside.{id}.0")), Some(OwnName::Aside(..))));
}

#[tokio::test]
async fn a_damaged_chunk_is_never_swapped_in() {
    let world = damaged().await;
    let before = world.cluster.contents();
    let objects = world.store.objects();
    let path = objects.keys().find(|path| path.contains("/chunks/")).unwrap();
    let mut bad = objects[path].to_vec();
    let middle = bad.len() - 40;
    bad[middle] ^= 1;
    world.store.tamper(path, bad.into());
    let failed = world.restore(&[]).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Corrupt);
    assert_eq!(world.cluster.contents(), before);
}

/// An application that writes on during the swap re-creates a collection whose name is free for a moment.
#[tokio::test]
async fn writers_do_not_break_the_swap() {
    let original = World::with_data().cluster.contents();
    for times in 0..6 {
        let world = damaged().await;
        for name in ["leads", "messages"] {
            world.cluster.haunt(name, times);
        }
        world.restore(&[]).await.unwrap_or_else(|why| panic!("haunted {times} times: {why}"));
        assert_eq!(world.cluster.contents(), original, "haunted {times} times");
    }
}

/// The same while a swap is taken back.
#[tokio::test]
async fn writers_do_not_break_the_way_back() {
    let restored = World::with_data().cluster.contents();
    let mut boundary = 0;
    loop {
        let world = damaged().await;
        let before = world.cluster.contents();
        for name in ["leads", "messages", "junk"] {
            world.cluster.haunt(name, 1);
        }
        let id = world.request_restore(&[], true).await;
        if !world.run_dying_at(OperationKind::Restore, id, boundary, OnDeath::GiveUp).await {
            break;
        }
        let now = world.cluster.contents();
        let unharmed = |name: &str| now.get(name) == before.get(name);
        let is_back = ["leads", "messages", "active"].into_iter().all(unharmed);
        assert!(is_back || now["leads"] == restored["leads"], "killed at {boundary}");
        boundary += 1;
    }
}

#[tokio::test]
async fn every_step_run_twice_at_once_is_like_run_once() {
    let original = World::with_data().cluster.contents();
    for haunted in [0, 2] {
        let world = damaged().await;
        world.cluster.haunt("leads", haunted);
        let id = world.request_restore(&[], true).await;
        world.run_each_twice_at_once(OperationKind::Restore, id).await;
        assert_eq!(world.operation(OperationKind::Restore, id).await.state, OperationState::Restored);
        assert_eq!(world.cluster.contents(), original);
        assert_eq!(world.catalog.audit(9).await.unwrap().len(), 2, "one for the backup, one for the restore");
    }
}

/// A Distributed Map may not take a file without a line, so there is always something to do, if only nothing.
#[tokio::test]
async fn a_database_of_views_alone_goes_all_the_way() {
    let world = World::default();
    world.cluster.define("active", &rawdoc! { "viewOn": "leads", "pipeline": [] });
    let id = world.back_up().await;
    world.replicate(id).await.unwrap();
    world.capture().await.unwrap();
    world.restore(&[]).await.unwrap();
    let objects = world.store.objects();
    let work: Vec<_> = objects.iter().filter(|(path, _)| path.contains(".jsonl")).collect();
    assert_eq!(work.len(), 2, "{work:?}");
    assert!(work.iter().all(|(_, lines)| !lines.is_empty()), "{work:?}");
}
