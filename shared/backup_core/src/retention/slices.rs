//! Which slices of the timeline are needed: those that a base which is kept may be folded through.

use crate::id::ClusterTime;
use crate::operation::Operation;
use crate::plan::windows::Base;
use crate::timeline::{Break, SliceRecord, TimelineHead};

/// Slices that end later than so many seconds ago are needed, whatever there is: a backup that is being sealed may
/// rest on them.
const YOUNG_SECONDS: u64 = 48 * 3600;

/// For each slice, whether it is needed: by a backup of `kept` that may be folded through it, or because it is young.
///
/// A base may be folded through every slice behind its oldest chunk, up to the first break. Where the head is not
/// known, nothing is, and every slice is needed. Backups that are only marked belong to `kept`: a mark may be taken
/// back.
#[must_use]
pub fn slices_needed(
    now_millis: u64,
    kept: &[Operation],
    head: Option<&TimelineHead>,
    breaks: &[Break],
    slices: &[SliceRecord],
) -> Vec<bool> {
    let stretches: Vec<Stretch> = kept.iter().filter_map(|row| Stretch::of(row, breaks)).collect();
    let young_from = (now_millis / 1000).saturating_sub(YOUNG_SECONDS);
    let is_needed = |slice: &SliceRecord| {
        let is_young = u64::from(slice.to.seconds) > young_from;
        head.is_none() || is_young || stretches.iter().any(|it| it.needs(slice))
    };
    slices.iter().map(is_needed).collect()
}

/// What a backup may be folded through.
struct Stretch {
    from: ClusterTime,
    /// The first instant behind it; none if no break is known there.
    end: Option<ClusterTime>,
}

impl Stretch {
    /// None if the backup is no base and cannot become one, or if a break keeps it from being folded to any instant.
    /// How far the head is does not matter: it moves on.
    fn of(row: &Operation, breaks: &[Break]) -> Option<Self> {
        let (oldest, first) = match Base::marked_or_not(row) {
            Some(base) => (base.oldest, base.from),
            None if row.state.is_final() => return None,
            None => row.backup().ok()?.cluster_time.map(|time| (time, time))?,
        };
        let in_the_way = breaks.iter().filter(|it| it.concerns(&row.database) && it.to > oldest);
        let end = in_the_way.map(|it| it.from).min();
        end.is_none_or(|end| first < end).then_some(Self { from: oldest, end })
    }

    fn needs(&self, slice: &SliceRecord) -> bool {
        slice.to > self.from && self.end.is_none_or(|end| slice.from < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Consistency;
    use crate::id::{Attempt, OperationId};
    use crate::operation::{BackupDetail, Detail, OperationState, Trigger};
    use crate::timeline::BreakReason;

    const HOUR: u32 = 3600;

    /// `hours` after the timeline began.
    fn at(hours: u32) -> ClusterTime {
        ClusterTime { seconds: 1_800_000_000 + hours * HOUR, ordinal: 1 }
    }

    fn backup(oldest: u32, from: u32, state: OperationState) -> Operation {
        let detail = BackupDetail {
            cluster_time: Some(at(oldest)),
            restorable_from: Some(at(from)),
            consistency: Some(Consistency::Mosaic),
            ..BackupDetail::requested(Trigger::Automated, false)
        };
        let (id, source) = (OperationId::from_bytes([1; 16]), "main".parse().unwrap());
        let detail = Detail::Backup(detail);
        let row = Operation::requested(id, source, "crm".into(), vec![], "schedule".into(), detail);
        Operation { state, ..row }
    }

    fn cut(from: u32, to: u32, database: Option<&str>) -> Break {
        let (reason, database) = (BreakReason::HistoryLost, database.map(str::to_owned));
        Break { from: at(from), to: at(to), database, reason, noticed_millis: 0 }
    }

    /// Ten slices of ten hours each; gives the first and the last that are needed a thousand hours later.
    fn needed(kept: &[Operation], breaks: &[Break]) -> Option<(usize, usize)> {
        let slice = |number: u32| SliceRecord {
            from: at(number * 10),
            to: at(number * 10 + 10),
            slice: Attempt::NONE,
            stored_bytes: 1,
            events: 1,
            event_bytes: 1,
        };
        let slices: Vec<_> = (0..10).map(slice).collect();
        let head = TimelineHead { to: at(100), ..TimelineHead::beginning(at(0), 0) };
        let now_millis = u64::from(at(1000).seconds) * 1000;
        let found = slices_needed(now_millis, kept, Some(&head), breaks, &slices);
        let numbers: Vec<usize> = (0..10).filter(|number| found[*number]).collect();
        Some((*numbers.first()?, *numbers.last()?))
    }

    #[test]
    fn a_slice_is_needed_as_long_as_a_base_is_folded_through_it() {
        use OperationState::{Failed, Running, Sealed, Verified};
        let lost = |from, to| vec![cut(from, to, None)];
        for (name, kept, breaks, expected) in [
            ("nothing is kept", vec![], vec![], None),
            ("from the oldest chunk on", vec![backup(35, 42, Verified)], vec![], Some((3, 9))),
            ("not before it", vec![backup(30, 30, Verified)], vec![], Some((3, 9))),
            ("of two", vec![backup(55, 55, Verified), backup(42, 42, Verified)], vec![], Some((4, 9))),
            ("up to a break", vec![backup(35, 35, Verified)], lost(60, 75), Some((3, 5))),
            ("into a slice", vec![backup(35, 35, Verified)], lost(61, 75), Some((3, 6))),
            ("behind a break", vec![backup(75, 75, Verified)], lost(60, 75), Some((7, 9))),
            ("inside a break", vec![backup(65, 65, Verified)], lost(60, 75), None),
            ("around a break", vec![backup(55, 80, Verified)], lost(60, 75), None),
            ("of another", vec![backup(35, 35, Verified)], vec![cut(60, 75, Some("web"))], Some((3, 9))),
            ("behind the head", vec![backup(95, 110, Verified)], vec![], Some((9, 9))),
            ("under way", vec![backup(35, 35, Running)], vec![], Some((3, 9))),
            ("not verified yet", vec![backup(35, 35, Sealed)], lost(60, 75), Some((3, 5))),
            ("failed", vec![backup(35, 35, Failed)], vec![], None),
        ] {
            assert_eq!(needed(&kept, &breaks), expected, "{name}");
        }
    }

    #[test]
    fn a_young_slice_is_needed_and_so_is_every_one_without_a_head() {
        let ending = |hours| SliceRecord {
            from: at(hours - 1),
            to: at(hours),
            slice: Attempt::NONE,
            stored_bytes: 1,
            events: 1,
            event_bytes: 1,
        };
        let (slices, now_millis) = ([ending(51), ending(52), ending(53)], u64::from(at(100).seconds) * 1000);
        let head = TimelineHead::beginning(at(0), 0);
        assert_eq!(slices_needed(now_millis, &[], Some(&head), &[], &slices), [false, false, true]);
        assert_eq!(slices_needed(now_millis, &[], None, &[], &slices), [true; 3]);
    }
}
