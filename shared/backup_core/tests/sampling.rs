//! Samples of backups, restored over ports in memory: what comes back as another is found, and nothing is left open.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use async_trait::async_trait;
use backup_core::compress::{Contents, FrameEncoder, FrameIndex};
use backup_core::flows::sample_restore;
use backup_core::format::{
    Header, Manifest, ObjectContext, ObjectKey, ObjectKind, Opened, Sampled, open_json, seal_json,
};
use backup_core::id::OperationId;
use backup_core::operation::{Level, OperationKind, OperationState};
use backup_core::plan::sample::seed_of;
use backup_core::ports::{DataKeys, ObjectStore, Scratch, ScratchDatabase, Target};
use backup_core::{ErrorKind, Result};
use backup_testkit::fixture::{Step, World, lead};
use backup_testkit::{Faults, MemoryCluster};
use bson::rawdoc;
use bytes::Bytes;
use sha2::{Digest, Sha256};

const CHECKS: &str = "configuration/checks.json";

/// A backup that is sealed and verified, and not closed.
async fn sealed(world: &World) -> OperationId {
    let id = world.request_backup(false).await;
    world.step(&Faults::none(), id, Step::TriggerBackup).await.unwrap();
    for step in world.steps_after_plan(OperationKind::Backup, id).await {
        if matches!(step, Step::DumpChunk(_) | Step::SealBackup | Step::VerifyChecksums(_)) {
            world.step(&Faults::none(), id, step).await.unwrap();
        }
    }
    id
}

async fn sample(world: &World, id: OperationId) -> Result<()> {
    world.step(&Faults::none(), id, Step::SampleRestore).await
}

async fn opened(world: &World, id: OperationId) -> Opened<Manifest> {
    let operation = world.operation(OperationKind::Backup, id).await;
    let key = ObjectKey::Manifest(operation.backup_place().unwrap());
    let context = ObjectContext::of_operation(ObjectKind::Manifest, operation.source, id);
    open_json(&world.keys, &context, &world.store.get(key, u64::MAX).await.unwrap()).await.unwrap()
}

/// The evidence, if there is any.
async fn evidence(world: &World, id: OperationId) -> Option<Sampled> {
    let opened = opened(world, id).await;
    let key = ObjectKey::Sampled(opened.value.place());
    let stored = world.store.get(key, u64::MAX).await.ok()?;
    Some(opened.evidence.check(key, &stored).unwrap())
}

/// It was refused for this reason and says so, and there is no evidence.
async fn refused(world: &World, id: OperationId, kind: ErrorKind, named: &[&str]) {
    let why = sample(world, id).await.unwrap_err();
    let told = why.to_string();
    assert_eq!(why.kind(), kind, "{told}");
    assert!(named.iter().all(|name| told.contains(name)), "{named:?} in {told}");
    assert!(evidence(world, id).await.is_none(), "{told}");
    assert_eq!(world.scratch.opened(), world.scratch.closed(), "{told}");
}

#[tokio::test]
async fn a_sample_is_restored_and_found_equal() {
    let world = World::with_data();
    let id = sealed(&world).await;
    let live = world.cluster.contents();
    sample(&world, id).await.unwrap();
    assert_eq!((world.scratch.opened(), world.scratch.closed()), (1, 1));
    assert_eq!(world.cluster.contents(), live, "the source has nothing to do with it");
    let found = evidence(&world, id).await.unwrap();
    assert_eq!((found.seed, &found.skipped), (seed_of(id), &None));
    let rehearsed = found.rehearsed.unwrap();
    let manifest = opened(&world, id).await.value;
    let restored: BTreeSet<u32> = rehearsed.ordinals.iter().copied().collect();
    let with_documents = || manifest.chunks().filter(|(_, chunk)| chunk.stored.documents > 0);
    let newest = with_documents().max_by_key(|(_, it)| (it.stored.cluster_time, it.ordinal)).unwrap().1;
    let smallest = with_documents().min_by_key(|(_, it)| it.stored.bson_bytes).unwrap().1;
    assert!(restored.contains(&newest.ordinal) && restored.contains(&smallest.ordinal), "{restored:?}");
    let of_sample = manifest.chunks().filter(|(_, chunk)| restored.contains(&chunk.ordinal));
    assert_eq!(rehearsed.documents, of_sample.map(|(_, chunk)| chunk.stored.documents).sum::<u64>());
}

