//! Bombs behind a valid seal. Whoever may use the key and write the bucket and the catalog can forge a backup that
//! looks whole: a few hundred kilobytes that decompress to gigabytes. Verifying and restoring it are refused soon, and
//! within the memory of the smallest function (the local AWS sets no limit, so the test does).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use backup_core::error::ErrorKind;
use backup_core::flows::open_manifest;
use backup_core::format::{
    BackupPlace, Captured, Header, Manifest, ObjectContext, ObjectKey, ObjectKind, seal_json,
};
use backup_core::id::{Attempt, OperationId};
use backup_core::operation::{BackupDetail, Detail, Operation, OperationKind, OperationState, Trigger};
use backup_core::ports::{Catalog, DataKeys, ObjectStore};
use backup_core::seal;
use serde_json::{Value, json};

use crate::breakage::Fault;
use crate::fixture::Fixture;
use crate::hostile_events::{fresh_id, invoke};
use crate::process::Outcome;
use crate::refusals::{Case, Scene, print_row};

const MIB: usize = 1024 * 1024;
/// What the smallest function that opens sealed objects has (`infra/template.yaml`).
const MEMORY_KIB: usize = 512 * 1024;
const FOUR_GIB: u64 = 4 * 1024 * 1024 * 1024;
/// A frame that wants a window of 2 GiB, and has one empty block.
const WIDE_WINDOW: [u8; 9] = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
/// Brackets, opened and never closed.
const BRACKETS: usize = 1_000_000;

/// Four gibibytes of zeros, compressed.
fn zeros() -> Vec<u8> {
    zstd::bulk::compress(&vec![0; 64 * MIB], 3).unwrap().repeat(64)
}

/// What it is, the backup that has it, and what is said of it.
type Bomb = (&'static str, OperationId, &'static str);

pub(crate) fn bombs_behind_a_valid_seal_are_refused(fixture: &Fixture) {
    let mut scene = Scene::open(fixture, "bombed");
    let good = fixture.back_up("bombed")["id"].as_str().unwrap().to_owned();
    let template = template(&scene, &good);
    let forger = Forger { scene: &scene, template: &template };
    let (manifests, chunks) = (forger.manifests(), forger.chunks());
    let directory = tempfile::tempdir().unwrap();
    let bootstrap = limited(fixture, directory.path(), MEMORY_KIB);
    for bomb in manifests {
        refuses_to_plan(&mut scene, &bootstrap, bomb);
    }
    for bomb in chunks {
        refuses_to_verify_and_restore(&mut scene, &bootstrap, bomb);
    }
    the_limit_is_real(fixture, directory.path());
    let [(_, manifest, _), ..] = manifests;
    let [(_, chunk, _), ..] = chunks;
    for (name, backup, path, alerts) in [
        ("restore from a manifest of 4 GiB", manifest, "manifest.json.sealed", 1),
        ("restore from a chunk of 4 GiB", chunk, "/chunks/0-", 2), // one that it began
    ] {
        scene.check(&Case {
            name,
            fault: Fault::Nothing,
            line: &format!("./restore.sh -d bombed --full --yes --backup {backup}"),
            exit: 4,
            says: &[path, "more than"],
            hint: "--backup",
            alerts,
        });
    }
    let restored = fixture.json("./restore.sh", &["-d", "bombed", "--full", "--yes", "--backup", &good]);
    assert_eq!(restored["state"], "restored");
    scene.close();
}

fn brackets() -> Vec<u8> {
    zstd::bulk::compress("[".repeat(BRACKETS).as_bytes(), 3).unwrap()
}

/// The manifest of a real backup.
fn template(scene: &Scene<'_>, backup: &str) -> Manifest {
    let row = scene.pipeline.operation(OperationKind::Backup, backup.parse().unwrap());
    let opened = open_manifest(&scene.pipeline.store, &scene.pipeline.keys, &row);
    scene.fixture.run(opened).unwrap()
}

