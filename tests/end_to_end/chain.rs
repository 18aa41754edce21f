//! Whole backups and restores in the test's own process: the real flows over a real cluster, every other port in
//! memory. A step is repeated as often as its state machine would, without the machine's pauses (what a step meets
//! first is a driver that waits for a server), and every run that failed is kept, so that a test can ask what
//! happened on the way.
//!
//! A chain that proves its backups captures the source's changes before each proof; others leave proofs out.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use backup_core::flows::{
    abandon_restore, build_indexes, capture_log, close, dump_chunk, finish_restore, fold_chunk,
    open_manifest, plan_proof, plan_restore, plan_synthesis, prove_chunk, raise_alert, restore_chunk,
    seal_backup, seal_synthesis, trigger_backup, validate_chunk, verify_checksums,
};
use backup_core::format::{BackupPlace, Header, Manifest, ManifestChunk, ManifestNamespace, ObjectKey};
use backup_core::id::OperationId;
use backup_core::operation::{
    BackupDetail, Detail, Failure, Operation, OperationKind, RestoreDetail, RestoreTime, Trigger,
};
use backup_core::ports::{Catalog, Clock, DataKeys, InsertRules, ObjectStore, Source, Target, Timeline};
use backup_core::settings::Settings;
use backup_core::{Error, ErrorKind, Result, seal};
use backup_mongo::Cluster;
use backup_testkit::Faults;
use backup_testkit::TestClock;
use backup_testkit::fixture::{Step, World};
use bson::rawdoc;

/// How often a step runs at most: once, and `MaxAttempts` of the state machines' `Retry`.
const RUNS_MAX: u32 = 6;
/// Instants that one run of a capture archives at most.
const INSTANTS_MAX: u64 = 200;
/// Runs of a capture until it has come to where the source was when it began: a hundred thousand instants.
const CAPTURES_MAX: u32 = 500;
/// Where the source's time is moved by an insert, as a server moves it by itself every ten seconds.
const TICKS: &str = "oracle-tick";

/// A run of a step that failed.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) step: Step,
    pub(crate) kind: ErrorKind,
    /// What was attempted, and why it failed, as an operator reads it.
    pub(crate) told: String,
}

/// A cluster, and everything else that backups and restores of it need.
pub(crate) struct Chain {
    cluster: Cluster,
    /// What backups read: the cluster, or something that stands before it.
    source: Arc<dyn Source>,
    /// What restores write: the cluster, or another one.
    target: Cluster,
    proves: bool,
    settings: Settings,
    /// All other ports; the cluster in memory is not used.
    pub(crate) ports: World,
    failed: Mutex<Vec<Failed>>,
    ticks: AtomicI64,
}

/// A clock by which a capture has to end after some instants: a busy source would keep it for as long as it is busy.
struct Impatient<'a> {
    clock: &'a TestClock,
    asked: AtomicU64,
}

impl Clock for Impatient<'_> {
    fn now_millis(&self) -> u64 {
        self.clock.now_millis()
    }

    fn left_millis(&self) -> u64 {
        let is_over = self.asked.fetch_add(1, Ordering::Relaxed) >= INSTANTS_MAX;
        if is_over { 0 } else { self.clock.left_millis() }
    }
}

impl Chain {
    /// A chain without any backup so far.
    pub(crate) fn new(cluster: Cluster, settings: Settings) -> Self {
        Self {
            source: Arc::new(cluster.clone()),
            target: cluster.clone(),
            cluster,
            proves: false,
            settings,
            ports: without_scratch(),
            failed: Mutex::default(),
            ticks: AtomicI64::default(),
        }
    }

    /// Backups read what `source` gives.
    pub(crate) fn reading(self, source: Arc<dyn Source>) -> Self {
        Self { source, ..self }
    }

    /// Restores write `target`.
    pub(crate) fn restoring_to(self, target: Cluster) -> Self {
        Self { target, ..self }
    }

    /// Backups are compared with what earlier ones and the timeline make of them. The source is written to for that:
    /// its time has to move.
    pub(crate) fn proving(self) -> Self {
        Self { proves: true, ..self }
    }

