//! Backups over ports in memory: exact, repeatable, and whole or not at all.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use backup_core::audit::AuditStatus;
use backup_core::bson::split_documents;
use backup_core::error::ErrorKind;
use backup_core::flows::{open_manifest, raise_alert};
use backup_core::format::{Consistency, Manifest, ObjectKey};
use backup_core::id::OperationId;
use backup_core::namespace::Label;
use backup_core::operation::{Failure, OperationKind, OperationState};
use backup_core::ports::{Catalog, ObjectStore, Resource, Target};
use backup_testkit::Faults;
use backup_testkit::fixture::{DATABASE, OnDeath, Step, World, lead};
use bson::rawdoc;
use bytes::Bytes;

async fn manifest(world: &World, id: OperationId) -> Manifest {
    let operation = world.operation(OperationKind::Backup, id).await;
    open_manifest(&world.store, &world.keys, &operation).await.unwrap()
}

async fn finish(world: &World, id: OperationId) {
    for step in world.steps_after_plan(OperationKind::Backup, id).await {
        world.step(&Faults::none(), id, step).await.unwrap_or_else(|why| panic!("{step:?}: {why}"));
    }
}

/// What a manifest says, without what differs between two runs.
fn essence(manifest: &Manifest) -> BTreeMap<String, (Label, u64, Vec<String>)> {
    let namespaces = manifest.namespaces.iter().map(|it| {
        let documents = it.chunks.iter().map(|chunk| chunk.stored.documents).sum();
        let hashes = it.chunks.iter().map(|chunk| chunk.stored.document_hash.to_string()).collect();
        (it.namespace.name.clone(), (it.label, documents, hashes))
    });
    namespaces.collect()
}

#[tokio::test]
async fn a_backup_is_verified_audited_and_frees_its_lease() {
    let world = World::with_data();
    let id = world.back_up().await;
    let operation = world.operation(OperationKind::Backup, id).await;
    assert_eq!(operation.state, OperationState::Verified);
    assert_eq!((operation.totals.documents, operation.totals.namespaces), (85, 4));
    assert!(operation.totals.chunks >= 5, "{:?}", operation.totals);
    let manifest = manifest(&world, id).await;
    assert_eq!(manifest.consistency, Consistency::SingleInstant);
    let audit = world.catalog.audit(9).await.unwrap();
    assert_eq!(audit.iter().map(|it| it.status).collect::<Vec<_>>(), [AuditStatus::Success]);
    assert!(world.catalog.lease(&Resource::Source, 0).await.unwrap().is_none());
    assert!(world.alerts.published().is_empty());
}

#[tokio::test]
async fn writes_after_t_are_not_in_the_backup() {
    let world = World::with_data();
    let id = world.request_backup(false).await;
    world.step(&Faults::none(), id, Step::TriggerBackup).await.unwrap();
    let at_t = world.cluster.contents();
    for step in world.steps_after_plan(OperationKind::Backup, id).await {
        world.cluster.write("leads", &rawdoc! { "_id": 5, "changed": true });
        world.cluster.write("leads", &lead(10_000));
        world.cluster.delete("messages", 2);
        world.step(&Faults::none(), id, step).await.unwrap();
    }
    let id = world.restore(&[]).await.unwrap();
    assert_eq!(world.operation(OperationKind::Restore, id).await.state, OperationState::Restored);
    assert_eq!(world.cluster.contents(), at_t);
}

#[tokio::test]
async fn chunks_whose_instant_is_gone_take_a_new_one_and_the_backup_says_so() {
    let world = World::with_data();
    let id = world.request_backup(false).await;
    world.step(&Faults::none(), id, Step::TriggerBackup).await.unwrap();
    let steps = world.steps_after_plan(OperationKind::Backup, id).await;
    world.step(&Faults::none(), id, steps[0]).await.unwrap();
    world.cluster.forget_history();
    finish(&world, id).await;
    let manifest = manifest(&world, id).await;
    assert_eq!(manifest.consistency, Consistency::Mosaic);
    assert!(manifest.chunks().any(|(_, chunk)| chunk.stored.cluster_time == Some(manifest.cluster_time)));
    assert_eq!(manifest.totals().documents, 85);
}

