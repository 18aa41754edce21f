//! A database in memory with all its steps at hand, and requests for backups and restores of it.

use backup_core::Result;
use backup_core::flows::{
    abandon_restore, build_indexes, capture_log, close, dump_chunk, finish_restore, fold_chunk, plan_proof,
    plan_restore, plan_synthesis, prove_chunk, restore_chunk, seal_backup, seal_synthesis, trigger_backup,
    validate_chunk, verify_checksums,
};
use backup_core::format::{ObjectKey, WorkItem, read_work_items};
use backup_core::id::OperationId;
use backup_core::operation::{BackupDetail, Detail, Operation, OperationKind, RestoreDetail, Trigger};
use backup_core::ports::{Catalog, Clock, ObjectStore};
use backup_core::settings::Settings;
use bson::{RawDocumentBuf, rawdoc};

use crate::{
    Faults, Faulty, MemoryAlerts, MemoryCatalog, MemoryCluster, MemoryKeys, MemoryMachines, MemoryStore,
    MemoryTimeline, TestClock,
};

/// Everything outside, in memory.
#[derive(Clone, Default)]
pub struct World {
    /// The cluster, source and target at once.
    pub cluster: MemoryCluster,
    /// The bucket.
    pub store: MemoryStore,
    /// The key service.
    pub keys: MemoryKeys,
    /// The catalog.
    pub catalog: MemoryCatalog,
    /// The timeline.
    pub timeline: MemoryTimeline,
    /// The state machines.
    pub machines: MemoryMachines,
    /// What was told to people.
    pub alerts: MemoryAlerts,
    /// The clock.
    pub clock: TestClock,
}

/// One step of a pipeline, as a state machine runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `trigger-backup`.
    TriggerBackup,
    /// `dump-chunk`, for one work item.
    DumpChunk(WorkItem),
    /// `seal-backup`.
    SealBackup,
    /// `verify-checksums`, for one work item.
    VerifyChecksums(WorkItem),
    /// `capture-log`.
    CaptureLog,
    /// `plan-proof`.
    PlanProof,
    /// `prove-chunk`, for one work item.
    ProveChunk(WorkItem),
    /// `close`.
    Close,
    /// `plan-synthesis`.
    PlanSynthesis,
    /// `fold-chunk`, for one work item.
    FoldChunk(WorkItem),
    /// `seal-synthesis`.
    SealSynthesis,
    /// `plan-restore`.
    PlanRestore,
    /// `restore-chunk`, for one work item.
    RestoreChunk(WorkItem),
    /// `build-indexes`.
    BuildIndexes,
    /// `validate-chunk`, for one work item.
    ValidateChunk(WorkItem),
    /// `finish-restore`.
    FinishRestore,
    /// `abandon-restore`.
    AbandonRestore,
}

/// What happens after a process died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeath {
    /// The state machine runs the step again, and the rest.
    RunAgain,
    /// The state machine gives the restore up.
    GiveUp,
}

/// The database that worlds begin with.
pub const DATABASE: &str = "crm";

impl World {
    /// A world whose database has a large collection, a small one, an empty one, and a view.
    #[must_use]
    pub fn with_data() -> Self {
        let world = Self::default();
        world.cluster.fill("leads", (0..80).map(lead));
        world.cluster.fill("messages", (0..5).map(lead));
        world.cluster.fill("empty", []);
        world.cluster.define("active", &rawdoc! { "viewOn": "leads", "pipeline": [] });
        world
    }

    /// Settings that cut `leads` into several chunks, and fold it in several passes.
    #[must_use]
    pub fn settings() -> Settings {
        Settings {
            chunk_target_bytes: 2000,
            compress_workers: 2,
            insert_workers: 2,
            pending_bytes_max: 1000,
            ..Settings::default()
        }
    }

    /// Asks for a backup of the whole database.
    pub async fn request_backup(&self, force: bool) -> OperationId {
        let detail = BackupDetail::requested(Trigger::Manual, force);
        self.request(&[], Detail::Backup(detail)).await
    }

