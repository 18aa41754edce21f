//! Events as a real server sends them, and what is missing in them.

use bson::{Binary, Document, RawDocumentBuf, Timestamp, cstr, rawdoc};

use super::*;
use crate::error::ErrorKind;

const TIME: Timestamp = Timestamp { time: 1_795_385_109, increment: 40 };

fn uuid(byte: u8) -> Binary {
    Binary { subtype: BinarySubtype::Uuid, bytes: vec![byte; 16] }
}

/// An event of the collection `a`, with what is added to it.
fn event(kind: &str, more: &RawDocumentBuf) -> RawDocumentBuf {
    let mut event = rawdoc! {
        "_id": { "_data": "826B03" },
        "operationType": kind,
        "clusterTime": TIME,
        "collectionUUID": uuid(1),
        "wallTime": bson::DateTime::from_millis(7),
        "ns": { "db": "x", "coll": "a" },
    };
    for element in more {
        let (key, value) = element.unwrap();
        event.append(key, value);
    }
    event
}

fn text(document: &RawDocument) -> String {
    Document::try_from(document).unwrap().to_string()
}

fn told(event: &Event<'_>) -> String {
    let change = match &event.change {
        Change::Insert { id, document } => {
            format!("{} = {}", text(id.id().as_document()), text(document))
        }
        Change::Replace { id, document } => {
            format!("{} := {}", text(id.id().as_document()), text(document))
        }
        Change::Update { id, update } => format!("{} + {}", text(id.id().as_document()), text(update)),
        Change::Delete { id } => format!("{} gone", text(id.id().as_document())),
        Change::Create(description) => format!("create {}", text(description)),
        Change::Drop => "drop".into(),
        Change::DropDatabase => "drop database".into(),
        Change::Rename { to_database, to, dropped } => {
            format!("to {to_database}.{to} over {:?}", dropped.map(|uuid| uuid.0[0]))
        }
        Change::CreateIndexes(description) => format!("indexes {}", text(description)),
        Change::DropIndexes(description) => format!("no indexes {}", text(description)),
        Change::Modify(description) => format!("modify {}", text(description)),
        Change::Nothing => "nothing".into(),
        Change::Unknown(word) => format!("unknown {word}"),
    };
    format!("{}.{} {:?}: {change}", event.database, event.collection, event.uuid.map(|uuid| uuid.0[0]))
}

