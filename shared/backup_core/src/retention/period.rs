//! Periods of the calendar in UTC, as an owner writes them, and the dates they end on.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::fmt::friendly::{Designator, Spacing, SpanPrinter};
use jiff::tz::Offset;
use jiff::{Span, SpanFieldwise, Timestamp};

use crate::error::{Error, ErrorKind, Result};

/// What a period looks like, for hints.
pub(super) const EXAMPLES: &str = "a period such as \"7 days\", \"12 months\" or \"90s\"";
/// A shorter period is a slip of the pen, in milliseconds.
const SHORTEST_MILLIS: u64 = 1000;
/// How a period is shown: "12 months".
const PRINTER: SpanPrinter =
    SpanPrinter::new().designator(Designator::Verbose).spacing(Spacing::BetweenUnitsAndDesignators);

/// A period of the calendar in UTC, a second long at least. Days have 24 hours. Where the day that a month or a year
/// leads to does not exist, the last one of its month is meant: February 29 and 12 months are February 28.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(SpanFieldwise);

impl Period {
    /// So many hours.
    pub(super) fn hours(hours: u16) -> Self {
        Self(Span::new().hours(hours).fieldwise())
    }

    /// So many days.
    pub(super) fn days(days: u16) -> Self {
        Self(Span::new().days(days).fieldwise())
    }

    /// So many months.
    pub(super) fn months(months: u16) -> Self {
        Self(Span::new().months(months).fieldwise())
    }

    /// When a period that begins at `start_millis` is over, both in milliseconds since 1970 UTC. Never
    /// ([`u64::MAX`]) if that is behind the year 9999.
    #[must_use]
    pub fn end(self, start_millis: u64) -> u64 {
        let end = utc(start_millis).and_then(|start| start.checked_add(self.0.0).ok());
        end.and_then(millis).unwrap_or(u64::MAX)
    }

    /// When a period that is over at `end_millis` began, both in milliseconds since 1970 UTC; 0 if that is before.
    #[must_use]
    pub fn start(self, end_millis: u64) -> u64 {
        let start = utc(end_millis).and_then(|end| end.checked_sub(self.0.0).ok());
        start.and_then(millis).unwrap_or(0)
    }
}

impl FromStr for Period {
    type Err = Error;

    /// Reads "7 days", "12 months", "1 week 12 hours", "90s"; "12m" are minutes, "12mo" are months.
    fn from_str(text: &str) -> Result<Self> {
        let refused = || Error::new(ErrorKind::Invalid, "read a period").hint(EXAMPLES);
        let span: Span = text.parse().map_err(|why: jiff::Error| refused().because(why))?;
        let period = Self(span.fieldwise());
        if !span.is_positive() || period.end(0) < SHORTEST_MILLIS {
            return Err(refused().because("it is shorter than a second"));
        }
        Ok(period)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&PRINTER.span_to_string(&self.0.0))
    }
}

/// The time in UTC; none behind the year 9999.
pub(super) fn utc(millis: u64) -> Option<DateTime> {
    let timestamp = Timestamp::from_millisecond(i64::try_from(millis).ok()?).ok()?;
    Some(Offset::UTC.to_datetime(timestamp))
}

/// The date in UTC, as `YYYY-MM-DD`.
pub(super) fn date(millis: u64) -> String {
    utc(millis).map_or_else(|| "9999-12-31".to_owned(), |time| time.date().to_string())
}

fn millis(time: DateTime) -> Option<u64> {
    let timestamp = Offset::UTC.to_timestamp(time).ok()?;
    u64::try_from(timestamp.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> u64 {
        millis(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_period_ends_by_the_calendar() {
        for (period, start, end) in [
            ("7 days", "2026-02-27T02:00:00", "2026-03-06T02:00:00"),
            ("7 days", "2028-02-27T02:00:00", "2028-03-05T02:00:00"),
            ("12 months", "2028-02-29T02:00:00", "2029-02-28T02:00:00"),
            ("12 months", "2027-02-28T02:00:00", "2028-02-28T02:00:00"),
            ("1 month", "2027-01-31T23:59:59", "2027-02-28T23:59:59"),
            ("1 month", "2028-01-31T23:59:59", "2028-02-29T23:59:59"),
            ("1 week 12 hours", "2026-12-28T14:00:00", "2027-01-05T02:00:00"),
            ("24 hours", "2026-12-31T02:00:00", "2027-01-01T02:00:00"),
            ("90s", "2026-12-31T23:59:00", "2027-01-01T00:00:30"),
            ("1.5 hours", "2026-11-30T02:00:00", "2026-11-30T03:30:00"),
            ("P1Y", "2028-02-29T00:00:00", "2029-02-28T00:00:00"),
        ] {
            let read: Period = period.parse().unwrap();
            assert_eq!(read.end(at(start)), at(end), "{start} and {period}");
        }
    }

    #[test]
    fn a_period_began_by_the_calendar() {
        for (period, end, start) in [
            ("24 hours", "2028-03-01T02:00:00", "2028-02-29T02:00:00"),
            ("1 month", "2027-03-31T02:00:00", "2027-02-28T02:00:00"),
            ("90 s", "2027-01-01T00:00:30", "2026-12-31T23:59:00"),
        ] {
            let read: Period = period.parse().unwrap();
            assert_eq!(read.start(at(end)), at(start), "{period} before {end}");
        }
        assert_eq!(Period::days(7).start(5), 0);
    }

    #[test]
    fn what_ends_behind_all_dates_never_ends() {
        for start in [0, at("2026-11-30T02:00:00"), u64::MAX] {
            assert_eq!("9990 years".parse::<Period>().unwrap().end(start), u64::MAX, "{start}");
        }
        assert_eq!(Period::days(7).end(u64::MAX), u64::MAX);
        assert_eq!(date(u64::MAX), "9999-12-31");
    }

    #[test]
    fn a_period_reads_as_it_is_shown() {
        for (text, shown) in
            [("7d", "7 days"), ("12 months", "12 months"), ("90s", "90 seconds"), ("24h", "24 hours")]
        {
            let read: Period = text.parse().unwrap();
            assert_eq!(read.to_string(), shown);
            assert_eq!(shown.parse::<Period>().unwrap(), read);
        }
    }

    #[test]
    fn a_period_that_is_none_is_refused() {
        for text in ["", "7", "days", "0 days", "0s", "-7 days", "7 days ago", "10ms", "1e9 years", "7 moons"]
        {
            let why = text.parse::<Period>().unwrap_err();
            assert_eq!(why.kind(), ErrorKind::Invalid, "{text:?}");
            assert!(why.hint_text().unwrap().contains("\"7 days\""), "{text:?}");
        }
    }
}