    /// Asks for a backup that is folded from the newest one.
    pub async fn request_synthesis(&self) -> OperationId {
        let detail = BackupDetail { folds: true, ..BackupDetail::requested(Trigger::Automated, false) };
        self.request(&[], Detail::Backup(detail)).await
    }

    /// Asks for a restore; of the whole database if no collections are named.
    pub async fn request_restore(&self, collections: &[&str], may_replace: bool) -> OperationId {
        let full = collections.is_empty();
        let detail = RestoreDetail { may_replace, ..RestoreDetail::requested(full) };
        self.request(collections, Detail::Restore(detail)).await
    }

    /// Asks for an operation.
    pub async fn request(&self, collections: &[&str], detail: Detail) -> OperationId {
        self.clock.advance(1000);
        let id = OperationId::generate(self.clock.now_millis()).unwrap();
        let collections = collections.iter().map(|name| (*name).to_owned()).collect();
        let (source, database) = ("main".parse().unwrap(), DATABASE.to_owned());
        let operation = Operation::requested(id, source, database, collections, "ana".into(), detail);
        self.catalog.create_operation(&operation).await.unwrap();
        id
    }

    /// The row of an operation.
    pub async fn operation(&self, kind: OperationKind, id: OperationId) -> Operation {
        self.catalog.operation(kind, id).await.unwrap()
    }

    /// Runs one step in a process that dies as `faults` say.
    pub async fn step(&self, faults: &Faults, id: OperationId, step: Step) -> Result<()> {
        let cluster = &Faulty::new(self.cluster.clone(), faults);
        let store = &Faulty::new(self.store.clone(), faults);
        let keys = &Faulty::new(self.keys.clone(), faults);
        let catalog = &Faulty::new(self.catalog.clone(), faults);
        let alerts = &Faulty::new(self.alerts.clone(), faults);
        let timeline = &Faulty::new(self.timeline.clone(), faults);
        let machines = &Faulty::new(self.machines.clone(), faults);
        let (clock, settings) = (&self.clock, &Self::settings());
        match step {
            Step::TriggerBackup => {
                let ports = trigger_backup::Ports { source: cluster, store, keys, catalog, timeline, clock };
                trigger_backup::run(ports, settings, id).await.map(|_| ())
            }
            Step::DumpChunk(item) => {
                let ports = dump_chunk::Ports { source: cluster, store, keys, catalog, clock };
                dump_chunk::run(ports, settings, id, item).await
            }
            Step::SealBackup => {
                seal_backup::run(seal_backup::Ports { source: cluster, store, keys, catalog, clock }, id)
                    .await
            }
            Step::VerifyChecksums(item) => {
                verify_checksums::run(verify_checksums::Ports { store, keys, catalog, clock }, id, item).await
            }
            Step::CaptureLog => {
                self.cluster.tick(); // as a server does by itself every ten seconds
                let (changes, source) = (cluster, cluster);
                let ports = capture_log::Ports {
                    changes,
                    source,
                    store,
                    keys,
                    timeline,
                    catalog,
                    machines,
                    alerts,
                    clock,
                };
                capture_log::run(ports, settings, "main".parse()?, capture_log::Caller::Schedule).await
            }
            Step::PlanProof => {
                plan_proof::run(plan_proof::Ports { store, keys, catalog, timeline }, id).await.map(|_| ())
            }
            Step::ProveChunk(item) => {
                let ports = prove_chunk::Ports { store, keys, catalog, timeline, clock };
                prove_chunk::run(ports, id, item).await
            }
            Step::Close => {
                close::run(close::Ports { store, keys, catalog, timeline, alerts, clock }, id).await
            }
            Step::PlanSynthesis => {
                let ports = plan_synthesis::Ports { store, keys, catalog, timeline, clock };
                plan_synthesis::run(ports, settings, id).await.map(|_| ())
            }
            Step::FoldChunk(item) => {
                let ports = fold_chunk::Ports { store, keys, catalog, timeline, clock };
                fold_chunk::run(ports, settings, id, item).await
            }
            Step::SealSynthesis => {
                seal_synthesis::run(seal_synthesis::Ports { store, keys, catalog, clock }, id).await
            }
            of_a_restore => self.restore_step(faults, id, of_a_restore).await,
        }
    }

