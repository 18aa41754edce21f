//! Copies in other regions over ports in memory: whole and proved there, or not there at all.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use backup_core::alert::{Alert, AlertEvent};
use backup_core::error::{ErrorKind, Result};
use backup_core::flows::{open_manifest, seal_replicas};
use backup_core::format::{ObjectKey, Place};
use backup_core::id::{ClusterTime, OperationId, RegionName};
use backup_core::operation::{BackupNote, OperationKind, Removal};
use backup_core::ports::{Catalog, Clock, Region, Timeline};
use backup_core::timeline::TimelineHead;
use backup_testkit::fixture::{Step, World, lead};
use backup_testkit::{Faults, MemoryKeys, MemoryStore};
use bson::rawdoc;
use bytes::Bytes;

const DAY_MILLIS: u64 = 86_400_000;

/// The other regions.
fn regions(world: &World) -> [(RegionName, &MemoryStore); 2] {
    [(World::REPLICA, &world.replica), (World::SECOND_REPLICA, &world.second_replica)]
        .map(|(name, bucket)| (name.parse().unwrap(), bucket))
}

/// The paths of a backup's manifest and of the chunks it names.
struct Named {
    manifest: String,
    chunks: Vec<String>,
}

async fn named(world: &World, id: OperationId) -> Named {
    let row = world.operation(OperationKind::Backup, id).await;
    let manifest = open_manifest(&world.store, &world.keys, &row).await.unwrap();
    let place = manifest.place();
    let chunks = manifest.chunks().map(|(_, it)| ObjectKey::Chunk(place, it.ordinal, it.stored.attempt));
    Named {
        manifest: ObjectKey::Manifest(place).to_path().unwrap(),
        chunks: chunks.map(|key| key.to_path().unwrap()).collect(),
    }
}

/// Where there is a manifest, there is everything it names.
fn assert_no_half_copy(world: &World, named: &Named, when: &str) {
    let home = world.store.objects();
    for (region, bucket) in regions(world) {
        let there = bucket.objects();
        if there.contains_key(&named.manifest) {
            for path in &named.chunks {
                assert!(there.get(path) == home.get(path), "{when}: {path} is missing in {region}");
            }
        }
    }
}

