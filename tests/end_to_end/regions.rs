//! One cloud in three regions, and everything that is taken from it, one after another: a chunk is replaced, locked
//! objects are to be deleted, the catalog is emptied, the first region is lost. Each time what was promised is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use backup_core::format::{BackupPlace, Place, Prefix};
use backup_core::id::ClusterTime;
use backup_core::operation::Trigger;
use bson::doc;
use local::CloudOptions;
use local::demo::proof;
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::inventory::{HOME, OTHERS, bucket, every_backup_is_whole, s3};
use crate::own_cloud::{OwnCloud, call, operations, wait_until_quiet};
use crate::pipeline::Pipeline;
use crate::sampling::{COLLECTION, DATABASE, a_re_sealed_chunk_is_caught_by_the_sample};
use crate::timeline::{capture, now, while_others_write};

/// Where life goes on when the first region is lost.
const ELSEWHERE: &str = OTHERS[0];
/// The database that comes back from there.
const LOST: &str = "lost";
const TABLES: [&str; 2] = ["CatalogTable", "AuditTable"];
/// Copies take some seconds.
const QUIET_WITHIN: Duration = Duration::from_mins(3);
/// Runs of the pruner until the grace period of a second is over.
const PRUNES_MAX: u32 = 10;
/// What is noted on a backup after it was copied. The record in another region is as it was then.
const NOTED_LATER: [&str; 7] =
    ["levels", "proved_by", "hold", "unwanted_by", "removal", "locked_until_millis", "is_cold"];
/// How a statement could let somebody around a lock.
const AROUND_A_LOCK: [&str; 3] = ["BypassGovernanceRetention", "s3:*", "Action: '*'"];

/// Locks that last longer than this test, in a mode in which it can lose a region all the same.
fn options() -> CloudOptions {
    let parameters = vec![
        ("LockMode", "GOVERNANCE"),
        ("RecentRetention", "60 minutes"),
        ("AnySecondRetention", "1 second"),
        ("PruneGrace", "1 second"),
    ];
    let chunk_target_bytes = 256 * 1024;
    CloudOptions { chunk_target_bytes, regions: true, layer: true, parameters, ..CloudOptions::default() }
}

pub(crate) fn three_regions_keep_what_they_promise(_: &Fixture) {
    let cloud = OwnCloud::start(&options());
    let pipeline = Pipeline::open(&cloud);
    let sampled = a_re_sealed_chunk_is_caught_by_the_sample(&cloud, &pipeline);
    what_is_locked_stays(&cloud, &sampled);
    an_emptied_catalog_comes_back(&cloud);
    the_loss_of_a_region(&cloud);
}

/// S3 itself refuses; the pruner tells of it and leaves the whole backup; and no role could do otherwise.
fn what_is_locked_stays(fixture: &Fixture, older: &str) {
    no_role_gets_around_a_lock();
    let newer = while_others_write(fixture, || fixture.back_up(DATABASE));
    wait_until_quiet(fixture, QUIET_WITHIN); // only then are the copies locked, too
    for region in [HOME, OTHERS[0], OTHERS[1]] {
        deletes_are_refused(fixture, region, newer["id"].as_str().unwrap());
    }
    let alerts = fixture.alerts();
    let unwanted = fixture.json("nightsafe", &["delete", older, "--yes"]);
    assert!(unwanted["detail"]["backup"]["unwanted_by"].is_string(), "{unwanted}");
    let told = prune_until_it_meets_the_lock(fixture);
    let decisions = told["plan"]["decisions"].as_array().unwrap();
    let decision = decisions.iter().find(|it| it["backup"] == older).unwrap();
    assert_eq!(decision["keep"], false, "{decision}");
    let row = fixture.json("nightsafe", &["show", older]);
    assert_eq!(row["state"], "verified", "{row}");
    assert_eq!(row["detail"]["backup"]["removal"]["begun"], false, "{row}");
    assert_eq!(fixture.alerts(), alerts, "our own locks are no news");
    eprintln!("locked: {}; whole backups {:?}", told["done"], every_backup_is_whole(fixture));
}

/// In the template, everything by which locks are got around is denied.
fn no_role_gets_around_a_lock() {
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/template.yaml");
    let template = fs::read_to_string(template).unwrap();
    let lines: Vec<&str> = template.lines().collect();
    let mut denied = 0;
    for (number, line) in lines.iter().enumerate() {
        if !AROUND_A_LOCK.iter().any(|word| line.contains(word)) {
            continue;
        }
        let effect = lines[..=number].iter().rev().find(|it| it.contains("Effect:")).unwrap();
        assert!(effect.contains("Effect: Deny"), "template.yaml:{}: {line}", number + 1);
        denied += usize::from(line.contains(AROUND_A_LOCK[0]));
    }
    assert_eq!(denied, 1, "the bucket's policy denies it");
}