    /// Backs up a database, or those of its collections that are named. One that fails is ended as the state machine
    /// ends it, so that the next one finds the lease free.
    pub(crate) async fn back_up(&self, database: &str, collections: &[&str]) -> Result<Manifest> {
        let id = self.request_backup(database, collections).await;
        self.carry_out(OperationKind::Backup, id).await?;
        self.manifest(id).await
    }

    /// Restores a database, or those of its collections that are named, from the newest good backup, over what is
    /// live. One that fails is given up as the state machine does it.
    pub(crate) async fn restore(&self, database: &str, collections: &[&str]) -> Result<Operation> {
        let id = self.request_restore(database, collections).await;
        self.carry_out(OperationKind::Restore, id).await?;
        Ok(self.ports.operation(OperationKind::Restore, id).await)
    }

    /// Restores a whole database to an instant, over what is live.
    pub(crate) async fn restore_at(&self, database: &str, time: RestoreTime) -> Result<Operation> {
        let detail = RestoreDetail { may_replace: true, at: Some(time), ..RestoreDetail::requested(true) };
        let id = self.request(database, &[], Detail::Restore(detail)).await;
        self.carry_out(OperationKind::Restore, id).await?;
        Ok(self.ports.operation(OperationKind::Restore, id).await)
    }

    /// Folds a backup of a database from its newest one, up to now.
    pub(crate) async fn synthesize(&self, database: &str) -> Result<Manifest> {
        self.capture().await?;
        let detail = BackupDetail { folds: true, ..BackupDetail::requested(Trigger::Automated, false) };
        let id = self.request(database, &[], Detail::Backup(detail)).await;
        self.carry_out(OperationKind::Backup, id).await?;
        self.manifest(id).await
    }

    /// Archives every change there has been.
    pub(crate) async fn capture(&self) -> Result<()> {
        let now = self.source.cluster_time().await?;
        self.tick().await?; // behind the changes of this very instant
        for _ in 0..CAPTURES_MAX {
            patiently(async || self.capture_some().await).await?;
            if self.ports.timeline.head().await?.is_some_and(|head| head.to > now) {
                return Ok(());
            }
        }
        Err(Error::new(
            ErrorKind::Internal,
            format!("capture the changes up to {now}: there is no end to it"),
        ))
    }

    async fn capture_some(&self) -> Result<()> {
        let World { store, keys, timeline, catalog, machines, alerts, clock, .. } = &self.ports;
        let clock = &Impatient { clock, asked: AtomicU64::default() };
        let (changes, source) = (&self.cluster, &*self.source);
        let ports =
            capture_log::Ports { changes, source, store, keys, timeline, catalog, machines, alerts, clock };
        Box::pin(capture_log::run(ports, &self.settings, "main".parse()?, capture_log::Caller::Schedule))
            .await
    }

    async fn tick(&self) -> Result<()> {
        let tick = rawdoc! { "_id": self.ticks.fetch_add(1, Ordering::Relaxed) };
        let rules = InsertRules { ordered: false };
        self.cluster.insert(TICKS, "ticks", tick.into_bytes().into(), rules).await
    }

    /// Asks for a backup that nobody carries out yet.
    pub(crate) async fn request_backup(&self, database: &str, collections: &[&str]) -> OperationId {
        let detail = BackupDetail::requested(Trigger::Manual, false);
        self.request(database, collections, Detail::Backup(detail)).await
    }

    /// Asks for a restore that nobody carries out yet.
    pub(crate) async fn request_restore(&self, database: &str, collections: &[&str]) -> OperationId {
        let full = collections.is_empty();
        let detail = RestoreDetail { may_replace: true, ..RestoreDetail::requested(full) };
        self.request(database, collections, Detail::Restore(detail)).await
    }

    async fn request(&self, database: &str, collections: &[&str], detail: Detail) -> OperationId {
        self.ports.clock.advance(1000); // so that ids sort by the order of requests
        let id = OperationId::generate(self.ports.clock.now_millis()).unwrap();
        let collections = collections.iter().map(|name| (*name).to_owned()).collect();
        let source = "main".parse().unwrap();
        let row = Operation::requested(id, source, database.to_owned(), collections, "ana".into(), detail);
        self.ports.catalog.create_operation(&row).await.unwrap();
        id
    }

