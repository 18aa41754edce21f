//! The rules once more, in another way: each backup is asked about each of them by looking at all the others, in whole
//! days and months that are counted by hand.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::format::Consistency;
use backup_core::id::{ClusterTime, OperationId, RegionName};
use backup_core::operation::{BackupDetail, Operation, OperationState, Trigger};
use backup_core::retention::{Facts, Tier};
use backup_core::timeline::{Break, SliceRecord, TimelineHead};

use crate::rows::{DAY, HOUR};

/// A policy in plain numbers.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    pub(crate) recent_hours: u64,
    pub(crate) daily_days: u64,
    pub(crate) weekly_days: u64,
    pub(crate) monthly_months: u64,
    pub(crate) any_second_hours: u64,
    pub(crate) failed_days: u64,
    pub(crate) grace_hours: u64,
    pub(crate) share_percent: usize,
    pub(crate) cold: bool,
}

impl Numbers {
    /// As an owner gives them.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        Some(match name {
            "RecentRetention" => format!("{} hours", self.recent_hours),
            "DailyRetention" => format!("{} days", self.daily_days),
            "WeeklyRetention" => format!("{} days", self.weekly_days),
            "MonthlyRetention" => format!("{} months", self.monthly_months),
            "AnySecondRetention" => format!("{} hours", self.any_second_hours),
            "FailedRetention" => format!("{} days", self.failed_days),
            "PruneGrace" => format!("{} hours", self.grace_hours),
            "PruneShareMaxPercent" => self.share_percent.to_string(),
            "ColdStorage" if self.cold => "ENABLED".to_owned(),
            "ColdStorage" => "DISABLED".to_owned(),
            _ => return None,
        })
    }
}

/// What should be decided about one backup.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) keep: bool,
    pub(crate) tiers: BTreeSet<Tier>,
    pub(crate) cold: bool,
    pub(crate) copies: BTreeMap<RegionName, bool>,
}

/// What should be decided about each backup.
pub(crate) fn expect(numbers: &Numbers, facts: &Facts<'_>) -> BTreeMap<OperationId, Expected> {
    let mut all: Vec<Seen<'_>> = facts.backups.iter().map(|row| Seen::of(row, facts)).collect();
    let tiers: Vec<_> = all.iter().map(|it| tiers(numbers, facts.now_millis, &all, it)).collect();
    all.iter_mut().zip(tiers).for_each(|(it, tiers)| it.tiers = tiers);
    let mut model = Model { numbers, facts, all: &all, promised: BTreeSet::new() };
    model.promised = model.promised();
    let wanted: Vec<bool> = all.iter().map(|it| model.is_wanted(it)).collect();
    let goes = |at: usize| !wanted[at] && all[at].stored && all[at].detail.removal.is_none();
    let stored = all.iter().filter(|it| it.stored && !it.begun).count();
    let allowed = (stored * numbers.share_percent / 100).max(1);
    let is_spared = |at: usize| {
        let older = (0..all.len()).filter(|other| goes(*other) && all[*other].row.id < all[at].row.id);
        !facts.force && goes(at) && older.count() >= allowed
    };
    let expected = |(at, it): (usize, &Seen<'_>)| {
        let keep = model.is_refused() || wanted[at] || is_spared(at);
        let copies = it.detail.replicas.keys().map(|region| (*region, keep && model.keeps_copy(it, *region)));
        let (cold, copies) = (keep && model.is_cold(it), copies.collect());
        (it.row.id, Expected { keep, tiers: it.tiers.clone(), cold, copies })
    };
    all.iter().enumerate().map(expected).collect()
}

/// One backup, with what is asked of it again and again.
#[expect(clippy::struct_excessive_bools, reason = "each answers a question that rules ask")]
struct Seen<'a> {
    row: &'a Operation,
    detail: &'a BackupDetail,
    asked: u64,
    future: bool,
    automated: bool,
    stored: bool,
    begun: bool,
    good: bool,
    /// Counted from the first month of the year 0.
    month: u64,
    instants: Option<(ClusterTime, ClusterTime)>,
    tiers: BTreeSet<Tier>,
}

impl<'a> Seen<'a> {
    fn of(row: &'a Operation, facts: &Facts<'_>) -> Self {
        let detail = row.backup().unwrap();
        let asked = row.id.requested_millis();
        let future = asked > facts.now_millis + 5 * 60 * 1000;
        let stored = detail.manifest_sha256.is_some();
        let begun = detail.removal.as_ref().is_some_and(|it| it.begun);
        let whole = row.collections.is_empty() && detail.lost == 0;
        let good = row.state == OperationState::Verified && whole && !future && !begun;
        let (year, month, _) = civil(asked / DAY);
        let automated = detail.trigger == Trigger::Automated;
        let instants = if good { instants(row, facts.head.unwrap(), facts.breaks) } else { None };
        let (month, tiers) = (year * 12 + month, BTreeSet::new());
        Self { row, detail, asked, future, automated, stored, begun, good, month, instants, tiers }
    }