/// Of every chunk and of the manifest.
fn deletes_are_refused(fixture: &Fixture, region: &'static str, id: &str) {
    let place = BackupPlace { trigger: Trigger::Manual, backup: id.parse().unwrap() };
    let prefix = Prefix::Of(Place::Backup(place)).to_path().unwrap();
    let (client, bucket) = (s3(fixture, region), bucket(fixture, region));
    let list = client.list_object_versions().bucket(&bucket).prefix(prefix);
    let found = fixture.run(list.send()).unwrap();
    let is_needed = |path: &str| path.contains("/chunks/") || path.ends_with("/manifest.json.sealed");
    let mut refused = Vec::new();
    for version in found.versions() {
        let (path, version) = (version.key().unwrap(), version.version_id().unwrap());
        if is_needed(path) {
            let delete = client.delete_object().bucket(&bucket).key(path).version_id(version);
            let why = fixture.run(delete.send()).unwrap_err();
            assert_eq!(why.code(), Some("AccessDenied"), "{path} in {region}: {why:?}");
            refused.push(why.message().unwrap_or_default().to_owned());
        }
    }
    assert!(refused.len() >= 2, "a manifest and its chunks are in {region}: {refused:?}");
    eprintln!("deletes in {region}: {} refused: {}", refused.len(), refused[0]);
}

/// The first run marks, one of the next ones wants to remove. Gives what that told.
fn prune_until_it_meets_the_lock(fixture: &Fixture) -> Value {
    for _ in 0..PRUNES_MAX {
        let told = fixture.json("nightsafe", &["prune", "--force", "--yes"]);
        let done = &told["done"];
        assert_eq!(done["removed"], 0, "{told}");
        if done["locked"] == 1 {
            return told;
        }
        assert_eq!((&done["locked"], &done["marked"]), (&json!(0), &json!(1)), "{told}");
    }
    panic!("the grace period does not end");
}

/// From the bucket alone, after both tables lost every item.
fn an_emptied_catalog_comes_back(fixture: &Fixture) {
    make_some_of_everything(fixture);
    let (rows, windows) = (operations(fixture), told_windows(fixture, HOME));
    expect_some_of_everything(&rows);
    let client = aws_sdk_dynamodb::Client::new(&fixture.config);
    for table in TABLES.map(|output| fixture.stack(output)) {
        let items = fixture.run(empty(&client, &table));
        eprintln!("emptied {table}: {items} items");
    }
    assert!(operations(fixture).is_empty());
    assert_eq!(told_windows(fixture, HOME)["windows"], json!([]));
    let rebuilt = rebuild(fixture, HOME);
    assert_eq!(rebuilt["operations"].as_u64(), u64::try_from(rows.len()).ok(), "{rebuilt}");
    expect_no_difference(&rows, &operations(fixture));
    expect_same_windows(&windows, &told_windows(fixture, HOME));
    // The timeline goes on where its last slice ended.
    capture(fixture, now(fixture));
    let later = told_windows(fixture, HOME);
    assert_eq!(later["gaps"], windows["gaps"], "{later}");
    for (before, after) in untils(&windows).zip(untils(&later)) {
        assert!(before <= after, "{windows} {later}");
    }
    eprintln!("rebuilt: {} operations and {} windows as before", rows.len(), untils(&windows).count());
}

fn make_some_of_everything(fixture: &Fixture) {
    let database = fixture.client.database(DATABASE);
    fixture.json("nightsafe", &["backup", "-d", DATABASE, "-c", COLLECTION]);
    fixture.fill(&database, "later", 0, 20);
    capture(fixture, now(fixture));
    let folded = fixture.json("nightsafe", &["synthesize", "-d", DATABASE]);
    let id = folded["id"].as_str().unwrap();
    fixture.json("nightsafe", &["hold", id, "--reason", "a dispute"]);
    let drill = fixture.json("nightsafe", &["verify", id, "--level", "L3"]);
    assert_eq!(drill["detail"]["drill"]["reached"], "L3", "{drill}");
    let restore = fixture.json("nightsafe", &["restore", "-d", DATABASE, "--full", "--yes"]);
    assert_eq!(restore["state"], "restored", "{restore}");
    capture(fixture, now(fixture));
    wait_until_quiet(fixture, QUIET_WITHIN);
}

