//! What a person reads: the verdict, and below it what it rests on. One screen, whatever there is.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use backup_core::id::RegionName;
use backup_core::operation::{Level, Operation, OperationState};

use super::Seen;
use super::newest::{self, Good, GoodBackups, ended_millis, folds};
use super::verdict::Verdict;
use crate::follow::waits_for_cold_storage;
use crate::output::{self, listed};
use crate::windows::Restorable;

/// Databases, and operations of one state, that are shown.
const SHOWN_MAX: usize = 10;
/// Failures that are shown.
const FAILURES_SHOWN: usize = 3;
/// Of the reason of a failure; `show` has all of it.
const REASON_CHARACTERS_MAX: usize = 160;

pub(super) fn page(seen: &Seen, good: &GoodBackups<'_>, verdict: &Verdict) -> String {
    let now = seen.now_millis;
    let mut lines = vec![verdict.to_string()];
    lines.extend(verdict.beside().iter().map(|reason| format!("also: {reason}")));
    lines.extend([String::new(), format!("source {}", seen.source)]);
    lines.extend(databases(good, &seen.regions, now));
    lines.push(timeline(&seen.restorable, now));
    lines.extend(room(&seen.stored_bytes(), seen.quota_bytes));
    lines.extend(drills(&seen.drills, &seen.regions, now));
    lines.push(removal(&seen.prunes, now));
    lines.extend(samples(good));
    lines.extend(under_way("running", &seen.running()));
    lines.extend(under_way("waits", &seen.waiting()));
    lines.extend(seen.lease.as_ref().map(|lease| {
        let since = output::time(lease.since_millis);
        format!("lease: {} since {since} UTC, asked for by {}", lease.holder, lease.user)
    }));
    lines.extend(failures(seen.operations(), now));
    lines.push(String::new());
    lines.join("\n")
}

fn ago(millis: u64, now_millis: u64) -> String {
    format!("{} ago", output::duration(now_millis.saturating_sub(millis)))
}

/// A backup, and how old it is.
fn dated(backup: &Operation, now_millis: u64) -> String {
    format!("{} {}", backup.id, ago(backup.id.requested_millis(), now_millis))
}

fn and_more(count: usize) -> Option<String> {
    let more = count.saturating_sub(SHOWN_MAX);
    (more > 0).then(|| format!("  and {more} more"))
}

fn databases(good: &GoodBackups<'_>, regions: &[RegionName], now_millis: u64) -> Vec<String> {
    let mut lines = Vec::new();
    for (database, it) in good.iter().take(SHOWN_MAX) {
        let folded = if folds(it.newest) { " (folded)" } else { "" };
        let dropped = if it.is_dropped { "; others are backed up without it" } else { "" };
        let (newest, totals) = (dated(it.newest, now_millis), output::totals(&it.newest.totals));
        lines.push(format!("  {database}: {newest}{folded}, {totals}{dropped}"));
        let more = where_else(it, regions, now_millis);
        if !more.is_empty() {
            lines.push(format!("    {}", more.join("; ")));
        }
    }
    lines.extend(and_more(good.len()));
    lines
}

/// What else there is of a database: what was read from the source, and what other regions have.
fn where_else(good: &Good<'_>, regions: &[RegionName], now_millis: u64) -> Vec<String> {
    let mut all = Vec::new();
    if folds(good.newest) {
        let read = good.newest_read.map_or("NONE".to_owned(), |it| dated(it, now_millis));
        all.push(format!("read from the source: {read}"));
    }
    let copy = |region: &RegionName| match good.copies.get(region) {
        Some(it) => format!("{region} {}", ago(it.id.requested_millis(), now_millis)),
        None => format!("{region} NONE"),
    };
    let copies: Vec<String> = regions.iter().map(copy).collect();
    if !copies.is_empty() {
        all.push(format!("copies: {}", copies.join(", ")));
    }
    all
}

fn timeline(restorable: &Restorable, now_millis: u64) -> String {
    let growing = restorable.windows.iter().filter(|window| window.ended.is_none()).count();
    let windows = format!("{} windows, {growing} of them growing", restorable.windows.len());
    format!("timeline: {}; {windows}", restorable.reach(now_millis))
}