/// The region holds the backup, byte for byte, and nothing else; its manifest opens there, and the row names it.
async fn assert_whole(world: &World, id: OperationId, (region, bucket): (RegionName, &MemoryStore)) {
    let row = world.operation(OperationKind::Backup, id).await;
    let manifest = open_manifest(bucket, &world.keys, &row).await.unwrap();
    let place = manifest.place();
    let chunks = manifest.chunks().map(|(_, it)| ObjectKey::Chunk(place, it.ordinal, it.stored.attempt));
    let beside = [
        ObjectKey::Manifest(place),
        ObjectKey::BackupWork(place),
        ObjectKey::BackupReport(place),
        ObjectKey::BackupPage(place),
        ObjectKey::Record(Place::Backup(place)),
    ];
    let home = world.store.objects();
    let paths = chunks.chain(beside).map(|key| key.to_path().unwrap());
    let expected: BTreeMap<String, Bytes> =
        paths.filter_map(|path| home.get(&path).map(|body| (path.clone(), body.clone()))).collect();
    let there = bucket.objects();
    assert_eq!(there.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{region}");
    assert!(there == expected, "{region}: an object is not what it is at home");
    let totals = manifest.totals();
    let replica = row.backup().unwrap().replicas[&region];
    assert_eq!(replica.objects, totals.chunks + 1, "{region}");
    assert!(replica.stored_bytes > totals.stored_bytes, "{region}");
}

/// As the state machine does: what cannot be copied is left to `seal-replicas` to tell.
async fn replicate_what_can_be(world: &World, id: OperationId) {
    for step in world.steps_of_replication(id).await {
        let done = world.step(&Faults::none(), id, step).await;
        if step == Step::SealReplicas {
            done.unwrap();
        }
    }
}

/// Alerts about copies.
fn told(world: &World) -> Vec<Alert> {
    let about_copies = |alert: &Alert| alert.event == AlertEvent::ReplicationLags;
    world.alerts.published().into_iter().filter(about_copies).collect()
}

#[tokio::test]
async fn a_copy_is_restored_while_the_home_region_is_down() {
    for is_folded in [false, true] {
        let world = World::with_data();
        let mut id = world.back_up().await;
        if is_folded {
            world.cluster.write("leads", &rawdoc! { "_id": 3, "name": "changed" });
            world.capture().await.unwrap();
            id = world.synthesize().await.unwrap();
        }
        let contents = world.cluster.contents();
        world.replicate(id).await.unwrap();
        for (region, bucket) in regions(&world) {
            assert_whole(&world, id, (region, bucket)).await;
            world.cluster.write("leads", &rawdoc! { "_id": 5, "name": "an accident" });
            world.store.set_down(true);
            let elsewhere = World { store: bucket.clone(), ..world.clone() };
            elsewhere.restore(&[]).await.unwrap();
            assert_eq!(world.cluster.contents(), contents, "{region}, folded: {is_folded}");
            world.store.set_down(false);
        }
        assert!(told(&world).is_empty());
    }
}

#[tokio::test]
async fn killed_anywhere_and_run_again_it_is_the_same_copy() {
    for boundary in 0.. {
        let world = World::with_data();
        let id = world.back_up().await;
        let named = named(&world, id).await;
        let (mut left, mut died, when) = (boundary, false, format!("killed at {boundary}"));
        for step in world.steps_of_replication(id).await {
            let faults = if died { Faults::none() } else { Faults::at(left) };
            let outcome = world.step(&faults, id, step).await;
            assert_no_half_copy(&world, &named, &when);
            if !died && faults.boundaries() > left {
                assert!(outcome.is_err(), "{when}: {step:?} went on");
                died = true;
                world.step(&Faults::none(), id, step).await.unwrap();
            } else {
                outcome.unwrap();
                left = left.saturating_sub(faults.boundaries());
            }
            world.step(&Faults::none(), id, step).await.unwrap(); // as a doubled event would
        }
        for region in regions(&world) {
            assert_whole(&world, id, region).await;
        }
        assert!(told(&world).is_empty(), "{when}");
        if !died {
            assert!(boundary > 100, "only {boundary} boundaries were tried");
            return;
        }
    }
}

#[tokio::test]
async fn every_step_run_twice_at_once_is_like_run_once() {
    let world = World::with_data();
    let id = world.back_up().await;
    let named = named(&world, id).await;
    for step in world.steps_of_replication(id).await {
        let faults = Faults::none();
        let run = || Box::pin(world.step(&faults, id, step));
        let (left, right) = tokio::join!(run(), run());
        assert!(left.is_ok() || right.is_ok(), "{step:?}");
        assert_no_half_copy(&world, &named, "two at once");
    }
    for region in regions(&world) {
        assert_whole(&world, id, region).await;
    }
}

#[tokio::test]
async fn what_is_damaged_in_the_region_is_found_and_brought_again() {
    let world = World::with_data();
    let id = world.back_up().await;
    world.replicate(id).await.unwrap();
    let sound = world.replica.objects();
    for (path, body) in &sound {
        let mut flipped = body.to_vec();
        flipped[body.len() / 2] ^= 1;
        let damages = [
            ("flipped", Some(Bytes::from(flipped))),
            ("cut", Some(body.slice(..body.len() - 1))),
            ("longer", Some([&body[..], &b"x"[..]].concat().into())),
            ("empty", Some(Bytes::new())),
            ("missing", None),
        ];
        for (what, bad) in damages {
            match bad {
                Some(bad) => world.replica.tamper(path, bad),
                None => world.replica.lose(path),
            }
            world.replicate(id).await.unwrap();
            assert!(world.replica.objects() == sound, "{what}: {path}");
        }
    }
    assert!(told(&world).is_empty());
}

#[tokio::test]
async fn a_chunk_that_went_missing_after_its_evidence_keeps_the_manifest_away() {
    let world = World::with_data();
    let id = world.back_up().await;
    let named = named(&world, id).await;
    for step in world.steps_of_replication(id).await {
        if step == Step::SealReplicas {
            world.replica.lose(&named.chunks[1]);
        }
        world.step(&Faults::none(), id, step).await.unwrap();
    }
    assert!(!world.replica.objects().contains_key(&named.manifest));
    assert_whole(&world, id, regions(&world)[1]).await;
    let alerts = told(&world);
    assert_eq!(alerts.len(), 1);
    assert!(alerts[0].body.contains(World::REPLICA) && alerts[0].body.contains(&named.chunks[1]));
    world.replicate(id).await.unwrap();
    assert_whole(&world, id, regions(&world)[0]).await;
}

#[tokio::test]
async fn a_region_that_is_down_keeps_no_other_one_waiting_and_is_completed_later() {
    let world = World::with_data();
    let id = world.back_up().await;
    world.replica.set_down(true);
    replicate_what_can_be(&world, id).await;
    assert_whole(&world, id, regions(&world)[1]).await;
    assert!(world.replica.objects().is_empty());
    let row = world.operation(OperationKind::Backup, id).await;
    let complete: Vec<String> = row.backup().unwrap().replicas.keys().map(ToString::to_string).collect();
    assert_eq!(complete, [World::SECOND_REPLICA]);
    let alerts = told(&world);
    assert_eq!(alerts.len(), 1);
    let subject = format!("[HIGH] copy INCOMPLETE main/crm in {}", World::REPLICA);
    assert_eq!(alerts[0].subject, subject);

    world.replica.set_down(false);
    world.replicate(id).await.unwrap();
    for region in regions(&world) {
        assert_whole(&world, id, region).await;
    }
    assert_eq!(told(&world).len(), 1);
}

#[tokio::test]
async fn a_copy_that_the_regions_key_does_not_open_gets_no_manifest() {
    let world = World::with_data();
    let id = world.back_up().await;
    let named = named(&world, id).await;
    for step in world.steps_of_replication(id).await {
        if step != Step::SealReplicas {
            world.step(&Faults::none(), id, step).await.unwrap();
        }
    }
    let (denied, bucket) = (MemoryKeys::default(), &world.replica);
    denied.set_disabled(true);
    let region = Region {
        name: World::replica_region(),
        store: bucket,
        keys: &denied,
        copies: bucket,
        locks: bucket,
        shelves: bucket,
    };
    let ports = seal_replicas::Ports {
        store: &world.store,
        keys: &world.keys,
        catalog: &world.catalog,
        regions: &[region],
        alerts: &world.alerts,
        clock: &world.clock,
    };
    seal_replicas::run(ports, id).await.unwrap();
    assert!(!bucket.objects().contains_key(&named.manifest));
    let alerts = told(&world);
    assert_eq!(alerts.len(), 1);
    assert!(alerts[0].body.contains("Nightsafe.Denied"), "{}", alerts[0].body);
    assert!(world.operation(OperationKind::Backup, id).await.backup().unwrap().replicas.is_empty());
}

#[tokio::test]
async fn what_is_not_verified_or_is_going_to_be_removed_is_not_copied() {
    let world = World::with_data();
    let id = world.request_backup(false).await;
    world.step(&Faults::none(), id, Step::TriggerBackup).await.unwrap();
    for step in world.steps_after_plan(OperationKind::Backup, id).await {
        if step == Step::Close {
            for step in world.steps_of_replication(id).await {
                let refused = world.step(&Faults::none(), id, step).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Refused, "{step:?}");
            }
        }
        world.step(&Faults::none(), id, step).await.unwrap();
    }
    let removal = Removal { reason: "daily ended".into(), marked_millis: 1, begun: false };
    world.catalog.note(id, &BackupNote::Removal(Some(removal))).await.unwrap();
    world.replicate(id).await.unwrap();
    for (region, bucket) in regions(&world) {
        assert!(bucket.objects().is_empty(), "{region}");
    }
    assert!(told(&world).is_empty());
}

