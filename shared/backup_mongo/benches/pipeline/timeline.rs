//! The timeline: how fast changes are captured and folded, what a fold adds to a restore, and what memory they take.
//!
//! A restore to the newest instant is compared with one of a backup that holds just that, so that both read as many
//! bytes, and insert the same documents.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backup_core::Result;
use backup_core::flows::{
    capture_log, close, fold_chunk, open_manifest, plan_synthesis, seal_synthesis, verify_checksums,
};
use backup_core::format::{Manifest, ObjectKey};
use backup_core::id::{ClusterTime, OperationId};
use backup_core::operation::{BackupDetail, Detail, Operation, OperationKind, Trigger};
use backup_core::ports::{Catalog, ChangeStream, Changes, SizeHint, Source, Timeline};
use backup_core::retention::Policy;
use backup_core::timeline::{EventBatch, Position, SliceRecord, TimelineHead};
use backup_mongo::Cluster;
use backup_testkit::{MemoryMachines, MemoryTimeline};

use crate::documents::{COLLECTION, DATABASE};
use crate::memory::{directory, run_alone, tell};
use crate::whole::{World, median};
use crate::{Options, changes};

/// What the next process has to know: the backup, and the timeline since.
const STATE: &str = "timeline.json";
type State = (Operation, TimelineHead, Vec<SliceRecord>);

/// Captures, folds and restores, round by round.
pub(crate) async fn speed(cluster: &Cluster, uri: &str, options: &Options) {
    let directory = tempfile::tempdir().unwrap();
    let world = World::new(cluster, directory.path(), options);
    println!("{options:?}");
    back_up(&world).await;
    changes::change_a_tenth(uri, options).await;
    let (events, captures) = capture_each_round(&world, options.rounds).await;
    let (mut folds, mut folded) = (Vec::new(), None);
    for _ in 0..options.rounds {
        let (manifest, elapsed) = fold(&world).await;
        folds.push(elapsed.as_secs_f64());
        folded = Some(manifest);
    }
    let folded = folded.expect("one round at least");
    let (mut with, mut without) = (Restores::default(), Restores::default());
    for _ in 0..options.rounds {
        let began = Instant::now();
        let id = world.plan_restore_to_latest().await;
        let first = with.finish(&world, id, began.elapsed()).await;
        let began = Instant::now();
        let id = world.plan_restore(folded.backup).await;
        let second = without.finish(&world, id, began.elapsed()).await;
        assert_eq!(first, second, "the same documents");
    }
    report_rates(&events, &folded, &captures, &folds);
    report_restores(&with, &without);
}

fn report_rates(events: &Events, folded: &Manifest, captures: &[f64], folds: &[f64]) {
    let (changes, totals) = (events.count as f64, folded.totals());
    let (megabytes, folded_megabytes) = (events.bytes as f64 / 1e6, totals.bson_bytes as f64 / 1e6);
    let rates = |amount: f64, seconds: &[f64]| seconds.iter().map(|it| amount / it).collect::<Vec<_>>();
    println!("{} changes of {megabytes:.0} MB in {} slices", events.count, events.slices);
    println!("{} documents of {folded_megabytes:.0} MB after them", totals.documents);
    println!("\n{:28} rates (median; every round)", "timeline");
    print("capture, changes/s", &rates(changes, captures), 0);
    print("capture, MB/s of changes", &rates(megabytes, captures), 0);
    print("fold-chunk, changes/s", &rates(changes, folds), 0);
    print("fold-chunk, MB/s of BSON", &rates(folded_megabytes, folds), 0);
}

fn report_restores(with: &Restores, without: &Restores) {
    println!("\n{:28} seconds (median; every round)", "restore");
    print("plan, with a fold", &with.plans, 2);
    print("plan, without", &without.plans, 2);
    print("restore-chunk, with a fold", &with.inserts, 2);
    print("restore-chunk, without", &without.inserts, 2);
    let ratio = median(&with.inserts) / median(&without.inserts);
    println!("  restore-chunk with a fold / without = {ratio:.2}");
    let ratio = median(&with.both()) / median(&without.both());
    println!("  plan and restore-chunk with a fold / without = {ratio:.2}");
}

/// The peak resident size of a capture, of a fold, and of a restore with a fold, each in a process of its own.
pub(crate) async fn memory(cluster: &Cluster, uri: &str, options: &Options) {
    let directory = tempfile::tempdir().unwrap();
    let world = World::new(cluster, directory.path(), options);
    let backup = back_up(&world).await;
    save(&world, backup, directory.path()).await;
    changes::change_each(uri, options).await;
    for step in ["capture", "fold", "restore"] {
        run_alone(options, directory.path(), step);
    }
}

