//! Restores from cold storage over ports in memory: what is needed is asked for once, people are told once, and nothing
//! else happens before everything has come.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use async_trait::async_trait;
use backup_core::Result;
use backup_core::alert::{Alert, AlertEvent};
use backup_core::error::ErrorKind;
use backup_core::flows::open_manifest;
use backup_core::flows::thaw::{Ports, Thawed, run};
use backup_core::format::ObjectKey;
use backup_core::id::OperationId;
use backup_core::operation::{BackupNote, Detail, OperationKind, OperationState, RestoreDetail, RestoreTime};
use backup_core::ports::{Catalog, Clock, ColdStorage, Resource, Target, Temperature};
use backup_testkit::Faults;
use backup_testkit::fixture::{DATABASE, Step, World, lead};
use bson::rawdoc;

const POLL_MILLIS: u64 = 300_000;

/// The stored chunks of these collections of a backup; of all if none are named.
async fn chunks(world: &World, backup: OperationId, collections: &[&str]) -> Vec<ObjectKey> {
    let row = world.operation(OperationKind::Backup, backup).await;
    let manifest = open_manifest(&world.store, &world.keys, &row).await.unwrap();
    let wanted = |name: &str| collections.is_empty() || collections.contains(&name);
    let chunks = manifest.chunks().filter(|(entry, _)| wanted(&entry.namespace.name));
    let key = |ordinal, attempt| ObjectKey::Chunk(manifest.place(), ordinal, attempt);
    chunks.map(|(_, chunk)| key(chunk.ordinal, chunk.stored.attempt)).collect()
}

fn paths(keys: &[ObjectKey]) -> BTreeSet<String> {
    keys.iter().map(|key| key.to_path().unwrap()).collect()
}

fn frozen(world: &World) -> BTreeSet<String> {
    world.store.frozen().into_iter().collect()
}

/// As the pruner does it.
async fn freeze(world: &World, backup: OperationId) {
    for chunk in chunks(world, backup, &[]).await {
        world.store.freeze(chunk).await.unwrap();
    }
    world.catalog.note(backup, &BackupNote::Cold).await.unwrap();
}

/// A world with a backup in cold storage, whose database was changed afterwards.
async fn archived() -> (World, OperationId) {
    let world = World::with_data();
    let backup = world.back_up().await;
    world.cluster.write("leads", &rawdoc! { "_id": 7, "damaged": true });
    freeze(&world, backup).await;
    (world, backup)
}

async fn ask(world: &World, id: OperationId) -> Result<bool> {
    world.thaw(&Faults::none(), id).await.map(|thawed| thawed.ready)
}

fn told(world: &World) -> Vec<Alert> {
    let waits = |alert: &Alert| alert.subject.contains("waits for cold storage");
    world.alerts.published().into_iter().filter(waits).collect()
}

async fn detail(world: &World, id: OperationId) -> RestoreDetail {
    world.operation(OperationKind::Restore, id).await.restore().unwrap().clone()
}

#[tokio::test]
async fn a_restore_asks_once_says_so_once_and_goes_on_when_all_has_come() {
    let (world, backup) = archived().await;
    let live = world.cluster.contents();
    let id = world.request_restore(&[], true).await;
    assert!(!ask(&world, id).await.unwrap());
    assert!(frozen(&world).is_empty(), "everything was asked for");
    let since = world.clock.now_millis();
    let waiting = world.operation(OperationKind::Restore, id).await;
    assert_eq!((waiting.state, waiting.used_backup()), (OperationState::Requested, Some(backup)));
    assert_eq!(waiting.restore().unwrap().thawing_since_millis, Some(since));
    for _ in 0..3 {
        world.clock.advance(POLL_MILLIS);
        assert!(!ask(&world, id).await.unwrap());
    }
    assert_eq!(world.operation(OperationKind::Restore, id).await, waiting);
    let alerts = told(&world);
    assert_eq!((alerts.len(), alerts[0].event), (1, AlertEvent::RestoreInitiated));
    assert!(alerts[0].body.contains(&backup.to_string()), "{}", alerts[0].body);
    assert_eq!(world.cluster.contents(), live, "nothing is changed while it waits");
    assert!(world.cluster.staging().is_empty());
    let lease = world.catalog.lease(&Resource::Target(DATABASE.into()), 0).await.unwrap();
    assert!(lease.is_none(), "who waits is in nobody's way");

    world.store.let_thaw();
    assert!(ask(&world, id).await.unwrap());
    world.carry_out(OperationKind::Restore, id).await.unwrap();
    assert_eq!(world.operation(OperationKind::Restore, id).await.state, OperationState::Restored);
    assert_eq!(world.cluster.contents(), World::with_data().cluster.contents());
    freeze(&world, backup).await;
    assert!(ask(&world, id).await.unwrap(), "what has ended waits for nothing");
    assert!(!frozen(&world).is_empty());
    assert_eq!(told(&world).len(), 1);
}

