//! A whole backup and restore, all their steps but the waiting of a state machine, and the tables.

use std::path::Path;
use std::time::{Duration, Instant};

use backup_core::flows::{
    build_indexes, dump_chunk, open_manifest, plan_restore, restore_chunk, seal_backup, trigger_backup,
};
use backup_core::format::{Manifest, ObjectKey, WorkItem, read_work_items};
use backup_core::id::OperationId;
use backup_core::operation::{
    BackupDetail, Detail, Operation, OperationKind, RestoreDetail, RestoreTime, Trigger,
};
use backup_core::ports::{Catalog, Clock, ObjectStore};
use backup_core::settings::Settings;
use backup_mongo::Cluster;
use backup_testkit::{
    DirectoryStore, MemoryAlerts, MemoryCatalog, MemoryKeys, MemoryMachines, MemoryTimeline, TestClock,
};

use crate::documents::{COLLECTION, DATABASE};
use crate::{Options, stages};

/// A cluster with everything else beside it.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) store: DirectoryStore,
    pub(crate) catalog: MemoryCatalog,
    pub(crate) timeline: MemoryTimeline,
    pub(crate) machines: MemoryMachines,
    pub(crate) keys: MemoryKeys,
    pub(crate) alerts: MemoryAlerts,
    pub(crate) clock: TestClock,
    pub(crate) settings: Settings,
}

impl World {
    pub(crate) fn new(cluster: &Cluster, directory: &Path, options: &Options) -> Self {
        let settings = Settings {
            compression_level: options.level,
            compress_workers: options.workers,
            insert_workers: options.writers,
            ..Settings::default()
        };
        Self {
            cluster: cluster.clone(),
            store: DirectoryStore::new(directory.to_owned()),
            catalog: MemoryCatalog::default(),
            timeline: MemoryTimeline::default(),
            machines: MemoryMachines::default(),
            keys: MemoryKeys::default(),
            alerts: MemoryAlerts::default(),
            clock: TestClock::default(),
            settings,
        }
    }

    /// Notes what is asked for.
    pub(crate) async fn request(&self, collections: Vec<String>, detail: Detail) -> OperationId {
        self.clock.advance(60_000);
        let id = OperationId::generate(self.clock.now_millis()).unwrap();
        let source = "bench".parse().unwrap();
        let operation =
            Operation::requested(id, source, DATABASE.into(), collections, "bench".into(), detail);
        self.catalog.create_operation(&operation).await.unwrap();
        id
    }

    pub(crate) async fn operation(&self, kind: OperationKind, id: OperationId) -> Operation {
        self.catalog.operation(kind, id).await.unwrap()
    }

    /// The work items of a plan.
    pub(crate) async fn items(&self, key: ObjectKey) -> Vec<WorkItem> {
        read_work_items(&self.store.get(key, u64::MAX).await.unwrap()).unwrap()
    }

    /// A backup of the whole database that is planned.
    pub(crate) async fn plan_backup(&self) -> OperationId {
        let detail = BackupDetail::requested(Trigger::Manual, true);
        let id = self.request(Vec::new(), Detail::Backup(detail)).await;
        let Self { cluster, store, keys, catalog, timeline, clock, .. } = self;
        let ports = trigger_backup::Ports { source: cluster, store, keys, catalog, timeline, clock };
        trigger_backup::run(ports, &self.settings, id).await.unwrap();
        id
    }

    /// Every `dump-chunk` of it, one after another.
    pub(crate) async fn dump(&self, id: OperationId) -> Duration {
        let place = self.operation(OperationKind::Backup, id).await.backup_place().unwrap();
        let Self { cluster, store, keys, catalog, clock, .. } = self;
        let began = Instant::now();
        for item in self.items(ObjectKey::BackupWork(place)).await {
            let ports = dump_chunk::Ports { source: cluster, store, keys, catalog, clock };
            dump_chunk::run(ports, &self.settings, id, item).await.unwrap();
        }
        began.elapsed()
    }

