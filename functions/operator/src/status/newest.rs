//! What is newest of each kind, and what of it counts. Operations come newest first.

use std::collections::BTreeMap;

use backup_core::id::{OperationId, RegionName};
use backup_core::operation::{Level, Operation, OperationState, PruneDetail, Trigger};
use backup_core::schedule::is_good;
use backup_core::watch::{WatchSettings, dropped};

/// What there is of each database that there is a good backup of.
pub(super) type GoodBackups<'a> = BTreeMap<&'a str, Good<'a>>;

/// The newest good backups of one database.
pub(super) struct Good<'a> {
    /// Read from the source or folded.
    pub(super) newest: &'a Operation,
    /// Read from the source.
    pub(super) newest_read: Option<&'a Operation>,
    /// The newest that each other region has a copy of.
    pub(super) copies: BTreeMap<RegionName, &'a Operation>,
    /// Whether others are backed up without the database.
    pub(super) is_dropped: bool,
}

/// The newest good backups of each database.
pub(super) fn good_backups<'a>(
    settings: &WatchSettings,
    backups: &'a [Operation],
    now_millis: u64,
) -> GoodBackups<'a> {
    let dropped = dropped(settings, backups, now_millis);
    let mut all: GoodBackups<'a> = BTreeMap::new();
    for backup in backups.iter().filter(|it| is_good(it, now_millis)) {
        let Ok(detail) = backup.backup() else { continue };
        let database = backup.database.as_str();
        let it = all.entry(database).or_insert_with(|| Good {
            newest: backup,
            newest_read: None,
            copies: BTreeMap::new(),
            is_dropped: dropped.contains(database),
        });
        if !detail.folds {
            it.newest_read.get_or_insert(backup);
        }
        for region in detail.replicas.keys() {
            it.copies.entry(*region).or_insert(backup);
        }
    }
    all
}

/// The newest verified backup of each database that is a whole one.
pub(super) fn verified(backups: &[Operation]) -> BTreeMap<&str, &Operation> {
    let mut newest: BTreeMap<&str, &Operation> = BTreeMap::new();
    let is_whole = |it: &&Operation| it.state == OperationState::Verified && it.collections.is_empty();
    for backup in backups.iter().filter(is_whole) {
        newest.entry(backup.database.as_str()).or_insert(backup);
    }
    newest
}

/// The newest backup that a region has a complete copy of.
pub(super) fn copy_in(region: RegionName, backups: &[Operation]) -> Option<OperationId> {
    let has_copy = |it: &&Operation| it.backup().is_ok_and(|detail| detail.replicas.contains_key(&region));
    backups.iter().find(has_copy).map(|backup| backup.id)
}

/// When drills last proved each level, in milliseconds since 1970 UTC.
pub(super) fn proved<'a>(drills: impl IntoIterator<Item = &'a Operation>) -> BTreeMap<Level, u64> {
    let mut newest = BTreeMap::new();
    for drill in drills.into_iter().filter(|it| it.state == OperationState::Done) {
        let reached = drill.drill().ok().and_then(|detail| detail.reached);
        if let (Some(reached), Some(at)) = (reached, drill.finished_millis) {
            newest.entry(reached).or_insert(at);
        }
    }
    newest
}

/// The newest run of the pruner that ended, and was more than a plan.
pub(super) fn removal(prunes: &[Operation]) -> Option<(&Operation, &PruneDetail)> {
    let ended = prunes.iter().filter(|it| has_ended(it));
    ended.filter_map(|it| Some((it, it.prune().ok()?))).find(|(_, detail)| !detail.dry_run)
}

/// Whether it ended in a way that says something. A person who was refused before it began has read it, and nothing was
/// tried; what a schedule asked for is missing, whenever it failed.
pub(super) fn has_ended(operation: &Operation) -> bool {
    let was_tried = operation.fence.is_some() || operation.trigger() == Trigger::Automated;
    operation.state.is_final() && (operation.state != OperationState::Failed || was_tried)
}

/// When it ended, in milliseconds since 1970 UTC.
pub(super) fn ended_millis(operation: &Operation) -> u64 {
    operation.finished_millis.unwrap_or_else(|| operation.id.requested_millis())
}

/// Whether it is, or was to be, folded.
pub(super) fn folds(backup: &Operation) -> bool {
    backup.backup().is_ok_and(|detail| detail.folds)
}
