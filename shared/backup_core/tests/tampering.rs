//! Tampering over ports in memory: whoever can write the bucket and the catalog, but not use the key, gets nothing
//! into a restore. Every step that needs what was touched refuses it and names it, no live collection changes, and
//! nothing of a record that does not authenticate is used.
//!
//! The attacker knows the format and edits whatever is in clear to match: headers, results before a backup is
//! sealed, work items, evidence, rows. An older manifest of the same backup cannot be put back, because there never
//! is a second one: it is only put if absent, and `backups.rs` kills that put.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "tampering/damage.rs"]
mod damage;
#[path = "tampering/scene.rs"]
mod scene;

use async_trait::async_trait;
use backup_core::compress::FRAME_TARGET_BYTES;
use backup_core::flows::{plan_restore, restore_chunk, verify_checksums};
use backup_core::format::{
    ChunkOutcome, Consistency, Header, ObjectContext, ObjectKey, ObjectKind, RestorePlace, WorkItem,
};
use backup_core::operation::{Operation, OperationKind, OperationState, Totals, Trigger};
use backup_core::ports::{DataKey, DataKeys};
use backup_core::seal::MessageKey;
use backup_core::{ErrorKind, Result};
use backup_testkit::MemoryKeys;
use backup_testkit::fixture::{Step, World};
use bson::rawdoc;
use bytes::Bytes;

use crate::damage::{damages, flip, header, message, records, splice};
use crate::scene::{
    EVERYTHING, Files, MANIFEST, Scene, captured, database, document, refused, restore_of, run,
};

type Edit = fn(&mut Operation);

const ALL_BUT_CHUNK_0: &str = r#"{"first":1,"count":1}
{"first":2,"count":1}
{"first":3,"count":1}
{"first":4,"count":1}
{"first":5,"count":1}
"#;
const EVIDENCE_OF_CHUNK_0: &str = r#"{"ordinals":[0],"documents":1}"#;
const EVIDENCE_OF_NOTHING: &str = r#"{"ordinals":[],"documents":0}"#;

#[tokio::test]
async fn a_damaged_chunk_is_refused_whether_it_was_sealed_before_or_after() {
    for scene in [Scene::verified().await, Scene::unsealed().await] {
        let path = scene.path("/chunks/0-");
        assert_eq!(records(&scene.objects[&path]).len(), 3);
        for (what, bytes, kind) in damages(&scene.objects[&path]) {
            scene.check_chunk(&what, bytes, kind).await;
        }
        scene.world.store.lose(&path);
        scene.check("missing", ErrorKind::Corrupt, &[path.as_str(), "chunk 0"]).await;
    }
}

#[tokio::test]
async fn no_part_of_another_object_passes_for_one_of_the_chunk() {
    // Of which of the two each part is; the first case is an exchange of the whole.
    let splices = [[1, 1, 1, 1], [0, 1, 1, 1], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 1, 0]];
    for scene in [Scene::verified().await, Scene::unsealed().await] {
        let mine = &scene.objects[&scene.path("/chunks/0-")];
        for (whose, donor) in [
            ("the same collection's next chunk", scene.path("/chunks/1-")),
            ("another collection's chunk", scene.path("/chunks/3-")),
            ("an earlier backup's same chunk", scene.path_of(scene.older, "/chunks/0-")),
            ("the plan", scene.path("/plan.sealed")),
        ] {
            let sources: [&[u8]; 2] = [mine, &scene.objects[&donor]];
            for parts in splices {
                let spliced = splice(parts.map(|it: usize| sources[it]));
                scene.check_chunk(&format!("{parts:?} of {whose}"), spliced, ErrorKind::Corrupt).await;
            }
        }
    }
}

