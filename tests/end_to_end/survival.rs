//! Kill and repeat, with real processes: whatever happens to a step on its way, and however often it runs, there is
//! one good backup, or one good restore.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use aws_sdk_s3::types::ObjectVersion;
use backup_aws::SystemClock;
use backup_core::ErrorKind;
use backup_core::audit::AuditStatus;
use backup_core::flows::open_manifest;
use backup_core::format::{
    BackupPlace, ChunkOutcome, ChunkResult, Consistency, Header, ManifestChunk, ObjectKey,
};
use backup_core::id::OperationId;
use backup_core::operation::{Operation, OperationKind, OperationState};
use backup_core::ports::{Catalog, Clock, ObjectStore};
use bson::{Document, doc};
use futures_util::{StreamExt, stream};
use local::demo::proof;
use mongodb::Database;
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::pipeline::{Pipeline, Step};
use crate::process::Outcome;
use crate::relay::Script;
use crate::timeline::wait_for_upkeep;

/// Of about 1 KiB each: three chunks.
const DOCUMENTS: i32 = 600;
const CHUNKS: usize = 3;
/// How often each step is killed, for each of its items.
const KILLS: u64 = 3;
/// Messages at which all connections of a step are cut, one after another: early, and while it works.
const CUTS: [u64; 2] = [6, 11];
/// Every message is this much later where the network is slow.
const LATENCY: Duration = Duration::from_millis(3);
/// A sealed message begins with its salt (`docs/FORMAT.md`).
const SALT_BYTES: usize = 24;
/// Where slices of the timeline are.
const SLICES: &str = "timeline/";
/// Objects fetched at the same time.
const READS_AT_ONCE: usize = 8;

/// What one of two runs at once may end with, because the other one was faster.
const LOST_THE_RACE: [ErrorKind; 3] = [ErrorKind::Conflict, ErrorKind::Fenced, ErrorKind::Transient];

/// Documents, and options and indexes, of a database.
struct Whole {
    hashes: BTreeMap<String, String>,
    metadata: BTreeMap<String, (Document, Vec<Document>)>,
}

/// Every step is killed three times by SIGKILL, before a message or before its answer, runs twice at once, and again,
/// and once more when all is over.
pub(crate) fn killed_anywhere_it_is_one_good_backup_and_restore(fixture: &Fixture) {
    let pipeline = Pipeline::open(fixture);
    let messages = count_messages(fixture, &pipeline);
    let (database, whole) = filled(fixture, "killed");
    fixture.back_up("killed"); // to prove the next one from
    let survive = |step: &Step| survive(&pipeline, step, messages[step.name]);
    let backup = pipeline.request_backup("killed");
    let mut steps = pipeline.drive(OperationKind::Backup, backup, survive);
    check_backup(fixture, &pipeline, backup);
    check_proof(&pipeline, backup);
    damage(fixture, &database);
    let restore = pipeline.request_restore("killed");
    steps.extend(pipeline.drive(OperationKind::Restore, restore, survive));
    check_restore(fixture, &pipeline, restore, &database, &whole);

    let rows = || {
        let of = |kind, id| pipeline.operation(kind, id);
        [of(OperationKind::Backup, backup), of(OperationKind::Restore, restore)]
    };
    let before = rows();
    for step in &steps {
        come_late(&pipeline, step);
    }
    wait_for_upkeep(fixture);
    assert_eq!(rows(), before, "what has ended does not change");
    check_backup(fixture, &pipeline, backup);
    check_restore(fixture, &pipeline, restore, &database, &whole);
    check_seals(fixture, &pipeline, backup);
}

