//! The decisions: facts and the time in, findings out. Each stands for itself, so that what could not be looked at
//! hides nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, HOUR_MILLIS, WatchSettings};
use crate::alert::Alert;
use crate::id::{OperationId, RegionName, SourceName};
use crate::operation::{Operation, OperationState, Trigger};
use crate::retention::Usage;
use crate::schedule::{FUTURE_MILLIS_MAX, is_good};
use crate::timeline::{ReplicatedTimeline, TimelineHead};

/// How far the store's clock and ours may be apart, in milliseconds: as far as the pruner trusts them.
const CLOCKS_APART_MILLIS_MAX: u64 = 10 * 60_000;
/// More databases than these without a backup have one cause, and are told together.
const OVERDUE_APART_MAX: usize = 10;

/// A database without a good backup that is new enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// The database.
    pub database: String,
    /// How long there has been none, in hours.
    pub hours: u64,
    /// When the newest good one that was read from the source was requested, in milliseconds since 1970 UTC.
    pub read_millis: Option<u64>,
    /// When the newest good one that was folded was requested, in milliseconds since 1970 UTC.
    pub folded_millis: Option<u64>,
    /// The newest one that was to be read from the source, or else folded.
    pub asked: OperationId,
    /// How far that is.
    pub state: OperationState,
}

/// What there is of one database.
struct Care<'a> {
    /// The oldest request that is known, in milliseconds since 1970 UTC.
    asked_first: u64,
    /// The newest, whatever it was for.
    asked_last: u64,
    /// Whether a schedule ever asked for one.
    is_scheduled: bool,
    /// Whether others are backed up without it.
    is_dropped: bool,
    /// The newest that was to read the source; any, if there is none.
    newest: &'a Operation,
    read_millis: Option<u64>,
    folded_millis: Option<u64>,
}

/// The dead man's switch: the databases whose newest good backup is too old, or that have none. What counts is what was
/// read from the source. A source that was never asked for a backup is overdue, too, once its timeline is old enough.
///
/// A database that others are backed up without is told once: it was dropped, or is no longer named. Where schedules
/// ask for backups, a database of which only a person ever asked for one is nobody's duty.
#[must_use]
pub fn overdue(
    (source, settings): (SourceName, &WatchSettings),
    backups: &[Operation],
    head: Option<&TimelineHead>,
    now_millis: u64,
) -> Vec<Finding> {
    if cared_for(settings, backups, now_millis).is_empty() {
        return never_backed_up((source, settings), head, now_millis);
    }
    let all = overdue_databases(settings, backups, now_millis);
    if all.len() > OVERDUE_APART_MAX {
        return vec![Finding::new("backup/", Alert::no_good_backup(source, &all))];
    }
    let told = |it: &Overdue| {
        let alert = Alert::no_good_backup(source, std::slice::from_ref(it));
        Finding::new(format!("backup/{}", it.database), alert)
    };
    all.iter().map(told).collect()
}

/// The databases that [`overdue`] tells of, by name. None if there never was a backup.
#[must_use]
pub fn overdue_databases(settings: &WatchSettings, backups: &[Operation], now_millis: u64) -> Vec<Overdue> {
    let cared_for = cared_for(settings, backups, now_millis);
    let by_schedule = cared_for.values().any(|care| care.is_scheduled);
    let mut all = Vec::new();
    for (database, care) in cared_for {
        let age = now_millis.saturating_sub(care.read_millis.unwrap_or(care.asked_first));
        if age >= settings.backup_millis_max && !care.is_dropped && care.is_scheduled == by_schedule {
            all.push(Overdue {
                database: database.to_owned(),
                hours: age / HOUR_MILLIS,
                read_millis: care.read_millis,
                folded_millis: care.folded_millis,
                asked: care.newest.id,
                state: care.newest.state,
            });
        }
    }
    all
}

/// The databases that others are backed up without for so long that they were dropped, or are no longer named.
#[must_use]
pub fn dropped<'a>(settings: &WatchSettings, backups: &'a [Operation], now_millis: u64) -> BTreeSet<&'a str> {
    let cared_for = cared_for(settings, backups, now_millis);
    cared_for.into_iter().filter(|(_, care)| care.is_dropped).map(|(database, _)| database).collect()
}

