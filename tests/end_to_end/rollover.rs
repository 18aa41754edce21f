//! A source whose oplog rolls over before its changes were archived: the window ends there, people are told, a new
//! base is started by itself, and both windows are restorable to the document.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use backup_core::error::ErrorKind;
use backup_core::id::ClusterTime;
use backup_core::operation::{OperationKind, OperationState, RestoreTime};
use backup_core::ports::{Source, Timeline};
use backup_core::settings::Settings;
use backup_core::timeline::BreakReason;
use backup_mongo::Cluster;
use bson::{Document, doc};
use local::demo::proof;
use mongodb::{Client, Database};

use crate::chain::Chain;
use crate::fixture::Fixture;
use crate::replica_set::ReplicaSet;

const DATABASE: &str = "rolled";
const DOCUMENTS: i32 = 50;
/// Half of the oplog.
const JUNK_BYTES: usize = 1024 * 1024;
/// The server shortens its oplog by itself, after the next checkpoint: they are a second apart.
const ROLLED_WITHIN: Duration = Duration::from_secs(90);
/// So that this does not write gigabytes until then.
const PAUSE: Duration = Duration::from_millis(50);

/// A database at an instant.
struct Known {
    time: ClusterTime,
    hashes: BTreeMap<String, String>,
    metadata: BTreeMap<String, (Document, Vec<Document>)>,
}

pub(crate) fn an_oplog_that_rolls_over_closes_the_window(fixture: &Fixture) {
    fixture.run(roll_over());
}

async fn roll_over() {
    let source = ReplicaSet::start(1, &["--oplogSize", "2", "--syncdelay", "1"]).await;
    let target = ReplicaSet::start(1, &[]).await;
    let from = Cluster::connect(&source.uri()).await.unwrap();
    let to = Cluster::connect(&target.uri()).await.unwrap();
    let settings = Settings { chunk_target_bytes: 8 * 1024, compress_workers: 1, ..Settings::default() };
    let chain = Chain::new(from.clone(), settings).restoring_to(to);
    let database = source.client().database(DATABASE);
    fill(&database).await;
    chain.back_up(DATABASE, &[]).await.unwrap();
    change(&database, 1).await;
    let before = known(&from, &database).await;
    chain.capture().await.unwrap();

    change(&database, 2).await;
    let lost = from.cluster_time().await.unwrap();
    let captured = chain.ports.timeline.head().await.unwrap().unwrap().to;
    assert!(before.time < captured && captured <= lost, "{} {captured} {lost}", before.time);
    write_until_forgotten(source.client(), captured).await;
    chain.capture().await.unwrap();
    check_break(&chain, captured, lost).await;
    carry_out_the_new_base(&chain).await;
    change(&database, 3).await;
    let after = known(&from, &database).await;
    chain.capture().await.unwrap();

    let why = chain.restore_at(DATABASE, RestoreTime::At(lost)).await.unwrap_err();
    assert_eq!(why.kind(), ErrorKind::NotFound, "{why}");
    let hint = why.hint_text().unwrap();
    assert!(hint.contains("before it") && hint.contains("after it"), "{hint}");
    let restored = target.client().database(DATABASE);
    for known in [&before, &after, &before] {
        chain.restore_at(DATABASE, RestoreTime::At(known.time)).await.unwrap();
        proof::ensure_equal("documents", &known.hashes, &proof::db_hash(&restored).await.unwrap()).unwrap();
        let metadata = proof::metadata(&restored).await.unwrap();
        proof::ensure_equal("options and indexes", &known.metadata, &metadata).unwrap();
    }
}

async fn fill(database: &Database) {
    let documents = (0..DOCUMENTS).map(|n| doc! { "_id": n, "n": n, "text": "x".repeat(500) });
    database.collection::<Document>("leads").insert_many(documents).await.unwrap();
}

/// Something of everything, other than in other rounds.
async fn change(database: &Database, round: i32) {
    let leads = database.collection::<Document>("leads");
    let some = doc! { "_id": { "$lt": 10 * round } };
    leads.update_many(some, doc! { "$set": { "round": round }, "$inc": { "n": 1 } }).await.unwrap();
    leads.delete_one(doc! { "_id": 40 + round }).await.unwrap();
    leads.insert_one(doc! { "_id": 100 + round, "round": round }).await.unwrap();
    let made = database.collection::<Document>(&format!("made {round}"));
    made.insert_one(doc! { "_id": "only" }).await.unwrap();
    let (name, field) = (format!("round {round}"), format!("field {round}"));
    let index = doc! { "key": { field: 1 }, "name": name, "sparse": true };
    database.run_command(doc! { "createIndexes": "leads", "indexes": [index] }).await.unwrap();
}

