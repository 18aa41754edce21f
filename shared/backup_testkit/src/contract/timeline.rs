//! The contract of the timeline.

use backup_core::error::ErrorKind;
use backup_core::id::{Attempt, ClusterTime, RegionName};
use backup_core::ports::Timeline;
use backup_core::timeline::{
    BREAKS_AT_ONCE_MAX, Break, BreakReason, Position, ReplicatedTimeline, ResumeToken, SliceRecord,
    TimelineHead,
};

/// The contract of [`Timeline`], of one that has not begun.
pub async fn timeline(timeline: &dyn Timeline) {
    timeline_begins_once(timeline).await;
    timeline_moves_as_a_whole(timeline).await;
    timeline_lists_slices(timeline).await;
    timeline_lists_breaks(timeline).await;
    timeline_forgets_slices(timeline).await;
    timeline_notes_copies(timeline).await;
}

/// Instants in order whose parts have different numbers of digits, so that as text they would not be.
fn instant(number: u32) -> ClusterTime {
    ClusterTime { seconds: 5 + number / 4, ordinal: 2 + 7 * (number % 4) }
}

fn slice(number: u32) -> SliceRecord {
    SliceRecord {
        from: instant(number),
        to: instant(number + 1),
        slice: Attempt::generate(1_795_312_800_000).unwrap(),
        stored_bytes: 1 << 40,
        events: 3,
        event_bytes: 700,
    }
}

async fn head(timeline: &dyn Timeline) -> TimelineHead {
    timeline.head().await.unwrap().unwrap()
}

async fn timeline_begins_once(timeline: &dyn Timeline) {
    let (first, second) = (TimelineHead::beginning(instant(0), 7), TimelineHead::beginning(instant(1), 8));
    assert_eq!(timeline.head().await.unwrap(), None);
    assert!(timeline.slices(instant(0), instant(9)).await.unwrap().is_empty());
    assert!(timeline.breaks().await.unwrap().is_empty());
    let refused = timeline.advance(&first, None, &[]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Transient, "there is nothing to be moved");

    let (left, right) = tokio::join!(timeline.begin(&first), timeline.begin(&second));
    let begun = left.unwrap();
    assert!(begun == first || begun == second);
    assert_eq!(right.unwrap(), begun, "one of them begins it, and both know which");
    assert_eq!(timeline.begin(&second).await.unwrap(), begun);
    assert_eq!(head(timeline).await, begun);
}

async fn timeline_moves_as_a_whole(timeline: &dyn Timeline) {
    let (read, first, broken) = (head(timeline).await, slice(0), break_at(0, 1, None));
    let position = Position::After(ResumeToken(vec![0, 0xff, b'"']));
    let moved = TimelineHead { stored_to: first.to, to: first.to, position, moved_millis: 9, ..read.clone() };
    timeline.advance(&moved, Some(&first), std::slice::from_ref(&broken)).await.unwrap();
    assert_eq!(head(timeline).await, TimelineHead { revision: read.revision + 1, ..moved.clone() });

    let refused = timeline.advance(&moved, Some(&slice(1)), &[break_at(1, 2, None)]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Transient, "moved since it was read");
    let (read, left, right) = (head(timeline).await, slice(1), slice(1));
    let (by_left, by_right) =
        tokio::join!(timeline.advance(&read, Some(&left), &[]), timeline.advance(&read, Some(&right), &[]));
    assert_ne!(by_left.is_ok(), by_right.is_ok(), "exactly one of two moves it");
    let won = if by_left.is_ok() { left } else { right };
    assert_eq!(by_left.and(by_right).unwrap_err().kind(), ErrorKind::Transient);

    let read = head(timeline).await;
    let refused = timeline.advance(&read, Some(&first), &[break_at(1, 2, None)]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Internal, "a slice is added once");
    assert_eq!(head(timeline).await, read, "all or nothing");
    assert_eq!(timeline.slices(instant(0), instant(9)).await.unwrap(), [first, won], "all or nothing");
    assert_eq!(timeline.breaks().await.unwrap(), [broken], "all or nothing");
}

async fn timeline_lists_slices(timeline: &dyn Timeline) {
    const COUNT: u32 = 230; // more than are read at once
    let mut now = head(timeline).await;
    for number in 2..COUNT {
        timeline.advance(&now, Some(&slice(number)), &[]).await.unwrap();
        now.revision += 1;
    }
    let all = timeline.slices(instant(0), instant(COUNT)).await.unwrap();
    assert!(all.windows(2).all(|pair| pair[0].to == pair[1].from), "in order");
    let (whole, end) = (usize::try_from(COUNT).unwrap(), instant(COUNT));
    assert_eq!(all.len(), whole);
    for (from, to, expected) in [
        (instant(10), instant(12), 10..12),
        (instant(10).next(), instant(12), 10..12),
        (instant(10).next(), instant(12).next(), 10..13),
        (instant(11).previous(), instant(11), 10..11),
        (instant(5).next(), instant(205), 5..205),
        (end.previous(), end.next(), whole - 1..whole),
        (end, instant(COUNT + 9), 0..0),
        (instant(0).previous(), instant(0), 0..0),
    ] {
        let found = timeline.slices(from, to).await.unwrap();
        assert_eq!(found, all[expected], "those with instants from {from} up to {to}");
    }
}

