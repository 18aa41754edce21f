//! `nightsafe windows`: the times that databases can be restored to, and the gaps between them.

use backup_core::Result;
use backup_core::id::ClusterTime;
use backup_core::operation::{Operation, OperationKind};
use backup_core::plan::windows::{Base, Gap, Window, gaps, windows};
use backup_core::ports::{Catalog, Timeline};
use backup_core::timeline::TimelineHead;
use comfy_table::Table;

use crate::arguments::WindowsArguments;
use crate::output;
use crate::session::Session;

/// Backups looked at, as a restore does.
const LOOKED_AT_MAX: u32 = 10_000;
/// The procedures' objective for transaction logs.
const AGE_MILLIS_MAX: u64 = 3600 * 1000;

pub(crate) async fn run(session: &Session, wanted: &WindowsArguments) -> Result<()> {
    let mut backups = session.catalog.operations(OperationKind::Backup, LOOKED_AT_MAX).await?;
    if let Some(database) = &wanted.database {
        backups.retain(|it| it.database == *database);
    }
    let restorable = Restorable::look(session, &backups).await?;
    let now = Session::now_millis();
    if session.json {
        let value = restorable.as_json(now);
        println!("{value}");
        return Ok(());
    }
    println!("timeline: {}", restorable.reach(now));
    if restorable.windows.is_empty() {
        println!("{}", restorable.why_none());
    } else {
        println!("\n{}", restorable.table());
    }
    Ok(())
}

/// Which times of which databases can be restored.
pub(crate) struct Restorable {
    pub(crate) head: Option<TimelineHead>,
    bases: Vec<Base>,
    pub(crate) windows: Vec<Window>,
}

impl Restorable {
    /// What can be restored from these backups. The head is read before the breaks, so that it is behind none of them.
    pub(crate) async fn look(session: &Session, backups: &[Operation]) -> Result<Self> {
        let head = session.timeline.head().await?;
        let breaks = session.timeline.breaks().await?;
        let bases: Vec<Base> = backups.iter().filter_map(Base::of).collect();
        let windows = windows(&bases, head.as_ref(), &breaks);
        Ok(Self { head, bases, windows })
    }

    /// The last instant that was captured whole.
    pub(crate) fn captured(&self) -> Option<ClusterTime> {
        self.head.as_ref().map(|head| head.to.previous())
    }

    /// How long ago that was, in milliseconds.
    pub(crate) fn age_millis(&self, now_millis: u64) -> Option<u64> {
        self.captured().map(|time| now_millis.saturating_sub(u64::from(time.seconds) * 1000))
    }

    /// How far the timeline is, in words.
    pub(crate) fn reach(&self, now_millis: u64) -> String {
        match (self.captured(), self.age_millis(now_millis)) {
            (Some(time), Some(age)) => {
                let late = if age > AGE_MILLIS_MAX { "LATE, " } else { "" };
                format!("{late}captured up to {}, {} ago", output::instant(time), output::duration(age))
            }
            _ => "not begun: it begins with the first backup, or when capture-log is called".to_owned(),
        }
    }

    fn why_none(&self) -> &'static str {
        let is_ahead = |base: &Base| self.head.as_ref().is_some_and(|head| head.to <= base.from);
        if self.bases.is_empty() {
            "no window: no backup of a whole database has been verified"
        } else if self.bases.iter().any(is_ahead) {
            "no window yet: the newest backup is of a later time than what was captured"
        } else {
            "no window: no backup of a whole database has been verified since the timeline began, or since it was \
             interrupted"
        }
    }

    fn table(&self) -> Table {
        let mut table = output::table(&["database", "from (UTC)", "until (UTC)", "backups", "state"], &[3]);
        let mut gaps = gaps(&self.windows).into_iter().peekable();
        for window in &self.windows {
            table.add_row(window_row(window));
            // They come in the order of the windows that they follow on.
            if let Some(gap) = gaps.next_if(|gap| follows(gap, window)) {
                table.add_row(gap_row(&gap));
            }
        }
        table
    }

    fn as_json(&self, now_millis: u64) -> serde_json::Value {
        let window = |it: &Window| {
            serde_json::json!({
                "database": it.database,
                "from": it.from,
                "until": it.until,
                "backups": it.bases,
                "ended": it.ended.as_ref().map(|ended| ended.reason.to_string()),
            })
        };
        let gap = |it: &Gap| {
            serde_json::json!({
                "database": it.database,
                "from": it.from,
                "to": it.to,
                "reason": it.reason.to_string(),
            })
        };
        serde_json::json!({
            "message_type": "windows",
            "captured": self.captured(),
            "age_millis": self.age_millis(now_millis),
            "windows": self.windows.iter().map(window).collect::<Vec<_>>(),
            "gaps": gaps(&self.windows).iter().map(gap).collect::<Vec<_>>(),
        })
    }
}

