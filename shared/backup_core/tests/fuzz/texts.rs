//! Text: manifests, plans, results and work items as JSON; ids and names.

use std::collections::HashSet;
use std::fmt::{Debug, Display};
use std::str::FromStr;

use backup_core::compress::compress_whole;
use backup_core::document_hash::DocumentHash;
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::format::{
    BackupPlace, BackupPlan, ChunkResult, Header, Manifest, ObjectContext, ObjectKey, ObjectKind, Opened,
    RestorePlace, VerifiedChunks, WorkItem, open_json, read_work_items, write_work_items,
};
use backup_core::id::{Attempt, ClusterTime, CollectionUuid, OperationId, SourceName};
use backup_core::namespace::OwnName;
use backup_core::operation::Trigger;
use backup_core::plan::metadata::{creation_options, index_specs, last_options};
use backup_core::plan::restore::{RestorePlan, plan};
use backup_core::ports::DataKeys;
use backup_core::seal::seal;
use backup_testkit::MemoryKeys;
use backup_testkit::hostile::{self, Draw, SECRET, assert_discreet};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bolero::check;
use bson::{RawDocumentBuf, rawdoc};
use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const ID: &str = "01KAMW1V2Q3R4S5T6V7W8X9YZA";
const DIGITS_32: &str = "0123456789abcdef0123456789abcdef";
const DIGITS_64: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The value in `json`, if it has one. Written and read again, it is the same, in the same bytes.
pub(crate) fn comes_back<T>(json: &[u8]) -> Option<T>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let value: T = serde_json::from_slice(json).ok()?;
    let written = serde_json::to_vec(&value).unwrap();
    let again: T =
        serde_json::from_slice(&written).unwrap_or_else(|why| panic!("cannot be read again: {why}"));
    assert_eq!(again, value);
    assert_eq!(serde_json::to_vec(&again).unwrap(), written);
    Some(value)
}

/// The same of a sealed object with `json` in it, whose errors must be discreet.
fn opens<T>(kind: ObjectKind, json: &[u8]) -> Option<T>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let keys = MemoryKeys::default();
    let context =
        ObjectContext::of_operation(kind, "main".parse().unwrap(), OperationId::from_bytes([1; 16]));
    let key = keys.generate(&context).now_or_never().unwrap().unwrap();
    let sealed = seal(&key.plain, &context.to_bytes(), &compress_whole(json).unwrap()).unwrap();
    let mut object = Header { context: context.clone(), wrapped_key: key.wrapped }.to_bytes().unwrap();
    object.extend(sealed);
    let opened: Result<Opened<T>> = open_json(&keys, &context, &object).now_or_never().unwrap();
    let parsed = comes_back(json);
    if let Err(why) = &opened {
        assert_eq!(why.kind(), ErrorKind::Corrupt);
        assert_discreet(why);
    }
    assert_eq!(opened.ok().map(|opened| opened.value), parsed, "the sealed form is read differently");
    parsed
}

fn encoded(document: &RawDocumentBuf) -> String {
    STANDARD.encode(document.as_bytes())
}

fn stored() -> Value {
    json!({
        "attempt": ID, "cluster_time": "1795312807,5", "documents": 3, "bson_bytes": 900, "stored_bytes": 700,
        "stored_sha256": DIGITS_64, "document_hash": DIGITS_64,
    })
}

fn namespace(name: &str, kind: &str) -> Value {
    let options = rawdoc! { "expireAfterSeconds": 60, "collation": { "locale": SECRET } };
    let indexes = [
        rawdoc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" },
        rawdoc! { "v": 2, "key": { "zebra": 1 }, "name": SECRET, "expireAfterSeconds": 9 },
    ];
    json!({
        "name": name, "kind": kind, "uuid": if kind == "view" { Value::Null } else { json!(DIGITS_32) },
        "options": encoded(&options), "indexes": indexes.map(|index| encoded(&index)),
        "unfinished_indexes": [SECRET],
    })
}

/// The two halves of everything.
fn ranges() -> [Value; 2] {
    let bound = encoded(&rawdoc! { "_id": SECRET });
    [json!({ "lower": null, "upper": bound }), json!({ "lower": bound, "upper": null })]
}

fn manifest() -> Value {
    let [lower, upper] = ranges();
    json!({
        "format": 1, "backup": ID, "source": "main", "database": SECRET, "collections": [SECRET],
        "trigger": "manual", "server_version": "8.0.4", "cluster_time": "1795312807,5",
        "consistency": "single-instant", "sealed_at": "2026-11-22T02:00:07.042Z",
        "namespaces": [
            {
                "namespace": namespace(SECRET, "collection"), "label": "exact", "reason": null, "notes": [SECRET],
                "chunks": [
                    { "ordinal": 0, "range": lower, "stored": stored() },
                    { "ordinal": 1, "range": upper, "stored": stored() },
                ],
            },
            {
                "namespace": namespace("view", "view"), "label": "not-captured", "reason": SECRET, "notes": [],
                "chunks": [],
            },
        ],
    })
}

