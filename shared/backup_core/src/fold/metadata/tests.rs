//! Sequences of changes as server 6.0.5 told them, against what it listed in the end.

use bson::spec::BinarySubtype;
use bson::{Binary, RawArrayBuf, rawdoc};

use super::*;
use crate::id::ClusterTime;

/// A change: the collection's UUID, its name (behind that of its database, unless it is `x`), what, and how.
type Step = (Option<CollectionUuid>, &'static str, &'static str, RawDocumentBuf);

const fn uuid(byte: u8) -> CollectionUuid {
    CollectionUuid([byte; 16])
}

fn id_index() -> RawDocumentBuf {
    rawdoc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" }
}

fn index(name: &str) -> RawDocumentBuf {
    rawdoc! { "v": 2, "key": { "p": 1 }, "name": name }
}

fn create(byte: u8, name: &'static str, mut options: RawDocumentBuf) -> Step {
    options.append(cstr!("idIndex"), id_index());
    (Some(uuid(byte)), name, "create", options)
}

fn modify(byte: u8, description: RawDocumentBuf) -> Step {
    (Some(uuid(byte)), "", "modify", description)
}

fn indexes(byte: u8, what: &'static str, list: Vec<RawDocumentBuf>) -> Step {
    (Some(uuid(byte)), "", what, rawdoc! { "indexes": RawArrayBuf::from_iter(list) })
}

fn rename(byte: u8, from: &'static str, database: &str, to: &str, dropped: Option<u8>) -> Step {
    let mut description = rawdoc! { "to": { "db": database, "coll": to } };
    if let Some(dropped) = dropped {
        let bytes = uuid(dropped).0.to_vec();
        description.append(cstr!("dropTarget"), Binary { subtype: BinarySubtype::Uuid, bytes });
    }
    (Some(uuid(byte)), from, "rename", description)
}

fn dropped(byte: u8) -> Step {
    (Some(uuid(byte)), "", "drop", rawdoc! {})
}

fn view(name: &'static str, what: &'static str, definition: RawDocumentBuf) -> Step {
    (None, name, what, definition)
}

fn apply(state: &mut DatabaseState, (uuid, name, what, description): &Step) -> Result<()> {
    let change = match *what {
        "create" => Change::Create(description),
        "modify" => Change::Modify(description),
        "createIndexes" => Change::CreateIndexes(description),
        "dropIndexes" => Change::DropIndexes(description),
        "drop" => Change::Drop,
        "dropDatabase" => Change::DropDatabase,
        "rename" => {
            let to = description.get_document("to").unwrap();
            let dropped = description.get_binary("dropTarget").ok();
            Change::Rename {
                to_database: to.get_str("db").unwrap(),
                to: to.get_str("coll").unwrap(),
                dropped: dropped.map(|it| CollectionUuid(it.bytes.try_into().unwrap())),
            }
        }
        word => Change::Unknown(word),
    };
    let (database, collection) = name.split_once('/').unwrap_or(("x", *name));
    let time = ClusterTime { seconds: 1_795_385_109, ordinal: 1 };
    state.apply(&Event { time, database, collection, uuid: *uuid, change })
}

fn fold(base: impl IntoIterator<Item = Namespace>, steps: impl IntoIterator<Item = Step>) -> Vec<Folded> {
    let mut state = DatabaseState::new("x", base);
    for step in steps {
        apply(&mut state, &step).unwrap();
    }
    state.into_namespaces()
}

fn check(
    base: impl IntoIterator<Item = Namespace>,
    steps: impl IntoIterator<Item = Step>,
    expected: impl IntoIterator<Item = (Namespace, Origin)>,
) {
    let (folded, expected) = (fold(base, steps), expected.into_iter().collect::<Vec<_>>());
    assert_eq!(folded.len(), expected.len(), "{folded:?}");
    for (folded, (namespace, origin)) in folded.iter().zip(&expected) {
        assert!(folded.namespace.is_same_state(namespace), "{:?}, not {namespace:?}", folded.namespace);
        assert_eq!(folded.origin, *origin, "{}", namespace.name);
    }
}

fn listed(byte: u8, name: &str, options: RawDocumentBuf, more: Vec<RawDocumentBuf>) -> Namespace {
    let mut indexes = vec![id_index()];
    indexes.extend(more);
    Namespace { options, indexes, ..bare(name, NamespaceKind::Collection, Some(uuid(byte))) }
}

fn listed_view(name: &str, options: RawDocumentBuf) -> Namespace {
    Namespace { options, ..bare(name, NamespaceKind::View, None) }
}