#[tokio::test]
async fn a_copy_is_locked_as_long_as_the_backup() {
    let world = World::with_data();
    let id = world.back_up().await;
    let until = world.clock.now_millis() + DAY_MILLIS;
    let steps = world.steps_of_replication(id).await;
    for step in steps {
        if step == Step::SealReplicas {
            // The pruner comes between.
            world.catalog.note(id, &BackupNote::Locked(until)).await.unwrap();
        }
        world.step(&Faults::none(), id, step).await.unwrap();
    }
    let named = named(&world, id).await;
    for (region, bucket) in regions(&world) {
        let locked = bucket.locked();
        for path in named.chunks.iter().chain([&named.manifest]) {
            assert_eq!(locked.get(path), Some(&until), "{path} in {region}");
        }
    }
}

async fn replicate_timeline(world: &World, faults: &Faults) -> Result<()> {
    world.step(faults, OperationId::from_bytes([0; 16]), Step::ReplicateTimeline).await
}

/// Captures some changes; with a break, if so wanted.
async fn capture(world: &World, from: i32, with_break: bool) {
    world.cluster.write("leads", &lead(1000 + from));
    world.capture().await.unwrap();
    if with_break {
        world.cluster.write("leads", &lead(2000 + from));
        world.cluster.forget_changes();
        world.capture().await.unwrap();
    }
    world.cluster.write("leads", &lead(3000 + from));
    world.capture().await.unwrap();
}

fn timeline_in(bucket: &MemoryStore) -> BTreeMap<String, Bytes> {
    bucket.objects().into_iter().filter(|(path, _)| path.starts_with("timeline/")).collect()
}

async fn assert_caught_up(world: &World, (region, bucket): (RegionName, &MemoryStore)) {
    let (home, there) = (timeline_in(&world.store), timeline_in(bucket));
    assert_eq!(there.keys().collect::<Vec<_>>(), home.keys().collect::<Vec<_>>(), "{region}");
    assert!(there == home, "{region}: an object is not what it is at home");
    let copy = world.timeline.replicated(region).await.unwrap().unwrap();
    assert_eq!(copy.to, world.timeline.head().await.unwrap().unwrap().to, "{region}");
    let breaks = world.timeline.breaks().await.unwrap().len();
    assert_eq!(copy.breaks, u64::try_from(breaks).unwrap(), "{region}");
}

