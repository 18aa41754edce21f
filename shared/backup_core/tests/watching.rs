//! The watch, over ports in memory: what is wrong is told once, whatever else is wrong, and wherever it died.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Mutex;

use async_trait::async_trait;
use backup_core::Result;
use backup_core::flows::watch;
use backup_core::id::OperationId;
use backup_core::operation::{
    BackupDetail, Detail, Operation, OperationKind, OperationState, Pipeline, Trigger,
};
use backup_core::ports::{Catalog, Machines, Region};
use backup_core::retention::Policy;
use backup_core::watch::WatchSettings;
use backup_testkit::fixture::World;
use backup_testkit::{Faults, Faulty, MemoryStore};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// State machines that remember every start, and start what they have started before no more.
#[derive(Default)]
struct Counting(Mutex<Vec<OperationId>>);

#[async_trait]
impl Machines for Counting {
    async fn start(&self, pipeline: Pipeline, operation: &Operation) -> Result<()> {
        panic!("the watch starts nothing but copies, and so not {pipeline:?} of {}", operation.id)
    }

    async fn copy_again(&self, backup: &Operation) -> Result<bool> {
        let mut begun = self.0.lock().unwrap();
        let is_new = !begun.contains(&backup.id);
        if is_new {
            begun.push(backup.id);
        }
        Ok(is_new)
    }
}

/// One run of the watch, in a process that dies as `faults` say.
async fn run(world: &World, faults: &Faults, machines: &dyn Machines, policy: &Policy) -> Result<()> {
    let store = &Faulty::new(world.store.clone(), faults);
    let keys = &Faulty::new(world.keys.clone(), faults);
    let catalog = &Faulty::new(world.catalog.clone(), faults);
    let timeline = &Faulty::new(world.timeline.clone(), faults);
    let alerts = &Faulty::new(world.alerts.clone(), faults);
    let bucket = &Faulty::new(world.replica.clone(), faults);
    let name = World::replica_region();
    let region = Region { name, store: bucket, keys, copies: bucket, locks: bucket, shelves: bucket };
    let regions = &[region];
    let clock = &world.clock;
    let ports = watch::Ports { store, keys, regions, catalog, timeline, machines, alerts, clock };
    let settings = WatchSettings::of("us-east-1".parse()?);
    watch::run(ports, "main".parse()?, &settings, policy).await
}

/// The subjects that one run tells.
async fn told(world: &World) -> Vec<String> {
    let before = world.alerts.published().len();
    run(world, &Faults::none(), &world.machines, &World::policy()).await.unwrap();
    world.alerts.published().into_iter().skip(before).map(|alert| alert.subject).collect()
}

/// A backup that is everywhere, and a timeline that is, too.
async fn world() -> World {
    let world = World::with_data();
    let id = world.back_up().await;
    world.replicate(id).await.unwrap();
    world.capture().await.unwrap();
    world
}

/// Lets time pass, in which the timeline goes on.
async fn pass(world: &World, millis: u64) {
    world.clock.advance(millis);
    world.capture().await.unwrap();
}

fn check(when: &str, told: &[String], expected: &[&str]) {
    let is_told = told.len() == expected.len()
        && told.iter().zip(expected).all(|(subject, expected)| subject.contains(*expected));
    assert!(is_told, "{when}: {told:?} is not {expected:?}");
}

#[tokio::test]
async fn all_is_well() {
    let world = world().await;
    for _ in 0..20 {
        check("well", &told(&world).await, &[]);
        pass(&world, HOUR).await;
    }
    assert_eq!(world.catalog.watch_state().await.unwrap().revision, 0, "there was nothing to remember");
}

#[tokio::test]
async fn nothing_ran_and_people_are_told_once_a_day() {
    let world = world().await;
    let dead = "[CRITICAL] NO GOOD BACKUP for";
    pass(&world, 27 * HOUR).await;
    check("in time", &told(&world).await, &[]);
    pass(&world, HOUR).await;
    check("too late", &told(&world).await, &[dead]);
    for _ in 0..23 {
        pass(&world, HOUR).await;
        check("it was told", &told(&world).await, &[]);
    }
    pass(&world, HOUR).await;
    check("a day later", &told(&world).await, &[dead]);
    let id = world.back_up().await;
    world.replicate(id).await.unwrap();
    check("over", &told(&world).await, &[]);
    pass(&world, 28 * HOUR).await;
    check("it begins again", &told(&world).await, &[dead]);
}

