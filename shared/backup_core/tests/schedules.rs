//! What schedules start, over ports in memory: each thing once, whatever comes twice, dies or is refused.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;

use async_trait::async_trait;
use backup_core::flows::{raise_alert, start_pipeline};
use backup_core::id::{ClusterTime, CollectionUuid, OperationId};
use backup_core::namespace::Namespace;
use backup_core::operation::{Level, Operation, OperationKind, OperationState, Pipeline, Trigger};
use backup_core::ports::{
    Catalog, ChunkRead, Clock, DocumentStream, Machines, Sampled, ServerFacts, SizeHint, Source,
};
use backup_core::schedule::Scheduled;
use backup_core::{Error, ErrorKind, Result};
use backup_testkit::fixture::{DATABASE, Step, World, lead};
use backup_testkit::{Faults, Faulty, MemoryMachines};

/// 2026-11-23 02:00:00 UTC, the day after worlds begin.
const SLOT: u64 = 1_795_399_200_000;
const DAY: u64 = 24 * 3_600_000;

/// A source that has databases, and nothing else.
#[derive(Clone)]
struct Databases(&'static [&'static str]);

#[async_trait]
impl Source for Databases {
    async fn preflight(&self) -> Result<ServerFacts> {
        unreachable!("a schedule reads nothing")
    }
    async fn cluster_time(&self) -> Result<ClusterTime> {
        unreachable!("a schedule reads nothing")
    }
    async fn databases(&self) -> Result<Vec<String>> {
        if self.0.is_empty() {
            return Err(Error::new(ErrorKind::Transient, "list databases"));
        }
        Ok(self.0.iter().map(|name| (*name).to_owned()).collect())
    }
    async fn namespaces(&self, _: &str) -> Result<Vec<Namespace>> {
        unreachable!("a schedule reads nothing")
    }
    async fn size_hint(&self, _: &str, _: &str) -> Result<SizeHint> {
        unreachable!("a schedule reads nothing")
    }
    async fn sample(&self, _: &str, _: &str, _: CollectionUuid, _: u32) -> Result<Vec<Sampled>> {
        unreachable!("a schedule reads nothing")
    }
    async fn read(&self, _: &ChunkRead) -> Result<Box<dyn DocumentStream>> {
        unreachable!("a schedule reads nothing")
    }
}

/// State machines that do not start anything for one database.
struct Stubborn {
    machines: MemoryMachines,
    database: &'static str,
    kind: ErrorKind,
}

#[async_trait]
impl Machines for Stubborn {
    async fn start(&self, pipeline: Pipeline, operation: &Operation) -> Result<()> {
        if operation.database == self.database {
            return Err(Error::new(self.kind, "start an execution"));
        }
        self.machines.start(pipeline, operation).await
    }

    async fn copy_again(&self, backup: &Operation) -> Result<bool> {
        panic!("a schedule copies nothing, and so not {}", backup.id)
    }
}

/// One trigger, in a process that dies as `faults` say.
async fn trigger_dying(
    world: &World,
    faults: &Faults,
    (source, machines): (&dyn Source, &dyn Machines),
    (what, slot): (Scheduled, u64),
    named: &[&str],
) -> Result<Vec<OperationId>> {
    let catalog = &Faulty::new(world.catalog.clone(), faults);
    let timeline = &Faulty::new(world.timeline.clone(), faults);
    let ports =
        start_pipeline::Ports { source: Some(source), catalog, timeline, machines, clock: &world.clock };
    let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
    let region = Some(World::replica_region());
    start_pipeline::run(ports, "main".parse()?, what, slot, &named, region).await
}

async fn trigger(world: &World, there: &'static [&'static str], what: Scheduled) -> Result<Vec<OperationId>> {
    let ports: (&dyn Source, &dyn Machines) = (&Databases(there), &world.machines);
    trigger_dying(world, &Faults::none(), ports, (what, SLOT), &[]).await
}

