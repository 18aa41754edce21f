//! Runs of the pruner that are killed at every call, doubled, or run at once: they leave what one clean run leaves.

use backup_core::error::ErrorKind;
use backup_core::format::{ObjectKey, Place, Prefix, PrunePlace};
use backup_core::id::ClusterTime;
use backup_core::operation::{OperationKind, OperationState};
use backup_core::ports::{Catalog, Resource, Timeline};
use backup_testkit::Faults;
use backup_testkit::fixture::{Step, World};
use serde_json::json;

use crate::invariants::{check, check_gone, check_no_orphans, has_manifest, prune};
use crate::scene::{HOUR, Scene, forty_days};

/// Marks what is to go, and removes it once the grace period is over, in a process that dies at `boundary`; whether it
/// died.
async fn prune_dying_at(world: &World, boundary: u64) -> bool {
    let (mut left, mut died) = (boundary, false);
    for round in ["marking", "removing"] {
        let when = format!("{round}, killed at {boundary}");
        let id = world.request_prune(true).await;
        let faults = if died { Faults::none() } else { Faults::at(left) };
        let outcome = world.step(&faults, id, Step::PruneRetention).await;
        if !died && faults.boundaries() > left {
            assert!(outcome.is_err(), "{when}: it went on");
            died = true;
            check(world, &when).await;
            prune(world, id).await.unwrap_or_else(|why| panic!("{when}: {why}"));
        } else {
            outcome.unwrap_or_else(|why| panic!("{when}: {why}"));
            left = left.saturating_sub(faults.boundaries());
        }
        prune(world, id).await.unwrap_or_else(|why| panic!("{when}, doubled: {why}"));
        check(world, &when).await;
        let row = world.operation(OperationKind::Prune, id).await;
        assert_eq!(row.state, OperationState::Done, "{when}");
        assert_eq!(world.catalog.lease(&Resource::Shelves, 0).await.unwrap(), None, "{when}");
        world.clock.advance(2 * HOUR);
    }
    died
}

/// What both rounds leave, whatever happened between.
async fn check_pruned(scene: &Scene, when: &str) {
    let world = &scene.world;
    for id in [scene.deleted, scene.old[0], scene.old[1]] {
        check_gone(world, id, when).await;
        let records = world.catalog.audit(1000).await.unwrap();
        let own = records.iter().filter(|it| it.details.get("id") == Some(&json!(id)));
        assert_eq!(own.count(), 1, "{when}: audit records of {id}");
    }
    for (id, has_copies) in
        [(scene.monthly, true), (scene.today, true), (scene.recent, false), (scene.newest, true)]
    {
        let row = world.operation(OperationKind::Backup, id).await;
        assert!(has_manifest(&world.store, &row), "{when}: {id}");
        assert_eq!(has_manifest(&world.replica, &row), has_copies, "{when}: the copy of {id}");
        let detail = row.backup().unwrap();
        assert_eq!(!detail.replicas.is_empty(), has_copies, "{when}: {id}");
        assert_eq!((detail.removal.as_ref(), detail.is_cold), (None, id == scene.monthly), "{when}: {id}");
        let manifest = ObjectKey::Manifest(row.backup_place().unwrap()).to_path().unwrap();
        assert_eq!(world.store.locked().get(&manifest), Some(&detail.locked_until_millis), "{when}: {id}");
        assert_eq!(world.replica.locked().contains_key(&manifest), has_copies, "{when}: {id}");
    }
    check_no_orphans(world, when).await;
    let oldest = world.operation(OperationKind::Backup, scene.monthly).await;
    let oldest = oldest.backup().unwrap().cluster_time.unwrap();
    let slices = world.timeline.slices(ClusterTime::from_u64(0), oldest).await.unwrap();
    assert!(slices.iter().all(|it| it.to > oldest), "{when}: {slices:?}");
    let head = world.timeline.head().await.unwrap().unwrap();
    let slices = world.timeline.slices(ClusterTime::from_u64(0), head.to).await.unwrap();
    let prefix = Prefix::Timeline("main".parse().unwrap()).to_path().unwrap();
    let stored = world.store.objects().into_keys().filter(|path| path.starts_with(&prefix)).count();
    assert_eq!(stored, slices.len(), "{when}: slices");
}

#[tokio::test]
async fn killed_anywhere_and_run_again_it_removes_what_is_to_go_and_nothing_else() {
    let scene = forty_days().await;
    for boundary in 0.. {
        let scene = scene.copy().await;
        let died = prune_dying_at(&scene.world, boundary).await;
        check_pruned(&scene, &format!("killed at {boundary}")).await;
        if !died {
            assert!(boundary > 300, "only {boundary} boundaries were tried");
            return;
        }
    }
}

#[tokio::test]
async fn a_clean_run_counts_what_it_did() {
    let scene = forty_days().await;
    let world = &scene.world;
    let mut runs = Vec::new();
    for _ in 0..2 {
        let id = world.request_prune(true).await;
        prune(world, id).await.unwrap();
        let row = world.operation(OperationKind::Prune, id).await;
        let record = ObjectKey::Record(Place::Prune(PrunePlace(id))).to_path().unwrap();
        assert!(world.store.objects().contains_key(&record));
        runs.push((row.prune().unwrap().clone(), row.totals));
        world.clock.advance(2 * HOUR);
    }
    let [(marking, nothing), (removing, totals)] = runs.as_slice() else { panic!("{runs:?}") };
    assert_eq!((marking.kept, marking.marked, marking.removed, marking.locked), (4, 3, 0, 0));
    assert_eq!((removing.kept, removing.marked, removing.removed, removing.locked), (4, 0, 3, 0));
    assert!(marking.freed_bytes > 0, "the copies of one that is kept for a day");
    assert!(removing.freed_bytes > 2 * totals.stored_bytes, "two of the three had copies in two regions");
    assert_eq!((nothing.chunks, totals.chunks > 3), (0, true));
    assert!(world.alerts.published().iter().all(|alert| !alert.subject.contains("retention")));
}

#[tokio::test]
async fn two_at_once_leave_what_one_leaves() {
    let scene = forty_days().await;
    let world = &scene.world;
    for round in ["marking", "removing"] {
        let id = world.request_prune(true).await;
        let run = || Box::pin(prune(world, id)); // it holds every step's future
        let (left, right) = tokio::join!(run(), run());
        for failed in [left, right].into_iter().filter_map(Result::err) {
            // The other one had taken over, or had ended everything.
            let kinds = [ErrorKind::Transient, ErrorKind::Fenced];
            assert!(kinds.contains(&failed.kind()), "{round}: {failed}");
        }
        prune(world, id).await.unwrap();
        check(world, round).await;
        world.clock.advance(2 * HOUR);
    }
    for id in [scene.deleted, scene.old[0], scene.old[1]] {
        check_gone(world, id, "two at once").await;
    }
    check_no_orphans(world, "two at once").await;
}

#[tokio::test]
async fn without_time_it_stops_and_the_next_attempt_goes_on() {
    let scene = forty_days().await;
    let world = &scene.world;
    let id = world.request_prune(true).await;
    world.clock.set_left(59_999);
    let before = world.store.objects();
    let stopped = prune(world, id).await.unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::OutOfTime);
    assert_eq!(world.store.objects(), before);
    world.clock.set_left(60_000);
    prune(world, id).await.unwrap();
    assert_eq!(world.operation(OperationKind::Prune, id).await.state, OperationState::Done);
}
