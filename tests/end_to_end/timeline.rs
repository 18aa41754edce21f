//! The timeline as an operator uses it: `-t` gives any second back, `windows` tells which, `get` and `history` look
//! at one document, `synthesize` makes a backup without the source, and each backup proves the chain before it.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use aws_sdk_lambda::primitives::Blob;
use backup_core::id::ClusterTime;
use bson::{Document, doc};
use local::demo::proof;
use mongodb::{Collection, Database};
use serde_json::Value;

use crate::fixture::Fixture;

const DATABASE: &str = "any-second";
/// Of about 1 KiB each: a dozen chunks.
const DOCUMENTS: i32 = 3000;
/// The document that is looked at.
const LOOKED_AT: &str = "7";
const TICK_EVERY: Duration = Duration::from_millis(200);
/// A capture takes some seconds, more if other tests wrote much.
const CAPTURED_WITHIN: Duration = Duration::from_mins(5);
/// A backup that a capture started by itself.
const UPKEEP_WITHIN: Duration = Duration::from_mins(5);
/// Who asked for that.
const UPKEEP: &str = "nightsafe: capture-log";

/// A database at an instant.
struct Known {
    time: ClusterTime,
    hashes: BTreeMap<String, String>,
    metadata: BTreeMap<String, (Document, Vec<Document>)>,
}

pub(crate) fn any_second_comes_back_on_the_real_chain(fixture: &Fixture) {
    let database = fixture.database(DATABASE);
    fixture.fill(&database, "large", 0, DOCUMENTS);
    fixture.fill(&database, "one", 0, 20);
    fixture.fill(&database, "dropped", 0, 10);
    let first = fixture.back_up(DATABASE);
    change_before(fixture, &database);
    let known = look(fixture, &database);
    wait_for_second_after(fixture, known.time);
    change_after(fixture, &database);
    let last = look(fixture, &database);
    capture(fixture, last.time);

    check_window(fixture, &first, last.time);
    check_lookups(fixture, known.time);
    check_one_collection(fixture, &database, &last);
    for time in [known.time.to_string(), known.time.utc()] {
        clear(fixture, &database, "large");
        fixture.json("./restore.sh", &["-d", DATABASE, "-t", &time, "--yes"]);
        check(fixture, &database, &known);
    }
    let long_ago = ["-d", DATABASE, "-t", "2020-01-01 00:00:00", "--yes"];
    let (code, _, told) = fixture.output("./restore.sh", &long_ago);
    assert_eq!(code, 5, "{told}");
    assert!(told.contains("the first restorable time is"), "{told}");
    check(fixture, &database, &known);

    let folded = synthesize(fixture, &first);
    fixture.json("./restore.sh", &["-d", DATABASE, "--full", "--backup", &folded, "--yes"]);
    check(fixture, &database, &last);
    let second = while_others_write(fixture, || fixture.back_up(DATABASE));
    let proof = &second["detail"]["backup"]["proof"];
    assert_eq!((proof["different"].as_u64(), proof["unproved"].as_u64()), (Some(0), Some(0)), "{second}");
    assert!(proof["equal"].as_u64().unwrap() > 0, "{second}");
    assert_eq!(proof["with"], folded.as_str(), "the newest base is the one that was folded");
}

fn collection(database: &Database, name: &str) -> Collection<Document> {
    database.collection(name)
}

fn change_before(fixture: &Fixture, database: &Database) {
    fixture.run(async {
        let large = collection(database, "large");
        large.update_one(doc! { "_id": 7 }, doc! { "$set": { "text": "as of t" } }).await.unwrap();
        large.update_many(doc! { "_id": { "$gte": 2900 } }, doc! { "$inc": { "n": 1 } }).await.unwrap();
        large.delete_many(doc! { "_id": { "$gte": 100, "$lt": 200 } }).await.unwrap();
        collection(database, "one").replace_one(doc! { "_id": 3 }, doc! { "name": "new" }).await.unwrap();
        collection(database, "dropped").drop().await.unwrap();
        collection(database, "made").insert_many((0..5).map(|n| doc! { "_id": n })).await.unwrap();
    });
    let index = doc! { "key": { "key": 1 }, "name": "by key", "unique": true };
    fixture.command(database, doc! { "createIndexes": "large", "indexes": [index] });
    let few = vec![doc! { "$match": { "_id": { "$lt": 10 } } }];
    fixture.command(database, doc! { "create": "few", "viewOn": "large", "pipeline": few });
}

