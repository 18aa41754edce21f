//! The timeline over ports in memory: captures that are killed anywhere, restores to any instant, folded backups, the
//! proof of the chain, and what happens when the source forgets.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use backup_core::bson::split_documents;
use backup_core::compress::{Contents, FrameEncoder, FrameIndex, compress_whole};
use backup_core::document_hash::DocumentHash;
use backup_core::error::{Error, ErrorKind};
use backup_core::flows::open_manifest;
use backup_core::format::{Captured, Header, ObjectKey, SliceBuilder, SliceIndex, read_frame};
use backup_core::id::{ClusterTime, OperationId};
use backup_core::operation::{Detail, Failure, OperationKind, OperationState, RestoreDetail, RestoreTime};
use backup_core::plan::windows::{Base, Window, windows};
use backup_core::ports::{Catalog, DataKeys, Source, Timeline};
use backup_core::seal;
use backup_core::timeline::{BreakReason, Event};
use backup_testkit::Faults;
use backup_testkit::fixture::{DATABASE, OnDeath, Step, World, lead};
use bson::{RawDocument, rawdoc};
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// What there is in each collection.
type There = BTreeMap<String, Vec<Bytes>>;

/// Restores the whole database to an instant.
async fn restore_to(world: &World, at: RestoreTime) -> backup_core::Result<OperationId> {
    let detail = RestoreDetail { may_replace: true, at: Some(at), ..RestoreDetail::requested(true) };
    let id = world.request(&[], Detail::Restore(detail)).await;
    world.carry_out(OperationKind::Restore, id).await?;
    Ok(id)
}

async fn now(world: &World) -> ClusterTime {
    world.cluster.cluster_time().await.unwrap()
}

/// Changes of every kind, and what there was after each.
async fn change(world: &World, from: i32) -> Vec<(ClusterTime, There)> {
    let cluster = &world.cluster;
    let mut seen = Vec::new();
    let mut note = async || seen.push((now(world).await, cluster.contents()));
    cluster.write("leads", &rawdoc! { "_id": from, "name": "new" });
    note().await;
    cluster.update("leads", 7, "score", from);
    cluster.update("leads", from, "name", "changed");
    note().await;
    cluster.delete("leads", from + 1);
    cluster.delete("messages", from % 5);
    note().await;
    cluster.write_together("leads", [lead(from + 2), lead(200 + from), lead(300 + from)]);
    note().await;
    cluster.fill(&format!("made-{from}"), (0..3).map(lead));
    cluster.define(&format!("view-{from}"), &rawdoc! { "viewOn": "messages", "pipeline": [] });
    note().await;
    seen
}

#[tokio::test]
async fn every_instant_comes_back() {
    let world = World::with_data();
    world.back_up().await;
    let mut seen = change(&world, 1).await;
    world.capture().await.unwrap();
    seen.extend(change(&world, 11).await);
    world.capture().await.unwrap();
    for (time, contents) in &seen {
        restore_to(&world, RestoreTime::At(*time)).await.unwrap();
        assert_eq!(world.cluster.contents(), *contents, "at {time}");
    }
    let (_, last) = seen.last().unwrap();
    world.capture().await.unwrap(); // what the restores did is history, too
    restore_to(&world, RestoreTime::Latest).await.unwrap();
    assert_eq!(world.cluster.contents(), *last);
}

#[tokio::test]
async fn a_time_in_no_window_is_refused_with_the_nearest() {
    let world = World::with_data();
    let before = now(&world).await.previous();
    let refused = async |at: RestoreTime| {
        let why = restore_to(&world, at).await.unwrap_err();
        assert_eq!(why.kind(), ErrorKind::NotFound, "{why}");
        why.hint_text().unwrap().to_owned()
    };
    assert!(refused(RestoreTime::Latest).await.contains("no time is restorable yet"));
    let backup = world.back_up().await;
    let opened = world.operation(OperationKind::Backup, backup).await.backup().unwrap().cluster_time.unwrap();
    assert!(refused(RestoreTime::At(before)).await.contains(&format!("-t {opened}")));
    change(&world, 1).await;
    let captured = world.timeline.head().await.unwrap().unwrap().to.previous();
    assert!(refused(RestoreTime::At(now(&world).await)).await.contains(&format!("-t {captured}")));
    world.capture().await.unwrap();
    restore_to(&world, RestoreTime::At(now(&world).await.previous())).await.unwrap();
}