#[tokio::test]
async fn a_result_that_tells_of_another_chunk_is_refused() {
    let scene = Scene::unsealed().await;
    let mine = scene.path("/chunks/0-");
    let place = &mine[..=mine.rfind('-').unwrap()];
    for (id, ordinal) in [(scene.backup, 1), (scene.backup, 3), (scene.older, 0)] {
        let theirs = scene.path_of(id, &format!("/results/{ordinal}.json"));
        let stolen = captured(&scene.objects[&theirs]);
        let object = scene.objects[&scene.path_of(id, &format!("/chunks/{ordinal}-"))].clone();
        scene.world.store.tamper(&format!("{place}{}", stolen.attempt), object);
        scene.edit_result_of_chunk_0(|stored| *stored = stolen).await;
        let staged = scene.check(&theirs, ErrorKind::Corrupt, &["/chunks/0-"]).await;
        assert_eq!(staged, 0, "{theirs}");
    }
}

/// Count, sizes and hashes are compared after the last record: authentic documents may be in staging by then.
#[tokio::test]
async fn a_flipped_bit_anywhere_in_a_result_is_refused() {
    let scene = Scene::unsealed().await;
    let path = scene.path("/results/0.json");
    let named = [path.as_str(), "chunk 0", "/chunks/0-"];
    for place in 0..scene.objects[&path].len() {
        scene.world.store.tamper(&path, flip(&scene.objects[&path], place));
        scene.check(&format!("byte {place} of the result"), ErrorKind::Corrupt, &named).await;
    }
    scene.world.store.lose(&path);
    scene.check("no result", ErrorKind::NotFound, &named).await;
}

/// A chunk of several frames gives documents out before its last record is opened; they are genuine, and stay in
/// staging.
#[tokio::test]
async fn what_is_given_out_before_a_later_record_fails_is_genuine() {
    let world = World::default();
    world.cluster.define("log", &rawdoc! { "capped": true, "size": 100_000_000 });
    (0..14).for_each(|n| world.cluster.write("log", &document(n, 3000, 600_000)));
    let scene = Scene::of(world, |_| true).await;
    assert!(scene.row.totals.bson_bytes > u64::try_from(2 * FRAME_TARGET_BYTES).unwrap());
    let path = scene.path("/chunks/0-");
    let object = &scene.objects[&path];
    assert!(records(object).len() >= 3);
    for record in records(object) {
        for place in [record.start, record.start.midpoint(record.end), record.end - 1] {
            scene.world.store.tamper(&path, flip(object, place));
            scene.check(&format!("byte {place}"), ErrorKind::Corrupt, &[path.as_str()]).await;
        }
    }
}

#[tokio::test]
async fn a_damaged_manifest_is_refused() {
    let scene = Scene::verified().await;
    let path = scene.path(MANIFEST);
    for (what, bytes, kind) in damages(&scene.objects[&path]) {
        scene.check_manifest(&what, &bytes, kind).await;
    }
    scene.world.store.lose(&path);
    scene.check("missing", ErrorKind::NotFound, &[path.as_str()]).await;
}

#[tokio::test]
async fn an_old_manifest_put_in_the_place_of_the_new_one_is_refused() {
    let scene = Scene::verified().await;
    let old = &scene.objects[&scene.path_of(scene.older, MANIFEST)];
    let mine = &scene.objects[&scene.path(MANIFEST)];
    // As if KMS had not bound the old one's key to its backup: the key service in memory can be fooled so.
    let wrapped_key = [&header(old).wrapped_key[..32], &header(mine).wrapped_key[32..]].concat();
    let rebound = Header { context: header(mine).context, wrapped_key }.to_bytes().unwrap();
    let rebound = [rebound.as_slice(), message(old).0, message(old).1].concat();
    for (what, bytes) in [
        ("as it is", old.clone()),
        ("with the new one's context", splice([mine, old, old, old])),
        ("with the new one's context and key", splice([mine, mine, old, old])),
        ("with the new one's context, and its own key bound to it", rebound.into()),
    ] {
        scene.check_manifest(what, &bytes, ErrorKind::Corrupt).await;
    }
}

