//! The record of who did what, in the shape the procedures give, chained by hashes so that a missing or edited
//! record shows.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::operation::{Detail, Operation, OperationKind};

/// The details that tell a record of what happened to a backup later from that of its end.
const REMOVED: &str = "removed";
const HOLD: &str = "hold";
const RELEASED: &str = "released";

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditStatus {
    /// With evidence of success.
    Success,
    /// Any other way.
    Failure,
}

/// One record. Exactly these five fields are written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRecord {
    /// `backup` or `restore`.
    pub operation: OperationKind,
    /// When, as ISO 8601 in UTC.
    pub timestamp: String,
    /// Who asked.
    pub user: String,
    /// How it ended.
    pub status: AuditStatus,
    /// More: the id, the database, sums, and why it failed.
    pub details: Map<String, Value>,
}

impl AuditRecord {
    /// The record of `operation`, which ended at `now_millis`.
    #[must_use]
    pub fn of(operation: &Operation, status: AuditStatus, now_millis: u64) -> Self {
        let mut details = Map::new();
        details.insert("id".into(), json!(operation.id));
        details.insert("source".into(), json!(operation.source));
        details.insert("database".into(), json!(operation.database));
        if !operation.collections.is_empty() {
            details.insert("collections".into(), json!(operation.collections));
        }
        details.insert("state".into(), json!(operation.state));
        details.insert("documents".into(), json!(operation.totals.documents));
        details.insert("bson_bytes".into(), json!(operation.totals.bson_bytes));
        details.insert("stored_bytes".into(), json!(operation.totals.stored_bytes));
        match &operation.detail {
            Detail::Backup(detail) => {
                details.insert("trigger".into(), json!(detail.trigger));
                details.insert("force".into(), json!(detail.force));
                details.insert("cluster_time".into(), json!(detail.cluster_time));
                details.insert("manifest_sha256".into(), json!(detail.manifest_sha256));
            }
            Detail::Restore(detail) => {
                details.insert("backup".into(), json!(detail.backup));
                details.insert("full".into(), json!(detail.full));
                details.insert("replaced".into(), json!(detail.kept_aside.len()));
            }
            Detail::Drill(detail) => {
                details.insert("drill".into(), json!(detail.level));
                details.insert("backup".into(), json!(detail.backup));
                details.insert("region".into(), json!(detail.region));
                details.insert("reached".into(), json!(detail.reached));
            }
            Detail::Prune(detail) => {
                details.insert("prune".into(), json!(detail));
            }
        }
        if let Some(failure) = &operation.failure {
            details.insert("failure".into(), json!(failure));
        }
        Self {
            operation: audited_as(operation.kind()),
            timestamp: iso_8601(now_millis),
            user: operation.user.clone(),
            status,
            details,
        }
    }

    /// The record of a backup that was removed at `now_millis`, and which rule let it go.
    #[must_use]
    pub fn removed(operation: &Operation, reason: &str, user: &str, now_millis: u64) -> Self {
        Self::because(operation, REMOVED, reason, user, now_millis)
    }

    /// The record of a backup that `user` holds from `now_millis` on: it is not removed, whatever the rules say.
    #[must_use]
    pub fn held(operation: &Operation, reason: &str, user: &str, now_millis: u64) -> Self {
        Self::because(operation, HOLD, reason, user, now_millis)
    }

    /// The record of a backup that `user` holds no more since `now_millis`.
    #[must_use]
    pub fn released(operation: &Operation, reason: &str, user: &str, now_millis: u64) -> Self {
        Self::because(operation, RELEASED, reason, user, now_millis)
    }

    fn because(operation: &Operation, what: &str, reason: &str, user: &str, now_millis: u64) -> Self {
        let mut record = Self::of(operation, AuditStatus::Success, now_millis);
        user.clone_into(&mut record.user);
        record.details.insert(what.to_owned(), json!(reason));
        record
    }

