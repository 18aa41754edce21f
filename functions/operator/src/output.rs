//! How numbers, times and tables look.

use backup_core::audit::iso_8601;
use backup_core::id::ClusterTime;
use backup_core::operation::{Operation, RestoreTime, Totals};

use comfy_table::{CellAlignment, Table, presets};

/// Names that one line has room for.
const LISTED_MAX: usize = 5;

/// The first of them, and how many more there are.
pub(crate) fn listed(all: &[String]) -> String {
    let first: Vec<&str> = all.iter().take(LISTED_MAX).map(String::as_str).collect();
    let more = all.len().saturating_sub(LISTED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", first.join(", "))
}

/// Bytes with a unit, three digits.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        unit = next;
        if value < 1024.0 {
            break;
        }
        if next != "PiB" {
            value /= 1024.0;
        }
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// A count with a comma before every three digits.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `50,000 documents, 68.1 MiB of BSON in 14.9 MiB stored (4.6:1)`.
pub(crate) fn totals(totals: &Totals) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let ratio = totals.bson_bytes as f64 / totals.stored_bytes.max(1) as f64;
    format!(
        "{} documents, {} of BSON in {} stored ({ratio:.1}:1)",
        count(totals.documents),
        bytes(totals.bson_bytes),
        bytes(totals.stored_bytes),
    )
}

/// A time to the second.
pub(crate) fn time(millis: u64) -> String {
    let text = iso_8601(millis);
    text.get(..19).map_or(text.clone(), |to_seconds| to_seconds.replace('T', " "))
}

/// An instant: its second in UTC, and what is exact.
pub(crate) fn instant(time: ClusterTime) -> String {
    match time.ordinal {
        u32::MAX => format!("{} UTC (the whole second)", time.utc()),
        _ => format!("{} UTC (cluster time {time})", time.utc()),
    }
}

/// What a restore was asked to restore to.
pub(crate) fn restore_time(time: RestoreTime) -> String {
    match time {
        RestoreTime::Latest => "the latest time".to_owned(),
        RestoreTime::At(time) => instant(time),
    }
}

/// How long something took, or how long ago it was.
pub(crate) fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A table without lines; `right` are the columns of numbers.
pub(crate) fn table(header: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// An operation as JSON, with what kind of message it is.
pub(crate) fn json(message_type: &str, operation: &Operation) -> serde_json::Value {
    let mut value = serde_json::json!(operation);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("message_type".into(), message_type.into());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        for (number, expected) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (u64::MAX, "16384.0 PiB")]
        {
            assert_eq!(bytes(number), expected);
        }
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), expected);
        }
    }

    #[test]
    fn a_long_list_is_cut() {
        for (count, expected) in
            [(0, ""), (1, "1"), (2, "1, 2"), (5, "1, 2, 3, 4, 5"), (7, "1, 2, 3, 4, 5 and 2 more")]
        {
            let all: Vec<String> = (1..=count).map(|number: u32| number.to_string()).collect();
            assert_eq!(listed(&all), expected);
        }
    }

    #[test]
    fn an_instant_names_what_is_exact() {
        for (time, expected) in [
            ("1795312807,3", "2026-11-22 02:00:07 UTC (cluster time 1795312807,3)"),
            ("1795312807,4294967295", "2026-11-22 02:00:07 UTC (the whole second)"),
        ] {
            assert_eq!(instant(time.parse().unwrap()), expected);
        }
    }
}