    async fn restore_step(&self, faults: &Faults, id: OperationId, step: Step) -> Result<()> {
        let cluster = &Faulty::new(self.cluster.clone(), faults);
        let store = &Faulty::new(self.store.clone(), faults);
        let keys = &Faulty::new(self.keys.clone(), faults);
        let catalog = &Faulty::new(self.catalog.clone(), faults);
        let alerts = &Faulty::new(self.alerts.clone(), faults);
        let timeline = &Faulty::new(self.timeline.clone(), faults);
        let (clock, settings) = (&self.clock, &Self::settings());
        match step {
            Step::PlanRestore => {
                let ports =
                    plan_restore::Ports { target: cluster, store, keys, catalog, timeline, alerts, clock };
                plan_restore::run(ports, settings, id).await.map(|_| ())
            }
            Step::RestoreChunk(item) => {
                let ports = restore_chunk::Ports { target: cluster, store, keys, catalog, timeline, clock };
                restore_chunk::run(ports, settings, id, item).await
            }
            Step::BuildIndexes => {
                build_indexes::run(build_indexes::Ports { target: cluster, store, keys, catalog }, id).await
            }
            Step::ValidateChunk(item) => {
                let ports = validate_chunk::Ports { target: cluster, store, keys, catalog, clock };
                validate_chunk::run(ports, id, item).await
            }
            Step::FinishRestore => {
                finish_restore::run(
                    finish_restore::Ports { target: cluster, store, keys, catalog, clock },
                    id,
                )
                .await
            }
            Step::AbandonRestore => {
                abandon_restore::run(abandon_restore::Ports { target: cluster, store, keys, catalog }, id)
                    .await
            }
            of_a_backup => unreachable!("{of_a_backup:?} is no step of a restore"),
        }
    }

    /// The steps that follow on `trigger-backup` or `plan-restore`, in order.
    pub async fn steps_after_plan(&self, kind: OperationKind, id: OperationId) -> Vec<Step> {
        let operation = self.operation(kind, id).await;
        let key = match kind {
            OperationKind::Backup => ObjectKey::BackupWork(operation.backup_place().unwrap()),
            OperationKind::Restore => ObjectKey::RestoreWork(operation.restore_place()),
        };
        let items = read_work_items(&self.store.get(key, u64::MAX).await.unwrap()).unwrap();
        let each = |step: fn(WorkItem) -> Step| items.iter().map(move |item| step(*item)).collect::<Vec<_>>();
        match kind {
            OperationKind::Backup if operation.backup().unwrap().folds => [
                each(Step::FoldChunk),
                vec![Step::SealSynthesis],
                each(Step::VerifyChecksums),
                vec![Step::Close],
            ]
            .concat(),
            OperationKind::Backup => [
                each(Step::DumpChunk),
                vec![Step::SealBackup],
                each(Step::VerifyChecksums),
                vec![Step::CaptureLog, Step::PlanProof],
                each(Step::ProveChunk),
                vec![Step::Close],
            ]
            .concat(),
            OperationKind::Restore => [
                each(Step::RestoreChunk),
                vec![Step::BuildIndexes],
                each(Step::ValidateChunk),
                vec![Step::FinishRestore],
            ]
            .concat(),
        }
    }

    async fn first_step(&self, kind: OperationKind, id: OperationId) -> Step {
        match kind {
            OperationKind::Backup if self.operation(kind, id).await.backup().unwrap().folds => {
                Step::PlanSynthesis
            }
            OperationKind::Backup => Step::TriggerBackup,
            OperationKind::Restore => Step::PlanRestore,
        }
    }