    fn reaches(&self, time: ClusterTime) -> bool {
        self.instants.is_some_and(|(first, last)| first <= time && time <= last)
    }

    fn is_deleted(&self) -> bool {
        !self.automated && self.stored && self.detail.unwanted_by.is_some()
    }
}

struct Model<'a> {
    numbers: &'a Numbers,
    facts: &'a Facts<'a>,
    all: &'a [Seen<'a>],
    promised: BTreeSet<OperationId>,
}

impl Model<'_> {
    fn is_refused(&self) -> bool {
        let (now, store) = (self.facts.now_millis, self.facts.store_millis);
        now.max(store) - now.min(store) > 10 * 60 * 1000 || self.facts.unreadable.is_some()
    }

    fn is_wanted(&self, it: &Seen<'_>) -> bool {
        let age_days_max = |days: u64| self.facts.now_millis < it.asked + days * DAY;
        let unfinished = !it.row.state.is_final() && age_days_max(self.numbers.failed_days.max(2));
        let unexplained = !it.good && !it.begun && !it.is_deleted() && age_days_max(self.numbers.failed_days);
        self.is_rested_on(it)
            || unfinished
            || unexplained
            || self.is_newest(it)
            || it.detail.replicas.keys().any(|region| it.good && !self.has_newer_copy(it, *region))
            || !it.tiers.is_empty()
    }

    /// Here and in other regions.
    fn is_rested_on(&self, it: &Seen<'_>) -> bool {
        it.detail.hold.is_some()
            || it.future
            || self.facts.in_use.contains(&it.row.id)
            || self.promised.contains(&it.row.id)
    }

    fn is_newest(&self, it: &Seen<'_>) -> bool {
        it.good && !self.all.iter().any(|other| other.good && is_newer(other, it))
    }

    fn has_newer_copy(&self, it: &Seen<'_>, region: RegionName) -> bool {
        let has = |other: &Seen<'_>| other.good && other.detail.replicas.contains_key(&region);
        self.all.iter().any(|other| has(other) && is_newer(other, it))
    }

    fn keeps_copy(&self, it: &Seen<'_>, region: RegionName) -> bool {
        self.is_refused()
            || it.tiers.contains(&Tier::Weekly)
            || it.tiers.contains(&Tier::Monthly)
            || self.is_rested_on(it)
            || !self.has_newer_copy(it, region)
    }

    fn is_cold(&self, it: &Seen<'_>) -> bool {
        let is_newest_copy =
            it.detail.replicas.keys().any(|region| it.good && !self.has_newer_copy(it, *region));
        let rests = self.is_rested_on(it) || self.is_newest(it) || is_newest_copy;
        self.numbers.cold && !self.is_refused() && !rests && it.tiers == BTreeSet::from([Tier::Monthly])
    }

    /// For every promised instant with which a window begins, or the promise: what it is folded from.
    fn promised(&self) -> BTreeSet<OperationId> {
        let second = |millis: u64| u32::try_from(millis / 1000).unwrap();
        let start = self.facts.now_millis - self.numbers.any_second_hours * HOUR;
        let start = ClusterTime { seconds: second(start), ordinal: 0 };
        let mut found = BTreeSet::new();
        for database in self.all.iter().map(|it| &it.row.database).collect::<BTreeSet<_>>() {
            let own: Vec<&Seen<'_>> = self.all.iter().filter(|it| it.row.database == *database).collect();
            let begins = own.iter().filter_map(|it| it.instants).map(|(first, _)| first);
            for time in begins.filter(|time| *time > start).chain([start]) {
                let goes_on = |it: &&Seen<'_>| it.reaches(time) && it.reaches(time.previous());
                if time > start && own.iter().any(goes_on) {
                    continue;
                }
                let able = own.iter().filter(|it| it.reaches(time));
                let best = able
                    .max_by_key(|it| (it.instants.unwrap().0, it.detail.folded_from.is_none(), it.row.id));
                found.extend(best.map(|it| it.row.id));
            }
        }
        found
    }
}

