//! What is wrong now, as far as facts and the time tell: every decision of the step `watch`, and what it remembers of
//! what it told.

mod backup_window;
mod findings;
mod memory;

use crate::id::RegionName;

pub use backup_window::BackupWindow;
pub use findings::{
    Lacking, Overdue, clock, dropped, lacking, late, newest_good, overdue, overdue_databases, replication,
    storage, timeline,
};
pub use memory::{Finding, Sighting, WatchState};

const HOUR_MILLIS: u64 = 3_600_000;

/// When something is wrong. The defaults are the procedures'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchSettings {
    /// The region of the stack.
    pub home: RegionName,
    /// The time of day in which scheduled backups begin and end.
    pub window: BackupWindow,
    /// How old the newest good backup of a database may be, in milliseconds: the procedures' 24 hours, and four more
    /// for the backup itself.
    pub backup_millis_max: u64,
    /// How long the timeline may stand still, in milliseconds (the procedures' objective for transaction logs).
    pub timeline_millis_max: u64,
    /// How long a backup or a stretch of the timeline may lack a copy in another region, in milliseconds.
    pub replication_millis_max: u64,
    /// How much of the storage that was allowed for may be used, in percent.
    pub storage_percent_max: u64,
}

impl WatchSettings {
    /// The procedures' settings, of a stack in region `home`.
    #[must_use]
    pub fn of(home: RegionName) -> Self {
        Self {
            home,
            window: BackupWindow::default(),
            backup_millis_max: 28 * HOUR_MILLIS,
            timeline_millis_max: HOUR_MILLIS,
            replication_millis_max: HOUR_MILLIS,
            storage_percent_max: 80,
        }
    }
}