fn backup_plan() -> Value {
    let [lower, upper] = ranges();
    json!({
        "database": SECRET, "collections": [SECRET], "server_version": "8.0.4",
        "cluster_time": "1795312807,5", "metadata_is_exact": true,
        "namespaces": [{
            "namespace": namespace(SECRET, "timeseries"), "label": "base-only", "reason": SECRET,
            "document_bytes_hint": 300, "expected_bytes": 900,
            "chunks": [{ "ordinal": 0, "range": lower }, { "ordinal": 1, "range": upper }],
        }],
    })
}

fn restore_plan() -> Value {
    let options = encoded(&rawdoc! { "capped": true, "size": 4096 });
    let live = json!({ "kind": "collection", "uuid": DIGITS_32, "options": options });
    json!({
        "backup": ID, "database": SECRET, "consistency": "mosaic", "cluster_time": "1795312807,5",
        "items": [{
            "number": 0, "name": SECRET, "kind": "collection", "label": "fuzzy", "documents": 3,
            "bson_bytes": 900, "options": options, "live": live, "staging": DIGITS_32,
        }],
        "extras": [{ "number": 1, "name": SECRET, "live": live }],
        "left_out": [{ "name": SECRET, "reason": SECRET }],
        "work": [{ "first": 0, "count": 2 }],
    })
}

#[test]
fn manifests() {
    let valid = manifest();
    opens::<Manifest>(ObjectKind::Manifest, valid.to_string().as_bytes()).unwrap().check().unwrap();
    check!().for_each(|input: &[u8]| {
        let text = hostile::json(&valid, &mut Draw::new(input));
        let Some(manifest) = opens::<Manifest>(ObjectKind::Manifest, &text) else { return };
        if let Err(why) = manifest.check() {
            assert!(matches!(why.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported));
            assert_discreet(&why);
            return;
        }
        // What was checked can be used.
        let totals = manifest.totals();
        assert_eq!(totals.chunks, u64::try_from(manifest.chunks().count()).unwrap());
        for (namespace, chunk) in manifest.chunks() {
            assert_eq!(manifest.chunk_context(namespace, chunk).unwrap().ordinal, chunk.ordinal);
        }
        for entry in &manifest.namespaces {
            let _ = creation_options(&entry.namespace);
            let _ = index_specs(&entry.namespace);
            let _ = last_options(&entry.namespace);
        }
        plan(&manifest, &[], true, &[], Vec::new()).unwrap();
    });
}

#[test]
fn plans() {
    let (of_backup, of_restore) = (backup_plan(), restore_plan());
    assert!(opens::<BackupPlan>(ObjectKind::Plan, of_backup.to_string().as_bytes()).is_some());
    assert!(opens::<RestorePlan>(ObjectKind::Plan, of_restore.to_string().as_bytes()).is_some());
    check!().for_each(|input: &[u8]| {
        let mut draw = Draw::new(input);
        if draw.byte() % 2 == 1 {
            opens::<RestorePlan>(ObjectKind::Plan, &hostile::json(&of_restore, &mut draw));
        } else {
            opens::<BackupPlan>(ObjectKind::Plan, &hostile::json(&of_backup, &mut draw));
        }
    });
}

#[test]
fn results() {
    let captured = json!({ "ordinal": 0, "outcome": { "captured": stored() } });
    let dropped = json!({ "ordinal": 0, "outcome": "dropped" });
    let verified = json!({ "ordinals": [0, 1, 2], "documents": 4115 });
    assert!(comes_back::<ChunkResult>(captured.to_string().as_bytes()).is_some());
    assert!(comes_back::<ChunkResult>(dropped.to_string().as_bytes()).is_some());
    assert!(comes_back::<VerifiedChunks>(verified.to_string().as_bytes()).is_some());
    let all = [captured, dropped, verified];
    check!().for_each(|input: &[u8]| {
        let mut draw = Draw::new(input);
        let valid = &all[usize::from(draw.byte()) % all.len()];
        let text = hostile::json(valid, &mut draw);
        comes_back::<ChunkResult>(&text);
        comes_back::<VerifiedChunks>(&text);
    });
}