#[tokio::test]
async fn a_repeat_changes_nothing() {
    let world = World::with_data();
    let id = sealed(&world).await;
    sample(&world, id).await.unwrap();
    let objects = world.store.objects();
    sample(&world, id).await.unwrap();
    assert_eq!(world.store.objects(), objects);
    assert_eq!(world.scratch.opened(), 1);
    let early = world.request_backup(false).await;
    assert_eq!(sample(&world, early).await.unwrap_err().kind(), ErrorKind::Internal, "nothing is sealed yet");
    let world = World::with_data();
    let id = world.back_up().await;
    assert_eq!(world.operation(OperationKind::Backup, id).await.state, OperationState::Verified);
    let objects = world.store.objects();
    sample(&world, id).await.unwrap();
    assert_eq!(world.store.objects(), objects, "the backup is closed");
}

#[tokio::test]
async fn killed_anywhere_and_run_again_it_leaves_what_one_run_leaves() {
    let world = World::with_data();
    let id = sealed(&world).await;
    let (before, row) = (world.store.objects(), world.operation(OperationKind::Backup, id).await);
    sample(&world, id).await.unwrap();
    let expected = world.store.objects();
    for boundary in 0.. {
        for path in world.store.objects().keys().filter(|path| !before.contains_key(*path)) {
            world.store.lose(path);
        }
        let faults = Faults::at(boundary);
        let died = world.step(&faults, id, Step::SampleRestore).await.is_err();
        if !died && faults.boundaries() <= boundary {
            return;
        }
        sample(&world, id).await.unwrap();
        assert_eq!(world.store.objects(), expected, "killed at {boundary}");
        assert_eq!(world.operation(OperationKind::Backup, id).await, row, "killed at {boundary}");
    }
}

#[tokio::test]
async fn without_a_server_the_evidence_says_that_it_was_skipped() {
    let world = World::with_data();
    world.scratch.set_missing(true);
    let id = sealed(&world).await;
    sample(&world, id).await.unwrap();
    let found = evidence(&world, id).await.unwrap();
    assert!(found.rehearsed.is_none() && found.skipped.is_some(), "{found:?}");
    assert_eq!(world.operation(OperationKind::Backup, id).await.state, OperationState::Sealed);
    let views = World::default();
    views.cluster.define("active", &rawdoc! { "viewOn": "leads", "pipeline": [] });
    let id = sealed(&views).await;
    sample(&views, id).await.unwrap();
    assert!(evidence(&views, id).await.unwrap().skipped.is_some());
    assert_eq!(views.scratch.opened(), 0, "there is nothing to restore");
}

#[tokio::test]
async fn a_good_backup_is_good_though_nobody_can_be_told_that_no_sample_was_taken() {
    let world = World::with_data();
    let id = sealed(&world).await;
    world.alerts.set_broken(Some(ErrorKind::Transient));
    let told = world.step(&Faults::none(), id, Step::Close).await.unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Transient, "it is tried again");
    world.alerts.set_broken(Some(ErrorKind::Denied));
    world.step(&Faults::none(), id, Step::Close).await.unwrap();
    let backup = world.operation(OperationKind::Backup, id).await;
    assert_eq!(backup.state, OperationState::Verified);
    assert!(!backup.backup().unwrap().levels.contains_key(&Level::SampleRestored));
}