/// A world on the next day: its database has a good backup, and changes behind it.
async fn world() -> World {
    let world = World::with_data();
    world.back_up().await;
    world.cluster.write("leads", &lead(500));
    world.capture().await.unwrap();
    world.clock.advance(SLOT - world.clock.now_millis());
    world
}

/// What schedules started, with the databases.
async fn started(world: &World) -> Vec<(Pipeline, String)> {
    let mut all = Vec::new();
    for (pipeline, id) in world.machines.started() {
        let kind = match pipeline {
            Pipeline::Protect | Pipeline::Synthesize => OperationKind::Backup,
            Pipeline::Drill => OperationKind::Drill,
            Pipeline::Prune => OperationKind::Prune,
            Pipeline::Replicate | Pipeline::Restore => continue,
        };
        let row = world.operation(kind, id).await;
        assert_eq!((row.trigger(), row.user.as_str()), (Trigger::Automated, "nightsafe: schedule"));
        assert_eq!(row.id.requested_millis(), SLOT);
        all.push((pipeline, row.database));
    }
    all.sort_by_key(|(pipeline, database)| (format!("{pipeline:?}"), database.clone()));
    all
}

/// What each schedule starts, where the source has `blog` and `crm`, and only `crm` was backed up before.
fn expected(what: Scheduled) -> Vec<(Pipeline, String)> {
    let all: &[(Pipeline, &str)] = match what {
        Scheduled::Protect => &[(Pipeline::Protect, "blog"), (Pipeline::Protect, DATABASE)],
        Scheduled::Synthesize => &[(Pipeline::Synthesize, DATABASE)],
        Scheduled::Prune => &[(Pipeline::Prune, "")],
        Scheduled::SampleDrill | Scheduled::FullDrill | Scheduled::RegionDrill => {
            &[(Pipeline::Drill, DATABASE)]
        }
    };
    all.iter().map(|(pipeline, database)| (*pipeline, (*database).to_owned())).collect()
}

const THERE: &[&str] = &["blog", DATABASE];

#[tokio::test]
async fn a_trigger_that_comes_twice_starts_everything_once() {
    for what in Scheduled::ALL {
        let world = world().await;
        let first = trigger(&world, THERE, what).await.unwrap();
        assert_eq!(started(&world).await, expected(what), "{what}");
        world.clock.advance(60_000);
        assert_eq!(trigger(&world, THERE, what).await.unwrap(), first, "{what}");
        assert_eq!(started(&world).await, expected(what), "{what} again");
    }
}

#[tokio::test]
async fn two_triggers_at_once_start_everything_once() {
    for what in Scheduled::ALL {
        let world = world().await;
        let (left, right) = tokio::join!(trigger(&world, THERE, what), trigger(&world, THERE, what));
        assert_eq!(left.unwrap(), right.unwrap(), "{what}");
        assert_eq!(started(&world).await, expected(what), "{what}");
    }
}

#[tokio::test]
async fn a_trigger_that_died_anywhere_is_made_up_for_by_the_next() {
    for what in Scheduled::ALL {
        for boundary in 0.. {
            let world = world().await;
            let faults = Faults::at(boundary);
            let (source, machines) =
                (Faulty::new(Databases(THERE), &faults), Faulty::new(world.machines.clone(), &faults));
            let died = trigger_dying(&world, &faults, (&source, &machines), (what, SLOT), &[]).await.is_err();
            trigger(&world, THERE, what).await.unwrap();
            assert_eq!(started(&world).await, expected(what), "{what}, killed at {boundary}");
            if !died {
                assert!(boundary > 2, "{what}: there are calls to be killed at");
                break;
            }
        }
    }
}