fn german() -> RawDocumentBuf {
    rawdoc! { "collation": { "locale": "de", "strength": 3, "version": "57.1" } }
}

fn clustered() -> RawDocumentBuf {
    rawdoc! { "clusteredIndex": { "v": 2, "key": { "_id": 1 }, "name": "_id_", "unique": true } }
}

/// Changes as server 6.0.5 told them.
fn told() -> Vec<Step> {
    let rule = rawdoc! { "validator": { "q": { "$gt": 1 } }, "validationLevel": "moderate" };
    let mut expiring = clustered();
    expiring.append(cstr!("expireAfterSeconds"), 1000);
    let ttl = rawdoc! { "v": 2, "key": { "t": 1 }, "name": "ttl", "expireAfterSeconds": 100 };
    vec![
        create(1, "a", rule),
        create(2, "cap", rawdoc! { "capped": true, "size": 5120, "max": 10 }),
        (Some(uuid(3)), "cl", "create", expiring),
        create(4, "col", german()),
        create(5, "pre", rawdoc! { "changeStreamPreAndPostImages": { "enabled": true } }),
        view("v", "create", rawdoc! { "viewOn": "a", "pipeline": [{ "$match": { "z": 1 } }] }),
        view("v", "modify", rawdoc! { "viewOn": "cl", "pipeline": [] }),
        view("v", "drop", rawdoc! {}),
        view("v", "create", rawdoc! { "viewOn": "pre", "pipeline": [] }),
        create(6, "implicit", rawdoc! {}),
        indexes(6, "createIndexes", vec![index("p_1"), index("q_1"), ttl]),
        indexes(1, "createIndexes", vec![index("p_1")]),
        indexes(4, "createIndexes", vec![index("p_simple")]),
        modify(6, rawdoc! { "index": { "name": "ttl", "expireAfterSeconds": 200 } }),
        modify(6, rawdoc! { "index": { "name": "p_1", "hidden": true } }),
        modify(6, rawdoc! {}),
        modify(
            6,
            rawdoc! { "validator": { "a": 1 }, "validationLevel": "strict", "validationAction": "warn" },
        ),
        modify(1, rawdoc! { "validator": {} }),
        modify(1, rawdoc! { "validationLevel": "off" }),
        modify(5, rawdoc! { "changeStreamPreAndPostImages": { "enabled": false } }),
        modify(3, rawdoc! { "expireAfterSeconds": "off" }),
        modify(2, rawdoc! { "cappedSize": 9000, "cappedMax": 20 }),
        indexes(6, "dropIndexes", vec![index("p_1")]),
        indexes(1, "dropIndexes", vec![index("p_1")]),
        create(7, "src", rawdoc! {}),
        create(8, "dst", rawdoc! {}),
        rename(7, "src", "x", "dst", Some(8)),
        dropped(7),
        dropped(2),
        create(9, "tmp.agg_out.1", rawdoc! { "temp": true }),
        rename(9, "tmp.agg_out.1", "x", "outt", None),
        indexes(9, "createIndexes", vec![index("k_1")]),
        create(10, "tmp.agg_out.2", rawdoc! { "temp": true }),
        indexes(10, "createIndexes", vec![index("k_1")]),
        rename(10, "tmp.agg_out.2", "x", "outt", Some(9)),
    ]
}

#[test]
fn the_end_is_what_the_server_lists() {
    let off = rawdoc! { "validationLevel": "off", "validationAction": "error" };
    let warned = rawdoc! { "validator": { "a": 1 }, "validationLevel": "strict", "validationAction": "warn" };
    let ttl = rawdoc! { "v": 2, "key": { "t": 1 }, "name": "ttl", "expireAfterSeconds": 200 };
    let mut cl = listed(3, "cl", clustered(), vec![]);
    cl.indexes =
        vec![rawdoc! { "v": 2, "key": { "_id": 1 }, "name": "_id_", "unique": true, "clustered": true }];
    let expected = [
        listed(1, "a", off, vec![]),
        cl,
        listed(4, "col", german(), vec![index("p_simple")]),
        listed(6, "implicit", warned, vec![index("q_1"), ttl]),
        listed(10, "outt", rawdoc! {}, vec![index("k_1")]),
        listed(5, "pre", rawdoc! {}, vec![]),
        listed_view("v", rawdoc! { "viewOn": "pre", "pipeline": [] }),
    ];
    check([], told(), expected.map(|it| (it, Origin::Created)));
}

