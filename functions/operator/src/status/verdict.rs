//! Whether all is well: facts and the time in, a verdict out.
//!
//! Whether a database is backed up is judged as the watch does it: what counts is what was read from the source.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use backup_core::id::RegionName;
use backup_core::operation::{Operation, OperationState, Trigger};
use backup_core::timeline::TimelineHead;
use backup_core::watch::{Overdue, WatchSettings, WatchState, dropped, overdue_databases};
use serde::Serialize;

use super::newest::{self, GoodBackups, ended_millis, folds, has_ended};
use crate::output::{self, listed};

/// Removals are a day apart: the second one in a row that does not come is missed.
const REMOVAL_MILLIS_MAX: u64 = 48 * 3600 * 1000;
/// The watch's keys of what is judged here anew.
const JUDGED_ANEW: &str = "backup/";
/// The watch waits for so long before it tells what may pass by itself.
const UNTOLD_MILLIS: u64 = 10 * 60_000;

/// How it is on the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Health {
    /// All is well.
    Ok,
    /// There are good backups, and something is wrong.
    Warning,
    /// A database has had no good backup for too long.
    Late,
    /// Nothing can be restored.
    NoBackup,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Late => "LATE",
            Self::NoBackup => "NO BACKUP",
        })
    }
}

/// What is judged by. Operations come newest first.
pub(super) struct Facts<'a> {
    pub(super) backups: &'a [Operation],
    /// The good ones among them.
    pub(super) good: &'a GoodBackups<'a>,
    pub(super) drills: &'a [Operation],
    pub(super) prunes: &'a [Operation],
    /// The other regions that are to hold copies.
    pub(super) regions: &'a [RegionName],
    pub(super) head: Option<&'a TimelineHead>,
    pub(super) watch: &'a WatchState,
}

/// The verdict. Shown, it is the line that people read first.
pub(super) struct Verdict {
    pub(super) health: Health,
    told: String,
    /// Everything that is wrong, the worst first.
    pub(super) reasons: Vec<String>,
}

impl Verdict {
    /// What is wrong beside what the line says.
    pub(super) fn beside(&self) -> &[String] {
        match self.health {
            Health::Ok | Health::Warning => &[],
            Health::Late | Health::NoBackup => self.reasons.get(1..).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} – {}", self.health, self.told)
    }
}

/// The verdict on these facts.
pub(super) fn judge(settings: &WatchSettings, facts: &Facts<'_>, now_millis: u64) -> Verdict {
    let mut reasons = warnings(settings, facts, now_millis);
    let overdue = overdue_databases(settings, facts.backups, now_millis);
    let (health, told) = if facts.good.is_empty() {
        (Health::NoBackup, "there is no good backup yet".to_owned())
    } else if let Some(late) = late(&overdue) {
        (Health::Late, late)
    } else if reasons.is_empty() {
        let age = now_millis.saturating_sub(oldest_millis(facts.good).unwrap_or(now_millis));
        (Health::Ok, format!("every database that is backed up was within {}", output::duration(age)))
    } else {
        (Health::Warning, reasons.join("; "))
    };
    if matches!(health, Health::Late | Health::NoBackup) {
        reasons.insert(0, told.clone());
    }
    Verdict { health, told, reasons }
}

/// When the database was backed up that was not for longest; none if none that is still backed up ever was.
fn oldest_millis(good: &GoodBackups<'_>) -> Option<u64> {
    good.values().filter(|it| !it.is_dropped).map(|it| it.newest.id.requested_millis()).min()
}

fn late(overdue: &[Overdue]) -> Option<String> {
    let longest = overdue.iter().max_by_key(|it| it.hours)?;
    let others = overdue.len().saturating_sub(1);
    let more = if others > 0 { format!(", and {others} more") } else { String::new() };
    let Overdue { database, hours, .. } = longest;
    Some(format!("{database:?} has had no good backup read from the source for {hours} hours{more}"))
}

fn warnings(settings: &WatchSettings, facts: &Facts<'_>, now_millis: u64) -> Vec<String> {
    let mut all = Vec::new();
    if !facts.good.is_empty() && oldest_millis(facts.good).is_none() {
        all.push("no database that is backed up now has a good backup yet".to_owned());
    }
    all.extend(failed_backups(settings, facts, now_millis));
    all.extend(removals(facts.prunes, now_millis));
    all.extend(failed_drills(facts));
    all.extend(seen_by_the_watch(facts.watch, now_millis));
    all.extend(standing_still(settings, facts, now_millis));
    all
}