#[tokio::test]
async fn only_what_is_restored_is_asked_for() {
    for (names, holding) in [(&["messages"][..], "messages"), (&["active", "empty"][..], "empty")] {
        let (world, backup) = archived().await;
        let before = frozen(&world);
        let id = world.request_restore(names, true).await;
        let needed = paths(&chunks(&world, backup, &[holding]).await);
        assert_eq!(ask(&world, id).await.unwrap(), needed.is_empty(), "{names:?}");
        let left: BTreeSet<String> = before.difference(&needed).cloned().collect();
        assert_eq!(frozen(&world), left, "{names:?}");
        world.store.let_thaw();
        world.carry_out(OperationKind::Restore, id).await.unwrap();
    }
}

/// The chunks are those of the collection that has its name now, whatever its name was in the backup.
#[tokio::test]
async fn an_instant_is_folded_from_chunks_that_have_come() {
    let world = World::with_data();
    let backup = world.back_up().await;
    world.cluster.rename(DATABASE, "leads", "people").await.unwrap();
    world.cluster.fill("leads", [lead(1)]);
    world.cluster.write("people", &rawdoc! { "_id": 7, "name": "changed" });
    let then = world.cluster.contents();
    world.capture().await.unwrap();
    freeze(&world, backup).await;
    let before = frozen(&world);
    world.cluster.delete("people", 7);
    let at = Some(RestoreTime::Latest);
    let asked = RestoreDetail { may_replace: true, at, ..RestoreDetail::requested(false) };
    let id = world.request(&["people"], Detail::Restore(asked)).await;
    assert!(!ask(&world, id).await.unwrap());
    let needed = paths(&chunks(&world, backup, &["leads"]).await);
    let left: BTreeSet<String> = before.difference(&needed).cloned().collect();
    assert_eq!(frozen(&world), left);
    world.store.let_thaw();
    world.carry_out(OperationKind::Restore, id).await.unwrap();
    assert_eq!(world.cluster.contents(), then);
}

/// What `thaw` chose is what is restored, though a newer backup was verified and time went on meanwhile.
#[tokio::test]
async fn what_was_asked_for_is_what_is_restored() {
    for at in [None, Some(RestoreTime::Latest)] {
        let world = World::with_data();
        let old = world.back_up().await;
        world.cluster.write("leads", &rawdoc! { "_id": 7, "name": "changed" });
        let newer = world.back_up().await;
        world.capture().await.unwrap();
        let row = world.operation(OperationKind::Backup, newer).await;
        world.catalog.tamper(OperationKind::Backup, newer, |row| row.state = OperationState::Sealed);
        freeze(&world, old).await;
        let asked = RestoreDetail { may_replace: true, at, ..RestoreDetail::requested(true) };
        let id = world.request(&[], Detail::Restore(asked)).await;
        assert!(!ask(&world, id).await.unwrap(), "{at:?}");
        let chosen = detail(&world, id).await;
        assert_eq!(chosen.backup, Some(old), "{at:?}");
        assert_eq!(chosen.at.is_some(), at.is_some());

        world.catalog.tamper(OperationKind::Backup, newer, |it| it.state = row.state);
        let then = world.cluster.contents();
        world.cluster.write("leads", &rawdoc! { "_id": 8, "name": "changed" });
        world.capture().await.unwrap();
        world.store.let_thaw();
        world.carry_out(OperationKind::Restore, id).await.unwrap();
        let restored = detail(&world, id).await;
        assert_eq!((restored.backup, restored.at), (Some(old), chosen.at), "{at:?}");
        let expected = if at.is_some() { then } else { World::with_data().cluster.contents() };
        assert_eq!(world.cluster.contents(), expected, "{at:?}");
    }
}

/// Objects that were given to cold storage are moved there later, some of them perhaps while others are waited for.
#[tokio::test]
async fn what_freezes_meanwhile_is_asked_for_too() {
    let (world, backup) = archived().await;
    let id = world.request_restore(&[], true).await;
    assert!(!ask(&world, id).await.unwrap());
    let late = chunks(&world, backup, &["leads"]).await;
    world.store.let_thaw();
    for chunk in &late {
        world.store.freeze(*chunk).await.unwrap();
    }
    assert!(!ask(&world, id).await.unwrap());
    assert!(frozen(&world).is_empty());
    world.store.let_thaw();
    assert!(ask(&world, id).await.unwrap());
    assert_eq!(told(&world).len(), 1);
}

#[tokio::test]
async fn what_cannot_be_restored_is_refused_before_anything_is_asked_for() {
    let (world, backup) = archived().await;
    let before = frozen(&world);
    let id = world.request_restore(&["leads", "nix"], true).await;
    assert_eq!(ask(&world, id).await.unwrap_err().kind(), ErrorKind::NotFound);
    let id = world.request_restore(&[], true).await;
    world.clock.set_left(59_999);
    assert_eq!(ask(&world, id).await.unwrap_err().kind(), ErrorKind::OutOfTime);
    assert_eq!(frozen(&world), before);
    assert!(told(&world).is_empty());
    world.clock.set_left(u64::MAX);
    assert!(!ask(&world, id).await.unwrap());
    assert_eq!(detail(&world, id).await.backup, Some(backup));
}