#[tokio::test]
async fn the_timeline_follows_with_its_breaks() {
    let world = World::with_data();
    replicate_timeline(&world, &Faults::none()).await.unwrap(); // it has not begun
    world.back_up().await;
    for (from, with_break) in [(0, false), (1, true), (2, false), (3, true)] {
        capture(&world, from, with_break).await;
        replicate_timeline(&world, &Faults::none()).await.unwrap();
        for region in regions(&world) {
            assert_caught_up(&world, region).await;
        }
    }
    assert!(timeline_in(&world.replica).keys().any(|path| path.contains("/breaks/")));
    assert!(told(&world).is_empty());
}

/// Every slice before the instant that is noted is there.
async fn assert_noted_is_there(world: &World, when: &str) {
    let (home, head) = (timeline_in(&world.store), world.timeline.head().await.unwrap().unwrap());
    for (region, bucket) in regions(world) {
        let there = timeline_in(bucket);
        let to = world.timeline.replicated(region).await.unwrap().map_or(head.began, |copy| copy.to);
        for slice in world.timeline.slices(head.began, to).await.unwrap() {
            let key = ObjectKey::Slice("main".parse().unwrap(), slice.from, slice.slice);
            let path = key.to_path().unwrap();
            assert!(there.get(&path) == home.get(&path), "{when}: {path} is not in {region}");
        }
    }
}

#[tokio::test]
async fn a_copy_of_the_timeline_that_is_killed_anywhere_goes_on() {
    for boundary in 0.. {
        let world = World::with_data();
        world.back_up().await;
        capture(&world, 0, true).await;
        capture(&world, 1, false).await;
        let (faults, when) = (Faults::at(boundary), format!("killed at {boundary}"));
        let outcome = replicate_timeline(&world, &faults).await;
        assert_noted_is_there(&world, &when).await;
        let died = faults.boundaries() > boundary;
        assert_eq!(outcome.is_err(), died, "{when}");
        let none = Faults::none();
        let run = || Box::pin(replicate_timeline(&world, &none));
        let (left, right) = tokio::join!(run(), run());
        left.and(right).unwrap();
        for region in regions(&world) {
            assert_caught_up(&world, region).await;
        }
        if !died {
            assert!(boundary > 40, "only {boundary} boundaries were tried");
            return;
        }
    }
}

#[tokio::test]
async fn a_copy_of_the_timeline_that_lags_is_told_once_an_hour() {
    let world = World::with_data();
    world.back_up().await;
    capture(&world, 0, false).await;
    world.replica.set_down(true);
    let fails = async || {
        let why = replicate_timeline(&world, &Faults::none()).await.unwrap_err();
        assert_eq!(why.kind(), ErrorKind::Transient);
        assert_caught_up(&world, regions(&world)[1]).await;
        told(&world).len()
    };
    assert_eq!(fails().await, 0, "it began just now");
    let head = world.timeline.head().await.unwrap().unwrap();
    let to = ClusterTime { seconds: head.to.seconds + 7200, ..head.to };
    world.timeline.advance(&TimelineHead { to, ..head }, None, &[]).await.unwrap();
    assert_eq!(fails().await, 0, "it has not been failing for an hour");
    world.clock.advance(3_700_000);
    assert_eq!(fails().await, 1);
    assert_eq!(fails().await, 1, "they were told");
    world.clock.advance(3_700_000);
    assert_eq!(fails().await, 2);
    let subject = format!("[HIGH] timeline copy LAGS main in {}", World::REPLICA);
    assert!(told(&world).iter().all(|alert| alert.subject == subject));
    world.replica.set_down(false);
    replicate_timeline(&world, &Faults::none()).await.unwrap();
    assert_caught_up(&world, regions(&world)[0]).await;
}

#[tokio::test]
async fn a_slice_is_copied_only_if_it_is_sound_and_replaces_what_is_not() {
    let world = World::with_data();
    world.back_up().await;
    capture(&world, 0, false).await;
    let home = timeline_in(&world.store);
    let (path, body) = home.iter().next().unwrap();
    world.replica.tamper(path, body.slice(..body.len() / 2));
    world.store.tamper(path, body.slice(..body.len() - 1));
    let why = replicate_timeline(&world, &Faults::none()).await.unwrap_err();
    assert_eq!(why.kind(), ErrorKind::Corrupt, "{why}");
    assert!(!timeline_in(&world.second_replica).contains_key(path));

    world.store.tamper(path, body.clone());
    world.clock.set_left(1000);
    replicate_timeline(&world, &Faults::none()).await.unwrap();
    assert!(!timeline_in(&world.second_replica).contains_key(path), "there was no time");
    world.clock.set_left(u64::MAX);
    replicate_timeline(&world, &Faults::none()).await.unwrap();
    for region in regions(&world) {
        assert_caught_up(&world, region).await;
    }
}