/// What it is now; nobody writes meanwhile.
async fn known(cluster: &Cluster, database: &Database) -> Known {
    Known {
        time: cluster.cluster_time().await.unwrap(),
        hashes: proof::db_hash(database).await.unwrap(),
        metadata: proof::metadata(database).await.unwrap(),
    }
}

/// Writes something else until the oplog begins behind `captured`.
async fn write_until_forgotten(client: &Client, captured: ClusterTime) {
    let junk = client.database("junk").collection::<Document>("junk");
    let began = Instant::now();
    let mut written = 0;
    loop {
        junk.insert_one(doc! { "junk": "x".repeat(JUNK_BYTES) }).await.unwrap();
        written += 1;
        let first = oldest(client).await;
        if first > captured {
            eprintln!("the oplog begins at {first}, behind {captured}, after {written} MB");
            return;
        }
        assert!(began.elapsed() < ROLLED_WITHIN, "after {written} MB the oplog still begins at {first}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The oldest entry of the oplog.
async fn oldest(client: &Client) -> ClusterTime {
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    let first = oplog.find_one(doc! {}).sort(doc! { "$natural": 1 }).projection(doc! { "ts": 1 });
    let time = first.await.unwrap().unwrap().get_timestamp("ts").unwrap();
    ClusterTime { seconds: time.time, ordinal: time.increment }
}

/// One break, from where the timeline was to behind what was lost, and people were told.
async fn check_break(chain: &Chain, captured: ClusterTime, lost: ClusterTime) {
    let breaks = chain.ports.timeline.breaks().await.unwrap();
    assert_eq!(breaks.iter().map(|it| &it.reason).collect::<Vec<_>>(), [&BreakReason::HistoryLost]);
    assert!(breaks[0].from == captured && lost < breaks[0].to, "{breaks:?}");
    assert_eq!(breaks[0].database, None);
    let published = chain.ports.alerts.published();
    let told = published.iter().filter(|it| it.subject.contains("timeline INTERRUPTED main")).count();
    assert_eq!(told, 1, "{published:?}");
}

/// The capture asked for it; here nobody but this test carries it out.
async fn carry_out_the_new_base(chain: &Chain) {
    let started = chain.ports.machines.backups();
    assert_eq!(started.len(), 1, "a new base was started");
    assert_eq!(chain.ports.operation(OperationKind::Backup, started[0]).await.database, DATABASE);
    chain.carry_out(OperationKind::Backup, started[0]).await.unwrap();
    let row = chain.ports.operation(OperationKind::Backup, started[0]).await;
    assert_eq!(row.state, OperationState::Verified);
    chain.capture().await.unwrap();
    assert_eq!(chain.ports.machines.backups().len(), 1, "one is enough");
}

/// The documents of a collection that is made capped come into a new one without any change being told.
pub(crate) fn a_collection_that_cannot_be_followed_closes_the_window(fixture: &Fixture) {
    fixture.run(make_capped());
}

async fn make_capped() {
    let source = ReplicaSet::start(1, &[]).await;
    let from = Cluster::connect(&source.uri()).await.unwrap();
    let settings = Settings { chunk_target_bytes: 8 * 1024, compress_workers: 1, ..Settings::default() };
    let chain = Chain::new(from.clone(), settings);
    let database = source.client().database(DATABASE);
    fill(&database).await;
    chain.back_up(DATABASE, &[]).await.unwrap();
    change(&database, 1).await;
    let before = from.cluster_time().await.unwrap();
    database.run_command(doc! { "convertToCapped": "leads", "size": 1_000_000 }).await.unwrap();
    let lost = from.cluster_time().await.unwrap();
    chain.capture().await.unwrap();
    let breaks = chain.ports.timeline.breaks().await.unwrap();
    let [only] = breaks.as_slice() else { panic!("{breaks:?}") };
    assert_eq!(only.reason, BreakReason::NotFollowed("leads".to_owned()));
    assert_eq!(only.database.as_deref(), Some(DATABASE));
    assert!(before < only.from && only.from <= lost, "{before} {only:?} {lost}");
    carry_out_the_new_base(&chain).await;
    chain.capture().await.unwrap();
    let why = chain.restore_at(DATABASE, RestoreTime::At(lost)).await.unwrap_err();
    assert_eq!(why.kind(), ErrorKind::NotFound, "{why}");
}