/// The tiers that one backup of all serves.
fn tiers(numbers: &Numbers, now: u64, all: &[Seen<'_>], it: &Seen<'_>) -> BTreeSet<Tier> {
    if !it.automated {
        let kept = it.stored && it.detail.unwanted_by.is_none();
        return kept.then_some(Tier::Manual).into_iter().collect();
    }
    if it.future || it.begun || !it.stored {
        return BTreeSet::new();
    }
    let week = |millis: u64| (millis / DAY + 3) / 7; // 1970 began on a Thursday
    let recent = now < it.asked + numbers.recent_hours * HOUR;
    let daily = now < it.asked + numbers.daily_days * DAY
        && stands(all, it, |other| other.asked / DAY == it.asked / DAY);
    let weekly = now < it.asked + numbers.weekly_days * DAY
        && stands(all, it, |other| week(other.asked) == week(it.asked));
    let monthly = now < months_later(it.asked, numbers.monthly_months)
        && stands(all, it, |other| other.month == it.month);
    let each =
        [(recent, Tier::Recent), (daily, Tier::Daily), (weekly, Tier::Weekly), (monthly, Tier::Monthly)];
    each.into_iter().filter(|(holds, _)| *holds).map(|(_, tier)| tier).collect()
}

/// Whether no other is before it of those that it could stand for.
fn stands(all: &[Seen<'_>], it: &Seen<'_>, is_beside: impl Fn(&Seen<'_>) -> bool) -> bool {
    let rank = |one: &Seen<'_>| (one.detail.folded_from.is_some(), one.row.id);
    let is_better = |other: &Seen<'_>| {
        let is_able = other.good && other.automated && other.row.database == it.row.database;
        is_able && is_beside(other) && rank(other) < rank(it)
    };
    it.good && !all.iter().any(is_better)
}

fn is_newer(one: &Seen<'_>, than: &Seen<'_>) -> bool {
    one.row.database == than.row.database && one.row.id > than.row.id
}

/// The first and the last instant that a backup can be folded to.
pub(crate) fn instants(
    row: &Operation,
    head: &TimelineHead,
    breaks: &[Break],
) -> Option<(ClusterTime, ClusterTime)> {
    let detail = row.backup().unwrap();
    let (oldest, first) = oldest_and_first(row)?;
    if detail.lost > 0 || !row.collections.is_empty() || row.state != OperationState::Verified {
        return None;
    }
    let crossed = breaks.iter().filter(|it| it.concerns(&row.database) && oldest < it.to);
    let end = crossed.map(|it| it.from).chain([head.to]).min()?;
    (oldest >= head.began && first < end).then(|| (first, end.previous()))
}

fn oldest_and_first(row: &Operation) -> Option<(ClusterTime, ClusterTime)> {
    let detail = row.backup().unwrap();
    let oldest = detail.cluster_time?;
    match detail.consistency? {
        Consistency::SingleInstant => Some((oldest, detail.restorable_from.unwrap_or(oldest))),
        Consistency::Mosaic => Some((oldest, detail.restorable_from?)),
    }
}

/// Whether something that `row` can be folded to, now or when the timeline goes on, is behind the slice.
pub(crate) fn needs_slice(row: &Operation, slice: &SliceRecord, breaks: &[Break]) -> bool {
    let detail = row.backup().unwrap();
    let whole = row.collections.is_empty() && detail.lost == 0;
    let parts = match row.state {
        OperationState::Verified if whole => oldest_and_first(row),
        OperationState::Verified | OperationState::Failed => None,
        _ => detail.cluster_time.map(|time| (time, time)),
    };
    parts.is_some_and(|(oldest, first)| {
        let target = first.max(slice.from);
        let crosses = |it: &Break| it.concerns(&row.database) && oldest < it.to && it.from <= target;
        oldest < slice.to && !breaks.iter().any(crosses)
    })
}

/// The year, the month from 0 and the day from 0 of a day since 1970.
fn civil(mut day: u64) -> (u64, u64, u64) {
    let (mut year, mut month) = (1970, 0);
    while day >= year_days(year) {
        day -= year_days(year);
        year += 1;
    }
    while day >= month_days(year, month) {
        day -= month_days(year, month);
        month += 1;
    }
    (year, month, day)
}

fn is_leap(year: u64) -> bool {
    (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
}

fn year_days(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn month_days(year: u64, month: u64) -> u64 {
    match month {
        1 if is_leap(year) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

/// The same day and time of a later month, or its last day if it is too short.
fn months_later(millis: u64, months: u64) -> u64 {
    let (year, month, day) = civil(millis / DAY);
    let (year, month) = ((year * 12 + month + months) / 12, (month + months) % 12);
    let before: u64 = (1970..year).map(year_days).chain((0..month).map(|it| month_days(year, it))).sum();
    (before + day.min(month_days(year, month) - 1)) * DAY + millis % DAY
}

#[test]
fn the_model_counts_days_as_the_calendar_does() {
    for (text, later) in [
        ("2028-02-29 02:00", "2029-02-28 02:00"),
        ("2027-02-28 02:00", "2028-02-28 02:00"),
        ("2026-12-31 23:59", "2027-12-31 23:59"),
        ("2100-03-01 00:00", "2101-03-01 00:00"),
    ] {
        assert_eq!(months_later(crate::rows::millis(text), 12), crate::rows::millis(later), "{text}");
    }
}