/// Cold storage of which nothing may be asked.
struct Untouched;

#[async_trait]
impl ColdStorage for Untouched {
    async fn freeze(&self, key: ObjectKey) -> Result<()> {
        panic!("freeze {key:?}")
    }

    async fn temperature(&self, key: ObjectKey) -> Result<Temperature> {
        panic!("look at {key:?}")
    }

    async fn thaw(&self, key: ObjectKey) -> Result<()> {
        panic!("thaw {key:?}")
    }
}

#[tokio::test]
async fn what_is_not_cold_and_what_is_only_planned_asks_for_nothing() {
    for (name, is_cold, dry_run) in [("a warm one", false, false), ("a plan of a cold one", true, true)] {
        let world = World::with_data();
        let backup = world.back_up().await;
        if is_cold {
            freeze(&world, backup).await;
        }
        let asked = RestoreDetail { may_replace: true, dry_run, ..RestoreDetail::requested(true) };
        let id = world.request(&[], Detail::Restore(asked)).await;
        let World { store, keys, catalog, timeline, alerts, clock, .. } = &world;
        let ports = Ports { store, keys, cold: &Untouched, catalog, timeline, alerts, clock };
        for _ in 0..2 {
            assert_eq!(run(ports, id).await.unwrap(), Thawed { ready: true }, "{name}");
        }
        assert!(told(&world).is_empty(), "{name}");
        let detail = detail(&world, id).await;
        assert_eq!((detail.backup.is_none(), detail.thawing_since_millis), (dry_run, None), "{name}");
        if dry_run {
            world.step(&Faults::none(), id, Step::PlanRestore).await.unwrap();
        } else {
            world.carry_out(OperationKind::Restore, id).await.unwrap();
        }
        let ended = if dry_run { OperationState::Planned } else { OperationState::Restored };
        assert_eq!(world.operation(OperationKind::Restore, id).await.state, ended, "{name}");
    }
}

/// The pruner was stopped half-way, or the catalog was lost.
#[tokio::test]
async fn what_is_frozen_is_asked_for_though_its_row_does_not_tell() {
    let world = World::with_data();
    let backup = world.back_up().await;
    let some = chunks(&world, backup, &[]).await[0];
    world.store.freeze(some).await.unwrap();
    world.clock.advance(24 * 3_600_000);
    let id = world.request_restore(&[], true).await;
    assert!(!ask(&world, id).await.unwrap());
    world.store.let_thaw();
    assert!(ask(&world, id).await.unwrap());
    world.carry_out(OperationKind::Restore, id).await.unwrap();
    assert_eq!(world.operation(OperationKind::Restore, id).await.state, OperationState::Restored);
}

/// Killed before and after every call, then run again: everything is asked for, and the restore comes to its end.
#[tokio::test]
async fn killed_anywhere_and_run_again_it_is_restored() {
    let original = World::with_data().cluster.contents();
    let mut told_twice = 0;
    for boundary in 0.. {
        let when = format!("killed at {boundary}");
        let (world, backup) = archived().await;
        let id = world.request_restore(&[], true).await;
        let faults = Faults::at(boundary);
        let outcome = world.thaw(&faults, id).await;
        let died = faults.boundaries() > boundary;
        assert_eq!(outcome.is_err(), died, "{when}");
        assert!(!ask(&world, id).await.unwrap(), "{when}");
        assert!(frozen(&world).is_empty(), "{when}");
        let waiting = detail(&world, id).await;
        assert_eq!((waiting.backup, waiting.thawing_since_millis.is_some()), (Some(backup), true), "{when}");
        match told(&world).len() {
            1 => {}
            2 => told_twice += 1,
            times => panic!("{when}: told {times} times"),
        }
        world.store.let_thaw();
        world.carry_out(OperationKind::Restore, id).await.unwrap_or_else(|why| panic!("{when}: {why}"));
        assert_eq!(world.cluster.contents(), original, "{when}");
        if !died {
            assert!(boundary > 20, "only {boundary} boundaries were tried");
            break;
        }
    }
    assert!(told_twice <= 2, "only where it dies between telling and noting that; {told_twice} times");
}

#[tokio::test]
async fn two_runs_at_once_ask_for_everything() {
    let (world, _) = archived().await;
    let id = world.request_restore(&[], true).await;
    let (left, right) = tokio::join!(ask(&world, id), ask(&world, id));
    for outcome in [left, right] {
        match outcome {
            Ok(is_ready) => assert!(!is_ready),
            Err(why) => assert_eq!(why.kind(), ErrorKind::Transient, "{why}"),
        }
    }
    assert!(!ask(&world, id).await.unwrap());
    assert!(frozen(&world).is_empty());
    assert!(detail(&world, id).await.thawing_since_millis.is_some());
    world.store.let_thaw();
    world.carry_out(OperationKind::Restore, id).await.unwrap();
}