fn expect_some_of_everything(rows: &[Value]) {
    let has = |what: &str, is_such: &dyn Fn(&Value) -> bool| {
        assert!(rows.iter().any(is_such), "there is no {what} to come back");
    };
    let is_noted = |row: &Value, field: &str| !row["detail"]["backup"][field].is_null();
    has("failed backup", &|row| row["state"] == "failed");
    has("partial backup", &|row| row["collections"] == json!([COLLECTION]));
    has("folded backup", &|row| is_noted(row, "folded_from"));
    has("held backup", &|row| is_noted(row, "hold"));
    has("backup to be removed", &|row| is_noted(row, "removal"));
    has("copied backup", &|row| row["detail"]["backup"]["replicas"][ELSEWHERE].is_object());
    for kind in ["restore", "drill", "prune"] {
        has(kind, &|row| row["detail"][kind].is_object());
    }
}

/// Deletes every item; gives how many there were.
async fn empty(client: &aws_sdk_dynamodb::Client, table: &str) -> usize {
    let scan = client.scan().table_name(table).projection_expression("pk, sk");
    let keys = scan.into_paginator().items().send().try_collect().await.unwrap();
    let count = keys.len();
    for key in keys {
        client.delete_item().table_name(table).set_key(Some(key)).send().await.unwrap();
    }
    count
}

/// Rebuilds the catalog of a region; gives what came of it.
fn rebuild(fixture: &Fixture, region: &str) -> Value {
    let began = Instant::now();
    let told = fixture.json("nightsafe", &["--region", region, "catalog", "rebuild"]);
    let rebuilt = told["rebuilt"].clone();
    eprintln!("catalog rebuild in {region}: {:.1} s, {rebuilt}", began.elapsed().as_secs_f32());
    for count in ["skipped", "without_record", "without_manifest", "cut_off", "there_already"] {
        assert_eq!(rebuilt[count], 0, "{count}: {rebuilt}");
    }
    rebuilt
}

fn told_windows(fixture: &Fixture, region: &str) -> Value {
    fixture.json("nightsafe", &["--region", region, "windows"])
}

/// All but how far they reach: what the head had moved behind the last slice has to be captured again.
fn expect_same_windows(before: &Value, after: &Value) {
    let without_reach = |told: &Value| {
        let mut windows = told["windows"].clone();
        for window in windows.as_array_mut().unwrap() {
            window.as_object_mut().unwrap().remove("until");
        }
        (windows, told["gaps"].clone())
    };
    assert_ne!(before["windows"], json!([]), "there is something to compare");
    assert_eq!(without_reach(after), without_reach(before), "{before} {after}");
    for (before, after) in untils(before).zip(untils(after)) {
        assert!(after <= before, "a window reaches further than it did");
    }
}

fn untils(told: &Value) -> impl Iterator<Item = ClusterTime> {
    let until = |window: &Value| window["until"].as_str().unwrap().parse::<ClusterTime>().unwrap();
    told["windows"].as_array().unwrap().iter().map(until)
}

