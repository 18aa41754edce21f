//! Contracts of the catalog: rows, notes, leases, the audit trail.

use backup_core::audit::{AuditRecord, AuditStatus};
use backup_core::error::ErrorKind;
use backup_core::id::{Fence, OperationId};
use backup_core::operation::{
    BackupDetail, BackupNote, Detail, Failure, Hold, Level, Operation, OperationKind, OperationState,
    Replica, Trigger,
};
use backup_core::ports::{Catalog, Resource};
use backup_core::watch::WatchState;

use super::fresh_id;

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

/// The contract of [`Catalog`]: an operation ends once, however it ends.
pub async fn catalog_ends(catalog: &dyn Catalog) {
    let kind = OperationKind::Backup;
    for state in
        [OperationState::Verified, OperationState::Restored, OperationState::Done, OperationState::Failed]
    {
        let mut row = request();
        catalog.create_operation(&row).await.unwrap();
        row.state = state;
        catalog.update_operation(&mut row).await.unwrap();
        assert!(!catalog.fail_operation(&row, 5).await.unwrap(), "{state} is an end");
        let (step, message) = ("close".to_owned(), "late".to_owned());
        let failure = Failure { step, kind: ErrorKind::Denied, message, hint: None };
        catalog.record_failure(kind, row.id, &failure).await.unwrap();
        assert_eq!(catalog.operation(kind, row.id).await.unwrap(), row, "{state} is an end");
    }
}

/// The contract of [`Catalog`]: what is noted of a backup, and that its row goes.
pub async fn catalog_notes(catalog: &dyn Catalog) {
    let (kind, mut row) = (OperationKind::Backup, request());
    let hold = Hold { reason: "audit".into(), user: "ana".into(), since_millis: 7 };
    let held = BackupNote::Hold(Some(hold.clone()));
    assert_eq!(catalog.note(row.id, &held).await.unwrap_err().kind(), ErrorKind::NotFound);
    catalog.create_operation(&row).await.unwrap();
    row.fence = Some(catalog.acquire_lease(&row.resource(), &row, true, 0, 60).await.unwrap());
    catalog.update_operation(&mut row).await.unwrap();
    catalog.release_lease(&row.resource(), row.id).await.unwrap();

    let mut stale = row.clone();
    let noted = catalog.note(row.id, &held).await.unwrap();
    row.backup_mut().unwrap().hold = Some(hold);
    row.revision = noted.revision;
    assert!(noted.revision > stale.revision, "it counts as a write");
    assert_eq!(noted, row, "without the lease");
    assert_eq!(catalog.operation(kind, row.id).await.unwrap(), noted);
    stale.fence = None;
    let refused = catalog.update_operation(&mut stale).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Transient, "what was noted is not written over");

    let region = "eu-west-1".parse().unwrap();
    let replica = Replica { completed_millis: 8, objects: 3, stored_bytes: 1 << 40 };
    let copied = BackupNote::Replica(region, Some(replica));
    let proved = BackupNote::Proved(vec![Level::Present, Level::SampleRestored], 9);
    let (left, right) = tokio::join!(catalog.note(row.id, &copied), catalog.note(row.id, &proved));
    left.and(right).unwrap();
    let found = catalog.operation(kind, row.id).await.unwrap();
    for note in [&held, &copied, &proved] {
        note.apply(row.backup_mut().unwrap());
    }
    assert_eq!(found, Operation { revision: found.revision, ..row.clone() }, "none of two is lost");

    assert_eq!(catalog.forget(&row).await.unwrap_err().kind(), ErrorKind::Transient, "written since");
    catalog.operation(kind, row.id).await.unwrap();
    for _ in 0..2 {
        catalog.forget(&found).await.unwrap();
        assert_eq!(catalog.operation(kind, row.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert!(catalog.operations(kind, 1000).await.unwrap().iter().all(|it| it.id != row.id));
    assert_eq!(catalog.note(row.id, &held).await.unwrap_err().kind(), ErrorKind::NotFound, "it stays gone");
}

/// The contract of [`Catalog`]: what people were told, of a catalog in which nothing is noted of it.
pub async fn catalog_watch(catalog: &dyn Catalog) {
    let mut state = catalog.watch_state().await.unwrap();
    assert_eq!(state, WatchState::default());
    for (told, millis) in [("no backup of crm", 7), ("a\n$b", 1 << 40)] {
        let stale = state.clone();
        state.told.insert(told.into(), millis);
        catalog.set_watch_state(&state).await.unwrap();
        let refused = catalog.set_watch_state(&stale).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Transient, "another run told of something");
        let found = catalog.watch_state().await.unwrap();
        assert_eq!(found, WatchState { revision: stale.revision + 1, ..state });
        state = found;
    }
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
    resources_are_apart(catalog).await;
}

async fn resources_are_apart(catalog: &dyn Catalog) {
    let target = |database: &str| Resource::Target(database.into());
    let resources = [
        Resource::Source,
        Resource::Folding,
        target("crm"),
        target("drills"),
        Resource::Drills,
        Resource::Shelves,
    ];
    for resource in &resources {
        assert!(catalog.lease(resource, 0).await.unwrap().is_none(), "{resource:?} is free");
        let holder = request();
        catalog.acquire_lease(resource, &holder, false, 0, 60).await.unwrap();
        assert_eq!(catalog.lease(resource, 1).await.unwrap().unwrap().holder, holder.id);
    }
    for resource in &resources {
        let lease = catalog.lease(resource, 1).await.unwrap().unwrap();
        let other = request();
        let refused = catalog.acquire_lease(resource, &other, false, 1, 60).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        catalog.release_lease(resource, lease.holder).await.unwrap();
    }
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