#[tokio::test]
async fn a_damaged_plan_stops_every_step_that_reads_it() {
    let scene = Scene::unsealed().await;
    let path = scene.path("/plan.sealed");
    for (what, bytes, kind) in damages(&scene.objects[&path]) {
        scene.world.store.tamper(&path, bytes);
        let dumped = run(&scene.world, scene.backup, [Step::DumpChunk(EVERYTHING)]).await;
        refused(&what, dumped, kind, &[path.as_str()]);
        scene.check(&what, kind, &[path.as_str()]).await;
    }
}

#[tokio::test]
async fn a_damaged_plan_of_a_restore_stops_every_step_that_reads_it() {
    use Step::{AbandonRestore, BuildIndexes, FinishRestore, RestoreChunk, ValidateChunk};
    let scene = Scene::verified().await;
    let (id, world) = (scene.request_restore().await, &scene.world);
    run(world, id, [Step::PlanRestore]).await.unwrap();
    let path = ObjectKey::RestorePlan(RestorePlace(id)).to_path().unwrap();
    let sound = world.store.objects()[&path].clone();
    for (what, bytes, kind) in damages(&sound) {
        world.store.tamper(&path, bytes);
        let (restore, validate) = (RestoreChunk(EVERYTHING), ValidateChunk(EVERYTHING));
        for step in [restore, BuildIndexes, validate, FinishRestore, AbandonRestore] {
            let outcome = run(world, id, [step]).await;
            refused(&format!("{step:?}, {what}"), outcome, kind, &[path.as_str()]);
        }
    }
    assert!(scene.is_unharmed());
    assert_eq!(scene.staged(id).await, 0);
    world.store.tamper(&path, sound);
    run(world, id, world.steps_after_plan(OperationKind::Restore, id).await).await.unwrap();
    assert!(world.cluster.contents() == scene.original);
}

#[tokio::test]
async fn a_backup_is_called_verified_only_on_sound_evidence() {
    let scene = Scene::of(database(), |step| *step != Step::Close).await;
    let cases: [(&str, &str, ErrorKind, &str); 5] = [
        ("/verified/0.json", "{}", ErrorKind::Corrupt, "/verified/0.json"),
        ("/verified/0.json", EVIDENCE_OF_NOTHING, ErrorKind::Corrupt, "/verified/0.json"),
        ("/plan.jsonl", ALL_BUT_CHUNK_0, ErrorKind::Internal, "chunk 0 "),
        ("/plan.jsonl", "{}", ErrorKind::Corrupt, "work items"),
        (MANIFEST, "{}", ErrorKind::Corrupt, MANIFEST),
    ];
    for (part, body, kind, named) in cases {
        scene.world.store.tamper(&scene.path(part), Bytes::copy_from_slice(body.as_bytes()));
        refused(part, run(&scene.world, scene.backup, [Step::Close]).await, kind, &[named]);
        let row = scene.world.operation(OperationKind::Backup, scene.backup).await;
        assert_eq!(row.state, OperationState::Sealed, "{part}");
        scene.rewind();
    }
    let evidence = scene.path("/verified/5.json");
    scene.world.store.lose(&evidence);
    let closed = run(&scene.world, scene.backup, [Step::Close]).await;
    refused("no evidence", closed, ErrorKind::NotFound, &[evidence.as_str()]);
}

#[tokio::test]
async fn a_restore_is_swapped_in_only_on_sound_evidence() {
    let scene = Scene::verified().await;
    let cases: [(&str, Files<'_>, Files<'_>, ErrorKind, &str); 4] = [
        (
            "an insertion that never was",
            &[("inserted/0.json", EVIDENCE_OF_CHUNK_0)],
            &[],
            ErrorKind::ValidationFailed,
            "chunk 0",
        ),
        ("work left out", &[("plan.jsonl", ALL_BUT_CHUNK_0)], &[], ErrorKind::NotFound, "/validated/0.json"),
        ("damaged", &[], &[("validated/0.json", "{}")], ErrorKind::Corrupt, "/validated/0.json"),
        (
            "evidence of nothing",
            &[],
            &[("validated/0.json", EVIDENCE_OF_NOTHING)],
            ErrorKind::Corrupt,
            "/validated/0.json",
        ),
    ];
    for (what, early, late, kind, named) in cases {
        refused(what, scene.restore(early, late).await.0, kind, &[named]);
        assert!(scene.is_unharmed(), "{what}");
        scene.rewind();
    }
}

