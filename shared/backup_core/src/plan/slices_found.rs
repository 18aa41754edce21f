//! Which timeline the slices form that were found in the bucket, where no row of the catalog names them any more.
//!
//! Each slice is true by itself: it holds every change of its stretch, also if its run was killed before its row was
//! written, or if another run was faster. Two that overlap hold the same changes there, but rows never overlap: so
//! those are chosen that together cover the most time. Where they do not meet, and no break says why, there is one from
//! now on: a gap is shown as a gap. Times in which nothing happened are known only as far as a slice says so: what the
//! head had moved without one is not restorable until it is captured again.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::id::ClusterTime;
use crate::timeline::{Break, BreakReason, SliceRecord, TimelineHead};

/// A timeline, or what is to be added to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundTimeline {
    /// Its head.
    pub head: TimelineHead,
    /// Slices, in order.
    pub slices: Vec<SliceRecord>,
    /// Breaks, in no order.
    pub breaks: Vec<Break>,
}

/// The timeline that was found; none if there is no slice. It goes on where the newest slice ends, or behind the break
/// there.
#[must_use]
pub fn put_together(found: Vec<SliceRecord>, breaks: &[Break], now_millis: u64) -> Option<FoundTimeline> {
    let slices = choose(found);
    let (began, end) = (slices.first()?.from, slices.last()?.to);
    let follows = |it: &&Break| is_loss(it) && it.from <= end && it.to > end;
    let resumed = breaks.iter().filter(follows).map(|it| it.to).max();
    let to = resumed.unwrap_or(end);
    let since = resumed.or_else(|| newest_run(&slices)).unwrap_or(began);
    let head = TimelineHead { began, since, ..TimelineHead::beginning(to, now_millis) };
    let breaks = [breaks, &holes(&slices, to, breaks, now_millis)].concat();
    Some(FoundTimeline { head, slices, breaks })
}

/// What a timeline that has begun lacks of what was found: slices beside its rows, up to its newest one, and breaks.
/// The head is as it is to be in the end; what it tells of the newest run stays.
#[must_use]
pub fn lacking(
    head: &TimelineHead,
    rows: &[SliceRecord],
    known: &[Break],
    found: &[SliceRecord],
    breaks: &[Break],
    now_millis: u64,
) -> FoundTimeline {
    let is_free = |it: &&SliceRecord| {
        let next = rows.partition_point(|row| row.to <= it.from);
        it.to <= head.stored_to && rows.get(next).is_none_or(|row| row.from >= it.to)
    };
    let slices = choose(found.iter().filter(is_free).cloned().collect());
    let mut all = [rows, &slices].concat();
    all.sort_unstable_by_key(|it| it.from);
    let is_known = |it: &Break| {
        known.iter().any(|row| (row.from, row.to, &row.database) == (it.from, it.to, &it.database))
    };
    let added: Vec<Break> = breaks.iter().filter(|it| !is_known(it)).cloned().collect();
    let holes = holes(&all, head.stored_to, &[known, &added].concat(), now_millis);
    let head = with_beginning(head, &all);
    FoundTimeline { head, slices, breaks: [added, holes].concat() }
}

/// The head of a timeline that has all these slices.
fn with_beginning(head: &TimelineHead, all: &[SliceRecord]) -> TimelineHead {
    let mut head = head.clone();
    let Some(first) = all.first().filter(|first| first.from < head.began) else { return head };
    head.began = first.from;
    if all.last().is_some_and(|last| last.to >= head.stored_to) {
        head.since = newest_run(all).map_or(head.since, |since| since.min(head.since));
    }
    head
}

/// How good a way to some slice is: the time that is covered on it, then how few holes it has.
type Worth = (u64, Reverse<u64>);

/// The best way found so far that ends with the slice of this number.
type Best = (Worth, usize);

