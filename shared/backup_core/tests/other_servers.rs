//! Changes that servers other than the one that was tried may tell of: each is folded, or closes the window, and none
//! is passed over.

#![allow(clippy::unwrap_used, reason = "tests")]

use backup_core::fold::metadata::why_not_foldable;
use backup_core::timeline::{BreakReason, Event};
use bson::{Binary, RawDocumentBuf, Timestamp, rawdoc, spec::BinarySubtype};

fn event(kind: &str, more: &RawDocumentBuf) -> RawDocumentBuf {
    let mut event = rawdoc! {
        "_id": { "_data": "826B03" },
        "operationType": kind,
        "clusterTime": Timestamp { time: 1_795_385_109, increment: 40 },
        "collectionUUID": Binary { subtype: BinarySubtype::Uuid, bytes: vec![1; 16] },
        "ns": { "db": "crm", "coll": "leads" },
    };
    for field in more {
        let (name, value) = field.unwrap();
        event.append(name, value);
    }
    event
}

#[test]
fn every_kind_is_folded_or_closes_the_window() {
    let diff = |sections: RawDocumentBuf| rawdoc! { "documentKey": { "_id": 1 }, "rawUpdateDescription": { "$v": 2, "diff": sections } };
    let closes = |kind: &str, more: RawDocumentBuf| {
        let raw = event(kind, &more);
        let event = Event::read(&raw).unwrap();
        let reason = why_not_foldable(&event);
        assert!(matches!(reason, Some(BreakReason::UnknownChange(_))), "{kind} {more:?}: {reason:?}");
    };
    let folds = |kind: &str, more: RawDocumentBuf| {
        let raw = event(kind, &more);
        assert_eq!(why_not_foldable(&Event::read(&raw).unwrap()), None, "{kind} {more:?}");
    };
    // Sharding, of which each changes what a document's key is.
    for kind in [
        "shardCollection",
        "reshardCollection",
        "refineCollectionShardKey",
        "unshardCollection",
        "movePrimary",
    ] {
        closes(kind, rawdoc! { "operationDescription": { "shardKey": { "a": 1 } } });
    }
    for kind in ["migrateChunkToNewShard", "migrateLastChunkFromShard", "reshardBegin", "reshardDoneCatchUp"]
    {
        closes(kind, rawdoc! {});
    }
    closes("invalidate", rawdoc! {});
    closes("startIndexBuild", rawdoc! { "operationDescription": { "indexes": [] } });
    closes("upgradeDowngradeViewlessTimeseries", rawdoc! {});
    closes("something of 2031", rawdoc! {});
    // Half a change, of a stream that splits large ones.
    let whole = rawdoc! { "documentKey": { "_id": 1 }, "fullDocument": { "_id": 1 } };
    let mut half = whole.clone();
    half.append(bson::cstr!("splitEvent"), rawdoc! { "fragment": 1, "of": 2 });
    closes("insert", half);
    closes("insert", rawdoc! { "splitEvent": { "fragment": 2, "of": 2 } });
    // A change that lacks what it needs, or has it in another form.
    closes("insert", rawdoc! { "documentKey": { "_id": 1 } });
    closes("update", rawdoc! { "documentKey": { "_id": 1 }, "updateDescription": { "updatedFields": {} } });
    closes("update", diff(rawdoc! { "b": { "text": [0] } }));
    closes(
        "update",
        rawdoc! { "documentKey": { "_id": 1 }, "rawUpdateDescription": { "$v": 3, "diff": {} } },
    );
    closes("modify", rawdoc! { "operationDescription": { "index": { "name": "a_1", "newOption": true } } });
    closes("modify", rawdoc! { "operationDescription": { "timeseriesBucketsMayHaveMixedSchemaData": true } });
    // What 8.x adds to the shapes that are known.
    folds("insert", whole);
    folds("endOfTransaction", rawdoc! {});
    folds("update", diff(rawdoc! { "u": { "a": 1 }, "sb": { "i": { "c": 2 } } }));
    folds(
        "create",
        rawdoc! { "nsType": "collection", "operationDescription": { "idIndex": { "v": 2 }, "recordIdsReplicated": true } },
    );
    folds(
        "create",
        rawdoc! { "nsType": "timeseries", "operationDescription": { "timeseries": { "timeField": "t" } } },
    );
    folds("drop", rawdoc! { "nsType": "collection" });
}

#[test]
fn a_change_without_a_time_stops_the_capture() {
    let raw = rawdoc! { "operationType": "insert", "ns": { "db": "crm", "coll": "leads" } };
    assert!(Event::read(&raw).is_err(), "nobody could say which window it closes");
}
