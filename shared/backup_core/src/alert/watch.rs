//! Alerts of the watch: what is wrong though no operation failed.

use super::{Alert, AlertEvent};
use crate::audit::iso_8601;
use crate::error::Error;
use crate::id::{ClusterTime, OperationId, RegionName, SourceName};
use crate::operation::Operation;
use crate::retention::{ShelfUsage, Usage};
use crate::watch::{BackupWindow, Overdue};

/// How many backups, databases or shelves one alert names.
const NAMED_MAX: usize = 20;

impl Alert {
    /// Databases have no good backup that is new enough. There is at least one.
    #[must_use]
    pub fn no_good_backup(source: SourceName, overdue: &[Overdue]) -> Self {
        let hours = overdue.iter().map(|it| it.hours).max().unwrap_or(0);
        let databases = match overdue {
            [one] => format!("database {:?}", one.database),
            many => format!("{} databases", many.len()),
        };
        let mut body =
            format!("What: there was no good backup of {databases} on source {source} for {hours} hours.\n");
        let line = |it: &Overdue| {
            let read = it.read_millis.map_or("none".to_owned(), iso_8601);
            let folded =
                it.folded_millis.map_or(String::new(), |at| format!(", newest folded {}", iso_8601(at)));
            format!(
                "{:?}: newest good one read from the source {read}{folded}; last asked for {}, which is {}",
                it.database, it.asked, it.state,
            )
        };
        list(&mut body, "Database", overdue.iter().map(line));
        body.push_str(
            "Impact: what was lost since then comes back from the timeline only. If nothing ran at all, \
             nobody was told before.\nHint: if a database was dropped, or is backed up no more, this is told \
             once\nNext: nightsafe status\n",
        );
        let what = match overdue {
            [one] => one.database.clone(),
            many => format!("{} databases", many.len()),
        };
        Self::new(AlertEvent::BackupFailure, &format!("NO GOOD BACKUP for {hours} h {source}/{what}"), body)
    }

    /// A source whose timeline was begun has no backup of any database, nor was one asked for.
    #[must_use]
    pub fn never_backed_up(source: SourceName, hours: u64) -> Self {
        let body = format!(
            "What: source {source} was never backed up, though its timeline began {hours} hours ago.\nImpact: nothing \
             of it can be restored.\nHint: the schedules may be disabled, or the source may have no database that \
             the stack's parameter Databases names\nNext: nightsafe backup -d DATABASE\n"
        );
        Self::new(AlertEvent::BackupFailure, &format!("NO BACKUP AT ALL {source}"), body)
    }

    /// Scheduled backups still run though their window is over.
    #[must_use]
    pub fn window_overrun(
        source: SourceName,
        window: &BackupWindow,
        ended_millis: u64,
        running: &[&Operation],
    ) -> Self {
        let mut body = format!(
            "What: {} scheduled backups of source {source} were not done when the backup window {window} (UTC) ended \
             at {}.\n",
            running.len(),
            iso_8601(ended_millis),
        );
        let line = |it: &&Operation| format!("{} of database {:?} is {}", it.id, it.database, it.state);
        list(&mut body, "Backup", running.iter().map(line));
        body.push_str(
            "Impact: they read the source, or wait for their turn, while people use it. Older backups are as they \
             were.\nHint: look at what slows the source down, or give them more time (BackupWindow)\nNext: nightsafe \
             status\n",
        );
        Self::new(AlertEvent::BackupLate, &format!("backup LATE {source}, {} running", running.len()), body)
    }

    /// More of the quota is used than is allowed.
    #[must_use]
    pub fn storage_nearly_full(source: SourceName, usage: &Usage, quota_bytes: u64) -> Self {
        let percent = usage.share_percent(quota_bytes);
        let mut body = format!(
            "What: the backups of source {source} take {} of {quota_bytes} bytes, which is {percent} %.\n",
            usage.total_bytes,
        );
        let line = |shelf: &ShelfUsage| {
            let tier = shelf.tier.map_or("other".to_owned(), |tier| tier.to_string());
            format!(
                "region {}, {tier}: {} bytes in {} backups",
                shelf.region, shelf.stored_bytes, shelf.backups
            )
        };
        list(&mut body, "Shelf", usage.shelves.iter().map(line));
        body.push_str(
            "Impact: none yet: backups are made whatever they take.\nHint: keep less (the stack's retention \
             parameters), delete manual backups, or allow for more (StorageQuotaBytes)\nNext: nightsafe plan \
             retention\n",
        );
        Self::new(AlertEvent::StorageNearlyFull, &format!("storage {percent} % USED {source}"), body)
    }

