//! Alerts about what should be removed and cannot be.

use super::{Alert, AlertEvent};
use crate::id::{OperationId, SourceName};

impl Alert {
    /// Backups are to be removed, but their objects are locked, and it was not Nightsafe that locked them for so long.
    #[must_use]
    pub fn locked_in_the_way(source: SourceName, backups: &[OperationId]) -> Self {
        /// Backups that an alert names.
        const NAMED_MAX: usize = 20;
        let mut body = format!(
            "What: {} backups of source {source} are to be removed, but the store refuses: their objects are locked.\n\
             Why: somebody else locked them, or put a legal hold on them: no lock of Nightsafe's is that long.\n",
            backups.len(),
        );
        for backup in backups.iter().take(NAMED_MAX) {
            body.push_str(&format!("Locked: {backup}\n"));
        }
        body.push_str(
            "Impact: what is locked stays, and costs, until its lock ends. Every run of the pruner tries again; \
             the others were removed.\nNext: nightsafe prune --dry-run\n",
        );
        Self::new(AlertEvent::RetentionStopped, &format!("retention LOCKED OUT {source}"), body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Severity;

    #[test]
    fn locked_backups_are_named_up_to_a_bound() {
        let backups: Vec<_> = (0..30).map(|number| OperationId::from_bytes([number; 16])).collect();
        let alert = Alert::locked_in_the_way("main".parse().unwrap(), &backups);
        assert_eq!(alert.severity, Severity::High);
        assert!(alert.subject.ends_with("retention LOCKED OUT main"), "{}", alert.subject);
        assert!(alert.body.starts_with("What: 30 backups of source main"), "{}", alert.body);
        assert_eq!(alert.body.matches("\nLocked: ").count(), 20);
    }
}
