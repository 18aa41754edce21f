//! Alerts as the procedures list them: which event, how severe, over which channels, in words fit for a pager.

mod replication;
mod retention;
mod sample;
mod thaw;
mod watch;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::id::{ClusterTime, SourceName};
use crate::operation::{ChainProof, Detail, Failure, Operation, OperationKind};
use crate::timeline::Break;

/// How much an alert matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know. Email.
    Info,
    /// Something will need a hand before long. Email.
    Warning,
    /// Look at it today. Email and SMS.
    High,
    /// Look at it now. Email and SMS.
    Critical,
}

/// What happened (the procedures' table).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertEvent {
    /// A backup did not succeed.
    BackupFailure,
    /// A restore began.
    RestoreInitiated,
    /// A stretch of time is not restorable, or may become so.
    TimelineBroken,
    /// A restore or a drill did not succeed, or stored or restored data is not what it should be.
    ValidationError,
    /// The storage that was allowed for is nearly used up.
    StorageNearlyFull,
    /// A backup is late, or still runs when its window has ended.
    BackupLate,
    /// A copy in another region is missing or late.
    ReplicationLags,
    /// What should be removed cannot be, or must not be.
    RetentionStopped,
}

impl AlertEvent {
    /// The severity the procedures give it.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::BackupFailure => Severity::Critical,
            Self::RestoreInitiated => Severity::Info,
            Self::StorageNearlyFull => Severity::Warning,
            Self::BackupLate => Severity::High,
            Self::TimelineBroken | Self::ValidationError | Self::ReplicationLags | Self::RetentionStopped => {
                Severity::High
            }
        }
    }
}

/// What a failure means for the data, as far as is known when it is told.
fn impact(operation: &Operation, failure: &Failure) -> &'static str {
    match &operation.detail {
        Detail::Backup(detail) if detail.manifest_sha256.is_some() => {
            "It was sealed, but not everything in it was proved to be good: do not rely on it."
        }
        Detail::Backup(_) => "No backup was added. Older backups are as they were.",
        // The clean-up did not end, or the execution was cut off and there was none.
        Detail::Restore(_) if matches!(failure.step.as_str(), "abandon-restore" | Failure::STATE_MACHINE) => {
            "It may have been cut off in the middle of its swap: compare the live collections with those kept aside."
        }
        Detail::Restore(_) => "What was live is as it was.",
        Detail::Drill(_) => {
            "Nothing was changed. Until a drill succeeds, nobody knows that this backup can be restored."
        }
        Detail::Prune(_) => {
            "No backup that is needed was removed. What should go is still stored, and costs."
        }
    }
}

/// An alert, ready to be published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What happened.
    pub event: AlertEvent,
    /// How much it matters.
    pub severity: Severity,
    /// One line of at most [`Alert::SUBJECT_CHARACTERS_MAX`] printable ASCII characters.
    pub subject: String,
    /// What happened, on what, why, and what to do next.
    pub body: String,
}

impl Alert {
    /// What SNS accepts as a subject.
    pub const SUBJECT_CHARACTERS_MAX: usize = 100;

    fn new(event: AlertEvent, subject: &str, body: String) -> Self {
        let level = match event.severity() {
            Severity::Info => "INFO",
            Severity::Warning => "WARNING",
            Severity::High => "HIGH",
            Severity::Critical => "CRITICAL",
        };
        let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
        let subject: String = format!("[{level}] {subject}")
            .chars()
            .map(printable)
            .take(Self::SUBJECT_CHARACTERS_MAX)
            .collect();
        Self { event, severity: event.severity(), subject, body }
    }

    /// A backup or restore failed with `failure`.
    #[must_use]
    pub fn operation_failed(operation: &Operation, failure: &Failure) -> Self {
        let kind = operation.kind();
        let event = match kind {
            OperationKind::Backup => AlertEvent::BackupFailure,
            OperationKind::Restore | OperationKind::Drill => AlertEvent::ValidationError,
            OperationKind::Prune => AlertEvent::RetentionStopped,
        };
        let impact = impact(operation, failure);
        let mut body = format!(
            "What: {kind} {} of database {:?} on source {} failed in step {}.\nWhy: {} ({})\nImpact: {impact}\n",
            operation.id,
            operation.database,
            operation.source,
            failure.step,
            failure.message,
            failure.kind.name(),
        );
        if let Some(hint) = &failure.hint {
            body.push_str(&format!("Hint: {hint}\n"));
        }
        body.push_str(&format!("Asked for by: {}\nNext: nightsafe show {}\n", operation.user, operation.id));
        Self::new(event, &format!("{kind} FAILED {}/{}", operation.source, operation.database), body)
    }

