//! What schedules ask for, and for which slot of time. Everything is named after the slot, so that a trigger that
//! comes twice asks for the same thing twice. Slots are in UTC: no day has 23 hours, and none has 25.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::audit::iso_8601;
use crate::error::{Error, ErrorKind, Result};
use crate::id::RegionName;
use crate::operation::{
    BackupDetail, Detail, DrillDetail, Level, Operation, OperationState, PruneDetail, Trigger,
};

/// Older triggers are not worth carrying out: the next slot is near, or has been. The scheduler drops a trigger
/// at this age, too.
const SLOT_AGE_MILLIS_MAX: u64 = 24 * 3_600_000;
/// How far two clocks may be apart.
const SLOT_AHEAD_MILLIS_MAX: u64 = 15 * 60_000;
/// A backup whose request lies further ahead has a wrong date, and is trusted by nobody.
pub(crate) const FUTURE_MILLIS_MAX: u64 = 5 * 60_000;
/// The one spelling of a slot.
const SLOT_FORM: &str = "%Y-%m-%dT%H:%M:%SZ";

/// What a schedule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduled {
    /// A backup that reads the source, of each database.
    Protect,
    /// A backup that is folded, of each database.
    Synthesize,
    /// A run of the pruner.
    Prune,
    /// A drill with a sample of each database.
    SampleDrill,
    /// A drill with the whole of each database.
    FullDrill,
    /// A drill with the whole of each database, from another region's copy.
    RegionDrill,
}

impl Scheduled {
    /// Everything there is to ask for.
    pub const ALL: [Self; 6] =
        [Self::Protect, Self::Synthesize, Self::Prune, Self::SampleDrill, Self::FullDrill, Self::RegionDrill];

    /// The word that schedules use.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Protect => "protect",
            Self::Synthesize => "synthesize",
            Self::Prune => "prune",
            Self::SampleDrill => "sample-drill",
            Self::FullDrill => "full-drill",
            Self::RegionDrill => "region-drill",
        }
    }

    /// Whether it has to know which databases the source has.
    #[must_use]
    pub const fn asks_the_source(self) -> bool {
        matches!(self, Self::Protect | Self::Synthesize)
    }

    /// What each of its operations has when it begins. `region` is where a drill of another region reads; `Invalid` if
    /// such a drill is asked for, and there is none.
    pub fn detail(self, region: Option<RegionName>) -> Result<Detail> {
        let by = Trigger::Automated;
        let drill = |level, region| Detail::Drill(DrillDetail::requested(by, level, region));
        Ok(match self {
            Self::Protect => Detail::Backup(BackupDetail::requested(by, false)),
            Self::Synthesize => {
                Detail::Backup(BackupDetail { folds: true, ..BackupDetail::requested(by, false) })
            }
            Self::Prune => Detail::Prune(PruneDetail::requested(by, false, false)),
            Self::SampleDrill => drill(Level::SampleRestored, None),
            Self::FullDrill => drill(Level::FullyRestored, None),
            Self::RegionDrill => {
                let missing = || {
                    Error::new(
                        ErrorKind::Invalid,
                        "start a drill of another region: there is no other region",
                    )
                    .hint("name regions in the stack's parameter ReplicaRegions, or disable this schedule")
                };
                drill(Level::FullyRestored, Some(region.ok_or_else(missing)?))
            }
        })
    }
}

/// The region whose copies are drilled in the slot: one after the other, each for a quarter of a year.
#[must_use]
pub fn region_in_turn(regions: &[RegionName], slot_millis: u64) -> Option<RegionName> {
    const QUARTER_MILLIS: u64 = 91 * 24 * 3_600_000;
    let turn = usize::try_from(slot_millis / QUARTER_MILLIS).unwrap_or(0);
    regions.get(turn.checked_rem(regions.len())?).copied()
}

impl fmt::Display for Scheduled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The slot that a schedule told of, in milliseconds since 1970 UTC. `Invalid` unless it is written as
/// `YYYY-MM-DDTHH:MM:SSZ`, and lies between a day before and a quarter of an hour behind `now_millis`.
pub fn read_slot(text: &str, now_millis: u64) -> Result<u64> {
    let civil = jiff::civil::DateTime::strptime(SLOT_FORM, text).ok();
    let civil = civil.filter(|civil| civil.strftime(SLOT_FORM).to_string() == text);
    let slot = civil
        .and_then(|civil| civil.to_zoned(jiff::tz::TimeZone::UTC).ok())
        .and_then(|time| u64::try_from(time.timestamp().as_millisecond()).ok());
    let slot = slot.ok_or_else(|| {
        Error::new(ErrorKind::Invalid, "read the slot of a schedule")
            .hint("a time in UTC such as 2026-11-23T02:00:00Z, as <aws.scheduler.scheduled-time> gives it")
    })?;
    let refused = |what: &str| {
        let told = format!("start what was scheduled for {}: that is {what}", iso_8601(slot));
        Err(Error::new(ErrorKind::Invalid, told).hint("name a slot of the last 24 hours"))
    };
    if slot.saturating_add(SLOT_AGE_MILLIS_MAX) < now_millis {
        return refused("more than 24 hours ago");
    }
    if slot > now_millis.saturating_add(SLOT_AHEAD_MILLIS_MAX) {
        return refused("yet to come");
    }
    Ok(slot)
}

