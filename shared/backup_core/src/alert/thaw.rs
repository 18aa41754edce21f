//! The alert that a restore has to wait for cold storage.

use super::{Alert, AlertEvent};
use crate::id::OperationId;
use crate::operation::Operation;

impl Alert {
    /// A restore waits until `backup` has come from cold storage.
    #[must_use]
    pub fn restore_waits(operation: &Operation, backup: OperationId) -> Self {
        let body = format!(
            "What: restore {} into database {:?} of source {} waits for backup {backup}, which is in cold storage and \
             was asked for.\nImpact: nothing is changed before it has come, usually within 3 to 5 hours, from \
             DEEP_ARCHIVE within 12; then the restore goes on by itself.\nAsked for by: {}\nNext: nightsafe show {}\n",
            operation.id, operation.database, operation.source, operation.user, operation.id,
        );
        let subject = format!("restore waits for cold storage {}/{}", operation.source, operation.database);
        Self::new(AlertEvent::RestoreInitiated, &subject, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Severity;
    use crate::operation::{Detail, RestoreDetail};

    #[test]
    fn it_says_what_waits_for_which_backup() {
        let (id, backup) = (OperationId::from_bytes([1; 16]), OperationId::from_bytes([2; 16]));
        let detail = Detail::Restore(RestoreDetail::requested(true));
        let source = "main".parse().unwrap();
        let operation = Operation::requested(id, source, "crm".into(), vec![], "ana".into(), detail);
        let alert = Alert::restore_waits(&operation, backup);
        assert_eq!((alert.event, alert.severity), (AlertEvent::RestoreInitiated, Severity::Info));
        assert!(alert.subject.ends_with("restore waits for cold storage main/crm"), "{}", alert.subject);
        for told in [id.to_string(), format!("waits for backup {backup}"), "3 to 5 hours".to_owned()] {
            assert!(alert.body.contains(&told), "{}", alert.body);
        }
    }
}
