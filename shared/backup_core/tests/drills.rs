//! Drills over ports in memory: what is noted on a backup was proved, and nothing is noted of a drill that failed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use backup_core::audit::AuditStatus;
use backup_core::error::{ErrorKind, Result};
use backup_core::format::ObjectKey;
use backup_core::id::{OperationId, RegionName};
use backup_core::operation::{
    BackupNote, Detail, DrillDetail, Level, Operation, OperationKind, OperationState, Removal, Trigger,
};
use backup_core::ports::{Catalog, ObjectStore, Resource};
use backup_testkit::fixture::{OnDeath, Step, World};
use backup_testkit::{Faults, MemoryStore};
use bytes::Bytes;
use serde_json::Value;

const DAY_MILLIS: u64 = 86_400_000;

/// A world with a backup of yesterday.
async fn backed_up() -> (World, OperationId) {
    let world = World::with_data();
    let backup = world.back_up().await;
    world.clock.advance(DAY_MILLIS);
    (world, backup)
}

/// Stores one check of the owner: how many leads there may be.
async fn check_leads(world: &World, bounds: &str) {
    let check = format!(r#"{{"name":"leads","database":"crm","collection":"leads","filter":{{}},{bounds}}}"#);
    let file = format!(r#"{{"format":1,"checks":[{check}]}}"#);
    world.store.put(ObjectKey::Checks, file.into()).await.unwrap();
}

/// Carries a drill out; where it fails, its lease is freed as `raise-alert` does.
async fn carry_out(world: &World, id: OperationId) -> Result<Operation> {
    let done = world.carry_out(OperationKind::Drill, id).await;
    if done.is_err() {
        world.catalog.release_lease(&Resource::Drills, id).await?;
    }
    done?;
    Ok(world.operation(OperationKind::Drill, id).await)
}

/// Runs a drill with the newest good backup.
async fn drill(world: &World, level: Level, region: Option<RegionName>) -> Result<Operation> {
    carry_out(world, world.request_drill(level, region).await).await
}

/// Runs a drill with this backup, as a person asks for it.
async fn verify(world: &World, backup: OperationId, level: Level) -> Result<Operation> {
    let requested = DrillDetail::requested(Trigger::Manual, level, None);
    let detail = DrillDetail { backup: Some(backup), ..requested };
    carry_out(world, world.request(&[], Detail::Drill(detail)).await).await
}

async fn levels(world: &World, backup: OperationId) -> BTreeMap<Level, u64> {
    world.operation(OperationKind::Backup, backup).await.backup().unwrap().levels.clone()
}

fn report(world: &World, drill: &Operation) -> Option<Value> {
    let path = ObjectKey::DrillReport(drill.drill_place()).to_path().unwrap();
    world.store.objects().get(&path).map(|body| serde_json::from_slice(body).unwrap())
}

/// What may become of a stored object.
type Damage = fn(&[u8]) -> Vec<u8>;

fn flip(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    let place = body.len() - 40;
    body[place] ^= 1;
    body
}

fn cut(body: &[u8]) -> Vec<u8> {
    body[..body.len() - 1].to_vec()
}

/// Damages every chunk; gives them as they were.
fn damage_chunks(store: &MemoryStore, how: Damage) -> BTreeMap<String, Bytes> {
    let chunks: BTreeMap<String, Bytes> =
        store.objects().into_iter().filter(|(path, _)| path.contains("/chunks/")).collect();
    for (path, body) in &chunks {
        store.tamper(path, how(body).into());
    }
    chunks
}

fn mend(store: &MemoryStore, chunks: BTreeMap<String, Bytes>) {
    for (path, body) in chunks {
        store.tamper(&path, body);
    }
}

#[tokio::test]
async fn what_was_proved_is_noted_on_the_backup_and_nothing_more() {
    use Level::{ApplicationChecked, Checksums, Decoded, FullyRestored, Present, SampleRestored};
    for (level, noted) in [
        (Present, vec![Present]),
        (Checksums, vec![Present, Checksums]),
        (Decoded, vec![Present, Checksums, Decoded]),
        (SampleRestored, vec![SampleRestored]),
        (FullyRestored, vec![Present, Checksums, Decoded, SampleRestored, FullyRestored]),
        (ApplicationChecked, Level::ALL.to_vec()),
    ] {
        let (world, backup) = backed_up().await;
        if level == ApplicationChecked {
            check_leads(&world, r#""at_least":80,"at_most":80"#).await;
        }
        let before = levels(&world, backup).await;
        let done = drill(&world, level, None).await.unwrap_or_else(|why| panic!("{level}: {why}"));
        let ended = done.finished_millis.unwrap();
        let mut expected = before.clone();
        expected.extend(noted.into_iter().map(|level| (level, ended)));
        assert_eq!(levels(&world, backup).await, expected, "{level}");
        assert!(before.values().all(|millis| *millis < ended), "{level}");
        assert_eq!(done.state, OperationState::Done);
        let detail = done.drill().unwrap();
        assert_eq!((detail.backup, detail.reached), (Some(backup), Some(level)));
        assert_eq!(detail.seed.is_some(), level == SampleRestored, "{level}");
        assert!(detail.chunks > 0 && detail.chunks == done.totals.chunks, "{level}");
        assert_eq!(world.catalog.audit(1).await.unwrap()[0].status, AuditStatus::Success);
        assert!(world.catalog.lease(&Resource::Drills, 0).await.unwrap().is_none());
        assert!(world.alerts.published().is_empty(), "{level}");
        assert_eq!(world.scratch.opened(), world.scratch.closed(), "{level}");
    }
}

#[tokio::test]
async fn the_report_tells_numbers_and_no_names() {
    let (world, backup) = backed_up().await;
    check_leads(&world, r#""at_least":80"#).await;
    let done = drill(&world, Level::FullyRestored, None).await.unwrap();
    let found = report(&world, &done).unwrap();
    assert_eq!(found["backup"], backup.to_string());
    for (field, expected) in [
        ("level", Value::from("L4")),
        ("reached", "L5".into()),
        ("region", Value::Null),
        ("documents", 85.into()),
        ("bytes", done.totals.bson_bytes.into()),
        ("chunks", done.totals.chunks.into()),
        ("chunks_of_backup", done.totals.chunks.into()),
        ("checks", 1.into()),
        ("seconds", 0.into()),
    ] {
        assert_eq!(found[field], expected, "{field}");
    }
    let page = ObjectKey::DrillPage(done.drill_place()).to_path().unwrap();
    let page = String::from_utf8(world.store.objects()[&page].to_vec()).unwrap();
    assert!(page.contains(&backup.to_string()) && !page.contains("crm"), "{page}");
    assert!(!found.to_string().contains("crm"), "{found}");
    for (path, body) in world.store.objects() {
        let text = String::from_utf8_lossy(&body).into_owned();
        let is_ours = path.starts_with("drills/") && !path.contains("/rehearsed/");
        for name in ["leads", "messages", "lead 17"] {
            assert!(!is_ours || !text.contains(name), "{name:?} stands in {path}");
        }
    }
}

#[tokio::test]
async fn damage_is_found_from_the_level_on_that_looks_for_it() {
    let cases: [(Level, Damage, bool); 6] = [
        (Level::Present, flip, false),
        (Level::Present, cut, true),
        (Level::Checksums, flip, true),
        (Level::Decoded, flip, true),
        (Level::SampleRestored, flip, true),
        (Level::FullyRestored, cut, true),
    ];
    for (level, how, is_found) in cases {
        let (world, backup) = backed_up().await;
        damage_chunks(&world.store, how);
        let before = levels(&world, backup).await;
        let id = world.request_drill(level, None).await;
        let Err(why) = world.carry_out(OperationKind::Drill, id).await else {
            assert!(!is_found, "{level}: nothing was found");
            continue;
        };
        assert!(is_found, "{level}: {why}");
        assert_eq!(why.kind(), ErrorKind::Corrupt, "{level}: {why}");
        assert!(why.to_string().contains(&backup.to_string()) && why.hint_text().is_some(), "{level}: {why}");
        let early = world.step(&Faults::none(), id, Step::FinishDrill).await;
        assert!(early.is_err(), "{level}: no success without evidence for every chunk");
        assert_eq!(levels(&world, backup).await, before, "{level}: nothing was proved");
        let failed = world.operation(OperationKind::Drill, id).await;
        assert!(failed.state != OperationState::Done && report(&world, &failed).is_none(), "{level}");
    }
}

#[tokio::test]
async fn a_drill_in_a_region_reads_the_copy_there() {
    let (world, backup) = backed_up().await;
    let region = Some(World::replica_region());
    let missing = drill(&world, Level::Present, region).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
    world.replicate(backup).await.unwrap();
    for level in [Level::Present, Level::Decoded, Level::FullyRestored] {
        let at_home = damage_chunks(&world.store, cut);
        let done = drill(&world, level, region).await.unwrap();
        assert_eq!(done.drill().unwrap().reached, Some(level));
        assert_eq!(report(&world, &done).unwrap()["region"], World::REPLICA);
        assert_eq!(drill(&world, level, None).await.unwrap_err().kind(), ErrorKind::Corrupt, "{level}");
        mend(&world.store, at_home);
        let copied = damage_chunks(&world.replica, cut);
        let why = drill(&world, level, region).await.unwrap_err();
        assert_eq!(why.kind(), ErrorKind::Corrupt, "{level}");
        assert!(why.to_string().contains(World::REPLICA), "{why}");
        drill(&world, level, None).await.unwrap();
        mend(&world.replica, copied);
    }
    let elsewhere = drill(&world, Level::Present, Some("us-west-2".parse().unwrap())).await.unwrap_err();
    assert_eq!(elsewhere.kind(), ErrorKind::Invalid, "{elsewhere}");
}

#[tokio::test]
async fn checks_are_judged_on_the_whole() {
    for (bounds, level, expected) in [
        (None, Level::ApplicationChecked, Ok(Level::FullyRestored)),
        (Some(r#""at_least":80,"at_most":80"#), Level::FullyRestored, Ok(Level::ApplicationChecked)),
        (Some(r#""at_least":81"#), Level::SampleRestored, Ok(Level::SampleRestored)),
        (Some(r#""at_least":81"#), Level::FullyRestored, Err(ErrorKind::ValidationFailed)),
        // No part has more than that.
        (Some(r#""at_most":79"#), Level::ApplicationChecked, Err(ErrorKind::ValidationFailed)),
        (Some(r#""at_most":0"#), Level::SampleRestored, Err(ErrorKind::ValidationFailed)),
        (Some(r#""at_least":81"#), Level::Decoded, Ok(Level::Decoded)),
    ] {
        let (world, backup) = backed_up().await;
        if let Some(bounds) = bounds {
            check_leads(&world, bounds).await;
        }
        let before = levels(&world, backup).await;
        match drill(&world, level, None).await {
            Ok(done) => {
                assert_eq!(Ok(done.drill().unwrap().reached.unwrap()), expected, "{level} {bounds:?}");
            }
            Err(why) => {
                assert_eq!(Err(why.kind()), expected, "{level} {bounds:?}: {why}");
                assert!(why.to_string().contains("\"leads\""), "{why}");
                assert_eq!(levels(&world, backup).await, before, "{level} {bounds:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_newest_good_backup_is_drilled_with_unless_one_is_named() {
    let (world, older) = backed_up().await;
    let newer = world.back_up().await;
    let chosen = async || {
        let done = drill(&world, Level::Present, None).await;
        done.map(|done| done.drill().unwrap().backup.unwrap()).map_err(|why| why.kind())
    };
    assert_eq!(chosen().await, Ok(newer));
    assert_eq!(verify(&world, older, Level::Present).await.unwrap().drill().unwrap().backup, Some(older));
    world.catalog.tamper(OperationKind::Backup, newer, |row| row.collections.push("leads".into()));
    assert_eq!(chosen().await, Ok(older), "one of single collections");
    world.catalog.tamper(OperationKind::Backup, newer, |row| {
        row.collections.clear();
        row.state = OperationState::Failed;
    });
    assert_eq!(chosen().await, Ok(older), "one that failed");
    world.catalog.tamper(OperationKind::Backup, newer, |row| row.state = OperationState::Verified);
    let removal = Removal { reason: "test".into(), marked_millis: 0, begun: false };
    world.catalog.note(newer, &BackupNote::Removal(Some(removal))).await.unwrap();
    assert_eq!(chosen().await, Ok(older), "one that is to be removed");
    assert_eq!(verify(&world, newer, Level::Present).await.unwrap_err().kind(), ErrorKind::Conflict);
    world.catalog.note(older, &BackupNote::Cold).await.unwrap();
    assert_eq!(chosen().await, Err(ErrorKind::Refused), "one in cold storage");
    assert_eq!(
        drill(&World::with_data(), Level::Present, None).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn without_a_server_to_restore_to_only_reading_is_drilled() {
    let (world, backup) = backed_up().await;
    world.scratch.set_missing(true);
    drill(&world, Level::Decoded, None).await.unwrap();
    let before = levels(&world, backup).await;
    let why = drill(&world, Level::SampleRestored, None).await.unwrap_err();
    assert_eq!(why.kind(), ErrorKind::NotFound);
    assert!(why.hint_text().unwrap().contains("VerificationSecretArn"));
    assert_eq!(levels(&world, backup).await, before);
}

#[tokio::test]
async fn one_drill_runs_at_a_time() {
    let (world, _) = backed_up().await;
    let first = world.request_drill(Level::Decoded, None).await;
    let second = world.request_drill(Level::Decoded, None).await;
    world.step(&Faults::none(), first, Step::PlanDrill).await.unwrap();
    world.step(&Faults::none(), second, Step::PlanDrill).await.unwrap_err();
    let waiting = world.operation(OperationKind::Drill, second).await;
    assert_eq!(waiting.state, OperationState::Requested);
    for step in world.steps_after_plan(OperationKind::Drill, first).await {
        world.step(&Faults::none(), first, step).await.unwrap();
    }
    world.carry_out(OperationKind::Drill, second).await.unwrap();
}

/// What a drill left, without the ids that differ between two runs.
async fn essence(
    world: &World,
    backup: OperationId,
    id: OperationId,
) -> (Operation, Value, Vec<(Level, u64)>) {
    let mut row = world.operation(OperationKind::Drill, id).await;
    let mut report = report(world, &row).unwrap();
    for field in ["id", "backup"] {
        report[field] = Value::Null;
    }
    row.id = OperationId::from_bytes([0; 16]);
    row.revision = 0; // a repeated step may have written it once more
    row.drill_mut().unwrap().backup = None;
    (row, report, levels(world, backup).await.into_iter().collect())
}

/// Every step, killed before and after every call, then run again (and once more): always what one clean run leaves.
#[tokio::test]
async fn killed_anywhere_and_run_again_it_is_the_same_drill() {
    let requested = async || {
        let (world, backup) = backed_up().await;
        check_leads(&world, r#""at_least":80"#).await;
        let id = world.request_drill(Level::FullyRestored, None).await;
        (world, backup, id)
    };
    let (world, backup, id) = requested().await;
    world.carry_out(OperationKind::Drill, id).await.unwrap();
    let expected = essence(&world, backup, id).await;
    let mut boundary = 0;
    loop {
        let (world, backup, id) = requested().await;
        let died = world.run_dying_at(OperationKind::Drill, id, boundary, OnDeath::RunAgain).await;
        assert_eq!(essence(&world, backup, id).await, expected, "killed at {boundary}");
        assert_eq!(world.catalog.audit(9).await.unwrap().len(), 2, "killed at {boundary}");
        assert!(world.catalog.lease(&Resource::Drills, 0).await.unwrap().is_none(), "killed at {boundary}");
        if !died {
            break;
        }
        boundary += 1;
    }
    assert!(boundary > 100, "only {boundary} boundaries were tried");
}

#[tokio::test]
async fn every_step_run_twice_at_once_is_like_run_once() {
    let (world, backup) = backed_up().await;
    let id = world.request_drill(Level::FullyRestored, None).await;
    world.run_each_twice_at_once(OperationKind::Drill, id).await;
    let done = world.operation(OperationKind::Drill, id).await;
    assert_eq!((done.state, done.totals.documents), (OperationState::Done, 85));
    assert!(levels(&world, backup).await.contains_key(&Level::FullyRestored));
    assert_eq!(world.catalog.audit(9).await.unwrap().len(), 2, "of the backup and of the drill");
    assert!(world.catalog.lease(&Resource::Drills, 0).await.unwrap().is_none());
}