#[tokio::test]
async fn a_damaged_chunk_is_named() {
    let world = World::with_data();
    let id = sealed(&world).await;
    for (path, body) in world.store.objects().into_iter().filter(|(path, _)| path.contains("/chunks/")) {
        let mut damaged = body.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        world.store.tamper(&path, damaged.into());
    }
    refused(&world, id, ErrorKind::Corrupt, &["rehearse \"", ", chunk "]).await;
    for path in world.store.objects().keys().filter(|path| path.contains("/chunks/")) {
        world.store.lose(path);
    }
    refused(&world, id, ErrorKind::Corrupt, &["rehearse \"", ", chunk ", "missing"]).await;
}

/// Seals the chunk of `messages` anew, with another first document, as somebody can who may use the key. The object,
/// and a manifest in which it looks genuine.
async fn reseal(world: &World, manifest: &mut Manifest) -> (ObjectKey, Bytes) {
    let entry = manifest.namespaces.iter().position(|it| it.namespace.name == "messages").unwrap();
    let context = manifest.chunk_context(&manifest.namespaces[entry], &manifest.namespaces[entry].chunks[0]);
    let (context, place) = (context.unwrap(), manifest.place());
    let changed = [rawdoc! { "_id": 0, "name": "forged" }].into_iter().chain((1..5).map(lead));
    let documents: Vec<u8> = changed.flat_map(bson::RawDocumentBuf::into_bytes).collect();
    let (mut contents, mut index) = (Contents::default(), FrameIndex::default());
    contents.add(&documents).unwrap();
    let frame = FrameEncoder::new(3).unwrap().encode(&documents, contents.clone()).unwrap();
    index.push(&frame);
    let plain = [frame.stored, index.finish().unwrap()].concat();
    let key = world.keys.generate(&context).await.unwrap();
    let bound = context.to_bytes();
    let mut object = Header { context, wrapped_key: key.wrapped }.to_bytes().unwrap();
    object.extend(backup_core::seal::seal(&key.plain, &bound, &plain).unwrap());
    let chunk = &mut manifest.namespaces[entry].chunks[0];
    let at = ObjectKey::Chunk(place, chunk.ordinal, chunk.stored.attempt);
    chunk.stored.bson_bytes = contents.plain_bytes;
    chunk.stored.document_hash = contents.hash;
    chunk.stored.stored_bytes = u64::try_from(object.len()).unwrap();
    chunk.stored.stored_sha256 = hex::encode(Sha256::digest(&object));
    assert_eq!(chunk.stored.documents, contents.documents);
    (at, object.into())
}

/// Where manifest and row are forged with the chunk, a sample cannot know: the proof of the chain can.
#[tokio::test]
async fn a_chunk_that_was_sealed_anew_is_found_as_long_as_the_manifest_is_genuine() {
    let world = World::with_data();
    let id = sealed(&world).await;
    let mut manifest = opened(&world, id).await.value;
    let (at, object) = reseal(&world, &mut manifest).await;
    world.store.tamper(&at.to_path().unwrap(), object);
    refused(&world, id, ErrorKind::Corrupt, &["rehearse \"messages\", chunk "]).await;
    let context = ObjectContext::of_operation(ObjectKind::Manifest, manifest.source, id);
    let forged = seal_json(&world.keys, context, &manifest).await.unwrap();
    let sha256 = hex::encode(Sha256::digest(&forged));
    world.store.tamper(&ObjectKey::Manifest(manifest.place()).to_path().unwrap(), forged.into());
    refused(&world, id, ErrorKind::Corrupt, &["manifest.json.sealed"]).await;
    world.catalog.tamper(OperationKind::Backup, id, |row| {
        row.backup_mut().unwrap().manifest_sha256 = Some(sha256);
    });
    sample(&world, id).await.unwrap();
    assert!(evidence(&world, id).await.unwrap().rehearsed.is_some());
}

/// A server that holds something already, so that what it gives back is not what it took.
struct Occupied(MemoryCluster);

#[async_trait]
impl Scratch for Occupied {
    async fn open(&self) -> Result<Box<dyn ScratchDatabase>> {
        Ok(Box::new(Self(self.0.clone())))
    }
}