#[tokio::test]
async fn each_slot_and_each_schedule_has_operations_of_its_own() {
    let world = world().await;
    let mut all = BTreeSet::new();
    let ports: (&dyn Source, &dyn Machines) = (&Databases(THERE), &world.machines);
    let mut count = 0;
    for slot in [SLOT, SLOT + DAY, SLOT + 2 * DAY] {
        for what in Scheduled::ALL {
            let ids = trigger_dying(&world, &Faults::none(), ports, (what, slot), &[]).await.unwrap();
            count += ids.len();
            all.extend(ids);
        }
    }
    assert_eq!((all.len(), count), (21, 21));
}

#[tokio::test]
async fn a_database_that_cannot_be_started_does_not_keep_the_others() {
    let there: &'static [&'static str] = &["blog", DATABASE, "web"];
    let others = || vec![(Pipeline::Protect, "blog".to_owned()), (Pipeline::Protect, "web".to_owned())];
    for kind in [ErrorKind::Denied, ErrorKind::Transient] {
        let world = world().await;
        let stubborn = Stubborn { machines: world.machines.clone(), database: DATABASE, kind };
        let source = Databases(there);
        let why =
            trigger_dying(&world, &Faults::none(), (&source, &stubborn), (Scheduled::Protect, SLOT), &[])
                .await
                .unwrap_err();
        assert_eq!(why.kind(), kind);
        assert!(why.to_string().contains("protect \"crm\""), "{why}");
        assert_eq!(started(&world).await, others(), "{kind:?}");

        let id = OperationId::of_slot(SLOT, &["main", DATABASE, "protect"]);
        let row = world.operation(OperationKind::Backup, id).await;
        let again = trigger(&world, there, Scheduled::Protect).await;
        if kind.is_retryable() {
            assert_eq!(row.state, OperationState::Requested, "the next trigger starts it");
            assert_eq!(again.unwrap().len(), 3);
            assert_eq!(started(&world).await.len(), 3);
        } else {
            assert_eq!(
                (row.state, row.failure.unwrap().step.as_str()),
                (OperationState::Failed, "start-pipeline")
            );
            assert_eq!(again.unwrap_err().kind(), kind, "it does not look well the second time");
            assert_eq!(started(&world).await, others());
        }
    }
}

#[tokio::test]
async fn a_named_database_that_is_not_there_is_told_after_the_others_were_started() {
    for (what, pipeline) in
        [(Scheduled::Protect, Pipeline::Protect), (Scheduled::SampleDrill, Pipeline::Drill)]
    {
        let world = world().await;
        let ports: (&dyn Source, &dyn Machines) = (&Databases(THERE), &world.machines);
        let named = ["shop", DATABASE];
        let why = trigger_dying(&world, &Faults::none(), ports, (what, SLOT), &named).await.unwrap_err();
        assert_eq!(why.kind(), ErrorKind::NotFound);
        assert!(why.to_string().contains("\"shop\"") && why.hint_text().is_some(), "{why}");
        assert_eq!(started(&world).await, [(pipeline, DATABASE.to_owned())]);
    }
}

/// Each of its databases has an operation then, which waits for it and is told of.
#[tokio::test]
async fn where_a_source_does_not_answer_what_is_known_is_started() {
    for (later, named, expected) in [
        (0, &[][..], &[DATABASE][..]),
        (0, &["blog"], &["blog"]),
        (3 * DAY, &["blog"], &["blog"]),
        (3 * DAY, &[], &[]),
    ] {
        let world = world().await;
        world.clock.advance(later);
        let ports: (&dyn Source, &dyn Machines) = (&Databases(&[]), &world.machines);
        let slot = (Scheduled::Protect, SLOT + later);
        let begun = trigger_dying(&world, &Faults::none(), ports, slot, named).await;
        match begun {
            Ok(begun) => assert_eq!(begun.len(), expected.len(), "{later} {named:?}"),
            Err(why) => assert!(why.kind() == ErrorKind::Transient && expected.is_empty(), "{later}: {why}"),
        }
        let started: Vec<OperationId> = world.machines.started().into_iter().map(|(_, id)| id).collect();
        let rows = world.catalog.operations(OperationKind::Backup, 100).await.unwrap();
        let rows =
            rows.into_iter().filter(|row| started.contains(&row.id) && row.trigger() == Trigger::Automated);
        assert_eq!(rows.map(|row| row.database).collect::<Vec<_>>(), expected, "{later} {named:?}");
    }
}