    /// Carries out what was asked for, as its state machine does.
    pub(crate) async fn carry_out(&self, kind: OperationKind, id: OperationId) -> Result<()> {
        let done = self.drive(kind, id, async |step| self.run(id, step).await).await;
        if let Err(why) = &done {
            self.give_up(kind, id, why).await;
        }
        done
    }

    /// Runs the steps of an operation in order, each by `run`, until one fails.
    pub(crate) async fn drive(
        &self,
        kind: OperationKind,
        id: OperationId,
        mut run: impl AsyncFnMut(Step) -> Result<()>,
    ) -> Result<()> {
        run(self.ports.first_step(kind, id).await).await?;
        for step in self.ports.steps_after_plan(kind, id).await {
            if self.proves || !is_of_a_proof(step) {
                run(step).await?;
            }
        }
        Ok(())
    }

    /// Runs a step, and again while what it fails with is worth it.
    pub(crate) async fn run(&self, id: OperationId, step: Step) -> Result<()> {
        patiently(async || self.run_once(id, step).await).await
    }

    /// Runs a step once; a failure is kept, and noted in the catalog as a function notes it.
    pub(crate) async fn run_once(&self, id: OperationId, step: Step) -> Result<()> {
        let done = Box::pin(self.backup_step(id, step)).await; // it holds every step's future
        if let Err(why) = &done {
            let (name, kind) = step.word_and_kind();
            self.ports.catalog.record_failure(kind, id, &Failure::of(name, why)).await.unwrap();
            let failed = Failed { step, kind: why.kind(), told: why.to_string() };
            self.failed.lock().unwrap().push(failed);
        }
        done
    }

    /// What failed since this was asked last.
    pub(crate) fn take_failed(&self) -> Vec<Failed> {
        self.failed.lock().unwrap().drain(..).collect()
    }

    async fn backup_step(&self, id: OperationId, step: Step) -> Result<()> {
        let World { store, keys, catalog, timeline, alerts, clock, .. } = &self.ports;
        let (source, settings) = (&*self.source, &self.settings);
        match step {
            Step::TriggerBackup => {
                let ports = trigger_backup::Ports { source, store, keys, catalog, timeline, clock };
                trigger_backup::run(ports, settings, id).await.map(|_| ())
            }
            Step::DumpChunk(item) => {
                let ports = dump_chunk::Ports { source, store, keys, catalog, clock };
                dump_chunk::run(ports, settings, id, item).await
            }
            Step::SealBackup => {
                seal_backup::run(seal_backup::Ports { source, store, keys, catalog, clock }, id).await
            }
            Step::VerifyChecksums(item) => {
                let ports = verify_checksums::Ports { store, keys, locks: store, catalog, clock };
                verify_checksums::run(ports, World::policy().recent, id, item).await
            }
            Step::Close => {
                let (locks, machines) = (store, &self.ports.machines);
                let ports = close::Ports { store, keys, catalog, timeline, locks, machines, alerts, clock };
                let commit = close::Commit { lock: World::policy().recent, replicate: false };
                close::run(ports, commit, id).await
            }
            Step::CaptureLog | Step::PlanProof | Step::ProveChunk(_) => self.proof_step(id, step).await,
            Step::PlanSynthesis | Step::FoldChunk(_) | Step::SealSynthesis => {
                self.synthesis_step(id, step).await
            }
            Step::SampleRestore => self.ports.step(&Faults::none(), id, step).await,
            of_a_restore => self.restore_step(id, of_a_restore).await,
        }
    }

    async fn proof_step(&self, id: OperationId, step: Step) -> Result<()> {
        let World { store, keys, catalog, timeline, clock, .. } = &self.ports;
        match step {
            Step::CaptureLog => self.capture().await,
            Step::PlanProof => {
                plan_proof::run(plan_proof::Ports { store, keys, catalog, timeline }, id).await.map(|_| ())
            }
            Step::ProveChunk(item) => {
                prove_chunk::run(prove_chunk::Ports { store, keys, catalog, timeline, clock }, id, item).await
            }
            other => unreachable!("{other:?} is no step of a proof"),
        }
    }

