//! What every implementation of a port must do, written once and run on the one in memory and on the real one.

use backup_core::audit::{AuditRecord, AuditStatus};
use backup_core::error::ErrorKind;
use backup_core::format::{BackupPlace, ObjectContext, ObjectKey, ObjectKind};
use backup_core::id::{Attempt, ClusterTime, Fence, OperationId};
use backup_core::operation::{
    BackupDetail, Detail, Failure, Operation, OperationKind, OperationState, Trigger,
};
use backup_core::ports::{Catalog, DataKeys, ObjectStore, PutOutcome, Resource, Timeline};
use backup_core::timeline::{
    BREAKS_AT_ONCE_MAX, Break, BreakReason, Position, ResumeToken, SliceRecord, TimelineHead,
};
use bytes::Bytes;

fn place() -> BackupPlace {
    BackupPlace { trigger: Trigger::Manual, backup: fresh_id() }
}

fn fresh_id() -> OperationId {
    OperationId::generate(1_795_312_800_000).unwrap()
}

/// The contract of [`ObjectStore`].
pub async fn object_store(store: &dyn ObjectStore) {
    let place = place();
    let key = |ordinal| ObjectKey::ChunkResult(place, ordinal);
    assert_eq!(store.size(key(0)).await.unwrap(), None);
    assert_eq!(store.get(key(0), 10).await.unwrap_err().kind(), ErrorKind::NotFound);

    store.put(key(0), Bytes::from_static(b"one")).await.unwrap();
    store.put(key(0), Bytes::from_static(b"other")).await.unwrap();
    assert_eq!(store.get(key(0), 5).await.unwrap(), "other");
    assert_eq!(store.get(key(0), 4).await.unwrap_err().kind(), ErrorKind::Corrupt, "larger than it may be");
    assert_eq!(store.size(key(0)).await.unwrap(), Some(5));
    assert_eq!(store.get_range(key(0), 1, 3).await.unwrap(), "the");
    assert_eq!(
        store.get_range(key(0), 3, 3).await.unwrap_err().kind(),
        ErrorKind::Corrupt,
        "shorter than the range"
    );

    let (left, right) = tokio::join!(
        store.put_if_absent(key(1), Bytes::from_static(b"left")),
        store.put_if_absent(key(1), Bytes::from_static(b"right")),
    );
    let stored = [left.unwrap(), right.unwrap()];
    assert_eq!(stored.iter().filter(|it| **it == PutOutcome::Stored).count(), 1, "exactly one of two wins");
    assert_eq!(store.put_if_absent(key(1), Bytes::new()).await.unwrap(), PutOutcome::AlreadyThere);

    for (ordinal, length) in [(2, 0_usize), (3, 1000), (4, 20 * 1024 * 1024)] {
        let whole: Bytes = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let mut upload = store.upload(key(ordinal)).await.unwrap();
        for piece in whole.chunks(3_000_000) {
            upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        assert_eq!(store.size(key(ordinal)).await.unwrap(), None, "nothing is visible before the end");
        upload.finish().await.unwrap();
        let found = store.get(key(ordinal), u64::MAX).await.unwrap();
        assert!(found == whole, "an upload of {length} bytes comes back");
    }
    let mut given_up = store.upload(key(5)).await.unwrap();
    given_up.write(Bytes::from_static(b"x")).await.unwrap();
    given_up.abort().await;
    assert_eq!(store.size(key(5)).await.unwrap(), None);
}

/// The contract of [`DataKeys`].
pub async fn data_keys(keys: &dyn DataKeys) {
    let context = |kind| ObjectContext::of_operation(kind, "main".parse().unwrap(), fresh_id());
    let (mine, others) = (context(ObjectKind::Chunk), context(ObjectKind::Chunk));
    let (first, second) = (keys.generate(&mine).await.unwrap(), keys.generate(&mine).await.unwrap());
    assert_ne!(*first.plain, *second.plain, "every object has a key of its own");
    assert_eq!(*keys.unwrap(&first.wrapped, &mine).await.unwrap(), *first.plain);
    let refused = keys.unwrap(&first.wrapped, &others).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt, "bound to its context");
}