    pub(crate) async fn seal(&self, id: OperationId) -> Manifest {
        let Self { cluster, store, keys, catalog, clock, .. } = self;
        seal_backup::run(seal_backup::Ports { source: cluster, store, keys, catalog, clock }, id)
            .await
            .unwrap();
        let operation = self.operation(OperationKind::Backup, id).await;
        open_manifest(&self.store, &self.keys, &operation).await.unwrap()
    }

    /// A restore of a backup that is planned.
    pub(crate) async fn plan_restore(&self, backup: OperationId) -> OperationId {
        self.plan(RestoreDetail { backup: Some(backup), ..RestoreDetail::requested(false) }).await
    }

    /// A restore to the newest instant that is planned.
    pub(crate) async fn plan_restore_to_latest(&self) -> OperationId {
        let at = Some(RestoreTime::Latest);
        self.plan(RestoreDetail { at, ..RestoreDetail::requested(false) }).await
    }

    async fn plan(&self, detail: RestoreDetail) -> OperationId {
        let detail = RestoreDetail { may_replace: true, ..detail };
        let id = self.request(vec![COLLECTION.into()], Detail::Restore(detail)).await;
        let Self { cluster, store, keys, catalog, timeline, alerts, clock, .. } = self;
        let ports = plan_restore::Ports { target: cluster, store, keys, catalog, timeline, alerts, clock };
        plan_restore::run(ports, &self.settings, id).await.unwrap();
        id
    }

    /// Every `restore-chunk` of it, one after another.
    pub(crate) async fn insert(&self, id: OperationId) -> Duration {
        let place = self.operation(OperationKind::Restore, id).await.restore_place();
        let Self { cluster, store, keys, catalog, timeline, clock, .. } = self;
        let began = Instant::now();
        for item in self.items(ObjectKey::RestoreWork(place)).await {
            let ports = restore_chunk::Ports { target: cluster, store, keys, catalog, timeline, clock };
            restore_chunk::run(ports, &self.settings, id, item).await.unwrap();
        }
        let elapsed = began.elapsed();
        build_indexes::run(build_indexes::Ports { target: cluster, store, keys, catalog }, id).await.unwrap();
        elapsed
    }

    /// Drops staging and frees the database.
    pub(crate) async fn give_up(&self, id: OperationId) {
        use backup_core::flows::abandon_restore::{Ports, run};
        let Self { cluster, store, keys, catalog, .. } = self;
        run(Ports { target: cluster, store, keys, catalog }, id).await.unwrap();
        let operation = self.operation(OperationKind::Restore, id).await;
        self.catalog.release_lease(&operation.resource(), id).await.unwrap();
    }
}

