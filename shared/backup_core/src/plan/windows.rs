//! Which instants of a database can be restored, from which backup, and where nothing can be.
//!
//! A *base* is a verified backup of a whole database. Folding it to an instant takes every change behind its oldest
//! chunk, so it reaches up to the first break behind that, or else as far as the timeline is. A *window* is what bases
//! reach without a break between them. Everything here is decided from the head and the breaks together: whoever reads
//! them reads the head first, so that no break is missing that the head is already behind.

use std::collections::BTreeMap;

use crate::format::Consistency;
use crate::id::{ClusterTime, OperationId};
use crate::operation::{Operation, OperationState};
use crate::timeline::{Break, BreakReason, TimelineHead};

/// A backup that instants can be folded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The backup.
    pub backup: OperationId,
    /// The database that it holds, whole.
    pub database: String,
    /// The T of its oldest chunk: folding takes every change behind it.
    pub oldest: ClusterTime,
    /// The first instant it can be folded to, at or after `oldest`.
    pub from: ClusterTime,
    /// Whether it was itself folded from another one.
    pub folded: bool,
}

impl Base {
    /// The base that a backup is; none if it is not verified, lacks something of its database, or is to be removed.
    #[must_use]
    pub fn of(operation: &Operation) -> Option<Self> {
        let is_leaving = operation.backup().ok()?.is_leaving();
        Self::marked_or_not(operation).filter(|_| !is_leaving)
    }

    /// The base that a backup is, even if it is marked to be removed: a mark may be taken back.
    #[must_use]
    pub fn marked_or_not(operation: &Operation) -> Option<Self> {
        let detail = operation.backup().ok()?;
        let is_whole = operation.collections.is_empty() && detail.lost == 0;
        if operation.state != OperationState::Verified || !is_whole {
            return None;
        }
        let oldest = detail.cluster_time?;
        let from = match detail.consistency? {
            Consistency::SingleInstant => detail.restorable_from.unwrap_or(oldest),
            Consistency::Mosaic => detail.restorable_from?,
        };
        Some(Self {
            backup: operation.id,
            database: operation.database.clone(),
            oldest,
            from: from.max(oldest),
            folded: detail.folded_from.is_some(),
        })
    }
}

/// Instants of a database that can all be restored, and no break among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The database.
    pub database: String,
    /// The first instant.
    pub from: ClusterTime,
    /// The last instant.
    pub until: ClusterTime,
    /// The bases in it, oldest first.
    pub bases: Vec<OperationId>,
    /// What ended it, right behind `until`; none while it grows.
    pub ended: Option<Break>,
}

/// Instants of a database, behind a window, that cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The database.
    pub database: String,
    /// The first instant.
    pub from: ClusterTime,
    /// The first instant behind it; none until there is a new base.
    pub to: Option<ClusterTime>,
    /// What ended the window before it.
    pub reason: BreakReason,
}

/// An instant is in no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRestorable {
    /// The nearest restorable instant before it.
    pub before: Option<ClusterTime>,
    /// The nearest restorable instant after it.
    pub after: Option<ClusterTime>,
}

/// The windows of every database that has one, by database and time.
#[must_use]
pub fn windows(bases: &[Base], head: Option<&TimelineHead>, breaks: &[Break]) -> Vec<Window> {
    let mut reaches: Vec<Reach<'_, '_>> = bases.iter().filter_map(|base| reach(base, head, breaks)).collect();
    reaches.sort_by(|left, right| left.order().cmp(&right.order()));
    let mut windows: Vec<Window> = Vec::new();
    for Reach { base, until, ended } in reaches {
        match windows.last_mut() {
            Some(last) if last.database == base.database && last.until == until => {
                last.bases.push(base.backup);
            }
            _ => windows.push(Window {
                database: base.database.clone(),
                from: base.from,
                until,
                bases: vec![base.backup],
                ended: ended.cloned(),
            }),
        }
    }
    windows
}