fn change_after(fixture: &Fixture, database: &Database) {
    fixture.command(database, doc! { "dropIndexes": "large", "index": "by key" });
    fixture.command(database, doc! { "drop": "few" });
    fixture.run(async {
        let large = collection(database, "large");
        large.update_one(doc! { "_id": 7 }, doc! { "$set": { "text": "later" } }).await.unwrap();
        large.delete_many(doc! { "_id": { "$gte": 1000, "$lt": 2000 } }).await.unwrap();
        collection(database, "made").drop().await.unwrap();
        collection(database, "one").insert_one(doc! { "_id": 100, "name": "later" }).await.unwrap();
        collection(database, "new").insert_one(doc! { "_id": 1 }).await.unwrap();
    });
}

/// What it is now; nobody writes meanwhile.
fn look(fixture: &Fixture, database: &Database) -> Known {
    let (hashes, metadata) = (fixture.hashes(database), fixture.metadata(database));
    Known { time: now(fixture), hashes, metadata }
}

fn check(fixture: &Fixture, database: &Database, known: &Known) {
    proof::ensure_equal("documents", &known.hashes, &fixture.hashes(database)).unwrap();
    proof::ensure_equal("options and indexes", &known.metadata, &fixture.metadata(database)).unwrap();
}

/// The time of the newest change there is.
pub(crate) fn now(fixture: &Fixture) -> ClusterTime {
    let reply = fixture.command(&fixture.client.database("admin"), doc! { "ping": 1 });
    let time = reply.get_timestamp("operationTime").unwrap();
    ClusterTime { seconds: time.time, ordinal: time.increment }
}

/// Moves the cluster's time, beside the database. A server does so by itself every ten seconds.
fn tick(fixture: &Fixture) {
    let ticks = fixture.client.database("any-second-tick");
    let one = doc! { "q": { "_id": 1 }, "u": { "$inc": { "n": 1 } }, "upsert": true };
    fixture.command(&ticks, doc! { "update": "ticks", "updates": [one] });
}

fn wait_for_second_after(fixture: &Fixture, time: ClusterTime) {
    while now(fixture).seconds <= time.seconds {
        tick(fixture);
    }
}

/// Does something while the cluster's time moves on, so that the timeline can pass what is read.
pub(crate) fn while_others_write<T>(fixture: &Fixture, work: impl FnOnce() -> T) -> T {
    let (over, is_over) = mpsc::channel::<()>();
    thread::scope(move |scope| {
        scope.spawn(move || {
            // Until the sender is gone, also by a panic.
            while is_over.recv_timeout(TICK_EVERY) == Err(RecvTimeoutError::Timeout) {
                tick(fixture);
            }
        });
        let done = work();
        drop(over);
        done
    })
}

/// Calls the deployed function, as its schedule does, until the whole second of `time` is archived. What it started by
/// itself for other tests' databases has ended when this returns, so nothing is archived later on unasked.
pub(crate) fn capture(fixture: &Fixture, time: ClusterTime) {
    let began = Instant::now();
    loop {
        wait_for_second_after(fixture, time);
        tick(fixture);
        call_capture_log(fixture);
        let told = fixture.json("nightsafe", &["windows", "-d", DATABASE]);
        let captured: ClusterTime = told["captured"].as_str().unwrap().parse().unwrap();
        if captured.seconds > time.seconds {
            return wait_for_upkeep(fixture);
        }
        assert!(began.elapsed() < CAPTURED_WITHIN, "the timeline stays at {captured}");
    }
}

fn call_capture_log(fixture: &Fixture) {
    let client = aws_sdk_lambda::Client::new(&fixture.config);
    let call = client.invoke().function_name("nightsafe-capture-log").payload(Blob::new("{}"));
    let answer = fixture.run(async { call.send().await }).unwrap();
    let told = answer.payload().map(|it| String::from_utf8_lossy(it.as_ref()).into_owned());
    assert_eq!(answer.function_error(), None, "{told:?}");
}