fn never_backed_up(
    (source, settings): (SourceName, &WatchSettings),
    head: Option<&TimelineHead>,
    now_millis: u64,
) -> Vec<Finding> {
    let began = head.map(|head| u64::from(head.began.seconds) * 1000);
    let age = began.map_or(0, |began| now_millis.saturating_sub(began));
    if age < settings.backup_millis_max {
        return Vec::new();
    }
    vec![Finding::new("backup/", Alert::never_backed_up(source, age / HOUR_MILLIS))]
}

/// Of backups of whole databases.
fn cared_for<'a>(
    settings: &WatchSettings,
    backups: &'a [Operation],
    now_millis: u64,
) -> BTreeMap<&'a str, Care<'a>> {
    let mut all: BTreeMap<&str, Care<'_>> = BTreeMap::new();
    for backup in backups.iter().filter(|it| it.collections.is_empty()) {
        let (requested, Ok(detail)) = (backup.id.requested_millis(), backup.backup()) else { continue };
        if requested > now_millis.saturating_add(FUTURE_MILLIS_MAX) {
            continue;
        }
        let care = all.entry(backup.database.as_str()).or_insert(Care {
            asked_first: requested,
            asked_last: requested,
            is_scheduled: false,
            is_dropped: false,
            newest: backup,
            read_millis: None,
            folded_millis: None,
        });
        care.asked_first = care.asked_first.min(requested);
        care.asked_last = care.asked_last.max(requested);
        care.is_scheduled |= detail.trigger == Trigger::Automated;
        let rank = |it: &Operation| (it.backup().is_ok_and(|detail| !detail.folds), it.id);
        if rank(backup) > rank(care.newest) {
            care.newest = backup;
        }
        if is_good(backup, now_millis) {
            let newest = if detail.folds { &mut care.folded_millis } else { &mut care.read_millis };
            *newest = (*newest).max(Some(requested));
        }
    }
    let newest_of_all = all.values().map(|care| care.asked_last).max().unwrap_or(0);
    for care in all.values_mut() {
        care.is_dropped = care.asked_last.saturating_add(settings.backup_millis_max) < newest_of_all;
    }
    all
}

/// Scheduled backups that still run though the window they began in is over: one finding for each window.
#[must_use]
pub fn late(
    (source, settings): (SourceName, &WatchSettings),
    backups: &[Operation],
    now_millis: u64,
) -> Vec<Finding> {
    let mut by_window: BTreeMap<u64, Vec<&Operation>> = BTreeMap::new();
    for backup in backups {
        let is_scheduled = backup.backup().is_ok_and(|detail| detail.trigger == Trigger::Automated);
        let end = settings.window.end_of(backup.id.requested_millis());
        if let Some(end) = end.filter(|end| is_scheduled && !backup.state.is_final() && *end <= now_millis) {
            by_window.entry(end).or_default().push(backup);
        }
    }
    let told = |(end, running): (u64, Vec<&Operation>)| {
        Finding::new(format!("window/{end}"), Alert::window_overrun(source, &settings.window, end, &running))
    };
    by_window.into_iter().map(told).collect()
}

/// The newest good backup of all, of those that a region has a copy of, if one is named.
#[must_use]
pub fn newest_good(backups: &[Operation], region: Option<RegionName>, now_millis: u64) -> Option<&Operation> {
    let is_there = |backup: &&Operation| {
        let has_copy = |region| backup.backup().is_ok_and(|detail| detail.replicas.contains_key(&region));
        is_good(backup, now_millis) && region.is_none_or(has_copy)
    };
    backups.iter().filter(is_there).max_by_key(|backup| backup.id)
}

/// A backup that regions should have a copy of, and have not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking<'a> {
    /// The backup.
    pub backup: &'a Operation,
    /// The regions.
    pub regions: Vec<RegionName>,
    /// For how long they might have had it, in milliseconds.
    pub millis: u64,
}