/// A bootstrap that gets no more memory than this.
fn limited(fixture: &Fixture, directory: &Path, memory_kib: usize) -> PathBuf {
    let path = directory.join(format!("bootstrap-{memory_kib}"));
    let bootstrap = fixture.bootstrap();
    let script = format!("#!/bin/sh\nulimit -d {memory_kib} && exec '{}'\n", bootstrap.display());
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

/// Else the cases above would show nothing.
fn the_limit_is_real(fixture: &Fixture, directory: &Path) {
    let event = json!({ "operation": fresh_id() });
    let outcome = invoke(fixture, &limited(fixture, directory, 1024), "close", &event);
    assert!(matches!(outcome, Outcome::Died), "{outcome:?}");
}

/// An insider: uses the key and writes everything, but none of our steps.
struct Forger<'a> {
    scene: &'a Scene<'a>,
    template: &'a Manifest,
}

impl Forger<'_> {
    fn manifests(&self) -> [Bomb; 3] {
        [
            ("a manifest of 4 GiB", self.manifest(&zeros()), "more than"),
            ("a manifest with a window of 2 GiB", self.manifest(&WIDE_WINDOW), "decompress"),
            ("a manifest of brackets", self.manifest(&brackets()), "unexpected JSON"),
        ]
    }

    fn chunks(&self) -> [Bomb; 3] {
        [
            ("a chunk of 4 GiB, told as 1 KB", self.chunk(1000, &zeros()), "more than"),
            ("a chunk of 4 GiB of zeros, told as such", self.chunk(FOUR_GIB, &zeros()), "a length is wrong"),
            ("a chunk with a window of 2 GiB", self.chunk(1000, &WIDE_WINDOW), "decompress a frame"),
        ]
    }

    /// A backup whose manifest decompresses to this.
    fn manifest(&self, zstd: &[u8]) -> OperationId {
        let id = fresh_id();
        let context = ObjectContext::of_operation(ObjectKind::Manifest, self.template.source, id);
        let object = self.sealed(&context, zstd);
        self.put(ObjectKey::Manifest(place(id)), object);
        self.list(id);
        id
    }

    /// A backup of one chunk that decompresses to this, and of which the manifest tells so many bytes.
    fn chunk(&self, bson_bytes: u64, zstd: &[u8]) -> OperationId {
        let id = fresh_id();
        let mut manifest = Manifest { backup: id, ..self.template.clone() };
        let entry = &manifest.namespaces[0];
        assert_eq!((manifest.namespaces.len(), entry.chunks.len()), (1, 1));
        let object = self.sealed(&manifest.chunk_context(entry, &entry.chunks[0]).unwrap(), zstd);
        let attempt = Attempt::generate(id.requested_millis()).unwrap();
        let stored = &mut manifest.namespaces[0].chunks[0].stored;
        // Count and hashes are compared at the end, which is never reached.
        let stored_bytes = u64::try_from(object.len()).unwrap();
        *stored = Captured { attempt, bson_bytes, stored_bytes, ..stored.clone() };
        self.put(ObjectKey::Chunk(place(id), 0, attempt), object);
        let context = ObjectContext::of_operation(ObjectKind::Manifest, manifest.source, id);
        let keys = &self.scene.pipeline.keys;
        let sealed = self.scene.fixture.run(seal_json(keys, context, &manifest)).unwrap();
        self.put(ObjectKey::Manifest(place(id)), sealed);
        self.list(id);
        id
    }

    fn sealed(&self, context: &ObjectContext, plain: &[u8]) -> Vec<u8> {
        let key = self.scene.fixture.run(self.scene.pipeline.keys.generate(context)).unwrap();
        let header = Header { context: context.clone(), wrapped_key: key.wrapped };
        let mut object = header.to_bytes().unwrap();
        object.extend(seal::seal(&key.plain, &context.to_bytes(), plain).unwrap());
        object
    }

    fn put(&self, key: ObjectKey, object: Vec<u8>) {
        self.scene.fixture.run(self.scene.pipeline.store.put(key, object.into())).unwrap();
    }

    /// Adds the row of a backup that was verified, without the manifest's checksum: then none is compared.
    fn list(&self, id: OperationId) {
        let detail = BackupDetail {
            cluster_time: Some(self.template.cluster_time),
            consistency: Some(self.template.consistency),
            ..BackupDetail::requested(Trigger::Manual, false)
        };
        let Manifest { source, database, .. } = self.template.clone();
        let requested = Operation::requested(
            id,
            source,
            database,
            Vec::new(),
            "insider".to_owned(),
            Detail::Backup(detail),
        );
        let row = Operation { state: OperationState::Verified, ..requested };
        self.scene.fixture.run(self.scene.pipeline.catalog.create_operation(&row)).unwrap();
    }
}