#[tokio::test]
async fn what_nobody_reads_again_does_no_harm() {
    let scene = Scene::verified().await;
    for part in ["/plan.sealed", "/plan.jsonl", "/results/0.json", "/verified/0.json", "/report.json"] {
        scene.world.store.tamper(&scene.path(part), Bytes::from_static(b"x"));
        scene.check_harmless(part).await;
    }
}

/// What a row says of the content is not believed: the manifest is.
#[tokio::test]
async fn an_edited_row_of_the_catalog_does_no_harm_or_is_refused() {
    let scene = Scene::verified().await;
    let harmless: [(&str, Edit); 10] = [
        ("state", |row| row.state = OperationState::Failed),
        ("user", |row| row.user = "mallory".to_owned()),
        ("fence", |row| row.fence = None),
        ("totals", |row| row.totals = Totals::default()),
        ("finished", |row| row.finished_millis = None),
        ("revision", |row| row.revision = 0),
        ("cluster time", |row| row.backup_mut().unwrap().cluster_time = None),
        ("consistency", |row| row.backup_mut().unwrap().consistency = Some(Consistency::Mosaic)),
        ("lost", |row| row.backup_mut().unwrap().lost = 9),
        ("no checksum", |row| row.backup_mut().unwrap().manifest_sha256 = None),
    ];
    for (what, edit) in harmless {
        scene.edit_row(edit);
        scene.check_harmless(what).await;
    }
    let wrong: [(&str, Edit, ErrorKind, &str); 4] = [
        (
            "checksum",
            |row| row.backup_mut().unwrap().manifest_sha256 = Some("0".repeat(64)),
            ErrorKind::Corrupt,
            MANIFEST,
        ),
        (
            "trigger",
            |row| row.backup_mut().unwrap().trigger = Trigger::Automated,
            ErrorKind::NotFound,
            MANIFEST,
        ),
        ("source", |row| row.source = "other".parse().unwrap(), ErrorKind::Corrupt, MANIFEST),
        ("kind", |row| row.detail = restore_of(None), ErrorKind::Corrupt, "the row is another's"),
    ];
    for (what, edit, kind, named) in wrong {
        scene.edit_row(edit);
        scene.check(what, kind, &[named]).await;
    }
}

/// A key service that opens the keys of one kind of object to another key.
struct AnotherKey {
    keys: MemoryKeys,
    of: ObjectKind,
}

#[async_trait]
impl DataKeys for AnotherKey {
    async fn generate(&self, context: &ObjectContext) -> Result<DataKey> {
        self.keys.generate(context).await
    }

    async fn unwrap(&self, wrapped: &[u8], context: &ObjectContext) -> Result<MessageKey> {
        let mut key = self.keys.unwrap(wrapped, context).await?;
        key[0] ^= u8::from(context.kind == self.of);
        Ok(key)
    }
}