/// What other regions lack, newest first.
///
/// Once a region has a newer backup of a database, the pruner takes the older ones from it, except those that are
/// `kept_everywhere`. What lies in cold storage cannot be copied any more: it lacks only in regions that came later.
#[must_use]
pub fn lacking<'a>(
    backups: &'a [Operation],
    kept_everywhere: &BTreeSet<OperationId>,
    regions: &[RegionName],
    now_millis: u64,
) -> Vec<Lacking<'a>> {
    let good: Vec<&Operation> = backups.iter().filter(|backup| is_good(backup, now_millis)).collect();
    let mut newest_copy: BTreeMap<(&str, RegionName), OperationId> = BTreeMap::new();
    for backup in &good {
        for region in backup.backup().iter().flat_map(|detail| detail.replicas.keys()) {
            let newest = newest_copy.entry((backup.database.as_str(), *region)).or_insert(backup.id);
            *newest = backup.id.max(*newest);
        }
    }
    let mut all = Vec::new();
    for backup in good {
        let Ok(detail) = backup.backup() else { continue };
        let is_wanted = |region: &&RegionName| {
            let newest = newest_copy.get(&(backup.database.as_str(), **region));
            let is_superseded = newest.is_some_and(|newest| *newest > backup.id);
            !detail.replicas.contains_key(*region) && (kept_everywhere.contains(&backup.id) || !is_superseded)
        };
        let regions: Vec<RegionName> = regions.iter().filter(is_wanted).copied().collect();
        if !detail.is_cold && !regions.is_empty() {
            let since = backup.finished_millis.unwrap_or_else(|| backup.id.requested_millis());
            all.push(Lacking { backup, regions, millis: now_millis.saturating_sub(since) });
        }
    }
    all.sort_by_key(|it| std::cmp::Reverse(it.backup.id));
    all
}

/// The regions that have lacked something for too long.
#[must_use]
pub fn replication(
    (source, settings): (SourceName, &WatchSettings),
    lacking: &[Lacking<'_>],
    regions: &[RegionName],
) -> Vec<Finding> {
    let mut all = Vec::new();
    for region in regions {
        let is_late =
            |it: &&Lacking<'_>| it.millis >= settings.replication_millis_max && it.regions.contains(region);
        let late: Vec<&Lacking<'_>> = lacking.iter().filter(is_late).collect();
        let Some(longest) = late.iter().map(|it| it.millis).max() else { continue };
        let backups: Vec<&Operation> = late.iter().map(|it| it.backup).collect();
        let alert = Alert::copies_missing(source, *region, &backups, longest / 60_000);
        all.push(Finding::new(format!("replication/{region}"), alert));
    }
    all
}

/// Whether the timeline stands still, and whether its copies do. A capture that fails tells of it itself, with the
/// reason: here it is told if none runs at all.
#[must_use]
pub fn timeline(
    (source, settings): (SourceName, &WatchSettings),
    head: &TimelineHead,
    copies: &[(RegionName, Option<ReplicatedTimeline>)],
    now_millis: u64,
) -> Vec<Finding> {
    let mut all = Vec::new();
    let lag = now_millis.saturating_sub(head.moved_millis);
    let was_just_told = now_millis.abs_diff(head.lag_told_millis) < 2 * HOUR_MILLIS;
    if lag >= settings.timeline_millis_max && !was_just_told {
        let alert = Alert::timeline_stands_still(source, head.to, lag / 60_000);
        all.push(Finding::new("timeline", alert));
    }
    for (region, copy) in copies {
        let to = copy.map_or(head.began, |copy| copy.to);
        let behind = u64::from(head.stored_to.seconds.saturating_sub(to.seconds)) * 1000;
        if head.stored_to > to && behind >= settings.replication_millis_max {
            let alert = Alert::timeline_copy_stands_still(source, *region, to, behind / 60_000);
            // On an idle source a slice may be an hour long, and is copied some minutes later.
            all.push(Finding::new(format!("timeline-copy/{region}"), alert).once_it_lasts());
        }
    }
    all
}

/// Whether our clock is wrong, or the store's.
#[must_use]
pub fn clock(source: SourceName, now_millis: u64, store_millis: u64) -> Option<Finding> {
    let is_wrong = now_millis.abs_diff(store_millis) > CLOCKS_APART_MILLIS_MAX;
    is_wrong
        .then(|| Finding::new("clock", Alert::clock_wrong(source, now_millis, store_millis)).once_it_lasts())
}

/// Whether more than the allowed share of the quota is used.
#[must_use]
pub fn storage(
    (source, settings): (SourceName, &WatchSettings),
    usage: &Usage,
    quota_bytes: Option<u64>,
) -> Option<Finding> {
    let quota = quota_bytes.filter(|quota| *quota > 0)?;
    let is_nearly_full = usage.share_percent(quota) > settings.storage_percent_max;
    is_nearly_full.then(|| Finding::new("storage", Alert::storage_nearly_full(source, usage, quota)))
}

#[cfg(test)]
mod tests;
