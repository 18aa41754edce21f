//! The time of day in which scheduled backups are to begin and end.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

const MINUTE_MILLIS: u64 = 60_000;
const DAY_MILLIS: u64 = 24 * 60 * MINUTE_MILLIS;

/// A time of day, every day, in UTC. Written `HH:MM-HH:MM`; one that ends before it begins goes past midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupWindow {
    /// Minutes since midnight.
    from: u64,
    /// Minutes since midnight.
    to: u64,
}

impl BackupWindow {
    /// When the window ends that this instant lies in; none if it lies in none. Both in milliseconds since 1970 UTC.
    #[must_use]
    pub fn end_of(&self, millis: u64) -> Option<u64> {
        let (day, minute) = (millis / DAY_MILLIS, millis % DAY_MILLIS / MINUTE_MILLIS);
        let goes_past_midnight = self.to < self.from;
        let begun_today = minute >= self.from && (goes_past_midnight || minute < self.to);
        let begun_yesterday = goes_past_midnight && minute < self.to;
        let day_of_end = if begun_today && goes_past_midnight { day + 1 } else { day };
        (begun_today || begun_yesterday).then(|| day_of_end * DAY_MILLIS + self.to * MINUTE_MILLIS)
    }
}

impl Default for BackupWindow {
    /// The procedures': 02:00 to 06:00.
    fn default() -> Self {
        Self { from: 2 * 60, to: 6 * 60 }
    }
}

impl fmt::Display for BackupWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

impl FromStr for BackupWindow {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let minutes = |text: &str| {
            let (hours, minutes) = text.split_once(':')?;
            let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
            (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
        };
        text.split_once('-')
            .and_then(|(from, to)| Some(Self { from: minutes(from)?, to: minutes(to)? }))
            .filter(|window| window.from != window.to && window.to_string() == text)
            .ok_or_else(|| {
                Error::new(ErrorKind::Invalid, "read the parameter BackupWindow")
                    .hint("two times of day in UTC, such as 02:00-06:00")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_one_spelling() {
        for text in ["02:00-06:00", "22:30-01:15", "00:00-23:59"] {
            assert_eq!(text.parse::<BackupWindow>().unwrap().to_string(), text);
        }
        for text in ["", "2:00-6:00", "02:00", "02:00-02:00", "02:00-24:00", "02:60-03:00", "02:00 - 06:00"] {
            let why = text.parse::<BackupWindow>().unwrap_err();
            assert_eq!(why.kind(), ErrorKind::Invalid, "{text:?}");
        }
        assert_eq!(BackupWindow::default().to_string(), "02:00-06:00");
    }

    #[test]
    fn a_window_ends_on_its_day() {
        const DAYS: u64 = 20_780 * DAY_MILLIS;
        let at = |days: u64, hours: u64, minutes: u64| {
            DAYS + days * DAY_MILLIS + (hours * 60 + minutes) * MINUTE_MILLIS
        };
        for (window, millis, expected) in [
            ("02:00-06:00", at(0, 1, 59), None),
            ("02:00-06:00", at(0, 2, 0), Some(at(0, 6, 0))),
            ("02:00-06:00", at(0, 6, 0) - 1, Some(at(0, 6, 0))),
            ("02:00-06:00", at(0, 6, 0), None),
            ("02:00-06:00", at(1, 3, 0), Some(at(1, 6, 0))),
            ("22:00-01:00", at(0, 21, 59), None),
            ("22:00-01:00", at(0, 22, 0), Some(at(1, 1, 0))),
            ("22:00-01:00", at(1, 0, 59), Some(at(1, 1, 0))),
            ("22:00-01:00", at(1, 1, 0), None),
        ] {
            let window: BackupWindow = window.parse().unwrap();
            assert_eq!(window.end_of(millis), expected, "{window} at {millis}");
        }
    }
}
