//! What keeps a backup that the rules would let go: somebody reads it, holds it, locked it; or keys look wrong.

use backup_core::error::ErrorKind;
use backup_core::format::ObjectKey;
use backup_core::id::OperationId;
use backup_core::operation::{
    BackupNote, Detail, Hold, Operation, OperationKind, OperationState, PruneDetail, RestoreDetail,
    RestoreTime, Trigger,
};
use backup_core::ports::{Catalog, Clock, Locks, Timeline};
use backup_testkit::Faults;
use backup_testkit::fixture::{Step, World};

use crate::interleaved::{Dice, interleave};
use crate::invariants::{buckets, check, check_gone, has_manifest, prune, rows};
use crate::scene::{DAY, HOUR, forty_days};

/// Runs the pruner; two hours later it may remove what it marked now.
async fn run(world: &World) -> OperationId {
    let id = world.request_prune(true).await;
    prune(world, id).await.unwrap();
    check(world, "pruned").await;
    world.clock.advance(2 * HOUR);
    id
}

async fn backup(world: &World, id: OperationId) -> Operation {
    world.operation(OperationKind::Backup, id).await
}

/// Asks for a restore of this backup, or of the instant it was taken at.
async fn request_restore(world: &World, backup: &Operation, to_its_instant: bool) -> OperationId {
    let at = backup.backup().unwrap().cluster_time.map(RestoreTime::At);
    let asked = RestoreDetail { may_replace: true, ..RestoreDetail::requested(true) };
    let detail = if to_its_instant {
        RestoreDetail { at, ..asked }
    } else {
        RestoreDetail { backup: Some(backup.id), ..asked }
    };
    world.request(&[], Detail::Restore(detail)).await
}

async fn finish_restore(world: &World, id: OperationId) {
    for step in world.steps_after_plan(OperationKind::Restore, id).await {
        world.step(&Faults::none(), id, step).await.unwrap_or_else(|why| panic!("{step:?}: {why}"));
    }
    assert_eq!(world.operation(OperationKind::Restore, id).await.state, OperationState::Restored);
}

#[tokio::test]
async fn a_restore_that_began_before_the_mark_keeps_its_backup() {
    for to_its_instant in [false, true] {
        let scene = forty_days().await;
        let world = &scene.world;
        let old = backup(world, scene.old[0]).await;
        let id = request_restore(world, &old, to_its_instant).await;
        world.step(&Faults::none(), id, Step::PlanRestore).await.unwrap();
        run(world).await;
        run(world).await;
        assert!(backup(world, old.id).await.backup().unwrap().removal.is_none());
        check_gone(world, scene.old[1], "the one that nobody reads").await;
        finish_restore(world, id).await;
        run(world).await;
        run(world).await;
        check_gone(world, old.id, "nobody reads it any more").await;
    }
}

/// The restore begins after so many sixtieths of the run that marks its backup.
#[tokio::test]
async fn a_restore_that_begins_while_its_backup_is_marked_keeps_it_or_is_refused() {
    const BEGINNINGS: u64 = 60;
    let scene = forty_days().await;
    let alone = scene.copy().await;
    let marking = [(alone.world.request_prune(true).await, Step::PruneRetention)];
    let (_, polls) = interleave(&mut Dice::new(0), &alone.world, &marking, 0).await;
    let (mut kept, mut refused) = (0, 0);
    for beginning in 0..BEGINNINGS {
        let scene = scene.copy().await;
        let world = &scene.world;
        let id = request_restore(world, &backup(world, scene.old[0]).await, true).await;
        let steps = [(world.request_prune(true).await, Step::PruneRetention), (id, Step::PlanRestore)];
        let head_start = polls * beginning / BEGINNINGS;
        let (outcomes, _) = interleave(&mut Dice::new(beginning), world, &steps, head_start).await;
        outcomes[0].as_ref().unwrap();
        world.clock.advance(2 * HOUR);
        run(world).await;
        let used = world.operation(OperationKind::Restore, id).await.used_backup();
        match &outcomes[1] {
            Ok(()) if used == Some(scene.old[0]) => {
                assert!(has_manifest(&world.store, &backup(world, scene.old[0]).await), "{beginning}");
                finish_restore(world, id).await;
                kept += 1;
            }
            Ok(()) => refused += 1, // the mark was faster: it is to be folded from an earlier one
            Err(why) => {
                let kinds =
                    [ErrorKind::Conflict, ErrorKind::Transient, ErrorKind::NotFound, ErrorKind::Refused];
                assert!(kinds.contains(&why.kind()), "{beginning}: {why}");
                refused += 1;
            }
        }
    }
    assert!(kept > 5 && refused > 5, "kept {kept} times, refused {refused} times");
}