/// The base to fold a database to `at` from: of those that reach it the newest, which takes the fewest changes. Of two
/// of one instant, the one that was read from the source.
pub fn base_for<'a>(
    bases: &'a [Base],
    head: Option<&TimelineHead>,
    breaks: &[Break],
    database: &str,
    at: ClusterTime,
) -> Result<&'a Base, NotRestorable> {
    let own = bases.iter().filter(|base| base.database == database);
    let reaches: Vec<Reach<'a, '_>> = own.filter_map(|base| reach(base, head, breaks)).collect();
    let reaching = reaches.iter().filter(|it| it.base.from <= at && at <= it.until);
    let newest = reaching.max_by_key(|it| (it.base.from, !it.base.folded, it.base.backup));
    newest.map(|it| it.base).ok_or_else(|| NotRestorable {
        before: reaches.iter().map(|it| it.until).filter(|until| *until < at).max(),
        after: reaches.iter().map(|it| it.base.from).filter(|from| *from > at).min(),
    })
}

/// What lies between the windows that [`windows`] gave, and behind those that ended.
#[must_use]
pub fn gaps(windows: &[Window]) -> Vec<Gap> {
    let nexts = windows.iter().skip(1).map(Some).chain(std::iter::once(None));
    let gap = |(window, next): (&Window, Option<&Window>)| {
        let (from, ended) = (window.until.next(), window.ended.as_ref()?);
        let to = next.filter(|next| next.database == window.database).map(|next| next.from);
        // Windows touch where a break has no length, and a base was taken at that very instant.
        (to != Some(from)).then(|| Gap {
            database: window.database.clone(),
            from,
            to,
            reason: ended.reason.clone(),
        })
    };
    windows.iter().zip(nexts).filter_map(gap).collect()
}

/// The databases that need a new base: those that have had one, but none that can be followed past the newest break
/// that concerns them. Sorted.
#[must_use]
pub fn bases_wanted(bases: &[Base], breaks: &[Break]) -> Vec<String> {
    let mut newest: BTreeMap<&str, ClusterTime> = BTreeMap::new();
    for base in bases {
        let time = newest.entry(&base.database).or_insert(base.oldest);
        *time = base.oldest.max(*time);
    }
    newest.retain(|database, oldest| breaks.iter().any(|it| it.concerns(database) && it.to > *oldest));
    newest.into_keys().map(str::to_owned).collect()
}

/// The databases whose window grows and has instants behind its newest base: folding gives them a newer one. Sorted.
#[must_use]
pub fn foldings_wanted(bases: &[Base], head: Option<&TimelineHead>, breaks: &[Break]) -> Vec<String> {
    let newest = |window: &Window| {
        bases.iter().filter(|base| window.bases.contains(&base.backup)).map(|base| base.from).max()
    };
    let growing = |window: &Window| window.ended.is_none() && newest(window) < Some(window.until);
    windows(bases, head, breaks).into_iter().filter(growing).map(|window| window.database).collect()
}

/// A base, and how far it can be folded.
struct Reach<'a, 'b> {
    base: &'a Base,
    until: ClusterTime,
    ended: Option<&'b Break>,
}

impl Reach<'_, '_> {
    fn order(&self) -> (&str, ClusterTime, OperationId) {
        (self.base.database.as_str(), self.base.from, self.base.backup)
    }
}

/// None if there is no instant the base can be folded to.
///
/// Of two bases of one database that reach anything, what ends them depends on `from` alone: a break that ends behind
/// a base's `oldest` begins behind its `from`, or the base would reach nothing. So sorted by `from`, the bases of a
/// window stand together, and windows do not overlap.
fn reach<'a, 'b>(base: &'a Base, head: Option<&TimelineHead>, breaks: &'b [Break]) -> Option<Reach<'a, 'b>> {
    let head = head?;
    let in_the_way =
        breaks.iter().filter(|it| it.concerns(&base.database) && it.to > base.oldest && it.from <= head.to);
    let ended = in_the_way.min_by_key(|it| it.from);
    let end = ended.map_or(head.to, |it| it.from);
    let is_followed = base.oldest >= followed_since(head, breaks);
    (is_followed && base.from < end).then(|| Reach { base, until: end.previous(), ended })
}

