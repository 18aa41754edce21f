//! The catalog rebuilt from the bucket alone, over ports in memory: what was in it, whatever else is in the bucket, and
//! wherever the rebuilding is killed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use backup_core::error::ErrorKind;
use backup_core::flows::rebuild_catalog::{self, Ports, Rebuilt};
use backup_core::flows::{raise_alert, record};
use backup_core::format::{BackupPlace, ObjectContext, ObjectKey, ObjectKind, Place, seal_json};
use backup_core::id::{ClusterTime, OperationId};
use backup_core::operation::{
    BackupNote, Detail, Hold, Level, Operation, OperationKind, OperationState, Pipeline, Removal,
    RestoreDetail, RestoreTime, Trigger,
};
use backup_core::plan::windows::{Base, Window, windows};
use backup_core::ports::{Catalog, Clock, Source, Timeline};
use backup_core::timeline::{BreakReason, SliceRecord};
use backup_testkit::fixture::{Step, World, lead};
use backup_testkit::{Faults, Faulty, MemoryCatalog, MemoryTimeline};
use bson::rawdoc;
use bytes::Bytes;

/// What there is in each collection.
type There = BTreeMap<String, Vec<Bytes>>;

async fn rebuild_dying(world: &World, faults: &Faults) -> backup_core::Result<Rebuilt> {
    let store = &Faulty::new(world.store.clone(), faults);
    let ports = Ports {
        store,
        listing: store,
        keys: &Faulty::new(world.keys.clone(), faults),
        catalog: &Faulty::new(world.catalog.clone(), faults),
        timeline: &Faulty::new(world.timeline.clone(), faults),
        clock: &world.clock,
    };
    rebuild_catalog::run(ports, "main".parse().unwrap()).await
}

/// Both tables are lost, and made again.
async fn lose_and_rebuild(world: &World) -> Rebuilt {
    world.catalog.clear();
    world.timeline.clear();
    rebuild_dying(world, &Faults::none()).await.unwrap()
}

async fn rows(world: &World) -> Vec<Operation> {
    let mut all = Vec::new();
    for kind in OperationKind::ALL {
        all.extend(world.catalog.operations(kind, 1000).await.unwrap());
    }
    all
}

async fn slices(world: &World) -> Vec<SliceRecord> {
    let whole = (ClusterTime::from_u64(0), ClusterTime::from_u64(u64::MAX));
    world.timeline.slices(whole.0, whole.1).await.unwrap()
}

async fn windows_of(world: &World) -> Vec<Window> {
    let all = world.catalog.operations(OperationKind::Backup, 1000).await.unwrap();
    let bases: Vec<Base> = all.iter().filter_map(Base::of).collect();
    let head = world.timeline.head().await.unwrap();
    windows(&bases, head.as_ref(), &world.timeline.breaks().await.unwrap())
}

async fn note(world: &World, id: OperationId, note: &BackupNote) {
    record::note(&world.store, &world.keys, &world.catalog, id, note).await.unwrap();
}

async fn hold(world: &World, id: OperationId) {
    let hold = Hold { reason: "a dispute".into(), user: "bo".into(), since_millis: 7 };
    note(world, id, &BackupNote::Hold(Some(hold))).await;
}

async fn fail(world: &World, id: OperationId) {
    let ports = raise_alert::Ports {
        catalog: &world.catalog,
        alerts: &world.alerts,
        clock: &world.clock,
        bucket: Some((&world.store, &world.keys)),
    };
    raise_alert::run(ports, OperationKind::Backup, id, "States.Timeout", "too slow").await.unwrap();
}

async fn restore_to(world: &World, at: ClusterTime) -> backup_core::Result<()> {
    let at = Some(RestoreTime::At(at));
    let detail = RestoreDetail { may_replace: true, at, ..RestoreDetail::requested(true) };
    let id = world.request(&[], Detail::Restore(detail)).await;
    world.carry_out(OperationKind::Restore, id).await
}