/// One step, and what it took.
pub(crate) async fn child(cluster: &Cluster, options: &Options, step: &str) {
    let directory = directory();
    let world = World::new(cluster, &directory, options);
    let backup = load(&world, &directory).await;
    match step {
        "capture" => {
            let elapsed = capture(&world, &world.timeline).await;
            tell("capture-log");
            let Events { count, bytes, slices } = Events::of(&world.timeline).await;
            let seconds = elapsed.as_secs_f64();
            println!("{count} changes, {bytes} bytes of BSON, in {slices} slices, in {seconds:.1} s");
            save(&world, backup, &directory).await;
        }
        "fold" => {
            let (manifest, elapsed) = fold(&world).await;
            tell("fold-chunk");
            let (totals, seconds) = (manifest.totals(), elapsed.as_secs_f64());
            println!("{} documents in {} chunks, in {seconds:.1} s", totals.documents, totals.chunks);
        }
        _ => {
            let id = world.plan_restore_to_latest().await;
            let elapsed = world.insert(id).await;
            tell("restore-chunk");
            let SizeHint { documents, bytes } = staged(&world).await;
            println!("{documents} documents, {bytes} bytes, in {:.1} s", elapsed.as_secs_f64());
            world.give_up(id).await;
        }
    }
}

/// A backup of the whole database with all its steps: a base.
async fn back_up(world: &World) -> OperationId {
    let id = world.plan_backup().await;
    world.dump(id).await;
    world.seal(id).await;
    let place = world.operation(OperationKind::Backup, id).await.backup_place().unwrap();
    let World { store, keys, catalog, timeline, alerts, clock, .. } = world;
    for item in world.items(ObjectKey::BackupWork(place)).await {
        let ports = verify_checksums::Ports { store, keys, locks: store, catalog, clock };
        verify_checksums::run(ports, Policy::default().recent, id, item).await.unwrap();
    }
    let (locks, machines) = (store, &MemoryMachines::default());
    let ports = close::Ports { store, keys, catalog, timeline, locks, machines, alerts, clock };
    let commit = close::Commit { lock: Policy::default().recent, replicate: false };
    close::run(ports, commit, id).await.unwrap();
    id
}

/// What was captured.
struct Events {
    count: u64,
    bytes: u64,
    slices: usize,
}

impl Events {
    async fn of(timeline: &MemoryTimeline) -> Self {
        let breaks = timeline.breaks().await.unwrap();
        assert!(breaks.is_empty(), "the server keeps too few changes: {breaks:?}");
        let all = slices(timeline).await;
        Self {
            count: all.iter().map(|it| it.events).sum(),
            bytes: all.iter().map(|it| it.event_bytes).sum(),
            slices: all.len(),
        }
    }
}

async fn slices(timeline: &MemoryTimeline) -> Vec<SliceRecord> {
    timeline.slices(ClusterTime::from_u64(0), ClusterTime::from_u64(u64::MAX)).await.unwrap()
}

/// Captures the same changes again and again; those of the last round are the timeline.
async fn capture_each_round(world: &World, rounds: usize) -> (Events, Vec<f64>) {
    let head = world.timeline.head().await.unwrap().unwrap();
    let mut seconds = Vec::new();
    for _ in 1..rounds {
        let timeline = MemoryTimeline::default();
        timeline.begin(&head).await.unwrap();
        seconds.push(capture(world, &timeline).await.as_secs_f64());
    }
    seconds.push(capture(world, &world.timeline).await.as_secs_f64());
    (Events::of(&world.timeline).await, seconds)
}

/// Captures everything up to now. The waits for changes that do not come are not counted.
async fn capture(world: &World, timeline: &MemoryTimeline) -> Duration {
    let World { cluster, store, keys, catalog, machines, alerts, clock, settings, .. } = world;
    let (until, source) = (cluster.cluster_time().await.unwrap(), "bench".parse().unwrap());
    let waits = Arc::new(Mutex::new(Duration::ZERO));
    let changes = &Timed { cluster: cluster.clone(), waits: Arc::clone(&waits) };
    let began = Instant::now();
    while timeline.head().await.unwrap().is_none_or(|head| head.to <= until) {
        let ports = capture_log::Ports {
            changes,
            source: cluster,
            store,
            keys,
            timeline,
            catalog,
            machines,
            alerts,
            clock,
        };
        capture_log::run(ports, settings, source, capture_log::Caller::Backup).await.unwrap();
    }
    let elapsed = began.elapsed();
    let waited = *waits.lock().unwrap();
    elapsed.saturating_sub(waited)
}

