//! `./restore.sh` as an operator uses it.

use bson::{DateTime, doc};
use local::demo::proof;
use mongodb::Database;

use crate::fixture::Fixture;

/// One of everything a database of today has.
fn one_of_everything(fixture: &Fixture, name: &str) -> Database {
    let database = fixture.database(name);
    let soon = || DateTime::from_millis(DateTime::now().timestamp_millis() + 3_600_000);
    for command in [
        doc! { "create": "empty" },
        doc! { "create": "checked", "validator": { "a": { "$type": "int" } }, "validationAction": "error" },
        doc! { "create": "german", "collation": { "locale": "de" } },
        doc! { "create": "log", "capped": true, "size": 1_048_576, "max": 1000 },
        doc! { "create": "clustered", "clusteredIndex": { "key": { "_id": 1 }, "unique": true, "name": "by id" } },
        doc! { "create": "weather", "timeseries": { "timeField": "t", "metaField": "m", "granularity": "minutes" }, "expireAfterSeconds": 315_360_000_i64 },
        doc! { "create": "some", "viewOn": "large", "pipeline": [{ "$match": { "_id": { "$lt": 10 } } }] },
        doc! { "create": "fewer", "viewOn": "some", "pipeline": [{ "$limit": 3 }] },
        doc! { "createIndexes": "large", "indexes": [
            { "key": { "key": 1 }, "name": "unique", "unique": true },
            { "key": { "n": 1 }, "name": "partial", "partialFilterExpression": { "n": { "$gt": 5 } } },
            { "key": { "expires": 1 }, "name": "ttl", "expireAfterSeconds": 60 },
            { "key": { "text": "text" }, "name": "text", "default_language": "german" },
            { "key": { "extra.$**": 1 }, "name": "wildcard" },
            { "key": { "hidden": 1 }, "name": "hidden", "hidden": true },
            { "key": { "place": "2dsphere" }, "name": "place", "sparse": true },
            { "key": { "key": "hashed" }, "name": "hashed" },
        ] },
        doc! { "createIndexes": "german", "indexes": [
            { "key": { "w": 1 }, "name": "german" },
            { "key": { "w": 1 }, "name": "simple", "collation": { "locale": "simple" } },
        ] },
    ] {
        fixture.command(&database, command);
    }
    fixture.fill(&database, "large", 0, 7000);
    fixture.run(async {
        database.collection("one").insert_one(doc! { "_id": "only", "expires": soon() }).await.unwrap();
        database.collection("checked").insert_one(doc! { "a": 1 }).await.unwrap();
        let words = ["Äpfel", "Apfel", "zebra", "öl"].map(|w| doc! { "_id": w, "w": w });
        database.collection("german").insert_many(words).await.unwrap();
        let lines = (0..300).map(|n| doc! { "_id": 299 - n, "line": n });
        database.collection("log").insert_many(lines).await.unwrap();
        database.collection("clustered").insert_many((0..50).map(|n| doc! { "_id": n })).await.unwrap();
        let measures = (0..400).map(
            |n| doc! { "t": DateTime::from_millis(1_790_000_000_000 + n * 600_000), "m": n % 3, "v": n },
        );
        database.collection("weather").insert_many(measures).await.unwrap();
    });
    database
}

pub(crate) fn a_dropped_database_comes_back_whole(fixture: &Fixture) {
    let database = one_of_everything(fixture, "everything");
    let (hashes, metadata) = (fixture.hashes(&database), fixture.metadata(&database));
    assert_eq!(metadata["large"].1.len(), 9);
    let backup = fixture.back_up("everything");
    assert!(backup["totals"]["chunks"].as_u64().unwrap() >= 20 + 8, "{}", backup["totals"]);
    let shown = fixture.json("nightsafe", &["show", backup["id"].as_str().unwrap()]);
    let entry = |name: &str| {
        shown["namespaces"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone()
    };
    assert!(entry("large")["chunks"].as_u64().unwrap() >= 20, "{}", entry("large"));
    let even = shown["largest_chunk_bson_bytes"].as_u64().unwrap();
    assert!(even <= 2 * 256 * 1024, "no chunk has twice the target: {even}");
    for (name, label) in [("large", "exact"), ("log", "fuzzy"), ("weather", "base-only"), ("fewer", "exact")]
    {
        assert_eq!(entry(name)["label"], label, "{name}");
    }
    fixture.run(async { database.drop().await }).unwrap();
    let restore = fixture.json("./restore.sh", &["-d", "everything", "--full"]);
    assert_eq!(restore["state"], "restored");
    for (record, kind, id) in [(0, "restore", &restore["id"]), (1, "backup", &backup["id"])] {
        let record = &fixture.json("nightsafe", &["audit", "--limit", "2"])["records"][record];
        let fields: Vec<&String> = record.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["operation", "timestamp", "user", "status", "details"]);
        assert_eq!((&record["operation"], &record["status"]), (&kind.into(), &"success".into()));
        assert_eq!(&record["details"]["id"], id);
    }
    proof::ensure_equal("documents", &hashes, &fixture.hashes(&database)).unwrap();
    proof::ensure_equal("options and indexes", &metadata, &fixture.metadata(&database)).unwrap();
    assert!(
        fixture.command(&database, doc! { "validate": "system.buckets.weather" }).get_bool("valid").unwrap()
    );
}

pub(crate) fn one_collection_comes_back_and_the_rest_is_left(fixture: &Fixture) {
    let database = fixture.database("partly");
    for name in ["a", "b", "c"] {
        fixture.fill(&database, name, 0, 500);
    }
    let before = fixture.hashes(&database);
    fixture.back_up("partly");
    fixture.run(async {
        for name in ["a", "b"] {
            let damaged =
                database.collection::<bson::Document>(name).delete_many(doc! { "_id": { "$lt": 250 } }).await;
            damaged.unwrap();
        }
        database.collection("new").insert_one(doc! {}).await.unwrap();
    });
    let damaged = fixture.hashes(&database);
    let restore = fixture.json("./restore.sh", &["-d", "partly", "-c", "a", "--yes"]);
    let after = fixture.hashes(&database);
    assert_eq!(after["a"], before["a"]);
    for name in ["b", "c", "new"] {
        assert_eq!(after[name], damaged[name], "{name} is left as it was");
    }
    let aside = restore["detail"]["restore"]["kept_aside"][0]["aside"].as_str().unwrap();
    let kept = fixture.command(&database, doc! { "count": aside });
    assert_eq!(kept.get_i32("n").unwrap(), 250, "what was live is kept aside");
}

pub(crate) fn replacing_needs_the_operators_word(fixture: &Fixture) {
    let database = fixture.database("careful");
    fixture.fill(&database, "a", 0, 100);
    fixture.back_up("careful");
    fixture.fill(&database, "a", 100, 200);
    let before = fixture.hashes(&database);
    let (code, _, told) = fixture.output("./restore.sh", &["-d", "careful", "--full"]);
    assert_eq!(code, 8, "{told}");
    assert!(told.contains("--yes"), "{told}");
    let (code, plan, _) = fixture.output("./restore.sh", &["-d", "careful", "--full", "--dry-run"]);
    assert_eq!(code, 0);
    assert!(plan.contains("kept aside") && plan.contains("single-instant"), "{plan}");
    assert_eq!(fixture.hashes(&database), before, "nothing was touched");
    let names = fixture.run(async { database.list_collection_names().await }).unwrap();
    assert_eq!(names, ["a"], "no staging is left");
}