/// Slices that do not overlap, in order, and together cover the most time; of choices that cover as much, one with the
/// fewest holes.
#[must_use]
pub fn choose(mut found: Vec<SliceRecord>) -> Vec<SliceRecord> {
    found.retain(|it| it.from < it.to);
    found.sort_unstable_by_key(|it| (it.to, it.from, it.slice));
    let mut before: Vec<Option<usize>> = Vec::with_capacity(found.len());
    // By where they end: exactly there, and there or earlier.
    let mut ending: BTreeMap<ClusterTime, Best> = BTreeMap::new();
    let mut ended: BTreeMap<ClusterTime, Best> = BTreeMap::new();
    let mut best: Option<Best> = None;
    for (number, slice) in found.iter().enumerate() {
        let meeting = ending.get(&slice.from).copied();
        let behind_a_hole = ended.range(..=slice.from).next_back().map(|(_, it)| with_a_hole(*it));
        let way = meeting.max(behind_a_hole);
        before.push(way.map(|(_, last)| last));
        let (covered, holes) = way.map_or((0, Reverse(0)), |(worth, _)| worth);
        let length = slice.to.to_u64().saturating_sub(slice.from.to_u64());
        let this = ((covered.saturating_add(length), holes), number);
        best = best.max(Some(this));
        ending.entry(slice.to).and_modify(|it| *it = this.max(*it)).or_insert(this);
        ended.extend(best.map(|best| (slice.to, best)));
    }
    let mut chosen = Vec::new();
    let mut next = best.map(|(_, last)| last);
    while let Some(number) = next {
        chosen.extend(found.get(number).cloned());
        next = before.get(number).copied().flatten();
    }
    chosen.reverse();
    chosen
}

const fn with_a_hole(((covered, Reverse(holes)), last): Best) -> Best {
    ((covered, Reverse(holes.saturating_add(1))), last)
}

/// Where the last slices begin that meet.
fn newest_run(slices: &[SliceRecord]) -> Option<ClusterTime> {
    let mut seams = slices.windows(2).filter_map(|pair| match pair {
        [one, other] if one.to != other.from => Some(other.from),
        _ => None,
    });
    seams.next_back().or_else(|| slices.first().map(|first| first.from))
}

/// A break for each hole between slices, and between the last one and `until`, that no known break covers.
fn holes(slices: &[SliceRecord], until: ClusterTime, known: &[Break], now_millis: u64) -> Vec<Break> {
    let ends = slices.iter().map(|it| it.to);
    let nexts = slices.iter().skip(1).map(|it| it.from).chain(std::iter::once(until));
    let is_told = |from: ClusterTime, to: ClusterTime| {
        known.iter().any(|it| it.database.is_none() && it.from <= from && it.to >= to)
    };
    let untold = ends.zip(nexts).filter(|(from, to)| from < to && !is_told(*from, *to));
    let lost = |(from, to)| {
        let (reason, noticed_millis) = (BreakReason::HistoryLost, now_millis);
        Break { from, to, database: None, reason, noticed_millis }
    };
    untold.map(lost).collect()
}