#[tokio::test]
async fn a_backup_that_outlasts_its_window_is_told_at_six() {
    let world = world().await;
    let detail = BackupDetail::requested(Trigger::Automated, false);
    let id = world.request(&[], Detail::Backup(detail)).await;
    world.catalog.tamper(OperationKind::Backup, id, |row| row.state = OperationState::Running);
    // It is some seconds after 02:00.
    pass(&world, 4 * HOUR - MINUTE).await;
    check("05:59", &told(&world).await, &[]);
    pass(&world, MINUTE).await;
    check("06:00", &told(&world).await, &["[HIGH] backup LATE main, 1 running"]);
    pass(&world, 5 * MINUTE).await;
    check("06:05", &told(&world).await, &[]);
    world.catalog.tamper(OperationKind::Backup, id, |row| row.state = OperationState::Failed);
    pass(&world, 5 * MINUTE).await;
    check("06:10", &told(&world).await, &[]);
    assert!(world.catalog.watch_state().await.unwrap().told.is_empty(), "it is forgotten");
}

#[tokio::test]
async fn a_capture_that_is_dead_is_told() {
    let world = world().await;
    world.clock.advance(HOUR - MINUTE);
    check("in time", &told(&world).await, &[]);
    world.clock.advance(MINUTE);
    check("too late", &told(&world).await, &["[HIGH] timeline STANDS STILL main"]);
    pass(&world, 5 * MINUTE).await;
    check("it goes on", &told(&world).await, &[]);
}

#[tokio::test]
async fn a_region_that_is_down_hides_nothing_else() {
    let world = world().await;
    world.replica.set_down(true);
    check("a hiccup", &told(&world).await, &[]);
    world.clock.advance(5 * MINUTE);
    check("still", &told(&world).await, &[]);
    world.clock.advance(5 * MINUTE);
    check("it lasts", &told(&world).await, &["[HIGH] region UNREACHABLE main in eu-west-1"]);
    world.keys.set_disabled(true);
    world.clock.advance(5 * MINUTE);
    check("and the key", &told(&world).await, &["[CRITICAL] backups DO NOT OPEN main in us-east-1"]);
    world.replica.set_down(false);
    world.clock.advance(5 * MINUTE);
    check("there, too", &told(&world).await, &["[CRITICAL] backups DO NOT OPEN main in eu-west-1"]);
    world.keys.set_disabled(false);
    world.clock.advance(5 * MINUTE);
    check("all is well", &told(&world).await, &[]);
    assert!(world.catalog.watch_state().await.unwrap().told.is_empty());
}