fn room(stored_bytes: &BTreeMap<RegionName, u64>, quota_bytes: Option<u64>) -> Vec<String> {
    let stored = stored_bytes.iter();
    let mut lines: Vec<String> =
        stored.map(|(region, bytes)| format!("stored: {} in {region}", output::bytes(*bytes))).collect();
    let total: u64 = stored_bytes.values().sum();
    lines.push(match quota_bytes {
        Some(quota) => {
            let percent = total.saturating_mul(100) / quota.max(1);
            format!("quota: {} of {} ({percent} %)", output::bytes(total), output::bytes(quota))
        }
        None => "quota: none".to_owned(),
    });
    lines
}

/// At each place the levels that were proved, the highest first.
fn drills(drills: &[Operation], regions: &[RegionName], now_millis: u64) -> Vec<String> {
    let line = |place: Option<RegionName>| {
        let there = drills.iter().filter(|it| it.drill().is_ok_and(|detail| detail.region == place));
        let proved = newest::proved(there);
        let levels: Vec<String> =
            proved.iter().rev().map(|(level, at)| format!("{level} {}", ago(*at, now_millis))).collect();
        let levels = if levels.is_empty() { "NEVER".to_owned() } else { levels.join(", ") };
        format!("drills: {} {levels}", place.map_or("home".to_owned(), |region| region.to_string()))
    };
    std::iter::once(None).chain(regions.iter().copied().map(Some)).map(line).collect()
}

fn removal(prunes: &[Operation], now_millis: u64) -> String {
    let Some((run, detail)) = newest::removal(prunes) else { return "removal: NEVER".to_owned() };
    let when = ago(ended_millis(run), now_millis);
    if run.state == OperationState::Failed {
        return format!("removal: {when}, FAILED: {}", reason(run));
    }
    format!("removal: {when}, {} removed, {} kept", detail.removed, detail.kept)
}

/// The databases whose newest backup was read back, but not restored.
fn samples(good: &GoodBackups<'_>) -> Option<String> {
    let is_untried = |backup: &Operation| {
        let is_proved = backup.backup().is_ok_and(|it| it.levels.contains_key(&Level::SampleRestored));
        backup.totals.chunks > 0 && !is_proved
    };
    let untried = good.iter().filter(|(_, it)| it.newest_read.is_some_and(is_untried));
    let untried: Vec<String> = untried.map(|(database, _)| format!("{database:?}")).collect();
    (!untried.is_empty())
        .then(|| format!("samples: NONE restored from the newest backup read of {}", listed(&untried)))
}

/// An operation with its database, if it has one.
fn named(operation: &Operation) -> String {
    let what = format!("{} {}", operation.kind(), operation.id);
    if operation.database.is_empty() { what } else { format!("{what} of {}", operation.database) }
}

fn under_way(word: &str, operations: &[&Operation]) -> Vec<String> {
    let line = |it: &&Operation| {
        let since = it.restore().ok().and_then(|detail| detail.thawing_since_millis);
        let since = since.filter(|_| it.state == OperationState::Requested);
        let cold = since.map_or(String::new(), |since| format!(", {}", waits_for_cold_storage(since)));
        format!("{word}: {}{cold}", named(it))
    };
    let mut lines: Vec<String> = operations.iter().take(SHOWN_MAX).map(line).collect();
    lines.extend(and_more(operations.len()));
    lines
}

fn failures<'a>(operations: impl Iterator<Item = &'a Operation>, now_millis: u64) -> Vec<String> {
    let mut failed: Vec<&Operation> = operations.filter(|it| it.state == OperationState::Failed).collect();
    failed.sort_by_key(|it| Reverse(ended_millis(it)));
    let line = |it: &&Operation| {
        format!("failed: {} {}: {}", named(it), ago(ended_millis(it), now_millis), reason(it))
    };
    failed.iter().take(FAILURES_SHOWN).map(line).collect()
}

fn reason(failed: &Operation) -> String {
    let message = failed.failure.as_ref().map(|failure| failure.message.as_str()).unwrap_or_default();
    let mut characters = message.chars();
    let mut reason: String = characters.by_ref().take(REASON_CHARACTERS_MAX).collect();
    if characters.next().is_some() {
        reason.push('…');
    }
    reason
}

#[cfg(test)]
mod tests;