fn follows(gap: &Gap, window: &Window) -> bool {
    gap.database == window.database && gap.from == window.until.next()
}

fn window_row(window: &Window) -> [String; 5] {
    let state = match &window.ended {
        Some(ended) => format!("ended: {}", ended.reason),
        None => "grows".to_owned(),
    };
    let backups = window.bases.len().to_string();
    [window.database.clone(), cell(window.from), cell(window.until), backups, state]
}

fn gap_row(gap: &Gap) -> [String; 5] {
    let (until, state) = match gap.to {
        Some(to) => (cell(to.previous()), "gap: not restorable"),
        None => ("–".to_owned(), "gap: not restorable, until there is a new backup of the whole database"),
    };
    [gap.database.clone(), cell(gap.from), until, "–".to_owned(), state.to_owned()]
}

/// A second and the exact cluster time, as `-t` takes either.
fn cell(time: ClusterTime) -> String {
    format!("{} ({time})", time.utc())
}

#[cfg(test)]
mod tests {
    use backup_core::id::OperationId;
    use backup_core::timeline::{Break, BreakReason};

    use super::*;

    const NOW_MILLIS: u64 = 1_795_313_107_000;

    fn time(seconds: u32) -> ClusterTime {
        ClusterTime { seconds: 1_795_312_800 + seconds, ordinal: 1 }
    }

    fn base(number: u8, seconds: u32) -> Base {
        Base {
            backup: OperationId::from_bytes([number; 16]),
            database: "crm".to_owned(),
            oldest: time(seconds),
            from: time(seconds),
            folded: false,
        }
    }

    fn restorable(bases: Vec<Base>, breaks: &[Break]) -> Restorable {
        let began = TimelineHead::beginning(time(0), 0);
        let head = Some(TimelineHead { to: time(127), stored_to: time(127), ..began });
        let windows = windows(&bases, head.as_ref(), breaks);
        Restorable { head, bases, windows }
    }

    #[test]
    fn a_gap_stands_between_its_windows_with_its_reason() {
        let lost = Break {
            from: time(20),
            to: time(40),
            database: None,
            reason: BreakReason::HistoryLost,
            noticed_millis: 0,
        };
        let told = restorable(vec![base(1, 10), base(2, 60), base(3, 70)], &[lost]);
        let text = told.table().to_string();
        let rows: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let check = |row: usize, parts: &[&str]| {
            for part in parts {
                assert!(rows[row].contains(part), "{part:?} in row {row} of {rows:#?}");
            }
        };
        assert_eq!(rows.len(), 4);
        check(1, &["crm", "2026-11-22 02:00:10 (1795312810,1)", "(1795312820,0)", "ended: the server"]);
        check(2, &["crm", "2026-11-22 02:00:20 (1795312820,1)", "(1795312860,0)", "gap"]);
        check(3, &["crm", "(1795312860,1)", "(1795312927,0)", "2", "grows"]);
        let json = told.as_json(NOW_MILLIS);
        assert_eq!(json["gaps"][0]["to"], "1795312860,1");
        assert_eq!(json["windows"][1]["ended"], serde_json::Value::Null);
    }

    #[test]
    fn what_is_not_restorable_is_said() {
        let check = |bases: Vec<Base>, expected: &str| {
            let told = restorable(bases, &[]);
            assert!(told.windows.is_empty());
            assert!(told.why_none().contains(expected), "{}", told.why_none());
        };
        check(vec![], "no backup of a whole database has been verified");
        check(vec![base(1, 127)], "no window yet");
        let mut early = base(1, 0);
        early.oldest = time(0).previous();
        early.from = early.oldest;
        check(vec![early], "since the timeline began");
        let captured = restorable(vec![], &[]).reach(NOW_MILLIS);
        assert_eq!(captured, "captured up to 2026-11-22 02:02:07 UTC (cluster time 1795312927,0), 3 min ago");
        let late = restorable(vec![], &[]).reach(NOW_MILLIS + AGE_MILLIS_MAX);
        assert!(late.starts_with("LATE, captured up to 2026-11-22 02:02:07 UTC"), "{late}");
        let none = Restorable { head: None, bases: Vec::new(), windows: Vec::new() };
        assert!(none.reach(NOW_MILLIS).starts_with("not begun"));
    }
}