/// A capture starts backups by itself where a window was closed; no other one can run meanwhile.
pub(crate) fn wait_for_upkeep(fixture: &Fixture) {
    let began = Instant::now();
    loop {
        let listed = fixture.json("nightsafe", &["list", "--limit", "100"]);
        let is_going_on = |it: &&Value| {
            it["user"] == UPKEEP && !["verified", "failed"].contains(&it["state"].as_str().unwrap())
        };
        let Some(going_on) = listed["operations"].as_array().unwrap().iter().find(is_going_on) else { break };
        assert!(began.elapsed() < UPKEEP_WITHIN, "it does not end: {going_on}");
    }
    while !fixture.lease_holder().is_null() {
        assert!(began.elapsed() < UPKEEP_WITHIN, "it is not released");
    }
}

fn check_window(fixture: &Fixture, first: &Value, last: ClusterTime) {
    let told = fixture.json("nightsafe", &["windows", "-d", DATABASE]);
    let windows = told["windows"].as_array().unwrap();
    assert_eq!(windows.len(), 1, "{told}");
    let window = &windows[0];
    assert_eq!(window["database"], DATABASE);
    assert_eq!(window["from"], first["detail"]["backup"]["cluster_time"]);
    assert!(window["until"].as_str().unwrap().parse::<ClusterTime>().unwrap() > last, "{told}");
    assert_eq!(window["backups"][0], first["id"]);
    assert!(window["ended"].is_null() && told["gaps"].as_array().unwrap().is_empty(), "{told}");
}

/// One document, at the instant and over time.
fn check_lookups(fixture: &Fixture, time: ClusterTime) {
    let namespace = format!("{DATABASE}.large");
    let text = |version: &Value| version["document"]["text"].as_str().unwrap().to_owned();
    for at in [time.to_string(), time.utc()] {
        let found = fixture.json("nightsafe", &["get", &namespace, LOOKED_AT, "--at", &at]);
        let versions = found["versions"].as_array().unwrap();
        assert_eq!(versions.iter().map(text).collect::<Vec<_>>(), ["as of t"], "{found}");
        assert_eq!(found["label"], "exact");
    }
    let found = fixture.json("nightsafe", &["history", &namespace, LOOKED_AT]);
    let versions = found["versions"].as_array().unwrap();
    let texts: Vec<String> = versions.iter().map(text).collect();
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert!(texts[0].len() > 500 && texts[1..] == ["as of t", "later"], "{texts:?}");
    let since: Vec<ClusterTime> =
        versions.iter().map(|version| version["since"].as_str().unwrap().parse().unwrap()).collect();
    assert!(since[0] < since[1] && since[1] <= time && time < since[2], "{since:?}");
}

/// Only it comes back, from the newest instant that was archived.
fn check_one_collection(fixture: &Fixture, database: &Database, last: &Known) {
    clear(fixture, database, "one");
    clear(fixture, database, "new");
    let mut expected = fixture.hashes(database);
    fixture.json("./restore.sh", &["-d", DATABASE, "-t", "latest", "-c", "one", "--yes"]);
    expected.insert("one".to_owned(), last.hashes["one"].clone());
    proof::ensure_equal("documents", &expected, &fixture.hashes(database)).unwrap();
}

fn clear(fixture: &Fixture, database: &Database, name: &str) {
    fixture.command(database, doc! { "delete": name, "deletes": [{ "q": {}, "limit": 0 }] });
}

/// Folds a backup; gives its id.
fn synthesize(fixture: &Fixture, first: &Value) -> String {
    let folded = fixture.json("nightsafe", &["synthesize", "-d", DATABASE]);
    assert_eq!(folded["state"], "verified");
    let id = folded["id"].as_str().unwrap().to_owned();
    let shown = fixture.json("nightsafe", &["show", &id]);
    assert_eq!(shown["detail"]["backup"]["folded_from"], first["id"], "{shown}");
    id
}