    async fn synthesis_step(&self, id: OperationId, step: Step) -> Result<()> {
        let World { store, keys, catalog, timeline, clock, .. } = &self.ports;
        match step {
            Step::PlanSynthesis => {
                let ports = plan_synthesis::Ports { store, keys, catalog, timeline, clock };
                plan_synthesis::run(ports, &self.settings, id).await.map(|_| ())
            }
            Step::FoldChunk(item) => {
                let ports = fold_chunk::Ports { store, keys, catalog, timeline, clock };
                fold_chunk::run(ports, &self.settings, id, item).await
            }
            Step::SealSynthesis => {
                seal_synthesis::run(seal_synthesis::Ports { store, keys, catalog, clock }, id).await
            }
            other => unreachable!("{other:?} is no step of a synthesis"),
        }
    }

    async fn restore_step(&self, id: OperationId, step: Step) -> Result<()> {
        let World { store, keys, catalog, timeline, alerts, clock, .. } = &self.ports;
        let (target, settings) = (&self.target, &self.settings);
        match step {
            Step::PlanRestore => {
                let ports = plan_restore::Ports { target, store, keys, catalog, timeline, alerts, clock };
                plan_restore::run(ports, settings, id).await.map(|_| ())
            }
            Step::RestoreChunk(item) => {
                let ports = restore_chunk::Ports { target, store, keys, catalog, timeline, clock };
                restore_chunk::run(ports, settings, id, item).await
            }
            Step::BuildIndexes => {
                build_indexes::run(build_indexes::Ports { target, store, keys, catalog }, id).await
            }
            Step::ValidateChunk(item) => {
                let ports = validate_chunk::Ports { target, store, keys, catalog, clock };
                validate_chunk::run(ports, id, item).await
            }
            Step::FinishRestore => {
                finish_restore::run(finish_restore::Ports { target, store, keys, catalog, clock }, id).await
            }
            Step::AbandonRestore => {
                abandon_restore::run(abandon_restore::Ports { target, store, keys, catalog }, id).await
            }
            of_a_backup => unreachable!("{of_a_backup:?} is no step of a restore"),
        }
    }

    /// What a state machine does once a step failed for good.
    pub(crate) async fn give_up(&self, kind: OperationKind, id: OperationId, why: &Error) {
        if kind == OperationKind::Restore {
            let _ = self.run(id, Step::AbandonRestore).await; // the machine goes on to the alert all the same
        }
        let World { store, keys, catalog, alerts, clock, .. } = &self.ports;
        let ports = raise_alert::Ports { catalog, alerts, bucket: Some((store, keys)), clock };
        raise_alert::run(ports, kind, id, why.kind().name(), &why.to_string()).await.unwrap();
    }

    /// The manifest of a backup.
    pub(crate) async fn manifest(&self, backup: OperationId) -> Result<Manifest> {
        let row = self.ports.operation(OperationKind::Backup, backup).await;
        open_manifest(&self.ports.store, &self.ports.keys, &row).await
    }

    /// What is stored of a chunk: its documents, concatenated.
    pub(crate) async fn documents(
        &self,
        manifest: &Manifest,
        namespace: &ManifestNamespace,
        chunk: &ManifestChunk,
    ) -> Vec<u8> {
        let place = BackupPlace { trigger: manifest.trigger, backup: manifest.backup };
        let key = ObjectKey::Chunk(place, chunk.ordinal, chunk.stored.attempt);
        let object = self.ports.store.get(key, u64::MAX).await.unwrap();
        let context = manifest.chunk_context(namespace, chunk).unwrap();
        let (header, length) = Header::expect(&object, &context).unwrap();
        let data_key = self.ports.keys.unwrap(&header.wrapped_key, &context).await.unwrap();
        let opened = seal::open(data_key, &context.to_bytes(), &object[length..]).unwrap();
        zstd::decode_all(opened.as_slice()).unwrap()
    }
}

/// Runs something, and again while what it fails with is worth it.
async fn patiently(mut once: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let mut runs = 1;
    loop {
        match once().await {
            Err(why) if why.kind().is_retryable() && runs < RUNS_MAX => runs += 1,
            ended => return ended,
        }
    }
}

const fn is_of_a_proof(step: Step) -> bool {
    matches!(step, Step::CaptureLog | Step::PlanProof | Step::ProveChunk(_))
}

/// Samples are restored into a cluster in memory, which knows numbers as `_id`s only: here they are left out.
fn without_scratch() -> World {
    let world = World::default();
    world.scratch.set_missing(true);
    world
}