fn request() -> Operation {
    let detail = BackupDetail {
        cluster_time: Some("1795312800,7".parse().unwrap()),
        ..BackupDetail::requested(Trigger::Manual, false)
    };
    let names = vec!["leads".to_owned(), "a\n$b".to_owned()];
    Operation::requested(
        fresh_id(),
        "main".parse().unwrap(),
        "crm".into(),
        names,
        "ana".into(),
        Detail::Backup(detail),
    )
}

/// The contract of [`Catalog`]: rows.
pub async fn catalog_rows(catalog: &dyn Catalog) {
    let (kind, mut row) = (OperationKind::Backup, request());
    assert_eq!(catalog.operation(kind, row.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    catalog.create_operation(&row).await.unwrap();
    assert_eq!(catalog.create_operation(&row).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(catalog.operation(kind, row.id).await.unwrap(), row);

    let mut stale = row.clone();
    row.state = OperationState::Running;
    row.totals.documents = 1 << 40;
    catalog.update_operation(&mut row).await.unwrap();
    assert_eq!(catalog.operation(kind, row.id).await.unwrap(), row);
    assert_eq!(catalog.update_operation(&mut stale).await.unwrap_err().kind(), ErrorKind::Transient, "stale");

    let failure =
        Failure { step: "dump-chunk".into(), kind: ErrorKind::Denied, message: "no".into(), hint: None };
    catalog.record_failure(kind, row.id, &failure).await.unwrap();
    row.failure = Some(failure);
    assert_eq!(catalog.operation(kind, row.id).await.unwrap(), row);
    assert!(catalog.fail_operation(&row, 5).await.unwrap());
    assert!(!catalog.fail_operation(&row, 6).await.unwrap(), "it ends once");
    let late =
        Failure { step: "dump-chunk".into(), kind: ErrorKind::Fenced, message: "late".into(), hint: None };
    catalog.record_failure(kind, row.id, &late).await.unwrap();
    let ended = catalog.operation(kind, row.id).await.unwrap();
    assert_eq!((ended.state, ended.finished_millis), (OperationState::Failed, Some(5)));
    assert_eq!(ended.failure, row.failure, "nobody has a say after the end");
    assert_eq!(
        catalog.update_operation(&mut row).await.unwrap_err().kind(),
        ErrorKind::Transient,
        "ended meanwhile"
    );

    let newer = request();
    catalog.create_operation(&newer).await.unwrap();
    let listed = catalog.operations(kind, 1000).await.unwrap();
    assert!(listed.windows(2).all(|pair| pair[0].id > pair[1].id), "newest first");
    assert!([row.id, newer.id].iter().all(|id| listed.iter().any(|it| it.id == *id)));
    assert_eq!(catalog.operations(kind, 1).await.unwrap().len(), 1);
}

/// The contract of [`Catalog`]: leases and their fences.
pub async fn catalog_leases(catalog: &dyn Catalog) {
    let resource = Resource::Source;
    let (mut first, mut second) = (request(), request());
    catalog.create_operation(&first).await.unwrap();
    catalog.create_operation(&second).await.unwrap();
    let start = catalog.acquire_lease(&resource, &first, true, 0, 60).await.unwrap();
    first.fence = Some(start);
    assert_eq!(
        catalog.acquire_lease(&resource, &first, false, 10, 60).await.unwrap(),
        start,
        "again: the same"
    );
    let refused = catalog.acquire_lease(&resource, &second, false, 59_999, 60).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains(&first.id.to_string()), "it says who holds it: {refused}");
    catalog.check_lease(&first).await.unwrap();
    assert_eq!(catalog.lease(&resource, 59_999).await.unwrap().unwrap().holder, first.id);
    assert!(catalog.lease(&resource, 60_000).await.unwrap().is_none(), "it ends by itself");

    let taken = catalog.acquire_lease(&resource, &second, true, 20, 60).await.unwrap();
    assert_eq!(taken, Fence(start.0 + 1), "a new holder, a new fence");
    second.fence = Some(taken);
    assert_eq!(catalog.check_lease(&first).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(
        catalog.update_operation(&mut first).await.unwrap_err().kind(),
        ErrorKind::Fenced,
        "the old holder writes nothing"
    );
    catalog.release_lease(&resource, first.id).await.unwrap();
    catalog.check_lease(&second).await.unwrap();
    catalog.update_operation(&mut second).await.unwrap();
    catalog.release_lease(&resource, second.id).await.unwrap();
    assert_eq!(catalog.check_lease(&second).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert!(catalog.lease(&resource, 21).await.unwrap().is_none());
    let next = catalog.acquire_lease(&resource, &first, false, 30, 60).await.unwrap();
    assert_eq!(next, Fence(taken.0 + 1), "fences never come again");
    catalog.release_lease(&resource, first.id).await.unwrap();
    assert!(
        catalog.lease(&Resource::Target("crm".into()), 0).await.unwrap().is_none(),
        "resources are apart"
    );
}

/// The contract of [`Catalog`]: the audit trail.
pub async fn catalog_audit(catalog: &dyn Catalog) {
    let (first, second) = (request(), request());
    let record = |of: &Operation, status| AuditRecord::of(of, status, 1_795_312_800_000);
    for _ in 0..2 {
        catalog.append_audit(first.id, &record(&first, AuditStatus::Success)).await.unwrap(); // once, however often
    }
    let (left, right) = (record(&second, AuditStatus::Failure), record(&second, AuditStatus::Success));
    let (left, right) =
        tokio::join!(catalog.append_audit(second.id, &left), catalog.append_audit(second.id, &right));
    left.and(right).unwrap();
    let of = |id: OperationId| serde_json::json!(id);
    let trail = catalog.audit(1000).await.unwrap();
    let count = |id| trail.iter().filter(|it| it.details.get("id") == Some(&of(id))).count();
    assert_eq!((count(first.id), count(second.id)), (1, 2));
    assert_eq!(catalog.audit(1).await.unwrap(), trail[..1], "newest first");
}

/// The contract of [`Timeline`], of one that has not begun.
pub async fn timeline(timeline: &dyn Timeline) {
    timeline_begins_once(timeline).await;
    timeline_moves_as_a_whole(timeline).await;
    timeline_lists_slices(timeline).await;
    timeline_lists_breaks(timeline).await;
}

/// Instants in order whose parts have different numbers of digits, so that as text they would not be.
fn instant(number: u32) -> ClusterTime {
    ClusterTime { seconds: 5 + number / 4, ordinal: 2 + 7 * (number % 4) }
}

fn slice(number: u32) -> SliceRecord {
    SliceRecord {
        from: instant(number),
        to: instant(number + 1),
        slice: Attempt::generate(1_795_312_800_000).unwrap(),
        stored_bytes: 1 << 40,
        events: 3,
        event_bytes: 700,
    }
}

async fn head(timeline: &dyn Timeline) -> TimelineHead {
    timeline.head().await.unwrap().unwrap()
}

async fn timeline_begins_once(timeline: &dyn Timeline) {
    let (first, second) = (TimelineHead::beginning(instant(0), 7), TimelineHead::beginning(instant(1), 8));
    assert_eq!(timeline.head().await.unwrap(), None);
    assert!(timeline.slices(instant(0), instant(9)).await.unwrap().is_empty());
    assert!(timeline.breaks().await.unwrap().is_empty());
    let refused = timeline.advance(&first, None, &[]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Transient, "there is nothing to be moved");

    let (left, right) = tokio::join!(timeline.begin(&first), timeline.begin(&second));
    let begun = left.unwrap();
    assert!(begun == first || begun == second);
    assert_eq!(right.unwrap(), begun, "one of them begins it, and both know which");
    assert_eq!(timeline.begin(&second).await.unwrap(), begun);
    assert_eq!(head(timeline).await, begun);
}

async fn timeline_moves_as_a_whole(timeline: &dyn Timeline) {
    let (read, first, broken) = (head(timeline).await, slice(0), break_at(0, 1, None));
    let position = Position::After(ResumeToken(vec![0, 0xff, b'"']));
    let moved = TimelineHead { stored_to: first.to, to: first.to, position, moved_millis: 9, ..read.clone() };
    timeline.advance(&moved, Some(&first), std::slice::from_ref(&broken)).await.unwrap();
    assert_eq!(head(timeline).await, TimelineHead { revision: read.revision + 1, ..moved.clone() });

    let refused = timeline.advance(&moved, Some(&slice(1)), &[break_at(1, 2, None)]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Transient, "moved since it was read");
    let (read, left, right) = (head(timeline).await, slice(1), slice(1));
    let (by_left, by_right) =
        tokio::join!(timeline.advance(&read, Some(&left), &[]), timeline.advance(&read, Some(&right), &[]));
    assert_ne!(by_left.is_ok(), by_right.is_ok(), "exactly one of two moves it");
    let won = if by_left.is_ok() { left } else { right };
    assert_eq!(by_left.and(by_right).unwrap_err().kind(), ErrorKind::Transient);

    let read = head(timeline).await;
    let refused = timeline.advance(&read, Some(&first), &[break_at(1, 2, None)]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Internal, "a slice is added once");
    assert_eq!(head(timeline).await, read, "all or nothing");
    assert_eq!(timeline.slices(instant(0), instant(9)).await.unwrap(), [first, won], "all or nothing");
    assert_eq!(timeline.breaks().await.unwrap(), [broken], "all or nothing");
}

async fn timeline_lists_slices(timeline: &dyn Timeline) {
    const COUNT: u32 = 230; // more than are read at once
    let mut now = head(timeline).await;
    for number in 2..COUNT {
        timeline.advance(&now, Some(&slice(number)), &[]).await.unwrap();
        now.revision += 1;
    }
    let all = timeline.slices(instant(0), instant(COUNT)).await.unwrap();
    assert!(all.windows(2).all(|pair| pair[0].to == pair[1].from), "in order");
    let (whole, end) = (usize::try_from(COUNT).unwrap(), instant(COUNT));
    assert_eq!(all.len(), whole);
    for (from, to, expected) in [
        (instant(10), instant(12), 10..12),
        (instant(10).next(), instant(12), 10..12),
        (instant(10).next(), instant(12).next(), 10..13),
        (instant(11).previous(), instant(11), 10..11),
        (instant(5).next(), instant(205), 5..205),
        (end.previous(), end.next(), whole - 1..whole),
        (end, instant(COUNT + 9), 0..0),
        (instant(0).previous(), instant(0), 0..0),
    ] {
        let found = timeline.slices(from, to).await.unwrap();
        assert_eq!(found, all[expected], "those with instants from {from} up to {to}");
    }
}

fn break_at(from: u32, to: u32, database: Option<&str>) -> Break {
    let reason = match from % 5 {
        0 => BreakReason::HistoryLost,
        1 => BreakReason::EventTooLarge,
        2 => BreakReason::NotFollowed("a\n$b".into()),
        3 => BreakReason::UnknownChange("refineShardKey".into()),
        _ => BreakReason::NotProved,
    };
    let database = database.map(str::to_owned);
    Break { from: instant(from), to: instant(to), database, reason, noticed_millis: 1_795_312_800_000 }
}

async fn timeline_lists_breaks(timeline: &dyn Timeline) {
    let earlier = timeline.breaks().await.unwrap();
    let mut added: Vec<Break> =
        (10..30).rev().map(|number| break_at(number, number + 1, Some("crm"))).collect();
    added.extend([break_at(12, 13, None), break_at(12, 12, None), break_at(12, 13, Some("*"))]);
    let mut now = head(timeline).await;
    for again in [added.clone(), added[..2].to_vec(), [&added[..1], &added[..1]].concat()] {
        timeline.advance(&now, None, &again).await.unwrap();
        now.revision += 1;
    }
    let listed = timeline.breaks().await.unwrap();
    assert!(listed.is_sorted_by_key(|it| it.from), "in order");
    assert_eq!(listed.len(), earlier.len() + added.len(), "each once, however often it is added");
    assert!(earlier.iter().chain(&added).all(|it| listed.contains(it)));

    let many = u32::try_from(BREAKS_AT_ONCE_MAX).unwrap();
    let breaks: Vec<Break> = (0..=many).map(|number| break_at(40, 41 + number, None)).collect();
    let refused = timeline.advance(&now, None, &breaks).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Internal, "more than fit");
    assert_eq!(head(timeline).await, now);
    timeline.advance(&now, Some(&slice(300)), &breaks[1..]).await.unwrap();
    assert_eq!(timeline.breaks().await.unwrap().len(), listed.len() + BREAKS_AT_ONCE_MAX);
}