#[async_trait]
impl ScratchDatabase for Occupied {
    fn target(&self) -> &dyn Target {
        &self.0
    }
    fn database(&self) -> &'static str {
        "scratch"
    }
    fn description(&self) -> &'static str {
        "occupied"
    }
    async fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_does_not_come_back_as_it_was_is_named() {
    let world = World::with_data();
    let id = sealed(&world).await;
    let manifest = opened(&world, id).await.value;
    let check = async |occupy: &dyn Fn(&MemoryCluster, &str), named: &[&str]| {
        let cluster = MemoryCluster::default();
        (0..manifest.namespaces.len()).for_each(|number| occupy(&cluster, &format!("rehearsed.{number}")));
        let World { store, keys, catalog, clock, .. } = &world;
        let scratch = &Occupied(cluster);
        let ports = sample_restore::Ports { store, keys, catalog, scratch, clock };
        let why = sample_restore::run(ports, id).await.unwrap_err();
        assert_eq!(why.kind(), ErrorKind::ValidationFailed, "{why}");
        assert!(named.iter().all(|name| why.to_string().contains(name)), "{named:?} in {why}");
        assert!(evidence(&world, id).await.is_none());
    };
    let documents = ["rehearse \"", ", chunk "];
    let others = |cluster: &MemoryCluster, name: &str| {
        cluster.fill(name, (0..80).map(|n| rawdoc! { "_id": n, "other": true }));
    };
    check(&others, &documents).await;
    let more = |cluster: &MemoryCluster, name: &str| {
        cluster.fill(name, (-3..0).map(|n| rawdoc! { "_id": n }));
    };
    check(&more, &["documents came back of"]).await;
    let capped = |cluster: &MemoryCluster, name: &str| {
        cluster.define(name, &rawdoc! { "capped": true, "size": 4096 });
    };
    check(&capped, &["its options are not the backup's"]).await;
}

fn checks(check: &str) -> Bytes {
    format!(r#"{{"format":1,"checks":[{{"name":"no score of 3",{check}}}]}}"#).into()
}

/// A sample of a new backup, with such a check.
async fn sampled_with(check: &str) -> Sampled {
    let world = World::with_data();
    let id = sealed(&world).await;
    world.store.tamper(CHECKS, checks(check));
    sample(&world, id).await.unwrap();
    evidence(&world, id).await.unwrap()
}

#[tokio::test]
async fn the_owners_checks_are_counted_and_judged() {
    let crm = r#""database":"crm","collection":"leads""#;
    // The data is what was backed up, whatever the owner thinks of it: the sample is good, and the failure is told.
    for (check, says) in [
        (format!(r#"{crm},"filter":{{"score":3}},"at_most":0"#), "no score of 3"),
        (format!(r#"{crm},"filter":{{"$where":"sleep(1000)"}},"at_most":0"#), "no score of 3"),
        (r#""database":"crm","collection":"active","filter":{},"at_least":1"#.to_owned(), "view"),
    ] {
        let found = sampled_with(&check).await;
        assert!(found.rehearsed.is_some_and(|it| it.documents > 0), "{check}");
        assert!(found.checks_failed.is_some_and(|why| why.contains(says)), "{check}");
    }
    // Other databases have other backups.
    let found = sampled_with(r#""database":"shop","collection":"leads","filter":{},"at_most":0"#).await;
    assert_eq!((found.rehearsed.unwrap().counts.len(), found.checks_failed), (0, None));
    // Of a part it cannot be known that there are too few.
    let found = sampled_with(&format!(r#"{crm},"filter":{{"score":3}},"at_least":1000"#)).await;
    assert_eq!(found.checks_failed, None);
    let counts = found.rehearsed.unwrap().counts;
    assert_eq!(counts.len(), 1);
    assert!((1..1000).contains(&counts[0].count), "{counts:?}");
}