/// Rates of one stage, in MB of BSON per second, a round each.
struct Row(&'static str, Vec<f64>);

impl Row {
    fn median(&self) -> f64 {
        median(&self.1)
    }
}

/// The middle one; of an even number of them the larger one of the two.
pub(crate) fn median(all: &[f64]) -> f64 {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn note(rows: &mut Vec<Row>, name: &'static str, bytes: u64, elapsed: Duration) {
    let rate = bytes as f64 / 1e6 / elapsed.as_secs_f64();
    match rows.iter_mut().find(|row| row.0 == name) {
        Some(row) => row.1.push(rate),
        None => rows.push(Row(name, vec![rate])),
    }
}

fn print(title: &str, rows: &[Row], whole: &Row) {
    println!("\n{title:24} MB/s of BSON (median; every round)");
    for row in rows.iter().chain([whole]) {
        let all: Vec<String> = row.1.iter().map(|rate| format!("{rate:.0}")).collect();
        println!("  {:22} {:6.0}   {}", row.0, row.median(), all.join(" "));
    }
    let slowest = rows.iter().min_by(|a, b| a.median().total_cmp(&b.median())).unwrap();
    let ratio = whole.median() / slowest.median();
    println!("  {} / slowest stage ({}) = {ratio:.2}", whole.0, slowest.0);
}

/// Every stage and the pipelines, round by round.
pub(crate) async fn speed(cluster: &Cluster, options: &Options) {
    let directory = tempfile::tempdir().unwrap();
    let world = World::new(cluster, directory.path(), options);
    let (mut dump, mut restore) = (Vec::new(), Vec::new());
    let (mut dumps, mut restores) = (Row("whole dump", vec![]), Row("whole restore", vec![]));
    println!("{options:?}");
    for _ in 0..options.rounds {
        let backup = world.plan_backup().await;
        let elapsed = world.dump(backup).await;
        let manifest = world.seal(backup).await;
        let totals = manifest.totals();
        let rate = |elapsed: Duration| totals.bson_bytes as f64 / 1e6 / elapsed.as_secs_f64();
        dumps.1.push(rate(elapsed));
        let sample = alone(&world, &manifest, options, &mut dump, &mut restore).await;
        note(&mut restore, "insert", sample.bytes, stages::insert(cluster, &sample, options).await);
        drop(sample);
        let id = world.plan_restore(backup).await;
        restores.1.push(rate(world.insert(id).await));
        world.give_up(id).await;
        println!(
            "{} bytes of BSON in {} chunks, {} stored",
            totals.bson_bytes, totals.chunks, totals.stored_bytes
        );
    }
    print("dump", &dump, &dumps);
    print("restore", &restore, &restores);
}

async fn alone(
    world: &World,
    manifest: &Manifest,
    options: &Options,
    dump: &mut Vec<Row>,
    restore: &mut Vec<Row>,
) -> stages::Sample {
    let ranges: Vec<_> =
        manifest.chunks().map(|(it, chunk)| (it.namespace.uuid.unwrap(), chunk.range.clone())).collect();
    let reads = stages::reads(&ranges, COLLECTION, u64::try_from(options.document_bytes).unwrap());
    let (elapsed, drained) = stages::drain(&world.cluster, &reads, false).await;
    note(dump, "drain the server", drained.bytes, elapsed);
    let (_, sample) = stages::drain(&world.cluster, &reads, true).await;
    note(dump, "hash documents", sample.bytes, stages::hash(&sample));
    let (elapsed, frames) = stages::compress(&sample, options);
    note(dump, "zstd", sample.bytes, elapsed);
    let (elapsed, stored) = stages::seal(&frames);
    drop(frames);
    note(dump, "seal", sample.bytes, elapsed);
    note(dump, "SHA-256 of stored", sample.bytes, stages::checksum(&stored));
    note(dump, "upload (to a file)", sample.bytes, upload(world, manifest, &stored).await);
    note(restore, "fetch (from files)", sample.bytes, fetch(world, manifest).await);
    let (elapsed, opened) = stages::open(&stored);
    note(restore, "open", sample.bytes, elapsed);
    note(restore, "unzstd", sample.bytes, stages::decompress(&opened, sample.bytes));
    note(restore, "hash documents", sample.bytes, stages::hash(&sample));
    sample
}

async fn upload(world: &World, manifest: &Manifest, stored: &[u8]) -> Duration {
    const PART_BYTES: usize = 1 << 20;
    let stored = bytes::Bytes::copy_from_slice(stored);
    let began = Instant::now();
    let place = backup_core::format::BackupPlace { trigger: Trigger::Manual, backup: manifest.backup };
    let mut upload = world.store.upload(ObjectKey::BackupReport(place)).await.unwrap();
    for at in (0..stored.len()).step_by(PART_BYTES) {
        upload.write(stored.slice(at..stored.len().min(at + PART_BYTES))).await.unwrap();
    }
    upload.finish().await.unwrap();
    began.elapsed()
}

async fn fetch(world: &World, manifest: &Manifest) -> Duration {
    const PIECE_BYTES: u64 = 4 << 20;
    let began = Instant::now();
    let place = backup_core::format::BackupPlace { trigger: Trigger::Manual, backup: manifest.backup };
    for (_, chunk) in manifest.chunks() {
        let key = ObjectKey::Chunk(place, chunk.ordinal, chunk.stored.attempt);
        let mut at = 0;
        while at < chunk.stored.stored_bytes {
            let length = PIECE_BYTES.min(chunk.stored.stored_bytes - at);
            world.store.get_range(key, at, length).await.unwrap();
            at += length;
        }
    }
    began.elapsed()
}
