//! A database in memory with all its steps at hand, and requests for backups and restores of it.

use backup_core::Result;
use backup_core::flows::{
    abandon_restore, build_indexes, close, dump_chunk, finish_restore, plan_restore, restore_chunk,
    seal_backup, trigger_backup, validate_chunk, verify_checksums,
};
use backup_core::format::{ObjectKey, WorkItem, read_work_items};
use backup_core::id::OperationId;
use backup_core::operation::{BackupDetail, Detail, Operation, OperationKind, RestoreDetail, Trigger};
use backup_core::ports::{Catalog, Clock, ObjectStore};
use backup_core::settings::Settings;
use bson::{RawDocumentBuf, rawdoc};

use crate::{Faults, Faulty, MemoryAlerts, MemoryCatalog, MemoryCluster, MemoryKeys, MemoryStore, TestClock};

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
    /// `close`.
    Close,
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

    /// Settings that cut `leads` into several chunks.
    #[must_use]
    pub fn settings() -> Settings {
        Settings { chunk_target_bytes: 2000, compress_workers: 2, insert_workers: 2, ..Settings::default() }
    }

    /// Asks for a backup of the whole database.
    pub async fn request_backup(&self, force: bool) -> OperationId {
        let detail = BackupDetail {
            trigger: Trigger::Manual,
            force,
            cluster_time: None,
            consistency: None,
            manifest_sha256: None,
            lost: 0,
        };
        self.request(&[], Detail::Backup(detail)).await
    }

    /// Asks for a restore; of the whole database if no collections are named.
    pub async fn request_restore(&self, collections: &[&str], may_replace: bool) -> OperationId {
        let full = collections.is_empty();
        let detail = RestoreDetail { backup: None, full, may_replace, dry_run: false, kept_aside: vec![] };
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
        let (clock, settings) = (&self.clock, &Self::settings());
        match step {
            Step::TriggerBackup => {
                let ports = trigger_backup::Ports { source: cluster, store, keys, catalog, clock };
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
            Step::Close => close::run(close::Ports { store, keys, catalog, clock }, id).await,
            Step::PlanRestore => {
                let ports = plan_restore::Ports { target: cluster, store, keys, catalog, alerts, clock };
                plan_restore::run(ports, settings, id).await.map(|_| ())
            }
            Step::RestoreChunk(item) => {
                let ports = restore_chunk::Ports { target: cluster, store, keys, catalog, clock };
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
            OperationKind::Backup => [
                each(Step::DumpChunk),
                vec![Step::SealBackup],
                each(Step::VerifyChecksums),
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

    const fn first_step(kind: OperationKind) -> Step {
        match kind {
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
        let mut steps = vec![Self::first_step(kind)];
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
        let mut steps = vec![Self::first_step(kind)];
        let mut at = 0;
        while at < steps.len() {
            let (faults, step) = (Faults::none(), steps[at]);
            let (left, right) = tokio::join!(self.step(&faults, id, step), self.step(&faults, id, step));
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
        self.step(&Faults::none(), id, Step::TriggerBackup).await.unwrap();
        for step in self.steps_after_plan(OperationKind::Backup, id).await {
            self.step(&Faults::none(), id, step).await.unwrap();
        }
        id
    }

    /// Runs a whole restore; the first step that fails ends it.
    pub async fn restore(&self, collections: &[&str]) -> Result<OperationId> {
        let id = self.request_restore(collections, true).await;
        self.step(&Faults::none(), id, Step::PlanRestore).await?;
        for step in self.steps_after_plan(OperationKind::Restore, id).await {
            self.step(&Faults::none(), id, step).await?;
        }
        Ok(id)
    }
}

/// The document number `n`.
#[must_use]
pub fn lead(n: i32) -> RawDocumentBuf {
    rawdoc! { "_id": n, "name": format!("lead {n}"), "score": n % 7, "notes": "x".repeat(30) }
}