    async fn must(&self, id: OperationId, step: Step, when: &str) {
        self.step(&Faults::none(), id, step).await.unwrap_or_else(|why| panic!("{when}: {step:?}: {why}"));
    }

    /// Runs all steps, in a process that dies at `boundary` (counted over all of them); each step that succeeded is
    /// run once more, as a doubled event would. Whether it died: false once `boundary` is beyond the last call.
    pub async fn run_dying_at(
        &self,
        kind: OperationKind,
        id: OperationId,
        boundary: u64,
        then: OnDeath,
    ) -> bool {
        let when = format!("killed at {boundary}");
        let mut steps = vec![self.first_step(kind, id).await];
        let (mut at, mut left, mut died) = (0, boundary, false);
        while at < steps.len() {
            let step = steps[at];
            let faults = if died { Faults::none() } else { Faults::at(left) };
            let outcome = self.step(&faults, id, step).await;
            if !died && faults.boundaries() > left {
                assert!(outcome.is_err(), "{when}: {step:?} went on");
                died = true;
                if then == OnDeath::GiveUp {
                    self.must(id, Step::AbandonRestore, &when).await;
                    return true;
                }
                self.must(id, step, &when).await;
            } else {
                outcome.unwrap_or_else(|why| panic!("{when}: {step:?}: {why}"));
                left = left.saturating_sub(faults.boundaries());
            }
            self.must(id, step, &when).await;
            if at == 0 {
                steps.extend(self.steps_after_plan(kind, id).await);
            }
            at += 1;
        }
        died
    }

    /// Runs every step twice at once; where both runs fail, as a state machine would see it, it is run again.
    pub async fn run_each_twice_at_once(&self, kind: OperationKind, id: OperationId) {
        let mut steps = vec![self.first_step(kind, id).await];
        let mut at = 0;
        while at < steps.len() {
            let (faults, step) = (Faults::none(), steps[at]);
            let run = || Box::pin(self.step(&faults, id, step)); // it holds every step's future
            let (left, right) = tokio::join!(run(), run());
            if left.is_err() && right.is_err() {
                self.must(id, step, "after two at once").await;
            }
            if at == 0 {
                steps.extend(self.steps_after_plan(kind, id).await);
            }
            at += 1;
        }
    }

    /// Runs a whole backup.
    pub async fn back_up(&self) -> OperationId {
        let id = self.request_backup(false).await;
        self.carry_out(OperationKind::Backup, id).await.unwrap();
        id
    }

    /// Runs a whole backup that is folded from the newest one.
    pub async fn synthesize(&self) -> Result<OperationId> {
        let id = self.request_synthesis().await;
        self.carry_out(OperationKind::Backup, id).await?;
        Ok(id)
    }

    /// Runs a whole restore; the first step that fails ends it.
    pub async fn restore(&self, collections: &[&str]) -> Result<OperationId> {
        let id = self.request_restore(collections, true).await;
        self.carry_out(OperationKind::Restore, id).await?;
        Ok(id)
    }

    /// Archives every change so far.
    pub async fn capture(&self) -> Result<()> {
        let none = OperationId::from_bytes([0; 16]);
        self.step(&Faults::none(), none, Step::CaptureLog).await
    }

    /// Runs every step of an operation; the first that fails ends it.
    pub async fn carry_out(&self, kind: OperationKind, id: OperationId) -> Result<()> {
        self.step(&Faults::none(), id, self.first_step(kind, id).await).await?;
        for step in self.steps_after_plan(kind, id).await {
            self.step(&Faults::none(), id, step).await?;
        }
        Ok(())
    }
}

/// The document number `n`.
#[must_use]
pub fn lead(n: i32) -> RawDocumentBuf {
    rawdoc! { "_id": n, "name": format!("lead {n}"), "score": n % 7, "notes": "x".repeat(30) }
}