fn expect_no_difference(before: &[Value], after: &[Value]) {
    let (before, after) = (by_id(before), by_id(after));
    let ids: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    let told = |row: Option<&&Value>| row.map_or("nothing".to_owned(), ToString::to_string);
    let differing: Vec<String> = ids
        .into_iter()
        .filter(|id| before.get(id) != after.get(id))
        .map(|id| format!("{id}\n  was {}\n  is  {}", told(before.get(id)), told(after.get(id))))
        .collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

fn by_id(rows: &[Value]) -> BTreeMap<&str, &Value> {
    rows.iter().map(|row| (row["id"].as_str().unwrap(), row)).collect()
}

/// The first region's key, tables and bucket are gone. Another one's bucket and key bring everything back that was
/// copied there.
fn the_loss_of_a_region(fixture: &Fixture) {
    let database = fixture.database(LOST);
    fixture.fill(&database, "leads", 0, 600);
    fixture.fill(&database, "messages", 0, 50);
    let index = doc! { "key": { "key": 1 }, "name": "by key", "unique": true };
    fixture.command(&database, doc! { "createIndexes": "leads", "indexes": [index] });
    let backup = fixture.back_up(LOST);
    let id = backup["id"].as_str().unwrap();
    copy_everything(fixture, id);
    let rows = operations(fixture);
    let (hashes, metadata) = (fixture.hashes(&database), fixture.metadata(&database));
    lose_the_first_region(fixture);

    rebuild(fixture, ELSEWHERE);
    let listed = fixture.json("nightsafe", &["--region", ELSEWHERE, "list", "--limit", "1000"]);
    expect_copies(&rows, listed["operations"].as_array().unwrap(), id);
    let windows = told_windows(fixture, ELSEWHERE);
    let from = &backup["detail"]["backup"]["cluster_time"];
    let is_its = |it: &Value| it["database"] == LOST && it["from"] == *from;
    assert!(windows["windows"].as_array().unwrap().iter().any(is_its), "{windows}");
    fixture.run(async { database.drop().await }).unwrap();
    let began = Instant::now();
    let restore =
        fixture.json("nightsafe", &["--region", ELSEWHERE, "restore", "-d", LOST, "--full", "--yes"]);
    assert_eq!(restore["state"], "restored", "{restore}");
    eprintln!("restore in {ELSEWHERE}: {:.1} s, {}", began.elapsed().as_secs_f32(), restore["totals"]);
    proof::ensure_equal("documents", &hashes, &fixture.hashes(&database)).unwrap();
    proof::ensure_equal("options and indexes", &metadata, &fixture.metadata(&database)).unwrap();
}

/// Returns when the backup, and the timeline behind it, are in the other regions.
fn copy_everything(fixture: &Fixture, id: &str) {
    capture(fixture, now(fixture));
    fixture.run(call(&fixture.config, "replicate-timeline", &json!({}))).answer(&"replicate-timeline");
    wait_until_quiet(fixture, QUIET_WITHIN);
    let told = fixture.json("nightsafe", &["replicas", id]);
    assert!(OTHERS.iter().all(|region| told["replicas"][*region].is_object()), "{told}");
    eprintln!("copies: {}", told["replicas"]);
}

fn lose_the_first_region(fixture: &Fixture) {
    let (key, bucket) = (fixture.stack("Key"), fixture.stack("Bucket"));
    let tables = TABLES.map(|output| fixture.stack(output));
    let kms = aws_sdk_kms::Client::new(&fixture.config);
    let client = aws_sdk_dynamodb::Client::new(&fixture.config);
    fixture.run(async {
        kms.disable_key().key_id(key).send().await.unwrap();
        for table in tables {
            client.delete_table().table_name(table).send().await.unwrap();
        }
        remove_bucket(&s3(fixture, HOME), &bucket).await;
    });
    let (code, _, told) = fixture.output("nightsafe", &["list"]);
    assert_ne!(code, 0, "the first region still answers");
    eprintln!("the first region is lost: exit code {code}, {}", told.trim());
}

/// With the right to get around locks, which no role of the stack has.
async fn remove_bucket(client: &aws_sdk_s3::Client, bucket: &str) {
    loop {
        let page = client.list_object_versions().bucket(bucket).send().await.unwrap();
        let objects = page.versions().iter().map(|it| (it.key(), it.version_id()));
        let marks = page.delete_markers().iter().map(|it| (it.key(), it.version_id()));
        let identifier = |(path, version): (Option<&str>, Option<&str>)| {
            let it = ObjectIdentifier::builder().key(path.unwrap()).version_id(version.unwrap());
            it.build().unwrap()
        };
        let all: Vec<ObjectIdentifier> = objects.chain(marks).map(identifier).collect();
        if all.is_empty() {
            break;
        }
        let delete = Delete::builder().set_objects(Some(all)).build().unwrap();
        let delete = client.delete_objects().bucket(bucket).bypass_governance_retention(true).delete(delete);
        let reply = delete.send().await.unwrap();
        assert!(reply.errors().is_empty(), "{:?}", reply.errors());
    }
    client.delete_bucket().bucket(bucket).send().await.unwrap();
}

/// What is known elsewhere are the backups that have a copy there, as they were when they were copied. Of `fresh`,
/// nothing was noted since.
fn expect_copies(remembered: &[Value], found: &[Value], fresh: &str) {
    let has_copy = |row: &&Value| row["detail"]["backup"]["replicas"][ELSEWHERE].is_object();
    let expected: Vec<Value> = remembered.iter().filter(has_copy).map(as_copied).collect();
    let brought: Vec<Value> = found.iter().map(as_copied).collect();
    expect_no_difference(&expected, &brought);
    let the_fresh = |rows: &[Value]| rows.iter().find(|row| row["id"] == fresh).cloned();
    assert_eq!(the_fresh(found), the_fresh(remembered), "every field of it");
    assert!(the_fresh(found).is_some() && found.len() > 1, "{found:?}");
    eprintln!("known in {ELSEWHERE}: {} of {} operations", found.len(), remembered.len());
}

fn as_copied(row: &Value) -> Value {
    let mut row = row.clone();
    row.as_object_mut().unwrap().remove("revision");
    let backup = row["detail"]["backup"].as_object_mut().unwrap();
    for field in NOTED_LATER {
        backup.remove(field);
    }
    row
}
