//! The record of who did what, in the shape the procedures give, chained by hashes so that a missing or edited
//! record shows.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::operation::{Detail, Operation, OperationKind};

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
        }
        if let Some(failure) = &operation.failure {
            details.insert("failure".into(), json!(failure));
        }
        Self {
            operation: operation.kind(),
            timestamp: iso_8601(now_millis),
            user: operation.user.clone(),
            status,
            details,
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
}