/// The network is cut twice in every step, and is slow when the step runs again.
pub(crate) fn cut_off_and_slow_it_is_one_good_backup_and_restore(fixture: &Fixture) {
    let pipeline = Pipeline::open(fixture);
    let (database, whole) = filled(fixture, "cutoff");
    let endure = |step: &Step| {
        for at in CUTS {
            match pipeline.run_through(step, Script::Cut(at)) {
                Outcome::Answered(_) => {}
                Outcome::Failed { error_type, message } => {
                    let kind = ErrorKind::from_name(&error_type);
                    let is_run_again = kind.is_some_and(ErrorKind::is_retryable);
                    assert!(is_run_again, "{step:?}, cut at message {at}: {error_type}: {message}");
                }
                Outcome::Died => panic!("{step:?} died by itself"),
            }
        }
        pipeline.run_through(step, Script::Slow(LATENCY)).answer(step)
    };
    fixture.back_up("cutoff");
    let backup = pipeline.request_backup("cutoff");
    pipeline.drive(OperationKind::Backup, backup, endure);
    check_backup(fixture, &pipeline, backup);
    check_proof(&pipeline, backup);
    damage(fixture, &database);
    let restore = pipeline.request_restore("cutoff");
    pipeline.drive(OperationKind::Restore, restore, endure);
    check_restore(fixture, &pipeline, restore, &database, &whole);
}

/// A database with what a swap has to deal with: a collection of several chunks with an index, and a view.
fn filled(fixture: &Fixture, name: &str) -> (Database, Whole) {
    let database = fixture.database(name);
    fixture.fill(&database, "large", 0, DOCUMENTS);
    let index = doc! { "key": { "key": 1 }, "name": "unique", "unique": true };
    fixture.command(&database, doc! { "createIndexes": "large", "indexes": [index] });
    let pipeline = vec![doc! { "$match": { "_id": { "$lt": 10 } } }];
    fixture.command(&database, doc! { "create": "few", "viewOn": "large", "pipeline": pipeline });
    let whole = Whole { hashes: fixture.hashes(&database), metadata: fixture.metadata(&database) };
    (database, whole)
}

/// Two live collections for a restore to keep aside: one that changed, and one that the backup does not have.
fn damage(fixture: &Fixture, database: &Database) {
    fixture.run(async {
        let large = database.collection::<Document>("large");
        large.delete_many(doc! { "_id": { "$lt": 250 } }).await.unwrap();
        large.update_many(doc! {}, doc! { "$set": { "text": "changed" } }).await.unwrap();
        database.collection::<Document>("junk").insert_one(doc! { "_id": 1 }).await.unwrap();
    });
}

