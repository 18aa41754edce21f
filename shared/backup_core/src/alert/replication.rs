//! Alerts about copies in other regions.

use super::{Alert, AlertEvent};
use crate::error::Error;
use crate::id::{ClusterTime, RegionName, SourceName};
use crate::operation::Operation;

impl Alert {
    /// A region has no complete copy of a backup.
    #[must_use]
    pub fn copy_incomplete(operation: &Operation, region: RegionName, why: &Error) -> Self {
        let body = format!(
            "What: backup {} of database {:?} on source {} has no complete copy in region {region}.\nWhy: {why} \
             ({})\nImpact: the backup itself is good, and so are its copies in other regions. Should its own region be \
             lost, {region} cannot stand in for it.\n{}Next: nightsafe show {}\n",
            operation.id,
            operation.database,
            operation.source,
            why.kind().name(),
            hint_line(why),
            operation.id,
        );
        let subject = format!("copy INCOMPLETE {}/{} in {region}", operation.source, operation.database);
        Self::new(AlertEvent::ReplicationLags, &subject, body)
    }

    /// The copy of the timeline in a region has not moved for a while.
    #[must_use]
    pub fn timeline_copy_lags(
        source: SourceName,
        region: RegionName,
        to: ClusterTime,
        minutes: u64,
        why: &Error,
    ) -> Self {
        let body = format!(
            "What: the copy of the timeline of source {source} in region {region} is {minutes} minutes behind.\nWhy: \
             {why} ({})\nImpact: the timeline itself is as it was. Should its own region be lost, nothing after \
             cluster time {to} is restorable from {region}.\n{}Next: nightsafe windows\n",
            why.kind().name(),
            hint_line(why),
        );
        Self::new(AlertEvent::ReplicationLags, &format!("timeline copy LAGS {source} in {region}"), body)
    }
}

fn hint_line(why: &Error) -> String {
    why.hint_text().map(|hint| format!("Hint: {hint}\n")).unwrap_or_default()
}