    /// What happened to the operation, in a word that no other of its records has: how it ended and its removal happen
    /// once, but it may be held and released any number of times.
    #[must_use]
    pub fn event(&self) -> String {
        let is_of = |what: &str| self.details.contains_key(what);
        if is_of(REMOVED) {
            "removed".to_owned()
        } else if is_of(HOLD) {
            format!("held at {}", self.timestamp)
        } else if is_of(RELEASED) {
            format!("released at {}", self.timestamp)
        } else if self.status == AuditStatus::Success {
            "success".to_owned()
        } else {
            "failure".to_owned()
        }
    }

    /// The link of this record in the chain: SHA-256 of the link before it and of the record's JSON.
    #[must_use]
    pub fn link(&self, previous: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(previous);
        hash.update(serde_json::to_vec(self).unwrap_or_default()); // strings and numbers only: it always serialises
        hex::encode(hash.finalize())
    }
}

/// The procedures know two words: a drill is a restore, and what is removed are backups.
const fn audited_as(kind: OperationKind) -> OperationKind {
    match kind {
        OperationKind::Backup | OperationKind::Prune => OperationKind::Backup,
        OperationKind::Restore | OperationKind::Drill => OperationKind::Restore,
    }
}

/// An instant as ISO 8601 in UTC, to the millisecond.
#[must_use]
pub fn iso_8601(millis: u64) -> String {
    i64::try_from(millis)
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        .map_or_else(|| format!("{millis} ms"), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::OperationId;
    use crate::operation::{BackupDetail, Trigger};

    #[test]
    fn a_record_has_the_five_fields_of_the_procedures() {
        let record = AuditRecord {
            operation: OperationKind::Backup,
            timestamp: iso_8601(1_795_312_807_042),
            user: "arn:aws:iam::1:user/ana".into(),
            status: AuditStatus::Success,
            details: Map::new(),
        };
        assert_eq!(
            serde_json::to_string(&record).unwrap(),
            r#"{"operation":"backup","timestamp":"2026-11-22T02:00:07.042Z","user":"arn:aws:iam::1:user/ana","status":"success","details":{}}"#
        );
        let edited = AuditRecord { status: AuditStatus::Failure, ..record.clone() };
        assert_ne!(record.link("a"), edited.link("a"));
        assert_ne!(record.link("a"), record.link("b"));
    }

    #[test]
    fn each_event_of_a_backup_has_its_own_word() {
        let (id, source) = (OperationId::from_bytes([1; 16]), "main".parse().unwrap());
        let detail = Detail::Backup(BackupDetail::requested(Trigger::Manual, false));
        let backup = Operation::requested(id, source, "crm".into(), Vec::new(), "ana".into(), detail);
        let at = 1_795_312_807_042;
        for (record, user, event) in [
            (AuditRecord::of(&backup, AuditStatus::Success, at), "ana", "success"),
            (AuditRecord::of(&backup, AuditStatus::Failure, at), "ana", "failure"),
            (AuditRecord::removed(&backup, "daily ended 2026-11-29", "pruner", at), "pruner", "removed"),
            (AuditRecord::held(&backup, "legal", "bo", at), "bo", "held at 2026-11-22T02:00:07.042Z"),
            (AuditRecord::held(&backup, "legal", "bo", at + 1000), "bo", "held at 2026-11-22T02:00:08.042Z"),
            (AuditRecord::released(&backup, "done", "bo", at), "bo", "released at 2026-11-22T02:00:07.042Z"),
        ] {
            assert_eq!((record.user.as_str(), record.event().as_str()), (user, event));
            assert_eq!(record.operation, OperationKind::Backup, "{event}");
            let read: AuditRecord = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
            assert_eq!(read.event(), event, "as it is read from the table");
        }
        let held = AuditRecord::held(&backup, "legal", "bo", at);
        assert_eq!(held.details.get("hold"), Some(&json!("legal")));
        assert_eq!(held.details.get("id"), Some(&json!(id)));
    }
}