/// How many messages each step sends when nothing disturbs it: a run over another database of the same shape.
fn count_messages(fixture: &Fixture, pipeline: &Pipeline<'_>) -> HashMap<&'static str, u64> {
    let (database, whole) = filled(fixture, "undisturbed");
    let mut counted = HashMap::new();
    let mut run = |step: &Step| {
        let answer = pipeline.run_through(step, Script::Pass).answer(step);
        let (messages, answers) = (pipeline.fuse.messages(), pipeline.fuse.answers());
        eprintln!("{} {}: {messages} messages, {answers} answers", step.name, step.position);
        let most = counted.entry(step.name).or_insert(messages);
        *most = messages.max(*most);
        answer
    };
    fixture.back_up("undisturbed");
    let backup = pipeline.request_backup("undisturbed");
    pipeline.drive(OperationKind::Backup, backup, &mut run);
    damage(fixture, &database);
    let restore = pipeline.request_restore("undisturbed");
    pipeline.drive(OperationKind::Restore, restore, &mut run);
    check_restore(fixture, pipeline, restore, &database, &whole);
    counted
}

/// Killed three times, run twice at once, and once more: as a state machine would, should both have lost.
fn survive(pipeline: &Pipeline<'_>, step: &Step, messages: u64) -> Value {
    for kill in 1..=KILLS {
        kill_once(pipeline, step, messages, kill);
    }
    for outcome in pipeline.run_twice_at_once(step) {
        match outcome {
            Outcome::Answered(_) => {}
            Outcome::Failed { ref error_type, .. } => {
                let kind = ErrorKind::from_name(error_type);
                assert!(kind.is_some_and(|kind| LOST_THE_RACE.contains(&kind)), "{step:?}: {outcome:?}");
            }
            Outcome::Died => panic!("{step:?} died by itself"),
        }
    }
    pipeline.run(step).answer(step)
}

/// Kills a process of the step at a quarter, a half and three quarters of its messages; for further items an eighth
/// or two later; before a message and before an answer in turn.
fn kill_once(pipeline: &Pipeline<'_>, step: &Step, messages: u64, kill: u64) {
    let eighths = 2 * kill + step.position % 3;
    let script =
        if (kill + step.position).is_multiple_of(2) { Script::KillAfter } else { Script::KillBefore };
    let mut at = (messages * eighths / 8).max(1);
    while !dies(pipeline, step, script(at)) {
        assert!(at > 1, "{step:?} cannot be killed");
        // A step that was done before it could be killed has less to do when it is repeated.
        at = (at.min(pipeline.fuse.messages()) / 2).max(1);
    }
}

fn dies(pipeline: &Pipeline<'_>, step: &Step, script: Script) -> bool {
    match pipeline.run_through(step, script) {
        Outcome::Died => {
            assert!(pipeline.fuse.is_blown(), "{step:?} died by itself");
            true
        }
        Outcome::Answered(_) => false,
        failed @ Outcome::Failed { .. } => panic!("{step:?}, {script:?}: {failed:?}"),
    }
}

/// Long after its operation ended, a step is told so, or finds that everything is done.
fn come_late(pipeline: &Pipeline<'_>, step: &Step) {
    match pipeline.run(step) {
        Outcome::Answered(_) => {}
        Outcome::Failed { error_type, .. } if error_type == ErrorKind::Fenced.name() => {}
        other => panic!("late {step:?}: {other:?}"),
    }
}

/// There is one manifest, of the attempts that won, and everything it refers to is there.
fn check_backup(fixture: &Fixture, pipeline: &Pipeline<'_>, id: OperationId) {
    let backup = pipeline.operation(OperationKind::Backup, id);
    assert_eq!(backup.state, OperationState::Verified);
    let manifest = fixture.run(open_manifest(&pipeline.store, &pipeline.keys, &backup)).unwrap();
    assert_eq!(manifest.consistency, Consistency::SingleInstant);
    assert_eq!(manifest.totals().documents, u64::try_from(DOCUMENTS).unwrap());
    assert_eq!(manifest.chunks().count(), CHUNKS);
    let place = backup.backup_place().unwrap();
    let path = ObjectKey::Manifest(place).to_path().unwrap();
    let versions = pipeline.versions(path.rsplit_once('/').unwrap().0);
    let written_once = |key: ObjectKey| {
        let path = key.to_path().unwrap();
        // A put that was sent twice by one process has the same bytes, and so the same tag.
        let of_path = versions.iter().filter(|version| version.key() == Some(path.as_str()));
        let tags: HashSet<_> = of_path.map(ObjectVersion::e_tag).collect();
        assert_eq!(tags.len(), 1, "versions of {path}");
    };
    written_once(ObjectKey::BackupPlan(place));
    written_once(ObjectKey::Manifest(place));
    for (_, chunk) in manifest.chunks() {
        written_once(ObjectKey::ChunkResult(place, chunk.ordinal));
        written_once(ObjectKey::Chunk(place, chunk.ordinal, chunk.stored.attempt));
        fixture.run(check_chunk(pipeline, place, chunk));
    }
    ended_once(fixture, pipeline, &backup);
}

/// Every chunk is what the backup before it was folded to.
fn check_proof(pipeline: &Pipeline<'_>, id: OperationId) {
    let row = pipeline.operation(OperationKind::Backup, id);
    let proof = row.backup().unwrap().proof.unwrap();
    let expected = (u64::try_from(CHUNKS).unwrap(), 0, 0);
    assert_eq!((proof.equal, proof.different, proof.unproved), expected);
}

async fn check_chunk(pipeline: &Pipeline<'_>, place: BackupPlace, chunk: &ManifestChunk) {
    const RESULT_BYTES_MAX: u64 = 64 * 1024;
    let result = ObjectKey::ChunkResult(place, chunk.ordinal);
    let result = pipeline.store.get(result, RESULT_BYTES_MAX).await.unwrap();
    let result = result.split(|byte| *byte == b'\n').next().unwrap(); // its signature follows
    let result: ChunkResult = serde_json::from_slice(result).unwrap();
    let won = ChunkOutcome::Captured(chunk.stored.clone());
    assert_eq!(result.outcome, won, "the manifest refers to the attempt that won");
    let object = ObjectKey::Chunk(place, chunk.ordinal, chunk.stored.attempt);
    assert_eq!(pipeline.store.size(object).await.unwrap(), Some(chunk.stored.stored_bytes));
}

/// Everything is as it was, what was replaced is kept aside once, and nothing else is left.
fn check_restore(
    fixture: &Fixture,
    pipeline: &Pipeline<'_>,
    id: OperationId,
    database: &Database,
    whole: &Whole,
) {
    let restore = pipeline.operation(OperationKind::Restore, id);
    assert_eq!(restore.state, OperationState::Restored);
    proof::ensure_equal("documents", &whole.hashes, &fixture.hashes(database)).unwrap();
    proof::ensure_equal("options and indexes", &whole.metadata, &fixture.metadata(database)).unwrap();
    let kept = &restore.restore().unwrap().kept_aside;
    assert_eq!(kept.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["large", "junk"]);
    let names = fixture.run(async { database.list_collection_names().await }).unwrap();
    let own: HashSet<&str> =
        names.iter().map(String::as_str).filter(|it| it.starts_with("nightsafe.")).collect();
    let aside: HashSet<&str> = kept.iter().map(|it| it.aside.as_str()).collect();
    assert_eq!(own, aside);
    ended_once(fixture, pipeline, &restore);
}

/// It has no failure, one record in the audit trail, and no lease.
pub(crate) fn ended_once(fixture: &Fixture, pipeline: &Pipeline<'_>, operation: &Operation) {
    const RECORDS_MAX: u32 = 1000;
    assert_eq!(operation.failure, None);
    let mut records = fixture.run(pipeline.catalog.audit(RECORDS_MAX)).unwrap();
    records.retain(|record| record.details.get("id") == Some(&json!(operation.id)));
    assert_eq!(records.iter().map(|record| record.status).collect::<Vec<_>>(), [AuditStatus::Success]);
    let now = SystemClock::without_deadline().now_millis();
    assert_eq!(fixture.run(pipeline.catalog.lease(&operation.resource(), now)).unwrap(), None);
}

/// No wrapped key and no salt stands in two sealed objects: not in those that count, not in those of attempts that
/// lost, not in those of other tests.
fn check_seals(fixture: &Fixture, pipeline: &Pipeline<'_>, backup: OperationId) {
    let mut versions = pipeline.versions("");
    versions.retain(|it| it.key().is_some_and(is_sealed));
    let mut seen = HashSet::new();
    // A put that was sent twice by one process is one message, and so is a chunk that a folded backup copied.
    versions.retain(|it| seen.insert(it.e_tag().map(str::to_owned)));
    let objects = stream::iter(&versions)
        .map(|version| async move {
            let (path, object) = (version.key().unwrap(), pipeline.object(version).await);
            let (header, length) = Header::from_bytes(&object).unwrap_or_else(|why| panic!("{path}: {why}"));
            (path, header.wrapped_key, object[length..length + SALT_BYTES].to_vec())
        })
        .buffer_unordered(READS_AT_ONCE);
    let objects: Vec<(&str, Vec<u8>, Vec<u8>)> = fixture.run(objects.collect());
    let (mut keys, mut salts, mut chunks, mut slices) = (HashSet::new(), HashSet::new(), 0, 0);
    for (path, key, salt) in objects {
        assert!(keys.insert(key), "{path}: its wrapped key is another object's too");
        assert!(salts.insert(salt), "{path}: its salt is another object's too");
        chunks += usize::from(path.contains(&format!("{backup}/chunks/")));
        slices += usize::from(path.starts_with(SLICES));
    }
    assert!(chunks > CHUNKS, "no attempt lost, so this shows nothing");
    assert!(slices > 0, "no change was archived");
    let lost = chunks - CHUNKS;
    eprintln!("{} sealed objects have their own key and salt; {slices} slices, {lost} lost", keys.len());
}

/// Everything else is clear JSON.
fn is_sealed(path: &str) -> bool {
    path.contains("/chunks/") || path.ends_with(".sealed") || path.starts_with(SLICES)
}