/// Changes, and what there was after each.
async fn change(world: &World, from: i32) -> Vec<(ClusterTime, There)> {
    let cluster = &world.cluster;
    let mut seen = Vec::new();
    let mut note = async || seen.push((cluster.cluster_time().await.unwrap(), cluster.contents()));
    cluster.write("leads", &rawdoc! { "_id": from, "name": "new" });
    note().await;
    cluster.delete("messages", from % 5);
    cluster.write_together("leads", [lead(200 + from), lead(300 + from)]);
    note().await;
    cluster.fill(&format!("made-{from}"), (0..3).map(lead));
    note().await;
    seen
}

/// Everything has happened here once. The newest slice ends where the timeline does.
async fn busy() -> (World, Vec<(ClusterTime, There)>) {
    let world = World::with_data();
    let first = world.back_up().await;
    let mut seen = change(&world, 1).await;
    world.capture().await.unwrap();
    world.synthesize().await.unwrap();
    hold(&world, first).await;
    let failed = world.request_backup(false).await;
    world.step(&Faults::none(), failed, Step::TriggerBackup).await.unwrap();
    fail(&world, failed).await;
    let never_begun = world.request_backup(false).await;
    fail(&world, never_begun).await;
    world.back_up().await;
    world.restore(&["messages"]).await.unwrap();
    let drill = world.request_drill(Level::FullyRestored, None).await;
    world.carry_out(OperationKind::Drill, drill).await.unwrap();
    world.prune().await.unwrap();
    seen.extend(change(&world, 11).await);
    world.capture().await.unwrap();
    (world, seen)
}

/// A backup, and three slices behind it.
async fn captured() -> (World, OperationId, Vec<(ClusterTime, There)>) {
    let world = World::with_data();
    let backup = world.back_up().await;
    let mut seen = Vec::new();
    for from in [1, 11, 21] {
        seen.extend(change(&world, from).await);
        world.capture().await.unwrap();
    }
    (world, backup, seen)
}

#[tokio::test]
async fn every_row_comes_back_as_it_was() {
    let (world, seen) = busy().await;
    let (before, windows_before) = (rows(&world).await, windows_of(&world).await);
    let (slices_before, breaks) = (slices(&world).await, world.timeline.breaks().await.unwrap());
    let rebuilt = lose_and_rebuild(&world).await;
    assert_eq!(rows(&world).await, before);
    assert_eq!(usize::try_from(rebuilt.operations).unwrap(), before.len());
    let exceptions = (rebuilt.without_record, rebuilt.cut_off, rebuilt.without_manifest, rebuilt.skipped);
    assert_eq!(exceptions, (0, 0, 0, 0), "{:?}", rebuilt.named);
    assert_eq!(slices(&world).await, slices_before);
    assert_eq!(world.timeline.breaks().await.unwrap(), breaks);
    assert_eq!(windows_of(&world).await, windows_before);
    assert_eq!(rebuilt.timeline_to, slices_before.last().map(|it| it.to));
    for (time, contents) in &seen {
        restore_to(&world, *time).await.unwrap();
        assert_eq!(world.cluster.contents(), *contents, "at {time}");
    }

    // What happens now goes on where the timeline ended: there is no gap.
    let later = change(&world, 31).await;
    world.capture().await.unwrap();
    assert_eq!(world.timeline.breaks().await.unwrap(), breaks);
    restore_to(&world, later[1].0).await.unwrap();
    assert_eq!(world.cluster.contents(), later[1].1);
    world.back_up().await;

    let again = rebuild_dying(&world, &Faults::none()).await.unwrap();
    assert_eq!((again.operations, again.slices, again.breaks), (0, 0, 0), "nothing is missing");
}