    /// Some databases' windows of restorable time were closed.
    #[must_use]
    pub fn window_closed(source: SourceName, breaks: &[Break]) -> Self {
        let mut body = format!("What: the timeline of source {source} was interrupted.\n");
        for it in breaks {
            let whose =
                it.database.as_ref().map_or("every database".to_owned(), |name| format!("database {name:?}"));
            body.push_str(&format!("Why: {} ({whose}, from cluster time {} on)\n", it.reason, it.from));
        }
        body.push_str(
            "Impact: times before that are restorable as they were; later ones are once a new backup was taken, which \
             is started by itself.\nNext: nightsafe windows\n",
        );
        Self::new(AlertEvent::TimelineBroken, &format!("timeline INTERRUPTED {source}"), body)
    }

    /// An earlier backup, folded to the instants of a new one, is not that one; or it was not compared.
    #[must_use]
    pub fn chain_not_proved(operation: &Operation, proof: &ChainProof, different: &[(String, u32)]) -> Self {
        let mut body = format!(
            "What: backup {} of database {:?} on source {} was compared with what backup {} and the timeline make of \
             its chunks: {} are equal, {} are not, {} could not be compared.\n",
            operation.id,
            operation.database,
            operation.source,
            proof.with,
            proof.equal,
            proof.different,
            proof.unproved,
        );
        for (name, ordinal) in different {
            body.push_str(&format!("Different: collection {name:?}, chunk {ordinal}\n"));
        }
        body.push_str(
            "Impact: this backup is good: it was read from the source. Times between it and the one that was read from \
             the source before may not be restorable exactly, nor are backups that were folded since; if chunks \
             differ, these times are in no window any more.\nNext: nightsafe windows\n",
        );
        let subject = format!("chain NOT PROVED {}/{}", operation.source, operation.database);
        Self::new(AlertEvent::ValidationError, &subject, body)
    }

    /// A new backup could not be compared with the one before it.
    #[must_use]
    pub fn chain_not_compared(operation: &Operation, failure: &Failure) -> Self {
        let body = format!(
            "What: backup {} of database {:?} on source {} was not compared with the one before it: {} failed.\nWhy: {} \
             ({})\nImpact: this backup is good: it was read from the source. Whether times between the two are \
             restorable exactly was not proved this time.\nNext: nightsafe windows\n",
            operation.id,
            operation.database,
            operation.source,
            failure.step,
            failure.message,
            failure.kind.name(),
        );
        let subject = format!("chain NOT COMPARED {}/{}", operation.source, operation.database);
        Self::new(AlertEvent::ValidationError, &subject, body)
    }

    /// The timeline has not moved for a while.
    #[must_use]
    pub fn timeline_lags(source: SourceName, to: ClusterTime, minutes: u64, why: &Error) -> Self {
        let body = format!(
            "What: the timeline of source {source} has not moved for {minutes} minutes.\nWhy: {why} ({})\nImpact: \
             nothing after cluster time {to} is restorable yet. Should the server forget those changes first, they \
             never will be.\nHint: {}\nNext: nightsafe windows\n",
            why.kind().name(),
            why.hint_text().unwrap_or("the log of capture-log says more"),
        );
        Self::new(AlertEvent::TimelineBroken, &format!("timeline LAGS {source}"), body)
    }

    /// A restore began.
    #[must_use]
    pub fn restore_initiated(operation: &Operation, replaces: usize) -> Self {
        let body = format!(
            "What: restore {} into database {:?} of source {} began; it replaces {replaces} live collections or views \
             after validation.\nAsked for by: {}\nNext: nightsafe show {}\n",
            operation.id, operation.database, operation.source, operation.user, operation.id,
        );
        let subject = format!("restore started {}/{}", operation.source, operation.database);
        Self::new(AlertEvent::RestoreInitiated, &subject, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::id::OperationId;
    use crate::operation::{BackupDetail, Trigger};

    #[test]
    fn a_hostile_name_cannot_break_the_subject() {
        let detail = BackupDetail::requested(Trigger::Manual, false);
        let operation = Operation::requested(
            OperationId::from_bytes([1; 16]),
            "main".parse().unwrap(),
            format!("crm\n\u{202e}{}", "x".repeat(200)),
            vec![],
            "ana".into(),
            Detail::Backup(detail),
        );
        let failure =
            Failure { step: "dump-chunk".into(), kind: ErrorKind::Denied, message: "no".into(), hint: None };
        let alert = Alert::operation_failed(&operation, &failure);
        assert_eq!(alert.severity, Severity::Critical);
        assert!(alert.subject.starts_with("[CRITICAL] backup FAILED main/crm??x"), "{}", alert.subject);
        assert_eq!(alert.subject.len(), Alert::SUBJECT_CHARACTERS_MAX);
    }
}