#[tokio::test]
async fn a_capture_that_is_killed_anywhere_loses_and_doubles_nothing() {
    for boundary in 0.. {
        let world = World::with_data();
        world.back_up().await;
        let mut seen = change(&world, 1).await;
        let none = OperationId::from_bytes([0; 16]);
        let faults = Faults::at(boundary);
        let died = world.step(&faults, none, Step::CaptureLog).await.is_err();
        seen.extend(change(&world, 11).await);
        let again = Faults::none();
        let (left, right) = tokio::join!(
            world.step(&again, none, Step::CaptureLog),
            world.step(&again, none, Step::CaptureLog)
        );
        assert!(left.is_ok() || right.is_ok(), "killed at {boundary}: {left:?} {right:?}");
        world.capture().await.unwrap();
        check_slices(&world).await;
        for (time, contents) in [&seen[1], &seen[3], &seen[9]] {
            restore_to(&world, RestoreTime::At(*time)).await.unwrap();
            assert_eq!(world.cluster.contents(), *contents, "killed at {boundary}, at {time}");
        }
        if !died {
            assert!(boundary > 20, "there are calls to be killed at");
            return;
        }
    }
}

/// Slices meet, and no instant is in two of them.
async fn check_slices(world: &World) {
    let head = world.timeline.head().await.unwrap().unwrap();
    let slices = world.timeline.slices(head.began, head.to).await.unwrap();
    assert_eq!(slices.first().unwrap().from, head.began);
    assert_eq!(slices.last().unwrap().to, head.stored_to);
    assert!(slices.windows(2).all(|pair| pair[0].to == pair[1].from), "{slices:?}");
}

#[tokio::test]
async fn history_that_is_lost_is_a_gap_and_a_new_base_starts_by_itself() {
    let world = World::with_data();
    world.back_up().await;
    let before = change(&world, 1).await;
    world.capture().await.unwrap();
    let gap = change(&world, 11).await;
    world.cluster.forget_changes();
    world.capture().await.unwrap();
    let breaks = world.timeline.breaks().await.unwrap();
    assert_eq!(breaks.iter().map(|it| &it.reason).collect::<Vec<_>>(), [&BreakReason::HistoryLost]);
    let told: Vec<_> = world.alerts.published().into_iter().map(|alert| alert.subject).collect();
    assert!(told.iter().any(|subject| subject.contains("timeline INTERRUPTED main")), "{told:?}");

    let started = world.machines.backups();
    assert_eq!(started.len(), 1, "a new base was started");
    let row = world.operation(OperationKind::Backup, started[0]).await;
    assert_eq!(row.database, DATABASE);
    world.carry_out(OperationKind::Backup, started[0]).await.unwrap();
    let after = change(&world, 21).await;
    world.capture().await.unwrap();
    assert_eq!(world.machines.backups().len(), 1, "one is enough");

    let why = restore_to(&world, RestoreTime::At(gap[2].0)).await.unwrap_err();
    assert_eq!(why.kind(), ErrorKind::NotFound);
    let hint = why.hint_text().unwrap();
    assert!(hint.contains("before it") && hint.contains("after it"), "{hint}");
    for (time, contents) in [&before[3], &after[1], &after[4]] {
        restore_to(&world, RestoreTime::At(*time)).await.unwrap();
        assert_eq!(world.cluster.contents(), *contents, "at {time}");
    }
    let all = world.catalog.operations(OperationKind::Backup, 100).await.unwrap();
    let bases: Vec<Base> = all.iter().filter_map(Base::of).collect();
    let head = world.timeline.head().await.unwrap();
    assert_eq!(windows(&bases, head.as_ref(), &breaks).len(), 2);
}

#[tokio::test]
async fn a_change_that_is_too_large_interrupts_the_timeline_once() {
    let world = World::with_data();
    world.back_up().await;
    change(&world, 1).await;
    world.cluster.oversize_next();
    change(&world, 11).await;
    world.capture().await.unwrap();
    let reasons: Vec<_> = world.timeline.breaks().await.unwrap().into_iter().map(|it| it.reason).collect();
    assert_eq!(reasons, [BreakReason::EventTooLarge]);
}