#[tokio::test]
async fn what_happens_to_collections_meanwhile_is_told() {
    let world = World::with_data();
    world.cluster.fill("doomed", [lead(1)]);
    world.cluster.fill("moved", [lead(1), lead(2)]);
    world.cluster.fill("again", [lead(1)]);
    let id = world.request_backup(false).await;
    world.step(&Faults::none(), id, Step::TriggerBackup).await.unwrap();
    world.cluster.drop_namespace(DATABASE, "doomed").await.unwrap();
    world.cluster.rename(DATABASE, "moved", "moved2").await.unwrap();
    world.cluster.drop_namespace(DATABASE, "again").await.unwrap();
    world.cluster.fill("again", [lead(7), lead(8)]);
    world.cluster.fill("new", [lead(1)]);
    finish(&world, id).await;
    let manifest = manifest(&world, id).await;
    let check = |name: &str, label: Label, documents: u64, says: &str| {
        let entry = manifest
            .namespaces
            .iter()
            .find(|it| it.namespace.name == name)
            .unwrap_or_else(|| panic!("{name}"));
        let told = format!("{} {}", entry.reason.clone().unwrap_or_default(), entry.notes.join(" "));
        let found = entry.chunks.iter().map(|chunk| chunk.stored.documents).sum::<u64>();
        assert_eq!((entry.label, found), (label, documents), "{name}");
        assert!(told.contains(says), "{name}: {told:?}");
    };
    check("doomed", Label::NotCaptured, 0, "dropped or replaced while the backup ran");
    check("moved2", Label::Exact, 2, "changed while the backup ran");
    check("again", Label::NotCaptured, 0, "another collection has this name since");
    let operation = world.operation(OperationKind::Backup, id).await;
    assert_eq!(operation.backup().unwrap().lost, 2);
    check("new", Label::NotCaptured, 0, "created after");
    check("leads", Label::Exact, 80, "");
}

/// Every step, killed before and after every call it makes, then run again (and once more): always the backup that
/// an undisturbed run makes. `MemoryKeys` panics should any data key come twice.
#[tokio::test]
async fn killed_anywhere_and_run_again_it_is_the_same_backup() {
    let reference = World::with_data();
    let expected = essence(&manifest(&reference, reference.back_up().await).await);
    let mut boundary = 0;
    loop {
        let world = World::with_data();
        let id = world.request_backup(false).await;
        let died = world.run_dying_at(OperationKind::Backup, id, boundary, OnDeath::RunAgain).await;
        let operation = world.operation(OperationKind::Backup, id).await;
        assert_eq!(operation.state, OperationState::Verified, "killed at {boundary}");
        assert_eq!(essence(&manifest(&world, id).await), expected, "killed at {boundary}");
        assert_eq!(world.catalog.audit(9).await.unwrap().len(), 1, "killed at {boundary}");
        assert!(world.catalog.lease(&Resource::Source, 0).await.unwrap().is_none(), "killed at {boundary}");
        if !died {
            break;
        }
        boundary += 1;
    }
    assert!(boundary > 200, "only {boundary} boundaries were tried");
}

