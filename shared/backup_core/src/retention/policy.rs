//! What the owner wants kept. Without a word of theirs it is what the procedures say.

use super::period::{EXAMPLES, Period};
use crate::error::{Error, ErrorKind, Result};

/// What the owner wants kept, and how carefully the rest is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long every automated backup is kept.
    pub recent: Period,
    /// How long one backup of each day is kept.
    pub daily: Period,
    /// How long one backup of each week is kept, in the other regions, too.
    pub weekly: Period,
    /// How long one backup of each month is kept, in the other regions, too.
    pub monthly: Period,
    /// How far back every second stays restorable, where it is in a window at all.
    pub any_second: Period,
    /// How long a backup stays that is not good, for whoever looks into it.
    pub failed: Period,
    /// How long a backup stays marked before its objects go.
    pub grace: Period,
    /// How many percent of the backups may be marked in one run, 1 to 100.
    pub share_percent_max: u8,
    /// How many bytes the owner wants stored at most, in all regions; none for no such wish.
    pub quota_bytes: Option<u64>,
    /// Whether what only a month keeps goes to cold storage.
    pub cold: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            recent: Period::hours(24),
            daily: Period::days(7),
            weekly: Period::days(30),
            monthly: Period::months(12),
            any_second: Period::hours(24),
            failed: Period::days(7),
            grace: Period::hours(24),
            share_percent_max: 25,
            quota_bytes: None,
            cold: true,
        }
    }
}

impl Policy {
    /// Reads the parameters of the template, each given as text by its name; what is not given is as in
    /// [`Policy::default`].
    ///
    /// The names are `RecentRetention`, `DailyRetention`, `WeeklyRetention`, `MonthlyRetention`,
    /// `AnySecondRetention`, `FailedRetention`, `PruneGrace` (periods), `PruneShareMaxPercent`, `StorageQuotaBytes`
    /// (0 for none) and `ColdStorage` (`ENABLED` or `DISABLED`).
    pub fn read(parameter: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let default = Self::default();
        let period = |name: &str, default: Period| match parameter(name) {
            Some(text) => text.parse::<Period>().map_err(|why| refused(name, EXAMPLES).because(why)),
            None => Ok(default),
        };
        Ok(Self {
            recent: period("RecentRetention", default.recent)?,
            daily: period("DailyRetention", default.daily)?,
            weekly: period("WeeklyRetention", default.weekly)?,
            monthly: period("MonthlyRetention", default.monthly)?,
            any_second: period("AnySecondRetention", default.any_second)?,
            failed: period("FailedRetention", default.failed)?,
            grace: period("PruneGrace", default.grace)?,
            share_percent_max: match parameter("PruneShareMaxPercent") {
                Some(text) => percent(&text)?,
                None => default.share_percent_max,
            },
            quota_bytes: match parameter("StorageQuotaBytes") {
                Some(text) => quota(&text)?,
                None => default.quota_bytes,
            },
            cold: match parameter("ColdStorage").as_deref() {
                Some("ENABLED") => true,
                Some("DISABLED") => false,
                Some(_) => return Err(refused("ColdStorage", "ENABLED or DISABLED")),
                None => default.cold,
            },
        })
    }
}

fn percent(text: &str) -> Result<u8> {
    let percent = text.parse::<u8>().ok().filter(|percent| (1..=100).contains(percent));
    percent.ok_or_else(|| refused("PruneShareMaxPercent", "a whole number from 1 to 100, such as 25"))
}

fn quota(text: &str) -> Result<Option<u64>> {
    let bytes: u64 = text.parse().map_err(|_| {
        refused("StorageQuotaBytes", "a whole number of bytes, such as 1000000000000, or 0 for none")
    })?;
    Ok((bytes > 0).then_some(bytes))
}

fn refused(name: &str, hint: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("read the parameter {name}")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[(&str, &str)]) -> Result<Policy> {
        let given: Vec<(String, String)> =
            given.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Policy::read(move |asked| given.iter().find(|(name, _)| name == asked).map(|(_, text)| text.clone()))
    }

    #[test]
    fn what_is_not_given_is_as_the_procedures_say() {
        assert_eq!(read(&[]).unwrap(), Policy::default());
        let shown = Policy::default();
        for (period, expected) in [
            (shown.daily, "7 days"),
            (shown.weekly, "30 days"),
            (shown.monthly, "12 months"),
            (shown.any_second, "24 hours"),
        ] {
            assert_eq!(period.to_string(), expected);
        }
    }

    #[test]
    fn every_parameter_is_read() {
        let policy = read(&[
            ("RecentRetention", "36 hours"),
            ("DailyRetention", "90s"),
            ("WeeklyRetention", "2 weeks"),
            ("MonthlyRetention", "7 years"),
            ("AnySecondRetention", "3 days"),
            ("FailedRetention", "2 days"),
            ("PruneGrace", "5 minutes"),
            ("PruneShareMaxPercent", "100"),
            ("StorageQuotaBytes", "1000"),
            ("ColdStorage", "DISABLED"),
        ]);
        let expected = Policy {
            recent: "36 hours".parse().unwrap(),
            daily: "90 seconds".parse().unwrap(),
            weekly: "2 weeks".parse().unwrap(),
            monthly: "7 years".parse().unwrap(),
            any_second: "3 days".parse().unwrap(),
            failed: "2 days".parse().unwrap(),
            grace: "5 minutes".parse().unwrap(),
            share_percent_max: 100,
            quota_bytes: Some(1000),
            cold: false,
        };
        assert_eq!(policy.unwrap(), expected);
        assert_eq!(
            read(&[("StorageQuotaBytes", "0"), ("ColdStorage", "ENABLED")]).unwrap(),
            Policy::default()
        );
    }

    #[test]
    fn a_parameter_that_makes_no_sense_is_named() {
        for (name, text) in [
            ("RecentRetention", ""),
            ("DailyRetention", "0 days"),
            ("WeeklyRetention", "-30 days"),
            ("MonthlyRetention", "12"),
            ("AnySecondRetention", "always"),
            ("FailedRetention", "7 days ago"),
            ("PruneGrace", "0s"),
            ("PruneShareMaxPercent", "0"),
            ("PruneShareMaxPercent", "101"),
            ("PruneShareMaxPercent", "25%"),
            ("StorageQuotaBytes", "-1"),
            ("StorageQuotaBytes", "1 TB"),
            ("ColdStorage", "enabled"),
            ("ColdStorage", ""),
        ] {
            let why = read(&[(name, text)]).unwrap_err();
            assert_eq!(why.kind(), ErrorKind::Invalid, "{name} {text:?}");
            assert!(why.to_string().starts_with(&format!("read the parameter {name}")), "{why}");
            assert!(why.hint_text().is_some_and(|hint| !hint.is_empty()), "{name} {text:?}");
        }
    }
}