#[tokio::test]
async fn a_marked_backup_is_refused_until_it_is_held() {
    let scene = forty_days().await;
    let world = &scene.world;
    run(world).await;
    let old = backup(world, scene.old[0]).await;
    let id = request_restore(world, &old, false).await;
    let refused = world.step(&Faults::none(), id, Step::PlanRestore).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.hint_text().unwrap().contains(&format!("nightsafe hold {}", old.id)));

    let hold = Hold { reason: "legal".into(), user: "ana".into(), since_millis: world.clock.now_millis() };
    world.catalog.note(old.id, &BackupNote::Hold(Some(hold))).await.unwrap();
    world.step(&Faults::none(), id, Step::PlanRestore).await.unwrap();
    finish_restore(world, id).await;
    run(world).await;
    run(world).await;
    assert!(backup(world, old.id).await.backup().unwrap().removal.is_none(), "the mark is taken away");
    check_gone(world, scene.old[1], "the one that nobody holds").await;
}

#[tokio::test]
async fn a_locked_manifest_is_passed_over_and_told() {
    let scene = forty_days().await;
    let world = &scene.world;
    run(world).await;
    let old = backup(world, scene.old[0]).await;
    let until = world.clock.now_millis() + DAY;
    let manifest = ObjectKey::Manifest(old.backup_place().unwrap());
    world.store.lock(manifest, until).await.unwrap();
    let id = run(world).await;
    let row = world.operation(OperationKind::Prune, id).await;
    assert_eq!((row.state, row.prune().unwrap().locked), (OperationState::Done, 1));
    assert_eq!(row.prune().unwrap().removed, 2, "the others go");
    let told = world.alerts.published();
    let told = told.iter().find(|alert| alert.subject.contains("retention LOCKED OUT")).unwrap();
    assert!(told.body.contains(&old.id.to_string()), "{}", told.body);
    let there = backup(world, old.id).await;
    assert!(has_manifest(&world.store, &there), "it stays whole");
    assert!(!there.backup().unwrap().removal.as_ref().unwrap().begun);

    world.clock.advance(DAY);
    run(world).await;
    check_gone(world, old.id, "once the lock has ended").await;
}

#[tokio::test]
async fn a_locked_chunk_stays_with_its_row_until_its_lock_ends() {
    let scene = forty_days().await;
    let world = &scene.world;
    run(world).await;
    let old = backup(world, scene.old[0]).await;
    let prefix = format!("{}/chunks/", old.id);
    let path = world.store.objects().into_keys().find(|path| path.contains(&prefix)).unwrap();
    let (ordinal, attempt) = path.rsplit('/').next().unwrap().split_once('-').unwrap();
    let place = old.backup_place().unwrap();
    let chunk = ObjectKey::Chunk(place, ordinal.parse().unwrap(), attempt.parse().unwrap());
    world.store.lock(chunk, world.clock.now_millis() + DAY).await.unwrap();
    run(world).await;
    let there = backup(world, old.id).await;
    assert!(there.backup().unwrap().removal.as_ref().unwrap().begun, "it cannot be kept any more");
    let left: Vec<String> =
        world.store.objects().into_keys().filter(|path| path.contains(&old.id.to_string())).collect();
    assert_eq!(left, [path]);

    world.clock.advance(DAY);
    run(world).await;
    check_gone(world, old.id, "once the lock has ended").await;
}

#[tokio::test]
async fn a_dry_run_changes_nothing_but_says_what_it_would_do() {
    let scene = forty_days().await;
    let world = &scene.world;
    run(world).await; // so that some are marked, and may go
    let before = rows(world, OperationKind::Backup).await;
    let stored = buckets(world).map(|(_, bucket)| (bucket.objects(), bucket.locked(), bucket.frozen()));
    let detail = PruneDetail::requested(Trigger::Manual, true, true);
    let id = world.request(&[], Detail::Prune(detail)).await;
    for _ in 0..2 {
        prune(world, id).await.unwrap();
    }
    assert_eq!(world.operation(OperationKind::Prune, id).await.state, OperationState::Done);
    assert_eq!(rows(world, OperationKind::Backup).await, before);
    let mut now = buckets(world).map(|(_, bucket)| (bucket.objects(), bucket.locked(), bucket.frozen()));
    let own: Vec<String> = now[0].0.keys().filter(|path| path.contains(&id.to_string())).cloned().collect();
    assert_eq!(own.len(), 2, "its plan and its record: {own:?}");
    for path in &own {
        now[0].0.remove(path);
    }
    assert_eq!(now, stored);
}