fn break_at(from: u32, to: u32, database: Option<&str>) -> Break {
    let reason = match from % 5 {
        0 => BreakReason::HistoryLost,
        1 => BreakReason::EventTooLarge,
        2 => BreakReason::NotFollowed("a\n$b".into()),
        3 => BreakReason::UnknownChange("refineShardKey".into()),
        _ => BreakReason::NotProved,
    };
    let database = database.map(str::to_owned);
    Break { from: instant(from), to: instant(to), database, reason, noticed_millis: 1_795_312_800_000 }
}

async fn timeline_lists_breaks(timeline: &dyn Timeline) {
    let earlier = timeline.breaks().await.unwrap();
    let mut added: Vec<Break> =
        (10..30).rev().map(|number| break_at(number, number + 1, Some("crm"))).collect();
    added.extend([break_at(12, 13, None), break_at(12, 12, None), break_at(12, 13, Some("*"))]);
    let mut now = head(timeline).await;
    for again in [added.clone(), added[..2].to_vec(), [&added[..1], &added[..1]].concat()] {
        timeline.advance(&now, None, &again).await.unwrap();
        now.revision += 1;
    }
    let listed = timeline.breaks().await.unwrap();
    assert!(listed.is_sorted_by_key(|it| it.from), "in order");
    assert_eq!(listed.len(), earlier.len() + added.len(), "each once, however often it is added");
    assert!(earlier.iter().chain(&added).all(|it| listed.contains(it)));

    let many = u32::try_from(BREAKS_AT_ONCE_MAX).unwrap();
    let breaks: Vec<Break> = (0..=many).map(|number| break_at(40, 41 + number, None)).collect();
    let refused = timeline.advance(&now, None, &breaks).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Internal, "more than fit");
    assert_eq!(head(timeline).await, now);
    timeline.advance(&now, Some(&slice(300)), &breaks[1..]).await.unwrap();
    assert_eq!(timeline.breaks().await.unwrap().len(), listed.len() + BREAKS_AT_ONCE_MAX);
}

async fn timeline_forgets_slices(timeline: &dyn Timeline) {
    let (breaks, now) = (timeline.breaks().await.unwrap(), head(timeline).await);
    let before = timeline.slices(instant(0), instant(9)).await.unwrap();
    for _ in 0..2 {
        timeline.forget_slice(&before[3]).await.unwrap();
        let left = timeline.slices(instant(0), instant(9)).await.unwrap();
        assert_eq!(left, [&before[..3], &before[4..]].concat(), "that one alone");
    }
    timeline.forget_slice(&slice(5)).await.unwrap(); // of another attempt at the same stretch
    assert_eq!(timeline.slices(instant(0), instant(9)).await.unwrap().len(), before.len() - 1);
    assert_eq!((timeline.breaks().await.unwrap(), head(timeline).await), (breaks, now), "nothing else");
}

async fn timeline_notes_copies(timeline: &dyn Timeline) {
    let regions: [RegionName; 2] = ["eu-west-1", "ap-southeast-1"].map(|name| name.parse().unwrap());
    let copied = |to, breaks| ReplicatedTimeline { to: instant(to), breaks, moved_millis: 7 + breaks };
    assert_eq!(timeline.replicated(regions[0]).await.unwrap(), None);
    for (note, expected) in [
        (copied(9, 0), copied(9, 0)),
        (copied(10, 1), copied(10, 1)),
        (copied(9, 2), copied(10, 1)), // less far
        (copied(10, 3), copied(10, 3)),
        (copied(4000, 3), copied(4000, 3)),
        (copied(100, 4), copied(4000, 3)),
    ] {
        timeline.set_replicated(regions[0], &note).await.unwrap();
        assert_eq!(timeline.replicated(regions[0]).await.unwrap(), Some(expected));
    }
    assert_eq!(timeline.replicated(regions[1]).await.unwrap(), None, "regions are apart");
}

/// The contract of [`Timeline`], of one that has not begun: it is brought back from what was found in the bucket.
pub async fn timeline_comes_back(timeline: &dyn Timeline) {
    let mut slices: Vec<SliceRecord> = (0..130).map(slice).collect();
    let mut breaks: Vec<Break> = (20..60).map(|number| break_at(number, number + 1, Some("crm"))).collect();
    let newest = TimelineHead {
        revision: 0,
        since: instant(40),
        stored_to: instant(130),
        to: instant(131),
        ..TimelineHead::beginning(instant(0), 9)
    };
    let (found, gaps) = ([&slices[..], &slices[7..8]].concat(), [&breaks[..], &breaks[3..4]].concat());
    timeline.bring_back(&newest, &found, &gaps).await.unwrap(); // one of each was found twice
    assert_eq!(head(timeline).await, newest);
    assert_eq!(timeline.slices(instant(0), instant(200)).await.unwrap(), slices);
    assert_eq!(timeline.breaks().await.unwrap(), breaks);

    let refused = timeline.bring_back(&newest, &[], &[]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "there is one");
    assert_eq!(timeline.begin(&TimelineHead::beginning(instant(500), 7)).await.unwrap(), newest);
    let (next, gap) = (slice(131), break_at(200, 201, None));
    timeline.advance(&newest, Some(&next), std::slice::from_ref(&gap)).await.unwrap(); // it goes on
    slices.push(next);
    breaks.push(gap);
    assert_eq!(timeline.slices(instant(0), instant(200)).await.unwrap(), slices);
    assert_eq!(timeline.breaks().await.unwrap(), breaks);
}
