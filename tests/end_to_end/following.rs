//! The change stream of a real server: in order, whole, with the diff of every update, and it goes on behind any change.

use backup_core::bson::split_documents;
use backup_core::error::ErrorKind;
use backup_core::id::ClusterTime;
use backup_core::ports::{Changes, Source};
use backup_core::timeline::{Position, ResumeToken};
use backup_mongo::Cluster;
use bson::{Document, RawDocumentBuf, doc, rawdoc};
use mongodb::Database;
use mongodb::options::UpdateModifications;

use crate::fixture::Fixture;

const DATABASE: &str = "following";
/// Batches until the last change has come; an empty one takes a second.
const BATCHES_MAX: u32 = 60;
/// Three of these fill an entry of the oplog, and a batch.
const LARGE_BYTES: usize = 6_000_000;

pub(crate) fn changes_come_in_order_and_go_on_where_they_were(fixture: &Fixture) {
    let database = fixture.database(DATABASE);
    fixture.run(async {
        let cluster = Cluster::connect(&fixture.users().backup).await.unwrap();
        let from = cluster.cluster_time().await.unwrap().next();
        change(&database).await;
        let all = read(&cluster, &Position::At(from)).await;
        let told: Vec<&str> = all.iter().map(|event| event.get_str("operationType").unwrap()).collect();
        let mut expected = vec!["create", "create", "insert"];
        expected.extend(updates(0).iter().map(|_| "update"));
        expected.extend(updates(0).iter().flat_map(|_| ["insert", "update"])); // the transaction
        expected.push("insert");
        assert_eq!(told, expected);
        let in_transaction = |event: &&RawDocumentBuf| event.get("txnNumber").unwrap().is_some();
        let in_transaction: Vec<_> = all.iter().filter(in_transaction).collect();
        assert_eq!(in_transaction.len(), 2 * updates(0).len());
        assert!(in_transaction.iter().all(|event| time(event) == time(in_transaction[0])));
        assert!(all.windows(2).all(|pair| time(&pair[0]) <= time(&pair[1])), "out of order");
        let told: Vec<_> = all.iter().filter_map(raw_update).collect();
        let expected = diffs().into_iter().map(|diff| rawdoc! { "$v": 2, "diff": diff });
        assert_eq!(told, expected.collect::<Vec<_>>());
        assert!(all.iter().all(|event| event.get("updateDescription").unwrap().is_none()));
        for (place, event) in all[..all.len() - 1].iter().enumerate().step_by(2) {
            let token = ResumeToken(event.get_document("_id").unwrap().as_bytes().to_vec());
            let rest = read(&cluster, &Position::After(token)).await;
            assert!(rest == all[place + 1..], "{} changes behind change {place}", rest.len());
        }
        let from_transaction = read(&cluster, &Position::At(time(in_transaction[0]))).await;
        assert_eq!(from_transaction.len(), in_transaction.len() + 1);
        assert!(from_transaction == all[all.len() - from_transaction.len()..]);
    });
}

/// Updates that the usual description of one cannot tell, and some that it can.
fn updates(base: i32) -> Vec<UpdateModifications> {
    let dotted = doc! { "$setField": { "field": "a.b", "input": "$m", "value": base } };
    let without = doc! { "$unsetField": { "field": "a.b", "input": "$m" } };
    let whole = doc! { "$setField": { "field": "dot.ted", "input": "$$ROOT", "value": base } };
    let moved = doc! { "text": "$o.text", "x": base };
    let moved = doc! { "$setField": { "field": "o", "input": "$$ROOT", "value": moved } };
    vec![
        vec![doc! { "$set": { "m": dotted } }].into(),
        doc! { "$set": { "m.a.b": base + 1 } }.into(),
        vec![doc! { "$replaceWith": whole }].into(),
        doc! { "$set": { "l.2.0": base } }.into(),
        doc! { "$set": { "l.0": base, "plain": base } }.into(),
        vec![doc! { "$replaceWith": moved }].into(),
        vec![doc! { "$set": { "m": without } }].into(),
    ]
}