const fn place(backup: OperationId) -> BackupPlace {
    BackupPlace { trigger: Trigger::Manual, backup }
}

fn refuses_to_plan(scene: &mut Scene<'_>, bootstrap: &Path, (name, backup, says): Bomb) {
    let restore = request_restore(scene, backup);
    refuses(scene, bootstrap, name, ("plan-restore", &json!({ "operation": restore })), says);
    give_up(scene, bootstrap, name, restore);
}

fn refuses_to_verify_and_restore(scene: &mut Scene<'_>, bootstrap: &Path, (name, backup, says): Bomb) {
    let item = json!({ "first": 0, "count": 1 });
    let event = |id: OperationId| json!({ "operation": id, "item": item });
    refuses(scene, bootstrap, name, ("verify-checksums", &event(backup)), says);
    let hashes = scene.fixture.hashes(&scene.database);
    let restore = request_restore(scene, backup);
    let plan = json!({ "operation": restore });
    invoke(scene.fixture, bootstrap, "plan-restore", &plan).answer(&name);
    refuses(scene, bootstrap, name, ("restore-chunk", &event(restore)), says);
    give_up(scene, bootstrap, name, restore);
    let same = scene.fixture.hashes(&scene.database) == hashes;
    scene.expect(same, name, "what is live changed");
}

/// The step finds what is stored damaged. A process that had run out of memory would have died.
fn refuses(scene: &mut Scene<'_>, bootstrap: &Path, name: &str, (step, event): (&str, &Value), says: &str) {
    let began = Instant::now();
    let (error_type, message) = invoke(scene.fixture, bootstrap, step, event).failure(&name);
    let name = format!("{step}: {name} ({} ms)", began.elapsed().as_millis());
    print_row(&name, i32::from(ErrorKind::Corrupt.exit_code()), &message, "");
    scene.expect(error_type == ErrorKind::Corrupt.name(), &name, &format!("it fails with {error_type}"));
    scene.expect(message.contains(says), &name, &format!("{message:?} does not say {says:?}"));
}

/// As `./restore.sh --full --yes --backup` does.
fn request_restore(scene: &Scene<'_>, backup: OperationId) -> OperationId {
    let id = scene.pipeline.request_restore(scene.database.name());
    let catalog = &scene.pipeline.catalog;
    scene.fixture.run(async {
        let mut row = catalog.operation(OperationKind::Restore, id).await.unwrap();
        row.restore_mut().unwrap().backup = Some(backup);
        catalog.update_operation(&mut row).await.unwrap();
    });
    id
}

/// As the state machine does.
fn give_up(scene: &mut Scene<'_>, bootstrap: &Path, name: &str, restore: OperationId) {
    invoke(scene.fixture, bootstrap, "abandon-restore", &json!({ "operation": restore })).answer(&name);
    let caught = json!({ "Error": ErrorKind::Corrupt.name(), "Cause": "" });
    let event = json!({ "kind": "restore", "operation": restore, "caught": caught });
    invoke(scene.fixture, bootstrap, "raise-alert", &event).answer(&name);
    scene.check_ended(name, OperationKind::Restore, restore);
}
