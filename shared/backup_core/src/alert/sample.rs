//! Alerts about the sample of a backup that is restored, and about the owner's checks.

use super::{Alert, AlertEvent};
use crate::operation::Operation;

impl Alert {
    /// No sample of a backup could be restored.
    #[must_use]
    pub fn sample_not_taken(operation: &Operation) -> Self {
        let why = operation.failure.as_ref().filter(|failure| failure.step == "sample-restore");
        let why = why.map_or("the log of sample-restore says more", |failure| failure.message.as_str());
        let body = format!(
            "What: no sample of backup {} of database {:?} on source {} was restored.\nWhy: {why}\nImpact: every chunk of \
             this backup was read back and is good; that a server takes it was not tried.\nNext: nightsafe verify {} \
             --level L3\n",
            operation.id, operation.database, operation.source, operation.id,
        );
        let subject = format!("sample NOT RESTORED {}/{}", operation.source, operation.database);
        Self::new(AlertEvent::ValidationError, &subject, body)
    }

    /// The owner's checks did not pass on what was restored of a backup.
    #[must_use]
    pub fn checks_not_passed(operation: &Operation, why: &str) -> Self {
        let body = format!(
            "What: the owner's checks did not pass on a sample of backup {} of database {:?} on source {}.\nWhy: \
             {why}\nImpact: this backup is what the source was; perhaps the source is not what it should be.\nNext: \
             nightsafe show {}\n",
            operation.id, operation.database, operation.source, operation.id,
        );
        let subject = format!("checks NOT PASSED {}/{}", operation.source, operation.database);
        Self::new(AlertEvent::ValidationError, &subject, body)
    }
}
