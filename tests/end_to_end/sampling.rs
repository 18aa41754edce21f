//! What the sample of a backup is for: restored to a server of its own, it shows what was changed after checksums were
//! proved, and leaves nothing.

use std::collections::BTreeSet;

use backup_core::ErrorKind;
use backup_core::compress::{Contents, FrameEncoder, FrameIndex};
use backup_core::flows::open_manifest;
use backup_core::format::{Header, Manifest, ObjectContext, ObjectKey, WorkItem, read_work_items};
use backup_core::id::OperationId;
use backup_core::operation::{OperationKind, OperationState};
use backup_core::ports::{DataKey, DataKeys, ObjectStore};
use backup_core::seal;
use backup_core::settings::Settings;
use bson::doc;
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::own_cloud::{call, nothing_is_left_of_samples, while_watching_samples};
use crate::pipeline::Pipeline;
use crate::process::Outcome;

/// The database of these tests.
pub(crate) const DATABASE: &str = "sampled";
/// One of its collections.
pub(crate) const COLLECTION: &str = "leads";
/// Of about 1 KiB each: one chunk, which is in every sample.
const DOCUMENTS: i32 = 100;
/// Changes that are tried, until an object comes out that is as long as the one it replaces.
const CHANGES: usize = 64;
const OBJECT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Gives the id of a backup that is good.
pub(crate) fn a_re_sealed_chunk_is_caught_by_the_sample(
    fixture: &Fixture,
    pipeline: &Pipeline<'_>,
) -> String {
    let database = fixture.database(DATABASE);
    fixture.fill(&database, COLLECTION, 0, DOCUMENTS);
    fixture.fill(&database, "notes", 0, 10);
    let index = doc! { "key": { "key": 1 }, "name": "by key", "unique": true };
    fixture.command(&database, doc! { "createIndexes": COLLECTION, "indexes": [index] });
    let good = an_honest_backup_is_sampled(fixture, pipeline);
    a_changed_one_is_caught(fixture, pipeline);
    good
}

fn an_honest_backup_is_sampled(fixture: &Fixture, pipeline: &Pipeline<'_>) -> String {
    let (backup, servers) = while_watching_samples(fixture, || fixture.back_up(DATABASE));
    let levels = &backup["detail"]["backup"]["levels"];
    assert!(["L0", "L1", "L2", "L3"].iter().all(|level| levels[level].is_u64()), "{backup}");
    let id = backup["id"].as_str().unwrap().to_owned();
    let place = pipeline.operation(OperationKind::Backup, id.parse().unwrap()).backup_place().unwrap();
    let evidence = fixture.run(pipeline.store.size(ObjectKey::Sampled(place))).unwrap();
    assert!(evidence.is_some(), "there is evidence of the sample");
    let report = fixture.run(pipeline.store.get(ObjectKey::BackupReport(place), OBJECT_BYTES_MAX)).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let rehearsed = &report["sample"]["rehearsed"];
    assert_eq!(rehearsed["documents"], backup["totals"]["documents"], "{report}");
    assert_eq!(rehearsed["indexes"], 1, "{report}");
    let described = rehearsed["server"].as_str().unwrap();
    assert!(described.starts_with("MongoDB ") && described.ends_with("a server of its own"), "{described}");
    are_of_the_layer(&servers);
    nothing_is_left_of_samples(fixture);
    eprintln!("a sample of {} documents on {described}: {servers:?}", rehearsed["documents"]);
    id
}

fn are_of_the_layer(servers: &BTreeSet<String>) {
    let is_of_it = |server: &String| server.contains("/layers/") && server.ends_with("/bin/mongod");
    assert!(!servers.is_empty() && servers.iter().all(is_of_it), "servers of the sample: {servers:?}");
}

/// Whoever may use the key and write the bucket replaces a chunk behind the checksums, by one that opens and differs in
/// one document.
fn a_changed_one_is_caught(fixture: &Fixture, pipeline: &Pipeline<'_>) {
    let id = pipeline.request_backup(DATABASE);
    run_up_to_the_sample(fixture, pipeline, id);
    let row = pipeline.operation(OperationKind::Backup, id);
    assert_eq!(row.state, OperationState::Sealed);
    let manifest = fixture.run(open_manifest(&pipeline.store, &pipeline.keys, &row)).unwrap();
    let name = fixture.run(re_seal_a_chunk(pipeline, &manifest));
    let sample = || step(fixture, "sample-restore", &json!({ "operation": id }));
    let (outcome, servers) = while_watching_samples(fixture, sample);
    let (error_type, message) = outcome.failure(&"sample-restore");
    eprintln!("re-sealed: {error_type}: {message}");
    let kinds = [ErrorKind::Corrupt.name(), ErrorKind::ValidationFailed.name()];
    assert!(kinds.contains(&error_type.as_str()), "{error_type}: {message}");
    assert!(message.contains(&format!("rehearse {name:?}, chunk 0")), "{message}");
    let evidence = ObjectKey::Sampled(row.backup_place().unwrap());
    assert_eq!(fixture.run(pipeline.store.size(evidence)).unwrap(), None, "there is no evidence");
    are_of_the_layer(&servers);
    nothing_is_left_of_samples(fixture);
    ends_as_failed(fixture, pipeline, id, &error_type);
}