#[tokio::test]
async fn a_folded_backup_is_the_database_and_copies_what_did_not_change() {
    let world = World::with_data();
    world.back_up().await;
    let seen = change(&world, 1).await;
    world.capture().await.unwrap();
    let (_, contents) = seen.last().unwrap();
    let folded = world.synthesize().await.unwrap();
    let row = world.operation(OperationKind::Backup, folded).await;
    assert_eq!(row.state, OperationState::Verified);
    let manifest = open_manifest(&world.store, &world.keys, &row).await.unwrap();
    assert!(manifest.folded_from.is_some());
    let copied = manifest.chunks().filter(|(_, chunk)| chunk.stored.sealed_as.is_some()).count();
    assert!(copied > 0 && copied < manifest.chunks().count(), "{copied} chunks were copied");
    world.restore(&[]).await.unwrap(); // the newest good one
    assert_eq!(world.cluster.contents(), *contents);

    world.capture().await.unwrap();
    let later = change(&world, 31).await;
    world.capture().await.unwrap();
    world.synthesize().await.unwrap(); // of a folded one
    for (time, contents) in [&seen[4], &later[1], &later[4]] {
        restore_to(&world, RestoreTime::At(*time)).await.unwrap();
        assert_eq!(world.cluster.contents(), *contents, "at {time}");
    }
}

#[tokio::test]
async fn a_folded_backup_that_is_killed_anywhere_is_one_good_backup() {
    for boundary in 0.. {
        let world = World::with_data();
        world.back_up().await;
        let seen = change(&world, 1).await;
        world.capture().await.unwrap();
        let id = world.request_synthesis().await;
        let died = world.run_dying_at(OperationKind::Backup, id, boundary, OnDeath::RunAgain).await;
        if boundary % 7 == 0 {
            world.restore(&[]).await.unwrap();
            assert_eq!(world.cluster.contents(), seen.last().unwrap().1, "killed at {boundary}");
        }
        if !died {
            return;
        }
    }
}

#[tokio::test]
async fn the_chain_is_proved_and_a_silent_change_is_found() {
    let world = World::with_data();
    let first = world.back_up().await;
    change(&world, 1).await;
    let second = world.back_up().await;
    let proof = async |id| {
        let row = world.operation(OperationKind::Backup, id).await;
        row.backup().unwrap().clone()
    };
    let found = proof(second).await.proof.unwrap();
    assert_eq!((found.with, found.different, found.unproved), (first, 0, 0));
    assert!(found.equal > 3);
    assert_eq!(proof(first).await.proved_by.unwrap().with, second);
    assert!(proof(first).await.proof.is_none(), "there was nothing before it");

    change(&world, 11).await;
    world.cluster.write_silently("leads", &rawdoc! { "_id": 3, "name": "nobody was told" });
    let third = world.back_up().await;
    let found = proof(third).await.proof.unwrap();
    assert_eq!((found.with, found.different, found.unproved), (second, 1, 0));
    let alerts = world.alerts.published();
    let told = alerts.iter().find(|alert| alert.subject.contains("chain NOT PROVED")).unwrap();
    assert!(told.body.contains("\"leads\""), "{}", told.body);
    let reasons: Vec<_> = world.timeline.breaks().await.unwrap().into_iter().map(|it| it.reason).collect();
    assert_eq!(reasons, [BreakReason::NotProved], "no time between the two is in a window");
}