#[tokio::test]
async fn a_region_that_is_lost_is_restored_from_its_replica() {
    let (world, backup, seen) = captured().await;
    world.replicate(backup).await.unwrap();
    let none = OperationId::from_bytes([0; 16]);
    world.step(&Faults::none(), none, Step::ReplicateTimeline).await.unwrap();
    let row = world.operation(OperationKind::Backup, backup).await;
    world.store.set_down(true);
    let elsewhere = World {
        store: world.replica.clone(),
        catalog: MemoryCatalog::default(),
        timeline: MemoryTimeline::default(),
        ..world
    };
    rebuild_dying(&elsewhere, &Faults::none()).await.unwrap();
    assert_eq!(rows(&elsewhere).await, [row]);
    elsewhere.restore(&[]).await.unwrap();
    assert_eq!(elsewhere.cluster.contents(), World::with_data().cluster.contents());
    for (time, contents) in &seen {
        restore_to(&elsewhere, *time).await.unwrap();
        assert_eq!(elsewhere.cluster.contents(), *contents, "at {time}");
    }
}

#[tokio::test]
async fn gaps_are_gaps_again() {
    let world = World::with_data();
    world.back_up().await;
    let before = change(&world, 1).await;
    world.capture().await.unwrap();
    let gap = change(&world, 11).await;
    world.cluster.forget_changes();
    world.capture().await.unwrap();
    let mut started =
        world.machines.started().into_iter().filter(|(pipeline, _)| *pipeline == Pipeline::Protect);
    let (_, started) = started.next().unwrap();
    world.carry_out(OperationKind::Backup, started).await.unwrap();
    change(&world, 21).await;
    world.cluster.write_silently("leads", &rawdoc! { "_id": 3, "name": "nobody was told" });
    world.back_up().await;
    let after = change(&world, 31).await;
    world.capture().await.unwrap();
    let (rows_before, windows_before) = (rows(&world).await, windows_of(&world).await);
    let breaks = world.timeline.breaks().await.unwrap();
    let reasons: Vec<_> = breaks.iter().map(|it| &it.reason).collect();
    assert_eq!(reasons, [&BreakReason::HistoryLost, &BreakReason::NotProved]);

    lose_and_rebuild(&world).await;
    assert_eq!(rows(&world).await, rows_before);
    assert_eq!(world.timeline.breaks().await.unwrap(), breaks);
    assert_eq!(windows_of(&world).await, windows_before);
    assert_eq!(restore_to(&world, gap[1].0).await.unwrap_err().kind(), ErrorKind::NotFound);
    for (time, contents) in [&before[2], &after[1]] {
        restore_to(&world, *time).await.unwrap();
        assert_eq!(world.cluster.contents(), *contents, "at {time}");
    }
}

#[tokio::test]
async fn a_slice_that_is_gone_is_a_gap_from_then_on() {
    for in_use in [false, true] {
        let (world, _, seen) = captured().await;
        let gone = slices(&world).await.into_iter().rev().nth(1).unwrap();
        let key = ObjectKey::Slice("main".parse().unwrap(), gone.from, gone.slice);
        world.store.lose(&key.to_path().unwrap());
        if in_use {
            world.timeline.forget_slice(&gone).await.unwrap();
            rebuild_dying(&world, &Faults::none()).await.unwrap();
        } else {
            lose_and_rebuild(&world).await;
        }
        let breaks = world.timeline.breaks().await.unwrap();
        assert_eq!(breaks.len(), 1, "in use: {in_use}");
        assert_eq!((breaks[0].from, breaks[0].to), (gone.from, gone.to));
        assert_eq!((&breaks[0].database, &breaks[0].reason), (&None, &BreakReason::HistoryLost));
        let windows = windows_of(&world).await;
        assert_eq!(windows.iter().map(|it| it.until).collect::<Vec<_>>(), [gone.from.previous()]);
        restore_to(&world, seen[2].0).await.unwrap();
        assert_eq!(world.cluster.contents(), seen[2].1);
        assert_eq!(restore_to(&world, seen[4].0).await.unwrap_err().kind(), ErrorKind::NotFound);
        lose_and_rebuild(&world).await;
        assert_eq!(world.timeline.breaks().await.unwrap(), breaks, "it has its object now");
    }
}