#[tokio::test]
async fn every_step_run_twice_at_once_is_like_run_once() {
    let world = World::with_data();
    let id = world.request_backup(false).await;
    world.run_each_twice_at_once(OperationKind::Backup, id).await;
    assert_eq!(world.operation(OperationKind::Backup, id).await.state, OperationState::Verified);
    assert_eq!(world.catalog.audit(9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_second_backup_is_refused_until_it_takes_over_and_then_the_first_writes_nothing() {
    let world = World::with_data();
    let (first, second) = (world.request_backup(false).await, world.request_backup(false).await);
    let third = world.request_backup(true).await;
    world.step(&Faults::none(), first, Step::TriggerBackup).await.unwrap();
    let steps = world.steps_after_plan(OperationKind::Backup, first).await;
    let refused = world.step(&Faults::none(), second, Step::TriggerBackup).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains(&first.to_string()), "{refused}");
    world.step(&Faults::none(), third, Step::TriggerBackup).await.unwrap();
    let place = world.operation(OperationKind::Backup, first).await.backup_place().unwrap();
    for step in steps.iter().filter(|step| matches!(step, Step::DumpChunk(_) | Step::SealBackup)) {
        assert_eq!(
            world.step(&Faults::none(), first, *step).await.unwrap_err().kind(),
            ErrorKind::Fenced,
            "{step:?}"
        );
    }
    assert_eq!(world.store.size(ObjectKey::Manifest(place)).await.unwrap(), None);
    finish(&world, third).await;
    assert_eq!(world.operation(OperationKind::Backup, third).await.state, OperationState::Verified);
}

#[tokio::test]
async fn a_failure_is_told_once_audited_once_and_frees_the_lease() {
    let world = World::with_data();
    let id = world.request_backup(false).await;
    world.step(&Faults::none(), id, Step::TriggerBackup).await.unwrap();
    let (catalog, alerts, clock) = (&world.catalog, &world.alerts, &world.clock);
    let ports = raise_alert::Ports { catalog, alerts, bucket: Some((&world.store, &world.keys)), clock };
    for _ in 0..3 {
        raise_alert::run(ports, OperationKind::Backup, id, "States.Timeout", "too slow").await.unwrap();
    }
    let operation = world.operation(OperationKind::Backup, id).await;
    assert_eq!(operation.state, OperationState::Failed);
    let alerts = world.alerts.published();
    assert_eq!(alerts.len(), 1);
    assert!(alerts[0].subject.starts_with("[CRITICAL] backup FAILED main/crm"), "{}", alerts[0].subject);
    assert_eq!(world.catalog.audit(9).await.unwrap().len(), 1);
    assert!(world.catalog.lease(&Resource::Source, 0).await.unwrap().is_none());
    world.back_up().await;
}

#[tokio::test]
async fn a_failure_that_cannot_be_told_frees_the_lease_and_is_told_later() {
    let world = World::with_data();
    let id = world.request_backup(false).await;
    world.step(&Faults::none(), id, Step::TriggerBackup).await.unwrap();
    let (catalog, alerts, clock) = (&world.catalog, &world.alerts, &world.clock);
    let ports = raise_alert::Ports { catalog, alerts, bucket: Some((&world.store, &world.keys)), clock };
    let raise = || raise_alert::run(ports, OperationKind::Backup, id, "States.Timeout", "too slow");
    world.alerts.set_broken(Some(ErrorKind::Denied));
    assert_eq!(raise().await.unwrap_err().kind(), ErrorKind::Denied);
    assert!(world.catalog.lease(&Resource::Source, 0).await.unwrap().is_none());
    let next = world.back_up().await;
    world.alerts.set_broken(None);
    raise().await.unwrap();
    assert_eq!(world.alerts.published().len(), 1);
    assert_eq!(world.operation(OperationKind::Backup, id).await.state, OperationState::Failed);
    assert_eq!(world.operation(OperationKind::Backup, next).await.state, OperationState::Verified);
}

#[tokio::test]
async fn a_refused_backup_does_not_wake_people_nor_end_the_one_that_runs() {
    let world = World::with_data();
    let (first, second) = (world.request_backup(false).await, world.request_backup(false).await);
    world.step(&Faults::none(), first, Step::TriggerBackup).await.unwrap();
    world.step(&Faults::none(), second, Step::TriggerBackup).await.unwrap_err();
    let (catalog, alerts, clock) = (&world.catalog, &world.alerts, &world.clock);
    let ports = raise_alert::Ports { catalog, alerts, bucket: Some((&world.store, &world.keys)), clock };
    let told = Failure {
        step: "trigger-backup".into(),
        kind: ErrorKind::Conflict,
        message: "held".into(),
        hint: None,
    };
    world.catalog.record_failure(OperationKind::Backup, second, &told).await.unwrap();
    raise_alert::run(ports, OperationKind::Backup, second, "Nightsafe.Conflict", "held").await.unwrap();
    assert!(world.alerts.published().is_empty());
    finish(&world, first).await;
}

#[tokio::test]
async fn damage_to_any_object_is_found_and_named() {
    let world = World::with_data();
    let id = world.back_up().await;
    let steps = world.steps_after_plan(OperationKind::Backup, id).await;
    let verify: Vec<Step> =
        steps.into_iter().filter(|step| matches!(step, Step::VerifyChecksums(_))).collect();
    let sound = world.store.objects();
    let is_sealed = |path: &&String| path.contains("/chunks/") || path.ends_with("manifest.json.sealed");
    let chunks: Vec<&String> = sound.keys().filter(|path| path.contains("/chunks/")).collect();
    for path in sound.keys().filter(is_sealed) {
        let body = &sound[path];
        let flip = |place: usize| {
            let mut bad = body.to_vec();
            bad[place] ^= 1;
            Bytes::from(bad)
        };
        let other = chunks.iter().find(|other| **other != path).unwrap();
        let damages = [
            ("first byte", flip(0)),
            ("context", flip(20)),
            ("wrapped key", flip(80)),
            ("middle", flip(body.len() / 2)),
            ("last byte", flip(body.len() - 1)),
            ("cut", body.slice(..body.len() - 1)),
            ("longer", [body, &b"x"[..]].concat().into()),
            ("another object", sound[*other].clone()),
        ];
        for (what, bad) in damages {
            world.store.tamper(path, bad);
            let mut found = None;
            for step in &verify {
                found = found.or(world.step(&Faults::none(), id, *step).await.err());
            }
            let found = found.unwrap_or_else(|| panic!("{what} of {path} was not found"));
            assert!(
                matches!(found.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported),
                "{what} of {path}: {found}"
            );
            let name = path.rsplit('/').next().unwrap();
            assert!(found.to_string().contains(name), "{what} of {path} is not named: {found}");
            world.store.tamper(path, body.clone());
        }
    }
}

#[tokio::test]
async fn a_step_without_time_stops_before_it_begins_and_goes_on_later() {
    let world = World::with_data();
    let id = world.request_backup(false).await;
    world.step(&Faults::none(), id, Step::TriggerBackup).await.unwrap();
    let first = world.steps_after_plan(OperationKind::Backup, id).await[0];
    world.clock.set_left(1000);
    let stopped = world.step(&Faults::none(), id, first).await.unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::OutOfTime);
    assert!(stopped.kind().is_retryable());
    world.clock.set_left(u64::MAX);
    finish(&world, id).await;
}

#[tokio::test]
async fn a_disabled_key_fails_clearly_and_stores_nothing() {
    let world = World::with_data();
    let id = world.request_backup(false).await;
    world.keys.set_disabled(true);
    let denied = world.step(&Faults::none(), id, Step::TriggerBackup).await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied);
    assert!(world.store.objects().is_empty());
}