/// The diffs of the updates that [`change`] makes.
fn diffs() -> [RawDocumentBuf; 14] {
    [
        rawdoc! { "sm": { "u": { "a.b": 10 } } },
        rawdoc! { "sm": { "sa": { "u": { "b": 11 } } } },
        rawdoc! { "i": { "dot.ted": 10 } },
        rawdoc! { "sl": { "a": true, "s2": { "u": { "0": 10 } } } },
        rawdoc! { "i": { "plain": 10 }, "sl": { "a": true, "u0": 10 } },
        rawdoc! { "so": { "i": { "x": 10 } } }, // it was there, but not at the end
        rawdoc! { "sm": { "d": { "a.b": false } } },
        // The second time, some fields are gone and others are there.
        rawdoc! { "sm": { "i": { "a.b": 20 } } },
        rawdoc! { "sm": { "sa": { "u": { "b": 21 } } } },
        rawdoc! { "u": { "dot.ted": 20 } },
        rawdoc! { "sl": { "a": true, "s2": { "u": { "0": 20 } } } },
        rawdoc! { "u": { "plain": 20 }, "sl": { "a": true, "u0": 20 } },
        rawdoc! { "so": { "u": { "x": 20 } } },
        rawdoc! { "sm": { "d": { "a.b": false } } },
    ]
}

/// Makes every update once on its own, and once in a transaction of several oplog entries.
async fn change(database: &Database) {
    for name in ["all", "large"] {
        database.create_collection(name).await.unwrap();
    }
    let (all, large) = (database.collection::<Document>("all"), database.collection::<Document>("large"));
    // With the texts, a diff is shorter than what changes: the server would log that instead.
    let text = "x".repeat(100);
    let map = doc! { "text": &text, "a": { "b": 0 }, "a.b": 0 };
    let list = vec![doc! {}, doc! {}, doc! { "0": 0 }];
    let ordered = doc! { "x": 0, "text": &text };
    let first = doc! { "_id": 1, "m": map, "l": list, "o": ordered, "text": "x".repeat(1000) };
    all.insert_one(first).await.unwrap();
    for update in updates(10) {
        all.update_one(doc! { "_id": 1 }, update).await.unwrap();
    }
    let mut session = database.client().start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    for update in updates(20) {
        let text = "x".repeat(LARGE_BYTES);
        large.insert_one(doc! { "text": text }).session(&mut session).await.unwrap();
        all.update_one(doc! { "_id": 1 }, update).session(&mut session).await.unwrap();
    }
    session.commit_transaction().await.unwrap();
    all.insert_one(doc! { "_id": "last" }).await.unwrap();
}

/// The changes of our database from there up to the last one that [`change`] makes.
async fn read(cluster: &Cluster, position: &Position) -> Vec<RawDocumentBuf> {
    let mut stream = cluster.follow(position).await.unwrap();
    let mut all: Vec<RawDocumentBuf> = Vec::new();
    let is_last = |event: &RawDocumentBuf| {
        event.get_document("documentKey").is_ok_and(|key| key.get_str("_id").is_ok_and(|id| id == "last"))
    };
    for _ in 0..BATCHES_MAX {
        if all.last().is_some_and(is_last) {
            return all;
        }
        let batch = stream.next_batch().await.unwrap();
        let events = split_documents(&batch.events).map(|event| event.unwrap().to_vec());
        let events: Vec<_> = events.map(|event| RawDocumentBuf::from_bytes(event).unwrap()).collect();
        assert!(events.iter().all(|event| time(event) <= batch.time), "a batch reaches as far as it tells");
        all.extend(events.into_iter().filter(is_ours));
    }
    panic!("the last change has not come; {} have", all.len());
}

fn time(event: &RawDocumentBuf) -> ClusterTime {
    let time = event.get_timestamp("clusterTime").unwrap();
    ClusterTime { seconds: time.time, ordinal: time.increment }
}

fn is_ours(event: &RawDocumentBuf) -> bool {
    event.get_document("ns").unwrap().get_str("db").unwrap() == DATABASE
}

/// How an update is told.
fn raw_update(event: &RawDocumentBuf) -> Option<RawDocumentBuf> {
    event.get_document("rawUpdateDescription").map(ToOwned::to_owned).ok()
}

pub(crate) fn an_instant_to_come_and_a_lost_one_are_told(fixture: &Fixture) {
    let check = |cluster: &Cluster, position: Position, kind: ErrorKind| {
        let told = fixture.run(async {
            match cluster.follow(&position).await {
                Ok(mut stream) => stream.next_batch().await.map(|_| ()),
                Err(why) => Err(why),
            }
        });
        assert_eq!(told.unwrap_err().kind(), kind, "{position:?}");
    };
    let cluster = fixture.run(async { Cluster::connect(&fixture.users().backup).await }).unwrap();
    let now = fixture.run(async { cluster.cluster_time().await }).unwrap();
    let to_come = ClusterTime { seconds: now.seconds + 1000, ordinal: 1 };
    check(&cluster, Position::At(to_come), ErrorKind::Transient);
    // A change of 1970, which this server's oplog never had.
    let lost = rawdoc! { "_data": "8200001000000000012B022C0100296E04" };
    check(&cluster, Position::After(ResumeToken(lost.into_bytes())), ErrorKind::HistoryLost);
}