/// Which databases something is started for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// These, sorted, each once.
    pub databases: Vec<String>,
    /// Those that were named, but are not there. Sorted, each once.
    pub missing: Vec<String>,
}

/// The databases that were `named`; all that are `there` if none was.
#[must_use]
pub fn choose(named: &[String], there: &BTreeSet<String>) -> Choice {
    if named.is_empty() {
        return Choice { databases: there.iter().cloned().collect(), missing: Vec::new() };
    }
    let named: BTreeSet<String> = named.iter().cloned().collect();
    let (databases, missing) = named.into_iter().partition(|database| there.contains(database));
    Choice { databases, missing }
}

/// Whether a backup is good: verified, the whole of its database, not to be removed, and of a date that can be true.
#[must_use]
pub fn is_good(backup: &Operation, now_millis: u64) -> bool {
    let is_kept_whole = backup.backup().is_ok_and(|detail| detail.lost == 0 && detail.removal.is_none());
    backup.state == OperationState::Verified
        && backup.collections.is_empty()
        && is_kept_whole
        && backup.id.requested_millis() <= now_millis.saturating_add(FUTURE_MILLIS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23 02:00:00 UTC.
    const SLOT: u64 = 1_795_399_200_000;

    #[test]
    fn a_word_is_what_schedules_write() {
        for what in Scheduled::ALL {
            assert_eq!(serde_json::to_value(what).unwrap(), what.word());
            assert_eq!(serde_json::from_value::<Scheduled>(what.word().into()).unwrap(), what);
        }
        assert!(serde_json::from_value::<Scheduled>("Protect".into()).is_err());
    }

    #[test]
    fn a_slot_has_one_spelling() {
        assert_eq!(read_slot("2026-11-23T02:00:00Z", SLOT).unwrap(), SLOT);
        for text in [
            "",
            "now",
            "<aws.scheduler.scheduled-time>",
            "2026-11-23",
            "2026-11-23T02:00:00",
            "2026-11-23T02:00:00+00:00",
            "2026-11-23T02:00:00.000Z",
            "2026-11-23 02:00:00Z",
            "2026-11-23T2:00:00Z",
            " 2026-11-23T02:00:00Z",
            "2026-11-31T02:00:00Z",
            "2026-02-29T02:00:00Z",
            "1969-12-31T23:59:59Z",
        ] {
            let why = read_slot(text, SLOT).unwrap_err();
            assert_eq!(why.kind(), ErrorKind::Invalid, "{text:?}");
            assert!(why.hint_text().is_some(), "{text:?}");
        }
    }

    #[test]
    fn a_slot_is_of_today() {
        const HOUR: u64 = 3_600_000;
        for (now, expected) in [
            (SLOT, None),
            (SLOT + 24 * HOUR, None),
            (SLOT + 24 * HOUR + 1, Some("more than 24 hours ago")),
            (SLOT - HOUR / 4, None),
            (SLOT - HOUR / 4 - 1, Some("yet to come")),
            (u64::MAX, Some("more than 24 hours ago")),
            (0, Some("yet to come")),
        ] {
            let told = read_slot("2026-11-23T02:00:00Z", now).err().map(|why| why.to_string());
            match expected {
                None => assert_eq!(told, None, "at {now}"),
                Some(what) => assert!(told.clone().unwrap().contains(what), "at {now}: {told:?}"),
            }
        }
        // A leap day is a day like any other.
        assert_eq!(read_slot("2028-02-29T00:00:00Z", 1_835_395_200_000).unwrap(), 1_835_395_200_000);
    }

    #[test]
    fn the_databases_are_those_that_were_named_or_all() {
        let there: BTreeSet<String> = ["crm", "web"].map(str::to_owned).into();
        for (named, databases, missing) in [
            (vec![], vec!["crm", "web"], vec![]),
            (vec!["web"], vec!["web"], vec![]),
            (vec!["web", "crm", "web"], vec!["crm", "web"], vec![]),
            (vec!["shop", "crm"], vec!["crm"], vec!["shop"]),
            (vec!["CRM"], vec![], vec!["CRM"]),
        ] {
            let named: Vec<String> = named.into_iter().map(str::to_owned).collect();
            let choice = choose(&named, &there);
            assert_eq!(choice.databases, databases, "{named:?}");
            assert_eq!(choice.missing, missing, "{named:?}");
        }
    }

    #[test]
    fn a_drill_of_another_region_needs_one() {
        assert_eq!(Scheduled::RegionDrill.detail(None).unwrap_err().kind(), ErrorKind::Invalid);
        let region = "eu-west-1".parse().unwrap();
        for (what, level, expected) in [
            (Scheduled::SampleDrill, Level::SampleRestored, None),
            (Scheduled::FullDrill, Level::FullyRestored, None),
            (Scheduled::RegionDrill, Level::FullyRestored, Some(region)),
        ] {
            let Detail::Drill(drill) = what.detail(Some(region)).unwrap() else { panic!("{what}") };
            assert_eq!(
                (drill.level, drill.region, drill.trigger),
                (level, expected, Trigger::Automated),
                "{what}"
            );
        }
    }
}