    /// A region lacks copies of backups.
    #[must_use]
    pub fn copies_missing(
        source: SourceName,
        region: RegionName,
        backups: &[&Operation],
        minutes: u64,
    ) -> Self {
        let mut body = format!(
            "What: region {region} has no copy of {} backups of source {source}, of one for {minutes} minutes.\n",
            backups.len(),
        );
        let line = |it: &&Operation| format!("{} of database {:?}", it.id, it.database);
        list(&mut body, "Backup", backups.iter().map(line));
        body.push_str(&format!(
            "Impact: the backups are good. Should their own region be lost, {region} cannot stand in for it.\nHint: \
             copying was started again; `nightsafe replicas ID` shows where a backup is\nNext: nightsafe list\n"
        ));
        Self::new(AlertEvent::ReplicationLags, &format!("copies MISSING {source} in {region}"), body)
    }

    /// The copy of the timeline in a region was not moved, and nobody told why.
    #[must_use]
    pub fn timeline_copy_stands_still(
        source: SourceName,
        region: RegionName,
        to: ClusterTime,
        minutes: u64,
    ) -> Self {
        let body = format!(
            "What: the copy of the timeline of source {source} in region {region} is {minutes} minutes \
             behind.\nImpact: the timeline itself is as it was. Should its own region be lost, nothing after cluster \
             time {to} is restorable from {region}.\nHint: the log of replicate-timeline says more, if its \
             schedule calls it at all\nNext: nightsafe windows\n"
        );
        Self::new(
            AlertEvent::ReplicationLags,
            &format!("timeline copy STANDS STILL {source} in {region}"),
            body,
        )
    }

    /// The timeline was not moved, and no capture told why.
    #[must_use]
    pub fn timeline_stands_still(source: SourceName, to: ClusterTime, minutes: u64) -> Self {
        let body = format!(
            "What: the timeline of source {source} has not moved for {minutes} minutes, and no capture told \
             why.\nImpact: nothing after cluster time {to} is restorable yet. Should the server forget those changes \
             first, they never will be.\nHint: the schedule of capture-log may be disabled, or its function may not \
             start: its log says more\nNext: nightsafe windows\n"
        );
        Self::new(AlertEvent::TimelineBroken, &format!("timeline STANDS STILL {source}"), body)
    }

    /// The newest good backup does not open in a region.
    #[must_use]
    pub fn key_fails(source: SourceName, region: RegionName, backup: OperationId, why: &Error) -> Self {
        let body = format!(
            "What: the manifest of backup {backup} of source {source} does not open in region {region}.\nWhy: {why} \
             ({})\nImpact: if the key is lost, no backup can be restored in {region}. Nothing should be removed \
             anywhere before this is understood.\n{}Next: nightsafe show {backup}\n",
            why.kind().name(),
            hint(why),
        );
        Self::new(AlertEvent::BackupFailure, &format!("backups DO NOT OPEN {source} in {region}"), body)
    }

    /// A region's bucket does not answer; `is_home` for that of the stack.
    #[must_use]
    pub fn region_unreachable(source: SourceName, region: RegionName, is_home: bool, why: &Error) -> Self {
        let (event, impact) = if is_home {
            (AlertEvent::BackupFailure, "no backup can be made or restored here.")
        } else {
            (AlertEvent::ReplicationLags, "no copies reach it. Backups are made as before.")
        };
        let body = format!(
            "What: the bucket of source {source} in region {region} does not answer.\nWhy: {why} ({})\nImpact: \
             {impact}\n{}Next: nightsafe status\n",
            why.kind().name(),
            hint(why),
        );
        Self::new(event, &format!("region UNREACHABLE {source} in {region}"), body)
    }

    /// Our clock and the store's are apart.
    #[must_use]
    pub fn clock_wrong(source: SourceName, now_millis: u64, store_millis: u64) -> Self {
        let minutes = now_millis.abs_diff(store_millis) / 60_000;
        let body = format!(
            "What: the clock of the functions of source {source} says {}, and that of the bucket {}.\nImpact: nothing \
             is removed while they are {minutes} minutes apart. Dates of new backups may be wrong.\nNext: nightsafe \
             plan retention\n",
            iso_8601(now_millis),
            iso_8601(store_millis),
        );
        Self::new(AlertEvent::RetentionStopped, &format!("clock WRONG by {minutes} min {source}"), body)
    }

    /// The watch could not look at something, or do something about it.
    #[must_use]
    pub fn not_looked_at(source: SourceName, what: &str, why: &Error) -> Self {
        let body = format!(
            "What: the watch over source {source} failed on {what}.\nWhy: {why} ({})\nImpact: whether all is well \
             there is not known. Everything else was looked at.\n{}Next: nightsafe status\n",
            why.kind().name(),
            hint(why),
        );
        Self::new(AlertEvent::BackupFailure, &format!("watch FAILED on {what} {source}"), body)
    }
}

fn list(body: &mut String, label: &str, lines: impl ExactSizeIterator<Item = String>) {
    let more = lines.len().saturating_sub(NAMED_MAX);
    for line in lines.take(NAMED_MAX) {
        body.push_str(&format!("{label}: {line}\n"));
    }
    if more > 0 {
        body.push_str(&format!("{label}: and {more} more\n"));
    }
}

fn hint(why: &Error) -> String {
    why.hint_text().map(|hint| format!("Hint: {hint}\n")).unwrap_or_default()
}