#[tokio::test]
async fn names_and_documents_stand_in_no_clear_object() {
    let world = World::with_data();
    world.back_up().await;
    for (path, body) in world.store.objects() {
        let text = String::from_utf8_lossy(&body).into_owned();
        for secret in ["leads", "messages", "lead 17"] {
            assert!(!path.contains(secret) && !text.contains(secret), "{secret:?} stands in {path}");
        }
    }
    let documents = world.cluster.contents()["leads"].concat();
    assert_eq!(split_documents(&documents).count(), 80);
}

/// `$out` and its like: a new collection takes the place of one that was read already.
#[tokio::test]
async fn a_collection_renamed_over_another_does_not_end_the_backup() {
    let world = World::with_data();
    world.cluster.fill("fresh", [lead(1), lead(2)]);
    let id = world.request_backup(false).await;
    world.step(&Faults::none(), id, Step::TriggerBackup).await.unwrap();
    let steps = world.steps_after_plan(OperationKind::Backup, id).await;
    world.cluster.drop_namespace(DATABASE, "messages").await.unwrap();
    world.cluster.rename(DATABASE, "fresh", "messages").await.unwrap();
    for step in steps {
        world.step(&Faults::none(), id, step).await.unwrap_or_else(|why| panic!("{step:?}: {why}"));
    }
    let manifest = manifest(&world, id).await;
    let labels: Vec<(&str, Label)> =
        manifest.namespaces.iter().map(|it| (it.namespace.name.as_str(), it.label)).collect();
    assert!(labels.contains(&("fresh", Label::Exact)), "{labels:?}");
    assert!(labels.contains(&("messages", Label::NotCaptured)), "{labels:?}");
}