/// What was folded from it has what is wrong in it, too: only what was read from the source is known to be right.
#[tokio::test]
async fn a_difference_closes_the_window_from_what_was_read_on() {
    for reads in [true, false] {
        let world = World::with_data();
        let read = world.back_up().await;
        world.cluster.write_silently("leads", &rawdoc! { "_id": 3, "name": "nobody was told" });
        let mut folded = Vec::new();
        for from in [11, 21] {
            change(&world, from).await;
            world.capture().await.unwrap();
            folded.push(world.synthesize().await.unwrap());
        }
        if !reads {
            // Somebody has removed it: nothing that is left is known to be right.
            let row = world.operation(OperationKind::Backup, read).await;
            world.catalog.forget(&row).await.unwrap();
        }
        let last = world.back_up().await;
        let bases = async |id| world.operation(OperationKind::Backup, id).await;
        assert_eq!(bases(last).await.backup().unwrap().proof.unwrap().with, folded[1]);
        let mut rows = vec![bases(folded[0]).await, bases(folded[1]).await, bases(last).await];
        let right = if reads { vec![read, last] } else { vec![last] };
        if reads {
            rows.push(bases(read).await);
        }
        let found: Vec<Base> = rows.iter().filter_map(Base::of).collect();
        let (head, breaks) = (world.timeline.head().await.unwrap(), world.timeline.breaks().await.unwrap());
        let windows = windows(&found, head.as_ref(), &breaks);
        let restored_from: Vec<_> = windows.iter().flat_map(|it| it.bases.clone()).collect();
        assert!(restored_from.iter().all(|id| right.contains(id)), "{windows:?}");
        let of = |id| found.iter().find(|it| it.backup == id).unwrap().oldest;
        let is_wrong = |it: &Window| it.bases == [read] && it.until > of(read);
        assert!(!windows.iter().any(is_wrong), "{windows:?}");
    }
}