/// Of each database the newest try to read it, and the newest to fold it: the one says nothing of the other. One that
/// was dropped is not tried again.
fn failed_backups(settings: &WatchSettings, facts: &Facts<'_>, now_millis: u64) -> Vec<String> {
    let dropped = dropped(settings, facts.backups, now_millis);
    let mut judged = BTreeSet::new();
    let (mut read, mut folded) = (Vec::new(), Vec::new());
    for backup in facts.backups.iter().filter(|it| it.collections.is_empty() && has_ended(it)) {
        let (database, folds) = (backup.database.as_str(), folds(backup));
        let is_newest = judged.insert((database, folds));
        if is_newest && backup.state == OperationState::Failed && !dropped.contains(database) {
            let failed = if folds { &mut folded } else { &mut read };
            failed.push(format!("{database:?}"));
        }
    }
    let mut told = Vec::new();
    for (what, mut failed) in [("backup read from the source", read), ("folded backup", folded)] {
        if !failed.is_empty() {
            failed.sort();
            told.push(format!("the newest {what} failed for {}", listed(&failed)));
        }
    }
    told
}

/// Whether the last removal failed, and whether they stay away though a schedule has asked for one.
fn removals(prunes: &[Operation], now_millis: u64) -> Vec<String> {
    let newest = newest::removal(prunes);
    let mut told = Vec::new();
    if newest.is_some_and(|(run, _)| run.state == OperationState::Failed) {
        told.push("the last removal failed".to_owned());
    }
    let scheduled = prunes.iter().filter(|it| it.trigger() == Trigger::Automated);
    if let Some(first) = scheduled.map(|it| it.id.requested_millis()).min() {
        let since = newest.map_or(first, |(run, _)| ended_millis(run));
        let age = now_millis.saturating_sub(since);
        if age >= REMOVAL_MILLIS_MAX {
            told.push(format!("no removal has ended for {}", output::duration(age)));
        }
    }
    told
}

/// Of each place and database the newest drill. Databases and regions that there is nothing of any more are not
/// drilled again.
fn failed_drills(facts: &Facts<'_>) -> Vec<String> {
    let mut judged = BTreeSet::new();
    let mut failed: BTreeMap<Option<RegionName>, Vec<String>> = BTreeMap::new();
    for drill in facts.drills.iter().filter(|it| has_ended(it)) {
        let (Ok(detail), database) = (drill.drill(), drill.database.as_str()) else { continue };
        let is_newest = judged.insert((detail.region, database));
        let is_there = detail.region.is_none_or(|region| facts.regions.contains(&region))
            && facts.good.contains_key(database);
        if is_newest && is_there && drill.state == OperationState::Failed {
            failed.entry(detail.region).or_default().push(format!("{database:?}"));
        }
    }
    let told = |(place, mut databases): (Option<RegionName>, Vec<String>)| {
        databases.sort();
        let place = place.map_or("at home".to_owned(), |region| format!("in {region}"));
        format!("the newest drill {place} failed for {}", listed(&databases))
    };
    failed.into_iter().map(told).collect()
}

/// What lasts, told or not: if it could not be told, this is where people see it.
fn seen_by_the_watch(watch: &WatchState, now_millis: u64) -> Vec<String> {
    let is_untold = |key: &&String, since: u64| {
        !watch.told.contains_key(*key) && now_millis.saturating_sub(since) >= UNTOLD_MILLIS
    };
    let untold = watch.since.iter().filter(|(key, since)| is_untold(key, **since)).map(|(key, _)| key);
    let all = |keys: Vec<&String>, what: &str| {
        let keys: Vec<String> = keys.into_iter().filter(|it| !it.starts_with(JUDGED_ANEW)).cloned().collect();
        (!keys.is_empty()).then(|| format!("the watch {what}: {}", listed(&keys)))
    };
    let told = all(watch.told.keys().collect(), "has told");
    let untold = all(untold.collect(), "could not tell people of");
    told.into_iter().chain(untold).collect()
}

/// Without schedules the timeline moves with backups only, and nobody expects more.
fn standing_still(settings: &WatchSettings, facts: &Facts<'_>, now_millis: u64) -> Option<String> {
    let still = now_millis.saturating_sub(facts.head?.moved_millis);
    let mut all = facts.backups.iter().chain(facts.drills).chain(facts.prunes);
    let schedules_run = all.any(|it| {
        let age = now_millis.saturating_sub(it.id.requested_millis());
        it.trigger() == Trigger::Automated && age < settings.backup_millis_max
    });
    (schedules_run && still >= settings.timeline_millis_max)
        .then(|| format!("the timeline has not moved for {}", output::duration(still)))
}

#[cfg(test)]
mod tests;