/// From where on the timeline is known: from its beginning, unless the break is missing that the newest run began
/// with. Nobody knows then where the run before it ended.
fn followed_since(head: &TimelineHead, breaks: &[Break]) -> ClusterTime {
    let began_the_run = |it: &Break| it.database.is_none() && (it.from..=it.to).contains(&head.since);
    if head.since == head.began || breaks.iter().any(began_the_run) { head.began } else { head.since }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::operation::{BackupDetail, Detail, Trigger};

    const DATABASES: [&str; 2] = ["crm", "web"];

    fn at(number: u64) -> ClusterTime {
        ClusterTime::from_u64(number)
    }

    fn base(number: usize, database: &str, oldest: u64, from: u64) -> Base {
        let backup = OperationId::from_bytes([u8::try_from(number).unwrap(); 16]);
        Base { backup, database: database.into(), oldest: at(oldest), from: at(from), folded: false }
    }

    fn cut(from: u64, to: u64, database: Option<&str>) -> Break {
        let (reason, database) = (BreakReason::HistoryLost, database.map(str::to_owned));
        Break { from: at(from), to: at(to), database, reason, noticed_millis: 0 }
    }

    fn head(began: u64, since: u64, to: u64) -> TimelineHead {
        TimelineHead { since: at(since), to: at(to), ..TimelineHead::beginning(at(began), 0) }
    }

    type Cut = (u64, u64, Option<&'static str>);

    /// Bases are `(oldest, from)`, the head is `(began, since, to)`, windows are `(from, until, bases)`.
    fn check(
        name: &str,
        bases: &[(u64, u64)],
        (began, since, to): (u64, u64, u64),
        breaks: &[Cut],
        expected: &[(u64, u64, usize)],
        expected_gaps: &[(u64, Option<u64>)],
    ) {
        let numbered = bases.iter().enumerate();
        let bases: Vec<_> =
            numbered.map(|(number, &(oldest, from))| base(number, "crm", oldest, from)).collect();
        let breaks: Vec<_> = breaks.iter().map(|&(from, to, database)| cut(from, to, database)).collect();
        let found = windows(&bases, Some(&head(began, since, to)), &breaks);
        let bounds: Vec<_> =
            found.iter().map(|it| (it.from.to_u64(), it.until.to_u64(), it.bases.len())).collect();
        assert_eq!(bounds, expected, "{name}");
        let gaps: Vec<_> =
            gaps(&found).iter().map(|it| (it.from.to_u64(), it.to.map(ClusterTime::to_u64))).collect();
        assert_eq!(gaps, expected_gaps, "{name}");
    }

    #[test]
    fn a_window_is_what_bases_reach_without_a_break() {
        let (one, two) = ((10, 10, 100), (10, 60, 100));
        let lost = (50, 60, None);
        check("no base", &[], one, &[], &[], &[]);
        check("one", &[(12, 12)], one, &[], &[(12, 99, 1)], &[]);
        check("two", &[(40, 40), (12, 12)], one, &[], &[(12, 99, 2)], &[]);
        check("as the timeline began", &[(10, 10)], one, &[], &[(10, 99, 1)], &[]);
        check("before the timeline began", &[(9, 9), (8, 30)], one, &[], &[], &[]);
        check("of the newest instant", &[(99, 99)], one, &[], &[(99, 99, 1)], &[]);
        check("newer than the timeline", &[(100, 100)], one, &[], &[], &[]);
        check("lost", &[(12, 12)], two, &[lost], &[(12, 49, 1)], &[(50, None)]);
        let around = [(12, 12), (49, 49), (50, 50), (59, 59), (70, 70)];
        check("around", &around, two, &[lost], &[(12, 49, 2), (70, 99, 1)], &[(50, Some(70))]);
        let behind = [(12, 12), (60, 60)];
        check("right behind", &behind, two, &[lost], &[(12, 49, 1), (60, 99, 1)], &[(50, Some(60))]);
        check("of another database", &[(12, 12)], one, &[(50, 60, Some("web"))], &[(12, 99, 1)], &[]);
        let touching = [(12, 12), (50, 50)];
        check("no length", &touching, one, &[(50, 50, Some("crm"))], &[(12, 49, 1), (50, 99, 1)], &[]);
        let overlapping = [(55, 70, Some("crm")), lost];
        let three = [(12, 12), (65, 65), (75, 75)];
        check("overlapping", &three, two, &overlapping, &[(12, 49, 1), (75, 99, 1)], &[(50, Some(75))]);
        check("a mosaic", &[(12, 20)], one, &[], &[(20, 99, 1)], &[]);
        check("a mosaic over a break", &[(12, 20)], one, &[(15, 16, Some("crm"))], &[], &[]);
        check("where the head is", &[(12, 12)], one, &[(100, 120, None)], &[(12, 99, 1)], &[(100, None)]);
        check("not there yet", &[(12, 12)], one, &[(110, 120, None)], &[(12, 99, 1)], &[]);
        check("a run without its break", &[(12, 12), (70, 70)], two, &[], &[(70, 99, 1)], &[]);
    }

    #[test]
    fn an_instant_has_its_newest_base_or_the_nearest_instants() {
        let real = base(3, "crm", 20, 20);
        let folded = Base { folded: true, ..base(4, "crm", 20, 20) };
        let bases = [base(1, "crm", 12, 12), real, folded, base(2, "crm", 70, 70), base(5, "web", 90, 90)];
        let (now, breaks) = (head(10, 60, 100), [cut(50, 60, None)]);
        let none = |before: Option<u64>, after: Option<u64>| {
            Err(NotRestorable { before: before.map(at), after: after.map(at) })
        };
        for (database, time, expected) in [
            ("crm", 11, none(None, Some(12))),
            ("crm", 12, Ok(1)),
            ("crm", 19, Ok(1)),
            ("crm", 20, Ok(3)),
            ("crm", 49, Ok(3)),
            ("crm", 50, none(Some(49), Some(70))),
            ("crm", 69, none(Some(49), Some(70))),
            ("crm", 99, Ok(2)),
            ("crm", 100, none(Some(99), None)),
            ("web", 50, none(None, Some(90))),
            ("shop", 50, none(None, None)),
        ] {
            let found = base_for(&bases, Some(&now), &breaks, database, at(time));
            let found = found.map(|it| it.backup.to_bytes()[0]);
            assert_eq!(found, expected, "{database} at {time}");
        }
        assert_eq!(base_for(&bases, None, &[], "crm", at(20)).unwrap_err(), none(None, None).unwrap_err());
    }

    #[test]
    fn a_base_is_wanted_where_none_is_behind_the_newest_break() {
        let bases = [base(1, "web", 12, 12), base(2, "crm", 12, 12), base(3, "crm", 60, 60)];
        for (breaks, expected) in [
            (vec![], vec![]),
            (vec![cut(50, 60, None)], vec!["web"]),
            (vec![cut(50, 61, None), cut(20, 30, None)], vec!["crm", "web"]),
            (vec![cut(70, 70, Some("crm"))], vec!["crm"]),
            (vec![cut(70, 71, Some("shop"))], vec![]),
        ] {
            assert_eq!(bases_wanted(&bases, &breaks), expected, "{breaks:?}");
        }
        let mosaic = [base(1, "crm", 50, 90)];
        assert_eq!(bases_wanted(&mosaic, &[cut(50, 60, None)]), ["crm"], "it needs what was lost");
    }

    #[test]
    fn only_a_verified_backup_of_all_is_a_base() {
        type Edit = fn(&mut Operation, &mut BackupDetail);
        type Case = (&'static str, Edit, Option<(u64, u64)>);
        let cases: [Case; 9] = [
            ("of one instant", |_, _| (), Some((7, 7))),
            ("with a later part", |_, it| it.restorable_from = Some(at(9)), Some((7, 9))),
            ("a mosaic", |_, it| it.consistency = Some(Consistency::Mosaic), None),
            (
                "a mosaic that tells",
                |_, it| {
                    it.consistency = Some(Consistency::Mosaic);
                    it.restorable_from = Some(at(9));
                },
                Some((7, 9)),
            ),
            ("of one collection", |row, _| row.collections.push("leads".into()), None),
            ("not verified", |row, _| row.state = OperationState::Sealed, None),
            ("failed", |row, _| row.state = OperationState::Failed, None),
            ("not whole", |_, it| it.lost = 1, None),
            ("not sealed", |_, it| it.consistency = None, None),
        ];
        for (name, edit, expected) in cases {
            let mut detail = BackupDetail {
                cluster_time: Some(at(7)),
                consistency: Some(Consistency::SingleInstant),
                ..BackupDetail::requested(Trigger::Manual, false)
            };
            let (id, source) = (OperationId::from_bytes([1; 16]), "main".parse().unwrap());
            let asked = Detail::Backup(detail.clone());
            let mut row = Operation::requested(id, source, "crm".into(), vec![], "ana".into(), asked);
            row.state = OperationState::Verified;
            edit(&mut row, &mut detail);
            row.detail = Detail::Backup(detail);
            let found = Base::of(&row).map(|it| (it.oldest.to_u64(), it.from.to_u64()));
            assert_eq!(found, expected, "{name}");
        }
    }

    /// What [`reach`] says of every instant, by its definition.
    fn can(base: &Base, head: &TimelineHead, breaks: &[Break], time: ClusterTime) -> bool {
        let known = head.since == head.began
            || breaks.iter().any(|it| it.database.is_none() && it.from <= head.since && head.since <= it.to);
        let start = if known { head.began } else { head.since };
        let crosses = |it: &Break| it.concerns(&base.database) && base.oldest < it.to && it.from <= time;
        start <= base.oldest && base.from <= time && time < head.to && !breaks.iter().any(crosses)
    }

    fn agrees(bases: &[Base], head: &TimelineHead, breaks: &[Break], database: &str) {
        const END: u64 = 60;
        let own = || bases.iter().filter(move |base| base.database == database);
        let best = |time: u64| {
            let able = own().filter(|base| can(base, head, breaks, at(time)));
            able.max_by_key(|it| (it.from, !it.folded, it.backup))
        };
        let mut windows = windows(bases, Some(head), breaks);
        windows.retain(|it| it.database == database);
        let gaps = gaps(&windows);
        for time in 0..END {
            let expected = best(time).ok_or_else(|| NotRestorable {
                before: (0..time).rev().find(|it| best(*it).is_some()).map(at),
                after: (time + 1..END).find(|it| best(*it).is_some()).map(at),
            });
            assert_eq!(base_for(bases, Some(head), breaks, database, at(time)), expected, "at {time}");
            let holding = windows.iter().filter(|it| it.from <= at(time) && at(time) <= it.until).count();
            assert_eq!(holding, usize::from(expected.is_ok()), "windows at {time}");
            let has_begun = windows.first().is_some_and(|it| it.from <= at(time)) && at(time) < head.to;
            let lacking =
                gaps.iter().filter(|it| it.from <= at(time) && it.to.is_none_or(|to| at(time) < to));
            assert!(!has_begun || lacking.count() == usize::from(expected.is_err()), "gaps at {time}");
        }
        for pair in windows.windows(2) {
            assert!(pair[0].until < pair[1].from && pair[0].ended.is_some(), "{pair:?}");
        }
        for window in &windows {
            let end = window.ended.as_ref().map_or(head.to, |it| it.from);
            assert_eq!(window.until.next(), end, "{window:?}");
            let mut inside: Vec<_> = own()
                .filter(|it| can(it, head, breaks, it.from) && it.from >= window.from && it.from < end)
                .collect();
            inside.sort_by_key(|it| (it.from, it.backup));
            assert!(inside.iter().map(|it| it.backup).eq(window.bases.iter().copied()), "{window:?}");
        }
    }

    proptest! {
        #[test]
        fn every_instant_is_told_as_it_is(
            bases in proptest::collection::vec((0_usize..2, 0_u64..30, 0_u64..8, any::<bool>()), 0..8),
            breaks in proptest::collection::vec((0_u64..35, 0_u64..6, prop::option::of(0_usize..2)), 0..5),
            (began, to) in (0_u64..12, 0_u64..20),
            run in prop::option::of((1_u64..20, 0_u64..4, 0_u8..10)),
        ) {
            let bases: Vec<Base> = bases
                .into_iter()
                .enumerate()
                // Most are of one instant.
                .map(|(number, (database, oldest, later, folded))| {
                    let from = oldest + later.saturating_sub(5);
                    Base { folded, ..base(number, DATABASES[database], oldest, from) }
                })
                .collect();
            let mut breaks: Vec<Break> = breaks
                .into_iter()
                .map(|(from, length, database)| cut(from, from + length, database.map(|it| DATABASES[it])))
                .collect();
            let since = began + run.map_or(0, |(length, ..)| length);
            // Seldom, the break is missing that a later run began with.
            if let Some((_, lost, 1..)) = run {
                breaks.push(cut(since.saturating_sub(lost), since, None));
            }
            for database in DATABASES {
                agrees(&bases, &head(began, since, since + to), &breaks, database);
            }
        }
    }
}