/// The steps of the state machine before the sample.
fn run_up_to_the_sample(fixture: &Fixture, pipeline: &Pipeline<'_>, id: OperationId) {
    let once = |name: &str| step(fixture, name, &json!({ "operation": id })).answer(&name);
    let for_each = |name: &str, items: &[WorkItem]| {
        for item in items {
            step(fixture, name, &json!({ "operation": id, "item": item })).answer(&name);
        }
    };
    once("trigger-backup");
    let place = pipeline.operation(OperationKind::Backup, id).backup_place().unwrap();
    let lines = fixture.run(pipeline.store.get(ObjectKey::BackupWork(place), OBJECT_BYTES_MAX)).unwrap();
    let items = read_work_items(&lines).unwrap();
    for_each("dump-chunk", &items);
    once("seal-backup");
    for_each("verify-checksums", &items);
}

fn step(fixture: &Fixture, name: &str, event: &Value) -> Outcome {
    fixture.run(call(&fixture.config, name, event))
}

/// Replaces the first chunk by one with another digit in one document; gives the name of its collection. The manifest
/// stays as it is.
async fn re_seal_a_chunk(pipeline: &Pipeline<'_>, manifest: &Manifest) -> String {
    let Pipeline { store, keys, .. } = pipeline;
    let (entry, chunk) = manifest.chunks().next().unwrap();
    assert_eq!(chunk.ordinal, 0);
    let key = ObjectKey::Chunk(manifest.place(), chunk.ordinal, chunk.stored.attempt);
    let context = manifest.chunk_context(entry, chunk).unwrap();
    let object = store.get(key, OBJECT_BYTES_MAX).await.unwrap();
    let (header, length) = Header::expect(&object, &context).unwrap();
    let data_key = keys.unwrap(&header.wrapped_key, &context).await.unwrap();
    let opened = seal::open(data_key, &context.to_bytes(), &object[length..]).unwrap();
    let documents = zstd::decode_all(opened.as_slice()).unwrap();
    let fresh = keys.generate(&context).await.unwrap();
    let forged = (0..CHANGES).map(|number| sealed(&fresh, &context, &changed(&documents, number)));
    let forged = forged.min_by_key(|it| it.len().abs_diff(object.len())).unwrap();
    eprintln!("a chunk of {} bytes is replaced by one of {}", object.len(), forged.len());
    store.put(key, forged.into()).await.unwrap();
    entry.namespace.name.clone()
}

/// With another digit in the text that the last document ends with.
fn changed(documents: &[u8], number: usize) -> Vec<u8> {
    let mut digits = documents.iter().enumerate().rev().filter(|(_, byte)| byte.is_ascii_hexdigit());
    let (position, _) = digits.nth(number).unwrap();
    let mut changed = documents.to_vec();
    changed[position] = if changed[position] == b'0' { b'1' } else { b'0' };
    changed
}

/// A chunk as `dump-chunk` makes it: one frame, and its index.
fn sealed(key: &DataKey, context: &ObjectContext, documents: &[u8]) -> Vec<u8> {
    let mut contents = Contents::default();
    contents.add(documents).unwrap();
    let mut encoder = FrameEncoder::new(Settings::default().compression_level).unwrap();
    let frame = encoder.encode(documents, contents).unwrap();
    let mut index = FrameIndex::default();
    index.push(&frame);
    let plain = [frame.stored, index.finish().unwrap()].concat();
    let header = Header { context: context.clone(), wrapped_key: key.wrapped.clone() };
    let mut object = header.to_bytes().unwrap();
    object.extend(seal::seal(&key.plain, &context.to_bytes(), &plain).unwrap());
    object
}

/// As the state machine ends it: people are told, and the source is free again.
fn ends_as_failed(fixture: &Fixture, pipeline: &Pipeline<'_>, id: OperationId, error_type: &str) {
    let alerts = fixture.alerts();
    let caught = json!({ "Error": error_type, "Cause": "" });
    let event = json!({ "kind": "backup", "operation": id, "caught": caught });
    step(fixture, "raise-alert", &event).answer(&"raise-alert");
    assert_eq!(fixture.alerts(), alerts + 1, "one alert");
    let row = pipeline.operation(OperationKind::Backup, id);
    assert_eq!(row.state, OperationState::Failed);
    assert_eq!(row.failure.unwrap().step, "sample-restore");
    assert!(fixture.lease_holder().is_null());
}