#[tokio::test]
async fn the_bucket_at_home_is_watched_and_what_was_told_is_remembered() {
    let world = world().await;
    pass(&world, 28 * HOUR).await;
    check("too late", &told(&world).await, &["NO GOOD BACKUP"]);
    world.store.set_down(true);
    for _ in 0..2 {
        check("a hiccup", &told(&world).await, &[]);
        world.clock.advance(5 * MINUTE);
    }
    check("it lasts", &told(&world).await, &["[CRITICAL] region UNREACHABLE main in us-east-1"]);
    world.store.set_down(false);
    world.clock.advance(5 * MINUTE);
    check("it is back", &told(&world).await, &[]);
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_told() {
    let mut world = World::with_data();
    world.store = MemoryStore::default(); // with a clock of its own
    world.clock.advance(11 * MINUTE);
    check("at first", &told(&world).await, &[]);
    world.clock.advance(10 * MINUTE);
    check("it lasts", &told(&world).await, &["[HIGH] clock WRONG by 21 min main"]);
}

#[tokio::test]
async fn a_copy_that_is_missing_is_begun_again_and_told_after_an_hour() {
    let world = world().await;
    let id = world.back_up().await;
    let machines = Counting::default();
    let begun = || std::mem::take(&mut *machines.0.lock().unwrap());
    let watch = async || {
        let before = world.alerts.published().len();
        run(&world, &Faults::none(), &machines, &World::policy()).await.unwrap();
        let alerts = world.alerts.published().into_iter().skip(before);
        alerts.map(|alert| alert.subject).collect::<Vec<_>>()
    };
    pass(&world, 29 * MINUTE).await;
    check("under way", &watch().await, &[]);
    assert!(begun().is_empty());
    pass(&world, MINUTE).await;
    check("begun again", &watch().await, &[]);
    assert_eq!(begun(), [id]);
    pass(&world, 30 * MINUTE).await;
    check("late", &watch().await, &["[HIGH] copies MISSING main in eu-west-1"]);
    assert_eq!(begun(), [id]);
    world.replica.set_down(true);
    pass(&world, 5 * MINUTE).await;
    check("out of reach", &watch().await, &[]);
    assert!(begun().is_empty());
    world.replica.set_down(false);
    world.replicate(id).await.unwrap();
    pass(&world, 5 * MINUTE).await;
    check("it is there", &watch().await, &[]);
    assert!(begun().is_empty());
}

#[tokio::test]
async fn at_most_five_backups_are_copied_again_in_a_run() {
    let world = World::with_data();
    for _ in 0..7 {
        world.back_up().await;
    }
    pass(&world, 30 * MINUTE).await;
    let machines = Counting::default();
    run(&world, &Faults::none(), &machines, &World::policy()).await.unwrap();
    let begun = machines.0.lock().unwrap().clone();
    assert_eq!(begun.len(), 5);
    assert!(begun.is_sorted_by(|left, right| left > right), "the newest first");
    // Those that are not helped by it keep no others out.
    run(&world, &Faults::none(), &machines, &World::policy()).await.unwrap();
    assert_eq!(machines.0.into_inner().unwrap().len(), 7);
}

#[tokio::test]
async fn a_quota_that_is_nearly_used_up_is_a_warning() {
    let world = world().await;
    let before = world.alerts.published().len();
    let policy = Policy { quota_bytes: Some(100), ..World::policy() };
    for _ in 0..3 {
        run(&world, &Faults::none(), &world.machines, &policy).await.unwrap();
    }
    let alerts = world.alerts.published().split_off(before);
    assert_eq!(alerts.len(), 1);
    assert!(alerts[0].subject.starts_with("[WARNING] storage "), "{}", alerts[0].subject);
    assert!(alerts[0].body.contains("region us-east-1, manual"), "{}", alerts[0].body);
    assert!(alerts[0].body.contains("region eu-west-1, manual"), "{}", alerts[0].body);
}

#[tokio::test]
async fn whoever_died_anywhere_had_told_it_or_the_next_run_does() {
    let expected = ["NO GOOD BACKUP", "DO NOT OPEN main in us-east-1", "DO NOT OPEN main in eu-west-1"];
    for boundary in 0.. {
        let world = world().await;
        pass(&world, 28 * HOUR).await;
        world.keys.set_disabled(true);
        let before = world.alerts.published().len();
        let faults = Faults::at(boundary);
        let died = run(&world, &faults, &world.machines, &World::policy()).await.is_err();
        for _ in 0..3 {
            run(&world, &Faults::none(), &world.machines, &World::policy()).await.unwrap();
        }
        let told: Vec<String> =
            world.alerts.published().into_iter().skip(before).map(|alert| alert.subject).collect();
        for subject in expected {
            let count = told.iter().filter(|it| it.contains(subject)).count();
            assert!(
                (1..=2).contains(&count),
                "killed at {boundary}: {subject} was told {count} times: {told:?}"
            );
        }
        if !died {
            assert!(boundary > 10, "there are calls to be killed at");
            return;
        }
    }
}

#[tokio::test]
async fn two_runs_at_once_lose_nothing() {
    let world = world().await;
    pass(&world, 28 * HOUR).await;
    let before = world.alerts.published().len();
    let (faults, policy) = (Faults::none(), World::policy());
    let (left, right) = tokio::join!(
        run(&world, &faults, &world.machines, &policy),
        run(&world, &faults, &world.machines, &policy)
    );
    assert!(left.is_ok() || right.is_ok(), "{left:?} {right:?}");
    assert!((1..=2).contains(&(world.alerts.published().len() - before)));
    check("it was told", &told(&world).await, &[]);
}