#[tokio::test]
async fn nothing_is_removed_while_the_newest_backup_does_not_open() {
    let scene = forty_days().await;
    let world = &scene.world;
    run(world).await;
    let newest = ObjectKey::Manifest(backup(world, scene.newest).await.backup_place().unwrap());
    let path = newest.to_path().unwrap();
    let sound = world.store.objects()[&path].clone();
    world.store.tamper(&path, sound.slice(1..));
    let before = rows(world, OperationKind::Backup).await;
    let id = world.request_prune(true).await;
    let refused = prune(world, id).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    assert!(refused.to_string().contains(&scene.newest.to_string()), "{refused}");
    assert_eq!(rows(world, OperationKind::Backup).await, before);

    world.store.tamper(&path, sound);
    prune(world, id).await.unwrap();
    check_gone(world, scene.old[0], "once it opens").await;

    world.keys.set_disabled(true);
    let id = world.request_prune(true).await;
    let before = rows(world, OperationKind::Backup).await;
    assert_eq!(prune(world, id).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(rows(world, OperationKind::Backup).await, before);
}

/// What is kept is locked at home all the same; what goes has to wait.
#[tokio::test]
async fn a_region_that_is_down_takes_no_lock_from_home() {
    let scene = forty_days().await;
    let world = &scene.world;
    let locked = world.store.locked();
    world.replica.set_down(true);
    let id = world.request_prune(true).await;
    assert_eq!(prune(world, id).await.unwrap_err().kind(), ErrorKind::Transient);
    let while_down = world.store.locked();
    assert!(while_down != locked, "something was to be locked for longer");
    world.replica.set_down(false);
    prune(world, id).await.unwrap();
    assert_eq!(world.store.locked(), while_down, "nothing was left to be locked at home");
    for id in [scene.monthly, scene.today] {
        let place = backup(world, id).await.backup_place().unwrap();
        let manifest = ObjectKey::Manifest(place).to_path().unwrap();
        let there = world.replica.locked();
        assert_eq!(there.get(&manifest), while_down.get(&manifest), "what it missed was made up for: {id}");
    }

    world.clock.advance(2 * HOUR);
    world.replica.set_down(true);
    let id = world.request_prune(true).await;
    assert_eq!(prune(world, id).await.unwrap_err().kind(), ErrorKind::Transient);
    for old in scene.old {
        assert!(has_manifest(&world.store, &backup(world, old).await), "{old}");
    }
    world.replica.set_down(false);
    prune(world, id).await.unwrap();
    check_gone(world, scene.old[0], "once it answers").await;
}

/// Rows that are lost for a while cost no slice: what they need goes only if they are still missing later.
#[tokio::test]
async fn a_catalog_that_lacks_a_backup_for_a_while_costs_no_slice() {
    let scene = forty_days().await;
    let world = &scene.world;
    world.catalog.note(scene.deleted, &BackupNote::Unwanted(None)).await.unwrap();
    run(world).await;
    let row = backup(world, scene.deleted).await;
    let needed = async || {
        let head = world.timeline.head().await.unwrap().unwrap();
        let oldest = row.backup().unwrap().cluster_time.unwrap();
        world.timeline.slices(oldest, head.to).await.unwrap().len()
    };
    let before = needed().await;
    world.catalog.forget(&row).await.unwrap();
    run(world).await;
    world.catalog.create_operation(&row).await.unwrap();
    run(world).await;
    assert_eq!(needed().await, before);
    let row = backup(world, scene.deleted).await;
    world.catalog.forget(&row).await.unwrap();
    run(world).await;
    run(world).await;
    assert!(needed().await < before, "it is gone for good");
}

/// What is damaged of one database says nothing of the keys, and keeps nothing of the others.
#[tokio::test]
async fn damage_of_one_database_keeps_only_what_is_left_of_it() {
    let scene = forty_days().await;
    let world = &scene.world;
    let [other, old] = scene.old;
    // Its manifest is not the one of such a database.
    world.catalog.tamper(OperationKind::Backup, other, |row| row.database = "web".to_owned());
    let id = world.request_prune(true).await;
    // The rest is done first; then people have to know.
    let told = prune(world, id).await.unwrap_err();
    assert!(told.kind() == ErrorKind::Corrupt && told.to_string().contains("\"web\""), "{told}");
    let is_marked = async |id| backup(world, id).await.backup().unwrap().removal.is_some();
    assert!(is_marked(old).await && !is_marked(other).await);
    world.clock.advance(2 * HOUR);
    assert_eq!(prune(world, id).await.unwrap_err().kind(), ErrorKind::Corrupt);
    check_gone(world, old, "damage elsewhere").await;
    assert!(has_manifest(&world.store, &backup(world, other).await));
}