/// The cluster's changes, and how long they were waited for in vain.
struct Timed {
    cluster: Cluster,
    waits: Arc<Mutex<Duration>>,
}

struct TimedStream {
    stream: Box<dyn ChangeStream>,
    waits: Arc<Mutex<Duration>>,
}

#[async_trait]
impl Changes for Timed {
    async fn follow(&self, position: &Position) -> Result<Box<dyn ChangeStream>> {
        let stream = self.cluster.follow(position).await?;
        Ok(Box::new(TimedStream { stream, waits: Arc::clone(&self.waits) }))
    }
}

#[async_trait]
impl ChangeStream for TimedStream {
    async fn next_batch(&mut self) -> Result<EventBatch> {
        let began = Instant::now();
        let batch = self.stream.next_batch().await?;
        if batch.events.is_empty() {
            *self.waits.lock().unwrap() += began.elapsed();
        }
        Ok(batch)
    }
}

/// Folds the base into a backup of the newest instant, and how long every `fold-chunk` took together.
///
/// It is sealed and can be restored, but is not verified, so that it is no base: the next fold, and a restore to the
/// newest instant, fold the same changes once more.
async fn fold(world: &World) -> (Manifest, Duration) {
    let detail = BackupDetail { folds: true, ..BackupDetail::requested(Trigger::Manual, false) };
    let id = world.request(Vec::new(), Detail::Backup(detail)).await;
    let World { store, keys, catalog, timeline, clock, settings, .. } = world;
    let ports = plan_synthesis::Ports { store, keys, catalog, timeline, clock };
    plan_synthesis::run(ports, settings, id).await.unwrap();
    let place = world.operation(OperationKind::Backup, id).await.backup_place().unwrap();
    let items = world.items(ObjectKey::BackupWork(place)).await;
    let began = Instant::now();
    for item in items {
        let ports = fold_chunk::Ports { store, keys, catalog, timeline, clock };
        fold_chunk::run(ports, settings, id, item).await.unwrap();
    }
    let elapsed = began.elapsed();
    seal_synthesis::run(seal_synthesis::Ports { store, keys, catalog, clock }, id).await.unwrap();
    let operation = world.operation(OperationKind::Backup, id).await;
    catalog.release_lease(&operation.resource(), id).await.unwrap();
    (open_manifest(store, keys, &operation).await.unwrap(), elapsed)
}

/// Restores of one kind, in seconds.
#[derive(Default)]
struct Restores {
    plans: Vec<f64>,
    inserts: Vec<f64>,
}

impl Restores {
    /// Carries a planned restore out and gives it up; what it inserted.
    async fn finish(&mut self, world: &World, id: OperationId, planned: Duration) -> SizeHint {
        self.plans.push(planned.as_secs_f64());
        self.inserts.push(world.insert(id).await.as_secs_f64());
        let inserted = staged(world).await;
        world.give_up(id).await;
        inserted
    }

    /// Both steps of every round together.
    fn both(&self) -> Vec<f64> {
        self.plans.iter().zip(&self.inserts).map(|(plan, insert)| plan + insert).collect()
    }
}

/// What is in the one collection beside the bench's own.
async fn staged(world: &World) -> SizeHint {
    let all = world.cluster.namespaces(DATABASE).await.unwrap();
    let staging = all.iter().find(|it| it.name != COLLECTION).unwrap();
    world.cluster.size_hint(DATABASE, &staging.name).await.unwrap()
}

fn print(name: &str, all: &[f64], digits: usize) {
    let every: Vec<String> = all.iter().map(|it| format!("{it:.digits$}")).collect();
    println!("  {name:26} {:8.digits$}   {}", median(all), every.join(" "));
}

async fn save(world: &World, backup: OperationId, directory: &Path) {
    let row = world.operation(OperationKind::Backup, backup).await;
    let head = world.timeline.head().await.unwrap().unwrap();
    let state: State = (row, head, slices(&world.timeline).await);
    std::fs::write(directory.join(STATE), serde_json::to_vec(&state).unwrap()).unwrap();
}

async fn load(world: &World, directory: &Path) -> OperationId {
    let state = std::fs::read(directory.join(STATE)).unwrap();
    let (row, head, slices): State = serde_json::from_slice(&state).unwrap();
    world.catalog.create_operation(&row).await.unwrap();
    let mut head = world.timeline.begin(&head).await.unwrap();
    for slice in &slices {
        world.timeline.advance(&head, Some(slice), &[]).await.unwrap();
        head = world.timeline.head().await.unwrap().unwrap();
    }
    row.id
}
