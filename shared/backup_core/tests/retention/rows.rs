//! Rows of backups as the catalog has them, and times as people write them.

use backup_core::format::Consistency;
use backup_core::id::{ClusterTime, OperationId, RegionName};
use backup_core::operation::{
    BackupDetail, Detail, Hold, Operation, OperationState, Removal, Replica, Trigger,
};

pub(crate) const HOUR: u64 = 3_600_000;
pub(crate) const DAY: u64 = 24 * HOUR;

/// Milliseconds since 1970 of "YYYY-MM-DD HH:MM" in UTC.
pub(crate) fn millis(text: &str) -> u64 {
    let time: jiff::Timestamp = format!("{}:00Z", text.replace(' ', "T")).parse().unwrap();
    u64::try_from(time.as_millisecond()).unwrap()
}

pub(crate) fn time_at(millis: u64) -> ClusterTime {
    ClusterTime { seconds: u32::try_from(millis / 1000).unwrap(), ordinal: 1 }
}

pub(crate) fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

/// A backup that was asked for at this time, and no more.
pub(crate) fn requested(millis: u64, database: &str, trigger: Trigger) -> Operation {
    let who = if trigger == Trigger::Manual { "ana" } else { "schedule" };
    let id = OperationId::of_slot(millis, &[database, who]);
    let detail = Detail::Backup(BackupDetail::requested(trigger, false));
    Operation::requested(id, "main".parse().unwrap(), database.into(), vec![], who.into(), detail)
}

/// A good backup of one instant, that of its request.
pub(crate) fn good(millis: u64, database: &str, trigger: Trigger) -> Operation {
    let mut row = requested(millis, database, trigger);
    verify(&mut row, time_at(millis));
    row
}

/// It ended well, and holds the database as of `time`.
pub(crate) fn verify(row: &mut Operation, time: ClusterTime) {
    row.state = OperationState::Verified;
    let detail = detail(row);
    detail.cluster_time = Some(time);
    detail.consistency = Some(Consistency::SingleInstant);
    detail.restorable_from = Some(time);
    detail.manifest_sha256 = Some("00".repeat(32));
}

pub(crate) fn detail(row: &mut Operation) -> &mut BackupDetail {
    row.backup_mut().unwrap()
}

pub(crate) fn mark(millis: u64, begun: bool) -> Removal {
    Removal { reason: "daily ended".into(), marked_millis: millis, begun }
}

pub(crate) fn hold(reason: &str) -> Hold {
    Hold { reason: reason.into(), user: "ana".into(), since_millis: 0 }
}

pub(crate) fn copy(millis: u64) -> Replica {
    Replica { completed_millis: millis, objects: 5, stored_bytes: 1000 }
}