/// Opens a sealed object, changes what is in it, and seals it again under its own key and context, as only somebody can
/// who holds the key. Gives its new length and SHA-256.
async fn replant(world: &World, path: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> (u64, String) {
    let object = world.store.objects()[path].clone();
    let (header, length) = Header::from_bytes(&object).unwrap();
    let bound = header.context.to_bytes();
    let key = world.keys.unwrap(&header.wrapped_key, &header.context).await.unwrap();
    let plain = change(seal::open(key.clone(), &bound, &object[length..]).unwrap());
    let planted = [&object[..length], &seal::seal(&key, &bound, &plain).unwrap()].concat();
    let told = (u64::try_from(planted.len()).unwrap(), hex::encode(Sha256::digest(&planted)));
    world.store.tamper(path, planted.into());
    told
}

/// The same bytes with the first occurrence of a text changed in its first letter.
fn with_one_byte_changed(bytes: &[u8], text: &[u8]) -> Vec<u8> {
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    let mut changed = bytes.to_vec();
    changed[at] ^= 1;
    changed
}

/// Changes a byte of a document of the first backup's `leads`, and everything that tells what should be there.
async fn plant_in_a_chunk(world: &World, backup: OperationId) {
    let row = world.operation(OperationKind::Backup, backup).await;
    let mut manifest = open_manifest(&world.store, &world.keys, &row).await.unwrap();
    let place = manifest.place();
    let entry = manifest.namespaces.iter_mut().find(|it| it.namespace.name == "leads").unwrap();
    let chunk = &mut entry.chunks[0];
    let path = ObjectKey::Chunk(place, chunk.ordinal, chunk.stored.attempt).to_path().unwrap();
    let mut hash = DocumentHash::default();
    let (stored_bytes, stored_sha256) = replant(world, &path, |plain| {
        let documents = with_one_byte_changed(&zstd::decode_all(plain.as_slice()).unwrap(), b"lead 1");
        let mut contents = Contents::default();
        contents.add(&documents).unwrap();
        hash = contents.hash;
        let frame = FrameEncoder::new(3).unwrap().encode(&documents, contents).unwrap();
        let mut index = FrameIndex::default();
        index.push(&frame);
        [frame.stored, index.finish().unwrap()].concat()
    })
    .await;
    chunk.stored = Captured { stored_bytes, stored_sha256, document_hash: hash, ..chunk.stored.clone() };
    let json = serde_json::to_vec(&manifest).unwrap();
    let path = ObjectKey::Manifest(place).to_path().unwrap();
    let (_, sha256) = replant(world, &path, |_| compress_whole(&json).unwrap()).await;
    world.catalog.tamper(OperationKind::Backup, backup, |row| {
        row.backup_mut().unwrap().manifest_sha256 = Some(sha256);
    });
}

/// Changes a byte of an event in the slice that has it.
async fn plant_in_a_slice(world: &World, text: &[u8]) {
    let head = world.timeline.head().await.unwrap().unwrap();
    for record in world.timeline.slices(head.began, head.to).await.unwrap() {
        let source = "main".parse().unwrap();
        let path = ObjectKey::Slice(source, record.from, record.slice).to_path().unwrap();
        let mut was_there = false;
        let (stored_bytes, _) = replant(world, &path, |plain| {
            let tail = &plain[plain.len() - 8..];
            let length = usize::try_from(SliceIndex::length_from_tail(tail).unwrap()).unwrap();
            let plain_bytes = u64::try_from(plain.len()).unwrap();
            let index = SliceIndex::parse(&plain[plain.len() - length..], plain_bytes).unwrap();
            let (mut builder, mut out) = (SliceBuilder::new(3).unwrap(), Vec::new());
            let mut all = Vec::new();
            for group in &index.groups {
                for frame in &group.frames {
                    let at = usize::try_from(frame.offset).unwrap();
                    let events =
                        read_frame(&plain[at..][..usize::try_from(frame.stored_bytes).unwrap()], frame)
                            .unwrap();
                    for event in split_documents(&events) {
                        let event = event.unwrap();
                        let has_it = event.windows(text.len()).any(|window| window == text);
                        was_there |= has_it;
                        let event = if has_it { with_one_byte_changed(event, text) } else { event.to_vec() };
                        let time = Event::read(RawDocument::from_bytes(&event).unwrap()).unwrap().time;
                        all.push((time, group.database.clone(), group.collection, event));
                    }
                }
            }
            all.sort_by_key(|(time, ..)| *time);
            for (time, database, collection, event) in all {
                out.extend(builder.push(&database, collection, time, &event).unwrap());
            }
            out.extend(builder.finish(source, record.from, record.to).unwrap().rest);
            out
        })
        .await;
        world.timeline.tamper(record.from, |row| row.stored_bytes = stored_bytes);
        if was_there {
            return;
        }
    }
    panic!("no slice has it");
}

#[tokio::test]
async fn the_proof_finds_a_byte_that_was_planted() {
    for in_a_slice in [false, true] {
        let world = World::with_data();
        let first = world.back_up().await;
        world.cluster.write("leads", &rawdoc! { "_id": 500, "name": "telltale" });
        world.capture().await.unwrap();
        if in_a_slice {
            plant_in_a_slice(&world, b"telltale").await;
        } else {
            plant_in_a_chunk(&world, first).await;
        }
        let second = world.back_up().await;
        let row = world.operation(OperationKind::Backup, second).await;
        assert_eq!(row.state, OperationState::Verified, "what was read from the source is good");
        let proof = row.backup().unwrap().proof.unwrap();
        assert_eq!((proof.different, proof.unproved), (1, 0), "in a slice: {in_a_slice}");
        assert!(world.alerts.published().iter().any(|alert| alert.body.contains("\"leads\"")));
        assert_eq!(world.timeline.breaks().await.unwrap()[0].reason, BreakReason::NotProved);
    }
}

#[tokio::test]
async fn a_backup_that_was_not_compared_is_told() {
    let world = World::with_data();
    world.back_up().await;
    change(&world, 1).await;
    let id = world.request_backup(false).await;
    world.step(&Faults::none(), id, Step::TriggerBackup).await.unwrap();
    for step in world.steps_after_plan(OperationKind::Backup, id).await {
        match step {
            // As a state machine: its failure is noted, and leads on to the end.
            Step::CaptureLog => {
                let why = Error::new(ErrorKind::Denied, "follow the changes: not authorized");
                let failure = Failure::of("capture-log", &why);
                world.catalog.record_failure(OperationKind::Backup, id, &failure).await.unwrap();
            }
            Step::PlanProof | Step::ProveChunk(_) => {}
            step => world.step(&Faults::none(), id, step).await.unwrap(),
        }
    }
    assert_eq!(world.operation(OperationKind::Backup, id).await.state, OperationState::Verified);
    let told: Vec<_> = world.alerts.published().into_iter().map(|alert| alert.subject).collect();
    assert!(told.iter().any(|subject| subject.contains("chain NOT COMPARED")), "{told:?}");
}
