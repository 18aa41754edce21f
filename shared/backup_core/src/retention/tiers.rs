//! Tiers: which backups stand for a day, a week and a month, and until when each tier keeps what it keeps.

use std::collections::BTreeMap;
use std::fmt;

use jiff::civil::{Date, DateTime};
use serde::{Deserialize, Serialize};

use super::candidate::Candidate;
use super::period::utc;
use super::policy::Policy;
use crate::id::OperationId;

/// What a backup is kept as. In the order of how long the procedures keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// One of the last automated ones.
    Recent,
    /// It stands for its day.
    Daily,
    /// It stands for its week, which begins on Monday.
    Weekly,
    /// It stands for its month.
    Monthly,
    /// A person asked for it.
    Manual,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Recent => "recent",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Manual => "manual",
        })
    }
}

/// When something that keeps a backup ends, or ended.
pub(super) struct End {
    /// What keeps it; none for a backup that is not good, and kept for whoever looks into it.
    pub(super) tier: Option<Tier>,
    /// In milliseconds since 1970 UTC.
    pub(super) until_millis: u64,
    /// Whether nothing can take its place any more, so that it may be locked until then.
    pub(super) is_settled: bool,
}

/// For each tier of the calendar, database and first day of the stretch: the backup that stands for it.
pub(super) struct Representatives<'a>(BTreeMap<(Tier, &'a str, Date), Rank>);

/// What was read from the source comes before what was folded, and the older before the newer. So a backup that
/// stands for a stretch goes on to do so when newer ones come.
type Rank = (bool, OperationId);

impl<'a> Representatives<'a> {
    /// Of good automated backups only.
    pub(super) fn of(backups: &[Candidate<'a>]) -> Self {
        let mut first: BTreeMap<(Tier, &'a str, Date), Rank> = BTreeMap::new();
        for backup in backups.iter().filter(|it| it.is_good() && it.is_automated()) {
            let rank = (backup.is_folded(), backup.id());
            for (tier, begin) in stretches(backup.requested_millis()) {
                let best = first.entry((tier, backup.database(), begin)).or_insert(rank);
                *best = rank.min(*best);
            }
        }
        Self(first)
    }

    fn has(&self, backup: &Candidate<'_>, tier: Tier, begin: Date) -> bool {
        let standing = self.0.get(&(tier, backup.database(), begin));
        backup.is_good() && standing.is_some_and(|(_, id)| *id == backup.id())
    }

    /// The ends of every tier of an automated backup, those that are over included.
    pub(super) fn ends(&self, policy: &Policy, backup: &Candidate<'_>, now_millis: u64) -> Vec<End> {
        if !backup.is_automated() || !backup.has_manifest() {
            return Vec::new();
        }
        let requested = backup.requested_millis();
        let standing =
            stretches(requested).into_iter().filter(|(tier, begin)| self.has(backup, *tier, *begin));
        let tiers = std::iter::once(Tier::Recent).chain(standing.map(|(tier, _)| tier));
        let of = |tier| {
            let until_millis = end(policy, tier, requested)?;
            let is_settled = !backup.is_folded() || now_millis >= requested.saturating_add(length_max(tier));
            Some(End { tier: Some(tier), until_millis, is_settled })
        };
        tiers.filter_map(of).collect()
    }
}

/// How long a stretch of the tier lasts at most, in milliseconds: behind that no backup that was read from the source
/// takes the place of one that was folded.
const fn length_max(tier: Tier) -> u64 {
    const DAY_MILLIS: u64 = 86_400_000;
    match tier {
        Tier::Recent | Tier::Manual => 0,
        Tier::Daily => DAY_MILLIS,
        Tier::Weekly => 7 * DAY_MILLIS,
        Tier::Monthly => 31 * DAY_MILLIS,
    }
}

/// None for a tier that has no end.
fn end(policy: &Policy, tier: Tier, requested_millis: u64) -> Option<u64> {
    let period = match tier {
        Tier::Recent => policy.recent,
        Tier::Daily => policy.daily,
        Tier::Weekly => policy.weekly,
        Tier::Monthly => policy.monthly,
        Tier::Manual => return None,
    };
    Some(period.end(requested_millis))
}

/// The day, the week and the month of an instant, each with its first day; none behind all dates.
fn stretches(millis: u64) -> Vec<(Tier, Date)> {
    let Some(day) = utc(millis).map(DateTime::date) else { return Vec::new() };
    let week = day.iso_week_date().first_of_week().ok().map(|monday| (Tier::Weekly, monday.date()));
    [(Tier::Daily, day), (Tier::Monthly, day.first_of_month())].into_iter().chain(week).collect()
}