/// The schedule goes on after the tables are lost, and begins a timeline of its own.
#[tokio::test]
async fn a_timeline_that_has_begun_again_gets_what_came_before_it() {
    let (world, _, seen) = captured().await;
    let (before, ended) = (slices(&world).await, world.timeline.head().await.unwrap().unwrap().to);
    world.catalog.clear();
    world.timeline.clear();
    let lost = change(&world, 31).await;
    world.capture().await.unwrap();
    let began = world.timeline.head().await.unwrap().unwrap().began;
    let new = world.back_up().await;
    let later = change(&world, 41).await;
    world.capture().await.unwrap();

    let rebuilt = rebuild_dying(&world, &Faults::none()).await.unwrap();
    assert_eq!((rebuilt.operations, rebuilt.there_already), (1, 1));
    assert_eq!((usize::try_from(rebuilt.slices).unwrap(), rebuilt.breaks), (before.len(), 1));
    assert!(slices(&world).await.starts_with(&before));
    let breaks = world.timeline.breaks().await.unwrap();
    assert_eq!(breaks.iter().map(|it| (it.from, it.to)).collect::<Vec<_>>(), [(ended, began)]);
    assert_eq!(windows_of(&world).await.len(), 2);
    for (time, contents) in seen.iter().chain(&later) {
        restore_to(&world, *time).await.unwrap();
        assert_eq!(world.cluster.contents(), *contents, "at {time}");
    }
    assert_eq!(restore_to(&world, lost[1].0).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(world.operation(OperationKind::Backup, new).await.state, OperationState::Verified);
    let again = rebuild_dying(&world, &Faults::none()).await.unwrap();
    assert_eq!((again.operations, again.slices, again.breaks), (0, 0, 0), "once is enough");
}

/// What the timeline is, without what differs between two worlds.
async fn essence(world: &World) -> (ClusterTime, ClusterTime, ClusterTime, Vec<(ClusterTime, ClusterTime)>) {
    let head = world.timeline.head().await.unwrap().unwrap();
    let mut stretches: Vec<_> = slices(world).await.iter().map(|it| (it.from, it.to)).collect();
    stretches.extend(world.timeline.breaks().await.unwrap().iter().map(|it| (it.from, it.to)));
    (head.began, head.since, head.to, stretches)
}

#[tokio::test]
async fn killed_anywhere_and_run_again_it_is_the_same_catalog() {
    for begun_again in [false, true] {
        let prepared = async || {
            let (world, backup, _) = captured().await;
            hold(&world, backup).await;
            fail(&world, world.request_backup(false).await).await;
            let before = rows(&world).await;
            world.catalog.clear();
            world.timeline.clear();
            if begun_again {
                world.capture().await.unwrap();
            }
            (world, before)
        };
        let (reference, _) = prepared().await;
        rebuild_dying(&reference, &Faults::none()).await.unwrap();
        let expected = essence(&reference).await;
        for boundary in 0.. {
            let (world, before) = prepared().await;
            let died = rebuild_dying(&world, &Faults::at(boundary)).await.is_err();
            rebuild_dying(&world, &Faults::none()).await.unwrap();
            assert_eq!(rows(&world).await, before, "killed at {boundary}");
            assert_eq!(essence(&world).await, expected, "killed at {boundary}");
            if !died {
                assert!(boundary > 40, "there are calls to be killed at");
                break;
            }
        }
    }
}

#[tokio::test]
async fn hostile_objects_are_skipped_and_told() {
    let (world, backup, _) = captured().await;
    let (before, slices_before) = (rows(&world).await, slices(&world).await);
    let row = world.operation(OperationKind::Backup, backup).await;
    let own = Place::Backup(row.backup_place().unwrap());
    let objects = world.store.objects();
    let record = objects[&ObjectKey::Record(own).to_path().unwrap()].clone();
    let source = "main".parse().unwrap();
    let slice = &slices_before[0];
    let slice_path = ObjectKey::Slice(source, slice.from, slice.slice).to_path().unwrap();
    let another = || {
        let backup = OperationId::generate(world.clock.now_millis()).unwrap();
        (backup, BackupPlace { trigger: Trigger::Manual, backup })
    };
    let sealed = async |source: &str, id| {
        let context = ObjectContext::of_operation(ObjectKind::Record, source.parse().unwrap(), id);
        Bytes::from(seal_json(&world.keys, context, &row).await.unwrap())
    };
    let record_at = |place| ObjectKey::Record(Place::Backup(place)).to_path().unwrap();
    let mut planted: Vec<(String, Bytes)> = vec![
        (record_at(another().1), Bytes::from_static(b"junk")),
        (record_at(another().1), Bytes::new()),
        (record_at(another().1), record.clone()),
        (record_at(another().1), vec![0; 2 << 20].into()),
        (ObjectKey::Manifest(another().1).to_path().unwrap(), record.slice(..record.len() - 1)),
        (format!("timeline/main/2026/11/22/{}", "x".repeat(900)), Bytes::new()),
        (
            slice_path.replace(&slice.slice.to_string(), &another().0.to_string()),
            objects[&slice_path].clone(),
        ),
        (ObjectKey::Break(source, slice.from, slice.to, 0).to_path().unwrap(), record),
    ];
    for source in ["other", "main"] {
        let (id, place) = another();
        planted.push((record_at(place), sealed(source, id).await));
    }
    for (path, body) in &planted {
        world.store.tamper(path, body.clone());
    }
    for path in
        ["automated/x/record.sealed", "drills/2026-11-22/../../record.sealed", "prunes/", "restores/\n"]
    {
        world.store.tamper(path, Bytes::new()); // these are nobody's
    }
    let rebuilt = lose_and_rebuild(&world).await;
    assert_eq!(rows(&world).await, before);
    assert_eq!(slices(&world).await, slices_before);
    assert!(world.timeline.breaks().await.unwrap().is_empty());
    assert_eq!(usize::try_from(rebuilt.skipped).unwrap(), planted.len(), "{:#?}", rebuilt.named);
    for (path, _) in &planted {
        let told = rebuilt.named.iter().find(|it| path.starts_with(&it.path));
        assert!(told.is_some_and(|it| !it.reason.is_empty()), "{path}");
    }
}

#[tokio::test]
async fn a_key_that_may_not_be_used_does_not_look_like_an_empty_bucket() {
    let (world, ..) = captured().await;
    world.catalog.clear();
    world.timeline.clear();
    world.keys.set_disabled(true);
    assert_eq!(rebuild_dying(&world, &Faults::none()).await.unwrap_err().kind(), ErrorKind::Denied);
    assert!(world.timeline.head().await.unwrap().is_none());
}

/// Its process died right before the record, or an earlier release kept none, or the record is damaged.
#[tokio::test]
async fn a_backup_without_a_record_is_what_its_manifest_and_evidence_say() {
    for (has_evidence, damaged) in [(true, false), (true, true), (false, false)] {
        let (world, backup, seen) = captured().await;
        let before = world.operation(OperationKind::Backup, backup).await;
        let place = before.backup_place().unwrap();
        let path = ObjectKey::Record(Place::Backup(place)).to_path().unwrap();
        world.store.lose(&path);
        if damaged {
            world.store.tamper(&path, Bytes::from_static(b"junk"));
        }
        let evidence = world.store.objects().into_keys().find(|it| it.contains("/verified/")).unwrap();
        if !has_evidence {
            world.store.lose(&evidence);
        }
        let rebuilt = lose_and_rebuild(&world).await;
        assert_eq!((rebuilt.operations, rebuilt.without_record, rebuilt.skipped), (1, 1, u64::from(damaged)));
        let row = world.operation(OperationKind::Backup, backup).await;
        assert_eq!((row.totals, &row.database), (before.totals, &before.database));
        let (detail, expected) = (row.backup().unwrap(), before.backup().unwrap());
        assert_eq!(detail.manifest_sha256, expected.manifest_sha256);
        assert_eq!(Base::of(&row), Base::of(&before).filter(|_| has_evidence));
        if has_evidence {
            assert_eq!(row.state, OperationState::Verified);
            assert!(detail.levels.contains_key(&Level::Decoded));
            restore_to(&world, seen[1].0).await.unwrap();
            assert_eq!(world.cluster.contents(), seen[1].1);
            continue;
        }
        assert_eq!(row.state, OperationState::Failed);
        assert_eq!(world.restore(&[]).await.unwrap_err().kind(), ErrorKind::NotFound);
        let named =
            RestoreDetail { backup: Some(backup), may_replace: true, ..RestoreDetail::requested(true) };
        let by_id = world.request(&[], Detail::Restore(named)).await;
        world.carry_out(OperationKind::Restore, by_id).await.unwrap();
        assert_eq!(world.cluster.contents(), World::with_data().cluster.contents());
    }
}

#[tokio::test]
async fn a_verified_backup_without_its_manifest_is_not_brought_back() {
    for is_being_removed in [false, true] {
        let (world, backup, _) = captured().await;
        if is_being_removed {
            let removal = Removal { reason: "its time is over".into(), marked_millis: 7, begun: true };
            note(&world, backup, &BackupNote::Removal(Some(removal))).await;
        }
        let row = world.operation(OperationKind::Backup, backup).await;
        let manifest = ObjectKey::Manifest(row.backup_place().unwrap());
        world.store.lose(&manifest.to_path().unwrap());
        let rebuilt = lose_and_rebuild(&world).await;
        assert_eq!(rebuilt.without_manifest, u64::from(!is_being_removed));
        // The pruner ends what it had begun.
        let expected = if is_being_removed { vec![row] } else { Vec::new() };
        assert_eq!(rows(&world).await, expected);
    }
}

/// The tables were brought back as they were some hours ago.
#[tokio::test]
async fn a_hold_that_is_newer_than_the_catalog_is_not_forgotten() {
    let world = World::with_data();
    let (held, free) = (world.back_up().await, world.back_up().await);
    let before = world.operation(OperationKind::Backup, held).await;
    hold(&world, held).await;
    world.catalog.tamper(OperationKind::Backup, held, |row| *row = before.clone());
    let rebuilt = rebuild_dying(&world, &Faults::none()).await.unwrap();
    assert_eq!((rebuilt.operations, rebuilt.there_already, rebuilt.held), (0, 2, 1), "{rebuilt}");
    let is_held =
        async |id| world.operation(OperationKind::Backup, id).await.backup().unwrap().hold.is_some();
    assert!(is_held(held).await && !is_held(free).await);
    // A hold that was released since is no longer in the record.
    note(&world, held, &BackupNote::Hold(None)).await;
    let rebuilt = rebuild_dying(&world, &Faults::none()).await.unwrap();
    assert_eq!(rebuilt.held, 0);
    assert!(!is_held(held).await);
}

#[tokio::test]
async fn what_had_not_ended_has_failed() {
    let world = World::with_data();
    let id = world.request_backup(false).await;
    world.step(&Faults::none(), id, Step::TriggerBackup).await.unwrap();
    hold(&world, id).await;
    let steps = world.steps_after_plan(OperationKind::Backup, id).await;
    let rebuilt = lose_and_rebuild(&world).await;
    assert_eq!((rebuilt.operations, rebuilt.cut_off), (1, 1));
    let row = world.operation(OperationKind::Backup, id).await;
    assert_eq!(row.state, OperationState::Failed);
    assert_eq!(row.failure.as_ref().unwrap().kind, ErrorKind::Gone);
    assert!(row.finished_millis.is_some() && row.backup().unwrap().hold.is_some());
    world.step(&Faults::none(), id, steps[0]).await.unwrap_err();
    let told = rebuilt.to_string();
    assert!(told.contains("1 of them had not ended") && told.contains("there is no timeline"), "{told}");
}
