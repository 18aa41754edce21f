//! The oracle test: whatever happens to databases, `restore(t)` is what a snapshot read at t gives.
//!
//! A seeded workload does everything a database can have done to it, while backups, captures and folded backups run.
//! On the way, databases are read at instants: right after operations, each with its ordinal, and right before them.
//! Then they are restored to some of these instants, into another cluster, and compared: documents byte for byte,
//! collections, views, options and indexes.
//!
//! Two hundred instants of ten seeds (`NIGHTSAFE_SEED=N` begins with another one than the first):
//!
//! ```text
//! NIGHTSAFE_SEEDS=10 NIGHTSAFE_TIMES=20 cargo test -p end_to_end oracle -- --nocapture
//! ```
//!
//! Not in the workload, because no window goes on through them: `convertToCapped`, time series, and updates that change
//! two fields of one path. Nor are capped collections made smaller: what no longer fits stays in them until the next
//! insert, and could not be inserted again.

mod compare;
mod definitions;
mod documents;
mod draw;
mod pipelines;
mod protection;
mod refusals;
mod transactions;
mod truth;
mod updates;
mod workload;

use std::sync::atomic::{AtomicBool, Ordering};

use backup_core::alert::AlertEvent;
use backup_core::operation::{OperationKind, RestoreTime};
use backup_core::ports::Timeline;
use backup_core::settings::Settings;
use backup_mongo::Cluster;

use crate::chain::Chain;
use crate::fixture::Fixture;
use crate::numbers::seeds;
use crate::replica_set::ReplicaSet;

use self::compare::check_restored;
use self::draw::Draw;
use self::protection::Protection;
use self::truth::{Sample, Truth};
use self::workload::Workload;

const DATABASES: [&str; 3] = ["oracle-a", "oracle-b", "oracle-c"];
/// Instants that are restored for each seed, where nobody asks for more.
const TIMES: usize = 6;

/// What an operation of the workload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Writes of documents.
    Write,
    /// A transaction.
    Transaction,
    /// DDL.
    Definition,
}

const KINDS: [Kind; 3] = [Kind::Transaction, Kind::Definition, Kind::Write];

pub(crate) fn every_restored_instant_is_a_snapshot_read_at_it(fixture: &Fixture) {
    let times = std::env::var("NIGHTSAFE_TIMES").map_or(TIMES, |text| text.parse().unwrap());
    for seed in seeds(1) {
        eprintln!("seed {seed}");
        fixture.run(one_seed(seed, times));
    }
}

async fn one_seed(seed: u64, times: usize) {
    let source = ReplicaSet::start(1, &["--setParameter", "ttlMonitorSleepSecs=1"]).await;
    // What has expired stays in restored collections until they are compared.
    let target = ReplicaSet::start(1, &["--setParameter", "ttlMonitorEnabled=false"]).await;
    let from = Cluster::connect(&source.uri()).await.unwrap();
    let to = Cluster::connect(&target.uri()).await.unwrap();
    let chain = Chain::new(from.clone(), settings()).restoring_to(to.clone()).proving();
    let (mut workload, mut truth) = (Workload::new(source.client(), seed), Truth::new(from.clone(), seed));
    let mut protection = Protection::new(&chain, &from, seed);
    workload.begin().await;
    protection.begin().await;
    let is_over = AtomicBool::new(false);
    let working = async {
        workload.run(&mut truth).await;
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(working, protection.run(&is_over));
    chain.capture().await.unwrap();
    check_timeline(&chain, &truth).await;

    let (mut restored, mut of_folded, mut read_again) = (0, 0, 0);
    for sample in choose(&truth.samples, &Draw::new(seed ^ 0xcafe), times) {
        read_again += truth.check_again(sample).await;
        of_folded += usize::from(restore(&chain, &target, sample).await);
        check_restored(&to, sample, !protection.was_scanned(sample.database, sample.time)).await;
        restored += 1;
    }
    check_alerts(&chain, protection.refused, seed);
    assert_eq!(restored, times, "seed {seed}: {} instants were taken", truth.samples.len());
    let count = |kind: Kind| workload.counts.get(&kind).copied().unwrap_or_default();
    eprintln!(
        "seed {seed}: {} operations (of {} something was refused), {} transactions, {} DDL; {} backups, {} folded; \
         {restored} times restored ({of_folded} from folded backups), all equal; {read_again} collections read again",
        workload.counts.values().sum::<u32>(),
        workload.refused,
        count(Kind::Transaction),
        count(Kind::Definition),
        protection.backups(),
        protection.folded,
    );
}

/// Small chunks, so that collections of a few dozen documents have several.
fn settings() -> Settings {
    Settings { chunk_target_bytes: 8 * 1024, compress_workers: 1, ..Settings::default() }
}

async fn check_timeline(chain: &Chain, truth: &Truth) {
    let breaks = chain.ports.timeline.breaks().await.unwrap();
    let newest = truth.samples.iter().max_by_key(|sample| sample.time).unwrap();
    assert!(breaks.is_empty(), "{newest}: {breaks:?}");
    let head = chain.ports.timeline.head().await.unwrap().unwrap();
    assert!(head.to > newest.time, "{newest}: the timeline ends at {}", head.to);
}

/// Some of the samples, of every kind in turn.
fn choose<'a>(samples: &'a [Sample], draw: &Draw, count: usize) -> Vec<&'a Sample> {
    let mut left: Vec<&Sample> = samples.iter().collect();
    let mut chosen = Vec::new();
    for kind in KINDS.into_iter().cycle().take(count.min(samples.len())) {
        let of_kind: Vec<usize> = (0..left.len()).filter(|place| left[*place].kind == kind).collect();
        let place = if of_kind.is_empty() { 0 } else { draw.of(&of_kind) };
        chosen.push(left.swap_remove(place));
    }
    chosen
}

/// Restores into a cluster where there is nothing; gives whether it began with a folded backup.
async fn restore(chain: &Chain, target: &ReplicaSet, sample: &Sample) -> bool {
    target.client().database(sample.database).drop().await.unwrap();
    let restored = chain.restore_at(sample.database, RestoreTime::At(sample.time)).await;
    let restored = restored.unwrap_or_else(|why| panic!("{sample}: {why}"));
    let base = restored.restore().unwrap().backup.unwrap();
    let base = chain.ports.operation(OperationKind::Backup, base).await;
    base.backup().unwrap().folded_from.is_some()
}

/// Nobody is told anything but that restores began, or that there was nothing to back up (a person who asked for that
/// was told at once).
fn check_alerts(chain: &Chain, refused: usize, seed: u64) {
    let published = chain.ports.alerts.published();
    let others: Vec<_> = published.iter().filter(|it| it.event != AlertEvent::RestoreInitiated).collect();
    let are_expected =
        others.len() <= refused && others.iter().all(|it| it.event == AlertEvent::BackupFailure);
    assert!(are_expected, "seed {seed}: {others:?}");
}