#[test]
fn events_of_documents_are_read() {
    let check = |kind: &str, more: RawDocumentBuf, expected: &str| {
        let event = event(kind, &more);
        let event = Event::parse(&event).unwrap();
        assert_eq!(event.time, ClusterTime { seconds: TIME.time, ordinal: TIME.increment });
        assert_eq!(told(&event), format!("x.a Some(1): {expected}"));
    };
    let inserted = rawdoc! { "fullDocument": { "_id": 1, "a": 2 }, "documentKey": { "_id": 1 } };
    check("insert", inserted, r#"{ "_id": 1 } = { "_id": 1, "a": 2 }"#);
    let replaced = rawdoc! { "documentKey": { "_id": 1 }, "fullDocument": { "a": 2, "_id": 1 } };
    check("replace", replaced, r#"{ "_id": 1 } := { "a": 2, "_id": 1 }"#);
    let updated = rawdoc! {
        "txnNumber": 5_i64,
        "documentKey": { "shard": 7, "_id": 1 },
        "rawUpdateDescription": { "$v": 2, "diff": { "u": { "a": 1 } } },
    };
    check("update", updated, r#"{ "_id": 1 } + { "$v": 2, "diff": { "u": { "a": 1 } } }"#);
    check("delete", rawdoc! { "documentKey": { "_id": { "k": 1 } } }, r#"{ "_id": { "k": 1 } } gone"#);
}

#[test]
fn events_of_collections_are_read() {
    let check = |kind: &str, more: RawDocumentBuf, expected: &str| {
        let event = event(kind, &more);
        assert_eq!(told(&Event::parse(&event).unwrap()), format!("x.a Some(1): {expected}"));
    };
    let described = |description: RawDocumentBuf| rawdoc! { "operationDescription": description };
    check("create", described(rawdoc! { "capped": true }), r#"create { "capped": true }"#);
    check("createIndexes", described(rawdoc! { "n": 1 }), r#"indexes { "n": 1 }"#);
    check("dropIndexes", described(rawdoc! { "n": 1 }), r#"no indexes { "n": 1 }"#);
    check("modify", described(rawdoc! {}), &format!("modify {}", Document::new()));
    check("drop", rawdoc! {}, "drop");
    let to = rawdoc! { "db": "y", "coll": "b.c" };
    check("rename", rawdoc! { "to": to.clone() }, "to y.b.c over None");
    check("rename", described(rawdoc! { "to": to.clone() }), "to y.b.c over None");
    check("rename", described(rawdoc! { "to": to, "dropTarget": uuid(2) }), "to y.b.c over Some(2)");
    check("shardCollection", described(rawdoc! {}), "unknown shardCollection");
}

#[test]
fn not_every_event_is_of_a_collection() {
    let check = |event: RawDocumentBuf, expected: &str| {
        assert_eq!(told(&Event::parse(&event).unwrap()), expected);
    };
    let base = |kind: &str| rawdoc! { "operationType": kind, "clusterTime": TIME };
    let mut dropped = base("dropDatabase");
    dropped.append(cstr!("ns"), rawdoc! { "db": "x" });
    check(dropped, "x. None: drop database");
    let mut view = base("create");
    view.append(cstr!("ns"), rawdoc! { "db": "x", "coll": "v" });
    view.append(cstr!("operationDescription"), rawdoc! { "viewOn": "a" });
    check(view, r#"x.v None: create { "viewOn": "a" }"#);
    check(base("endOfTransaction"), ". None: nothing");
}

#[test]
fn what_is_missing_or_malformed_is_named() {
    let check = |event: RawDocumentBuf, field: &str| {
        let why = Event::parse(&event).unwrap_err();
        assert_eq!(why.kind(), ErrorKind::Corrupt);
        assert_eq!(why.to_string(), format!("read a change: {field} is missing or malformed"));
    };
    let key = rawdoc! { "documentKey": { "_id": 1 } };
    check(rawdoc! { "clusterTime": TIME }, "operationType");
    check(rawdoc! { "operationType": 1, "clusterTime": TIME }, "operationType");
    check(rawdoc! { "operationType": "drop" }, "clusterTime");
    check(rawdoc! { "operationType": "drop", "clusterTime": TIME }, "ns");
    check(rawdoc! { "operationType": "drop", "clusterTime": TIME, "ns": { "db": "x" } }, "ns");
    check(event("insert", &key), "fullDocument");
    check(event("insert", &rawdoc! { "documentKey": { "_id": 1 }, "fullDocument": null }), "fullDocument");
    check(event("update", &key), "rawUpdateDescription");
    let as_paths =
        rawdoc! { "documentKey": { "_id": 1 }, "updateDescription": { "updatedFields": { "a": 1 } } };
    check(event("update", &as_paths), "rawUpdateDescription");
    check(event("delete", &rawdoc! {}), "documentKey");
    check(event("delete", &rawdoc! { "documentKey": { "k": 1 } }), "documentKey");
    check(event("modify", &rawdoc! {}), "operationDescription");
    check(event("rename", &rawdoc! { "operationDescription": {} }), "to");
    check(event("rename", &rawdoc! { "to": { "db": "x" } }), "to");
    let target = rawdoc! { "operationDescription": { "to": { "db": "x", "coll": "b" }, "dropTarget": true } };
    check(event("rename", &target), "dropTarget");
    let gone = rawdoc! {
        "operationType": "delete", "clusterTime": TIME, "ns": { "db": "x", "coll": "a" },
        "documentKey": { "_id": 1 },
    };
    check(gone, "collectionUUID");
    let old = Binary { subtype: BinarySubtype::UuidOld, bytes: vec![1; 16] };
    check(event("drop", &rawdoc! { "collectionUUID": old }), "collectionUUID");
}

#[test]
fn broken_bytes_are_an_error_and_no_panic() {
    let event = event("insert", &rawdoc! { "fullDocument": { "_id": 1 }, "documentKey": { "_id": 1 } });
    for at in 4..event.as_bytes().len() - 1 {
        for byte in [0, 1, 0x7f, 0xff] {
            let mut bytes = event.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = Event::parse(RawDocument::from_bytes(&bytes).unwrap());
        }
    }
}