#[tokio::test]
async fn what_was_dropped_is_folded_no_more_but_still_drilled() {
    let world = world().await;
    assert!(trigger(&world, &["blog"], Scheduled::Synthesize).await.unwrap().is_empty());
    assert_eq!(trigger(&world, &["blog"], Scheduled::FullDrill).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_drill_is_as_deep_as_its_schedule() {
    let world = world().await;
    for (what, level, region) in [
        (Scheduled::SampleDrill, Level::SampleRestored, None),
        (Scheduled::FullDrill, Level::FullyRestored, None),
        (Scheduled::RegionDrill, Level::FullyRestored, Some(World::replica_region())),
    ] {
        let id = trigger(&world, THERE, what).await.unwrap()[0];
        let row = world.operation(OperationKind::Drill, id).await;
        let drill = row.drill().unwrap();
        assert_eq!((drill.level, drill.region, drill.backup), (level, region, None), "{what}");
    }
}

#[tokio::test]
async fn a_trigger_without_time_goes_on_the_next_time() {
    let world = world().await;
    world.clock.set_left(5000);
    let why = trigger(&world, THERE, Scheduled::Protect).await.unwrap_err();
    assert_eq!(why.kind(), ErrorKind::OutOfTime);
    assert!(started(&world).await.is_empty());
    world.clock.set_left(60_000);
    assert_eq!(trigger(&world, THERE, Scheduled::Protect).await.unwrap().len(), 2);
}

#[tokio::test]
async fn backups_of_one_slot_wait_for_each_other_and_a_person_does_not() {
    let world = world().await;
    let ids = trigger(&world, THERE, Scheduled::Protect).await.unwrap();
    let begin = async |id| world.step(&Faults::none(), id, Step::TriggerBackup).await;
    begin(ids[0]).await.unwrap();
    let busy = begin(ids[1]).await.unwrap_err();
    assert_eq!((busy.kind(), busy.kind().exit_code()), (ErrorKind::Busy, 6));
    assert!(busy.kind().is_retryable() && busy.to_string().contains(&ids[0].to_string()), "{busy}");
    let by_hand = world.request_backup(false).await;
    assert_eq!(begin(by_hand).await.unwrap_err().kind(), ErrorKind::Conflict);

    for step in world.steps_after_plan(OperationKind::Backup, ids[0]).await {
        world.step(&Faults::none(), ids[0], step).await.unwrap();
    }
    world.carry_out(OperationKind::Backup, ids[1]).await.unwrap();
    let row = world.operation(OperationKind::Backup, ids[1]).await;
    assert_eq!(row.state, OperationState::Verified);
}

#[tokio::test]
async fn a_backup_whose_turn_never_came_wakes_people() {
    let world = world().await;
    let ids = trigger(&world, THERE, Scheduled::Protect).await.unwrap();
    let (catalog, alerts, clock) = (&world.catalog, &world.alerts, &world.clock);
    let ports = raise_alert::Ports { catalog, alerts, bucket: Some((&world.store, &world.keys)), clock };
    let told = "wait for the lease: another one holds it";
    raise_alert::run(ports, OperationKind::Backup, ids[1], "Nightsafe.Busy", told).await.unwrap();
    let alerts = world.alerts.published();
    let last = alerts.last().unwrap();
    assert!(last.subject.starts_with("[CRITICAL] backup FAILED main/"), "{}", last.subject);
    assert!(last.body.contains("Nightsafe.Busy"), "{}", last.body);
    let row = world.catalog.operation(OperationKind::Backup, ids[1]).await.unwrap();
    assert_eq!(row.state, OperationState::Failed);
}