#[test]
fn a_listing_of_a_later_moment_leads_to_the_same_end() {
    let listing = |folded: Vec<Folded>| folded.into_iter().map(|it| it.namespace).collect::<Vec<_>>();
    let steps = told();
    let end = listing(fold([], steps.clone()));
    for seen in 0..=steps.len() {
        let later = listing(fold([], steps[..seen].to_vec()));
        let folded = listing(fold(later, steps.clone()));
        assert_eq!(folded.len(), end.len(), "after {seen}");
        assert!(folded.iter().zip(&end).all(|(left, right)| left.is_same_state(right)), "after {seen}");
    }
}

#[test]
fn what_the_changes_do_not_tell_is_unknown() {
    let series = |name| Namespace {
        options: rawdoc! { "timeseries": { "timeField": "t" } },
        ..bare(name, NamespaceKind::Timeseries, Some(uuid(1)))
    };
    let buckets = || rawdoc! { "viewOn": "system.buckets.ts", "pipeline": [] };
    let later = (bare("ts", NamespaceKind::Timeseries, None), Origin::Unknown(LATER_TIMESERIES));
    let (create_it, drop_it) = (view("ts", "create", buckets()), view("ts", "drop", rawdoc! {}));
    check([], [create_it.clone()], [later.clone()]);
    check([series("ts")], [create_it.clone()], [(series("ts"), Origin::Base)]);
    check([series("ts")], [drop_it.clone()], []);
    check([series("ts")], [drop_it, create_it], [later]);
    let modified = (series("ts"), Origin::Unknown(MODIFIED_TIMESERIES));
    check([series("ts")], [view("ts", "modify", buckets())], [modified]);

    let temporary = listed(2, "tmp.x", rawdoc! { "temp": true }, vec![]);
    let create_it = create(2, "tmp.x", rawdoc! { "temp": true });
    check([], [create_it.clone()], [(temporary.clone(), Origin::Created)]);
    let mut restored = fold([], [create_it]);
    leave_out_temporary(&mut restored);
    assert_eq!(restored[0].origin, Origin::Unknown(TEMPORARY));
    let made = listed(2, "made", rawdoc! {}, vec![]);
    check([temporary], [rename(2, "tmp.x", "x", "made", None)], [(made, Origin::Base)]);
    let here = bare("c", NamespaceKind::Collection, Some(uuid(3)));
    let old = listed(4, "c", rawdoc! {}, vec![]);
    let comes = rename(3, "y/c", "x", "c", Some(4));
    check([old], [comes], [(here, Origin::Unknown(FROM_ELSEWHERE))]);
}

#[test]
fn what_was_in_the_base_stays_of_the_base() {
    let mut base = listed(1, "a", rawdoc! {}, vec![]);
    base.unfinished_indexes = vec!["p_1".into()];
    let elsewhere = [
        create(2, "y/b", rawdoc! {}),
        rename(2, "y/b", "y", "a", Some(1)),
        (None, "y/", "dropDatabase", rawdoc! {}),
        (None, "y/a", "shardCollection", rawdoc! {}),
    ];
    check([base.clone()], elsewhere, [(base.clone(), Origin::Base)]);
    let steps = [rename(1, "a", "x", "b", None), indexes(1, "createIndexes", vec![index("p_1")])];
    let finished = listed(1, "b", rawdoc! {}, vec![index("p_1")]);
    check([base.clone()], steps, [(finished, Origin::Base)]);
    check([base.clone()], [dropped(1)], []);
    check([base.clone()], [rename(1, "a", "y", "a", None)], []);
    let view = listed_view("v", rawdoc! { "viewOn": "a", "pipeline": [] });
    check([base, view], [(None, "", "dropDatabase", rawdoc! {})], []);
}

#[test]
fn a_change_that_cannot_be_folded_is_refused() {
    for (step, kind) in [
        ((None, "a", "shardCollection", rawdoc! {}), ErrorKind::Unsupported),
        (modify(1, rawdoc! { "next": 1 }), ErrorKind::Unsupported),
        (rename(1, "tmpA1b2C.convertToCapped.a", "x", "a", Some(2)), ErrorKind::Unsupported),
        ((None, "a", "create", rawdoc! {}), ErrorKind::Corrupt),
        ((Some(uuid(1)), "a", "createIndexes", rawdoc! {}), ErrorKind::Corrupt),
    ] {
        let mut state = DatabaseState::new("x", [listed(1, "a", rawdoc! {}, vec![])]);
        assert_eq!(apply(&mut state, &step).unwrap_err().kind(), kind, "{step:?}");
    }
}