#[tokio::test]
async fn another_key_opens_nothing() {
    let scene = Scene::verified().await;
    let World { cluster, store, catalog, timeline, alerts, clock, .. } = &scene.world;
    for (of, named) in [(ObjectKind::Manifest, MANIFEST), (ObjectKind::Chunk, "/chunks/0-")] {
        let keys = &AnotherKey { keys: scene.world.keys.clone(), of };
        let ports = verify_checksums::Ports { store, keys, locks: store, catalog, clock };
        let verified = verify_checksums::run(ports, World::policy().recent, scene.backup, EVERYTHING).await;
        refused("verify", verified, ErrorKind::Corrupt, &[named]);

        let (id, settings) = (scene.request_restore().await, World::settings());
        let ports = plan_restore::Ports { target: cluster, store, keys, catalog, timeline, alerts, clock };
        let planned = plan_restore::run(ports, &settings, id).await;
        let ports = restore_chunk::Ports { target: cluster, store, keys, catalog, timeline, clock };
        let restored = match planned {
            Ok(_) => restore_chunk::run(ports, &settings, id, EVERYTHING).await,
            Err(why) => Err(why),
        };
        refused("restore", restored, ErrorKind::Corrupt, &[named]);
        assert!(scene.is_unharmed());
        assert_eq!(scene.staged(id).await, 0);
    }
}

/// Evidence and work items are in clear. Who writes both must not get empty staging swapped in.
#[tokio::test]
async fn forged_evidence_does_not_swap_in_what_was_not_restored() {
    let scene = Scene::verified().await;
    let forged = [("plan.jsonl", ALL_BUT_CHUNK_0), ("validated/0.json", EVIDENCE_OF_CHUNK_0)];
    let (restored, _) = scene.restore(&forged, &[]).await;
    assert!(scene.is_unharmed(), "a collection without its first chunk is live: {restored:?}");
    assert!(restored.is_err());
}

#[tokio::test]
async fn forged_evidence_does_not_make_a_damaged_backup_a_verified_one() {
    let scene = Scene::unsealed().await;
    let path = scene.path("/chunks/0-");
    scene.world.store.tamper(&path, flip(&scene.objects[&path], 5000));
    let verify = (1..6).map(|first| Step::VerifyChecksums(WorkItem { first, count: 1 }));
    run(&scene.world, scene.backup, [Step::SealBackup].into_iter().chain(verify)).await.unwrap();
    let evidence = scene.path("/plan.jsonl").replace("plan.jsonl", "verified/0.json");
    scene.world.store.tamper(&evidence, Bytes::from_static(EVIDENCE_OF_CHUNK_0.as_bytes()));
    let closed = run(&scene.world, scene.backup, [Step::Close]).await;
    assert!(closed.is_err(), "a backup that cannot be restored is called verified");
}

/// The collection is still there when the backup is sealed, so it was never dropped.
#[tokio::test]
async fn a_result_that_says_dropped_does_not_leave_a_collection_out() {
    let scene = Scene::unsealed().await;
    let path = scene.path("/results/0.json");
    let unsigned = Bytes::from_static(br#"{"ordinal":0,"outcome":"dropped"}"#);
    scene.world.store.tamper(&path, unsigned);
    scene.check("dropped, unsigned", ErrorKind::Corrupt, &[path.as_str()]).await;
    scene.write_result_of_chunk_0(ChunkOutcome::Dropped).await;
    scene.check("dropped", ErrorKind::Corrupt, &["chunk 0"]).await;
}

#[tokio::test]
async fn a_row_that_contradicts_its_manifest_is_refused() {
    let scene = Scene::verified().await;
    let id = scene.backup.to_string();
    let edits: [(&str, Edit); 2] = [
        ("database", |row| row.database = "shop".to_owned()),
        ("collections", |row| row.collections = vec!["large".to_owned()]),
    ];
    for (what, edit) in edits {
        scene.edit_row(edit);
        refused(what, scene.verify().await, ErrorKind::Corrupt, &[id.as_str()]);
        scene.rewind();
    }
}

#[tokio::test]
async fn the_row_of_another_backup_is_refused() {
    let scene = Scene::verified().await;
    let older = scene.world.operation(OperationKind::Backup, scene.older).await;
    scene.edit_row(|row| *row = older);
    scene.check("the older backup's row", ErrorKind::Corrupt, &[scene.backup.to_string().as_str()]).await;
}