#[test]
fn work_items() {
    let items = [WorkItem { first: 0, count: 5 }, WorkItem { first: 5, count: 1 }];
    let lines = write_work_items(&items).unwrap();
    let line = json!(items[0]);
    check!().for_each(|input: &[u8]| {
        let mut draw = Draw::new(input);
        let text = match draw.byte() % 2 {
            0 => hostile::bytes(&lines, &mut draw),
            _ => hostile::json(&line, &mut draw),
        };
        match read_work_items(&text) {
            Ok(items) => {
                let written = write_work_items(&items).unwrap();
                assert_eq!(read_work_items(&written).unwrap(), items);
            }
            Err(why) => {
                assert!(text != lines, "valid work items are refused: {why}");
                assert_eq!(why.kind(), ErrorKind::Corrupt);
                assert_discreet(&why);
            }
        }
    });
}

#[test]
fn ids() {
    let valid = [ID, "prod-eu-1", "1795312807,5", DIGITS_32, DIGITS_64];
    check!().for_each(|input: &[u8]| {
        let mut draw = Draw::new(input);
        let valid = valid[usize::from(draw.byte()) % valid.len()];
        let bytes = hostile::bytes(valid.as_bytes(), &mut draw);
        let text = String::from_utf8_lossy(&bytes);
        has_one_spelling::<OperationId>(&text);
        has_one_spelling::<Attempt>(&text);
        has_one_spelling::<SourceName>(&text);
        has_one_spelling::<ClusterTime>(&text);
        has_one_spelling::<CollectionUuid>(&text);
        has_one_spelling::<DocumentHash>(&text);
    });
}

fn has_one_spelling<T: FromStr<Err = Error> + Display>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => assert_eq!(value.to_string(), text),
        // An id that an operator typed is told, but for its length; nothing else reads ids that are not JSON.
        Err(why) => assert!(why.kind() == ErrorKind::Invalid && why.to_string().len() < 1000),
    }
}

#[test]
fn own_names() {
    let id: OperationId = ID.parse().unwrap();
    let valid = [
        OwnName::Staging(id, 0),
        OwnName::Aside(id, u32::MAX),
        OwnName::Filling(id, 7),
        OwnName::Filled(id, 8),
    ];
    check!().for_each(|input: &[u8]| {
        let mut draw = Draw::new(input);
        let own = valid[usize::from(draw.byte()) % valid.len()];
        let name = own.to_string();
        assert_eq!(OwnName::parse(&name), Some(own));
        let bytes = hostile::bytes(name.as_bytes(), &mut draw);
        let name = String::from_utf8_lossy(&bytes);
        if let Some(own) = OwnName::parse(&name) {
            assert_eq!(own.to_string(), name, "a user's name is taken for one of ours");
        }
    });
}

/// 9999-01-01. Years of more digits cannot be told in a key.
const YEAR_9999_MILLIS: u64 = 253_370_764_800_000;

#[test]
fn object_keys() {
    check!().for_each(|input: &[u8]| {
        let mut draw = Draw::new(input);
        let id = OperationId::from_bytes(draw.bytes(16).try_into().unwrap());
        let trigger = if draw.byte() % 2 == 1 { Trigger::Automated } else { Trigger::Manual };
        let keys = every_key(BackupPlace { trigger, backup: id }, RestorePlace(id), u32::from(draw.byte()));
        match keys.iter().map(ObjectKey::to_path).collect::<Result<HashSet<String>>>() {
            Ok(paths) => {
                assert_eq!(paths.len(), keys.len(), "two keys have one path: {paths:?}");
                assert!(paths.iter().all(|path| is_safe(path)), "{paths:?}");
            }
            Err(why) => {
                assert_eq!(why.kind(), ErrorKind::Invalid);
                assert!(id.requested_millis() >= YEAR_9999_MILLIS);
            }
        }
    });
}

fn every_key(backup: BackupPlace, restore: RestorePlace, ordinal: u32) -> [ObjectKey; 13] {
    let attempt: Attempt = restore.0.to_string().parse().unwrap();
    [
        ObjectKey::Manifest(backup),
        ObjectKey::BackupPlan(backup),
        ObjectKey::BackupWork(backup),
        ObjectKey::Chunk(backup, ordinal, attempt),
        ObjectKey::ChunkResult(backup, ordinal),
        ObjectKey::Verified(backup, ordinal),
        ObjectKey::BackupReport(backup),
        ObjectKey::RestorePlan(restore),
        ObjectKey::RestoreWork(restore),
        ObjectKey::Inserted(restore, ordinal),
        ObjectKey::Validated(restore, ordinal),
        ObjectKey::Proved(backup, ordinal),
        ObjectKey::Slice("main".parse().unwrap(), ClusterTime { seconds: ordinal, ordinal }, attempt),
    ]
}

fn is_safe(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    path.split('/').all(|part| !part.is_empty() && part != ".." && part.bytes().all(is_plain))
}