/// Whether the changes of a stretch are missing, and not merely of no use.
const fn is_loss(it: &Break) -> bool {
    it.database.is_none() && matches!(it.reason, BreakReason::HistoryLost | BreakReason::EventTooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::timeline::Position;

    type Stretch = (u64, u64);

    fn at(number: u64) -> ClusterTime {
        ClusterTime::from_u64(number)
    }

    fn slices(stretches: &[Stretch]) -> Vec<SliceRecord> {
        let slice = |(number, (from, to)): (usize, &Stretch)| SliceRecord {
            from: at(*from),
            to: at(*to),
            slice: format!("{number:026}").parse().unwrap(),
            stored_bytes: 1,
            events: 1,
            event_bytes: 1,
        };
        stretches.iter().enumerate().map(slice).collect()
    }

    fn stretches(slices: &[SliceRecord]) -> Vec<Stretch> {
        slices.iter().map(|it| (it.from.to_u64(), it.to.to_u64())).collect()
    }

    fn lost(from: u64, to: u64, database: Option<&str>) -> Break {
        let (reason, database) = (BreakReason::HistoryLost, database.map(str::to_owned));
        Break { from: at(from), to: at(to), database, reason, noticed_millis: 0 }
    }

    fn stretches_of(breaks: &[Break]) -> Vec<Stretch> {
        breaks.iter().map(|it| (it.from.to_u64(), it.to.to_u64())).collect()
    }

    #[test]
    fn those_are_chosen_that_cover_the_most() {
        let check = |name: &str, found: &[Stretch], expected: &[Stretch]| {
            assert_eq!(stretches(&choose(slices(found))), expected, "{name}");
        };
        check("none", &[], &[]);
        check("in no order", &[(20, 30), (0, 10), (10, 20)], &[(0, 10), (10, 20), (20, 30)]);
        check(
            "a run that was killed",
            &[(0, 10), (10, 17), (10, 20), (20, 30)],
            &[(0, 10), (10, 20), (20, 30)],
        );
        check(
            "one that reached further",
            &[(0, 10), (10, 25), (10, 20), (20, 30)],
            &[(0, 10), (10, 20), (20, 30)],
        );
        check("one that reached furthest", &[(0, 10), (10, 20), (10, 35)], &[(0, 10), (10, 35)]);
        check("a hole", &[(0, 10), (15, 20), (14, 17), (20, 30)], &[(0, 10), (15, 20), (20, 30)]);
        check("as much with fewer holes", &[(0, 10), (12, 22), (10, 20)], &[(0, 10), (10, 20)]);
        check("of no time", &[(5, 5), (0, 10), (10, 9)], &[(0, 10)]);
        check("the whole time there is", &[(0, u64::MAX), (3, 4)], &[(0, u64::MAX)]);
    }

    /// Slices and breaks as found; began, since, to; the breaks there are in the end.
    #[test]
    fn a_timeline_is_put_together_with_its_gaps() {
        let check =
            |name: &str, found: &[Stretch], breaks: &[Break], head: (u64, u64, u64), gaps: &[Stretch]| {
                let it = put_together(slices(found), breaks, 7).unwrap();
                let told = (it.head.began.to_u64(), it.head.since.to_u64(), it.head.to.to_u64());
                assert_eq!(told, head, "{name}");
                assert_eq!(
                    (it.head.stored_to, &it.head.position),
                    (it.head.to, &Position::At(it.head.to)),
                    "{name}"
                );
                assert_eq!(stretches_of(&it.breaks), gaps, "{name}");
            };
        assert_eq!(put_together(Vec::new(), &[lost(1, 2, None)], 7), None);
        check("one run", &[(0, 10), (10, 20)], &[], (0, 0, 20), &[]);
        check("a gap that is told", &[(0, 10), (15, 20)], &[lost(10, 15, None)], (0, 15, 20), &[(10, 15)]);
        check("a gap that is not told", &[(0, 10), (15, 20)], &[], (0, 15, 20), &[(10, 15)]);
        let of_one = lost(10, 15, Some("crm"));
        check("of one database only", &[(0, 10), (15, 20)], &[of_one], (0, 15, 20), &[(10, 15), (10, 15)]);
        check("in part", &[(0, 10), (15, 20)], &[lost(10, 14, None)], (0, 15, 20), &[(10, 14), (10, 15)]);
        check("no length", &[(0, 10), (10, 20)], &[lost(10, 10, None)], (0, 0, 20), &[(10, 10)]);
        check("at the end", &[(0, 10)], &[lost(10, 30, None)], (0, 30, 30), &[(10, 30)]);
        check("behind the end", &[(0, 10)], &[lost(20, 30, None)], (0, 0, 10), &[(20, 30)]);
        let unknown = Break { reason: BreakReason::NotProved, ..lost(5, 30, None) };
        check("not of changes", &[(0, 10)], &[unknown], (0, 0, 10), &[(5, 30)]);
    }

    #[test]
    fn a_timeline_that_has_begun_gets_what_it_lacks() {
        let check = |name: &str,
                     (began, since, to): (u64, u64, u64),
                     rows: &[Stretch],
                     known: &[Break],
                     found: &[Stretch],
                     expected: (u64, u64, &[Stretch], &[Stretch])| {
            let head =
                TimelineHead { began: at(began), since: at(since), ..TimelineHead::beginning(at(to), 1) };
            let it = lacking(&head, &slices(rows), known, &slices(found), &[lost(3, 4, None)], 7);
            let told = (it.head.began.to_u64(), it.head.since.to_u64());
            let (slices, breaks) = (stretches(&it.slices), stretches_of(&it.breaks));
            assert_eq!((told.0, told.1, slices.as_slice(), breaks.as_slice()), expected, "{name}");
            assert_eq!((it.head.to, it.head.revision), (head.to, head.revision), "{name}");
        };
        let known = [lost(3, 4, None)];
        let rows = [(20, 30), (30, 40)];
        check("nothing", (20, 20, 40), &rows, &known, &[(20, 30), (30, 40)], (20, 20, &[], &[]));
        check("what is newer", (20, 20, 40), &rows, &known, &[(40, 50), (35, 45)], (20, 20, &[], &[]));
        check("a break", (20, 20, 40), &rows, &[], &[], (20, 20, &[], &[(3, 4)]));
        check("a row", (20, 20, 40), &[(30, 40)], &known, &[(20, 29), (20, 30)], (20, 20, &[(20, 30)], &[]));
        let older = [(0, 10), (10, 15)];
        check("an older run", (20, 20, 40), &rows, &known, &older, (0, 20, &older, &[(15, 20)]));
        check("and nothing since", (20, 20, 20), &[], &known, &older, (0, 20, &older, &[(15, 20)]));
        check("that meets it", (15, 15, 15), &[], &known, &older, (0, 0, &older, &[]));
        check(
            "in part",
            (20, 20, 40),
            &[(0, 10), (20, 40)],
            &known,
            &older,
            (0, 20, &[(10, 15)], &[(15, 20)]),
        );
        let pruned = [lost(3, 4, None), lost(15, 20, None)];
        check("what was removed", (0, 20, 40), &[(20, 30), (30, 40)], &pruned, &[], (0, 20, &[], &[]));
    }

    fn attempts() -> impl Strategy<Value = Vec<Stretch>> {
        let attempt = (0_u64..30, 1_u64..10).prop_map(|(from, length)| (from, from + length));
        prop::collection::vec(attempt, 0..11)
    }

    /// The time that is covered, and the holes; none if two overlap.
    fn judge(chosen: &[Stretch]) -> Option<(u64, Reverse<usize>)> {
        let is_apart = chosen.windows(2).all(|pair| pair[0].1 <= pair[1].0);
        let covered = chosen.iter().map(|(from, to)| to - from).sum();
        let holes = chosen.windows(2).filter(|pair| pair[0].1 < pair[1].0).count();
        is_apart.then_some((covered, Reverse(holes)))
    }

    proptest! {
        #[test]
        fn nothing_is_better_than_what_is_chosen(found in attempts()) {
            let chosen = stretches(&choose(slices(&found)));
            prop_assert!(chosen.iter().all(|it| found.contains(it)));
            let mut sorted = found;
            sorted.sort_unstable();
            let every = (0_u32..1 << sorted.len()).filter_map(|mask| {
                let these = sorted.iter().enumerate().filter(|(number, _)| (mask >> number) & 1 == 1);
                judge(&these.map(|(_, it)| *it).collect::<Vec<_>>())
            });
            prop_assert_eq!(judge(&chosen), every.max());
        }

        /// As captures leave it: attempts that nobody's row names begin where another one did.
        #[test]
        fn a_gapless_timeline_is_found_among_attempts_that_died(
            lengths in prop::collection::vec(1_u64..10, 1..12),
            died in prop::collection::vec((0_usize..12, 1_u64..25), 0..12),
            kept in prop::collection::vec(any::<bool>(), 12),
        ) {
            let mut run: Vec<Stretch> = Vec::new();
            for length in &lengths {
                let from = run.last().map_or(5, |last| last.1);
                run.push((from, from + length));
            }
            let end = run.last().unwrap().1;
            let died = died.iter().map(|(number, length)| {
                let from = run[number % run.len()].0;
                (from, (from + length).min(end))
            });
            let found: Vec<Stretch> = died.chain(run.iter().copied()).collect();
            let it = put_together(slices(&found), &[], 0).unwrap();
            prop_assert_eq!((it.head.began, it.head.since, it.head.to), (at(5), at(5), at(end)));
            prop_assert!(it.breaks.is_empty());

            // Whatever rows are left of it, what is lacking fills the rest.
            let keep = |(number, _): &(usize, SliceRecord)| kept[number % kept.len()];
            let rows: Vec<_> = it.slices.iter().cloned().enumerate().filter(keep).map(|(_, it)| it).collect();
            let more = lacking(&it.head, &rows, &[], &slices(&found), &[], 0);
            prop_assert!(more.breaks.is_empty());
            let mut all = stretches(&[rows, more.slices].concat());
            all.sort_unstable();
            prop_assert_eq!(judge(&all), Some((end - 5, Reverse(0))));
        }
    }
}
