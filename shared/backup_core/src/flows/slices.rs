//! The slices of a stretch of the timeline, opened, and the changes in them.

use bson::RawDocument;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::at_once::at_once;
use crate::bson::split_documents;
use crate::error::{Error, Result, corrupt};
use crate::format::{SliceFrame, SliceGroup};
use crate::id::{ClusterTime, CollectionUuid, SourceName};
use crate::ports::{DataKeys, ObjectStore, Timeline};
use crate::timeline::{Event, SliceRecord, TimelineHead};

use super::slice_reader::OpenSlice;

/// Slices opened, and frames read, at the same time: each takes a round trip or two.
const OPENED_AT_ONCE: usize = 16;
const FRAMES_AHEAD: usize = 8;

/// Slices that hold every change of a stretch.
pub(super) struct Slices {
    all: Vec<OpenSlice>,
    until: ClusterTime,
}

impl Slices {
    /// Opens what holds every change behind `after` up to `until`, both of them instants of one run.
    pub(super) async fn open(
        store: &dyn ObjectStore,
        keys: &dyn DataKeys,
        timeline: &dyn Timeline,
        source: SourceName,
        after: ClusterTime,
        until: ClusterTime,
    ) -> Result<Self> {
        let head = timeline.head().await?.ok_or_else(|| hole(after, until))?;
        let records =
            if after < until { timeline.slices(after.next(), until.next()).await? } else { Vec::new() };
        check_gapless(&records, &head, after, until)?;
        let open = records.iter().map(|record| OpenSlice::open(store, keys, source, record));
        let mut all = at_once(OPENED_AT_ONCE, open).await?;
        all.sort_by_key(|slice| slice.index.from);
        Ok(Self { all, until })
    }

    /// Whether a collection has changes.
    pub(super) fn has_changes_of(&self, collection: CollectionUuid) -> bool {
        self.groups(|it| it.collection == Some(collection)).next().is_some()
    }

    /// Gives every change of the documents of a collection, in order.
    pub(super) async fn each_of_collection(
        &self,
        store: &dyn ObjectStore,
        collection: CollectionUuid,
        give: impl FnMut(&Event<'_>) -> Result<()> + Send,
    ) -> Result<()> {
        self.each(store, |it| it.collection == Some(collection), give).await
    }

    /// Gives every change of the collections, views and indexes of a database, in order.
    pub(super) async fn each_of_metadata(
        &self,
        store: &dyn ObjectStore,
        database: &str,
        give: impl FnMut(&Event<'_>) -> Result<()> + Send,
    ) -> Result<()> {
        self.each(store, |it| it.collection.is_none() && it.database == database, give).await
    }

    fn groups<'a>(
        &'a self,
        wanted: impl Fn(&SliceGroup) -> bool + 'a,
    ) -> impl Iterator<Item = (&'a OpenSlice, &'a SliceFrame)> {
        let until = self.until;
        self.all.iter().flat_map(move |slice| {
            let groups = slice.index.groups.iter().filter(|it| it.first <= until && wanted(it));
            groups.flat_map(|group| &group.frames).map(move |frame| (slice, frame)).collect::<Vec<_>>()
        })
    }

    async fn each(
        &self,
        store: &dyn ObjectStore,
        wanted: impl Fn(&SliceGroup) -> bool,
        mut give: impl FnMut(&Event<'_>) -> Result<()> + Send,
    ) -> Result<()> {
        let frames: Vec<_> = self.groups(wanted).collect();
        let reads = stream::iter(frames).map(|(slice, frame)| slice.frame(store, frame));
        let mut frames = reads.buffered(FRAMES_AHEAD);
        while let Some(frame) = frames.try_next().await? {
            for raw in split_documents(&frame) {
                let raw =
                    RawDocument::from_bytes(raw?).map_err(|why| corrupt("read a change").because(why))?;
                let event = Event::read(raw)?;
                if event.time <= self.until {
                    give(&event)?;
                }
            }
        }
        Ok(())
    }
}

fn hole(after: ClusterTime, until: ClusterTime) -> Error {
    corrupt(format!("follow the timeline from {after} to {until}: there is a hole in it"))
        .hint("rows of the catalog are missing; nothing in this stretch can be trusted")
}

/// Each slice begins where the one before it ended, and together they reach as far as is wanted, or as far as there
/// were changes.
fn check_gapless(
    records: &[SliceRecord],
    head: &TimelineHead,
    after: ClusterTime,
    until: ClusterTime,
) -> Result<()> {
    if until <= after {
        return Ok(());
    }
    let meet = records.windows(2).all(|pair| matches!(pair, [one, other] if one.to == other.from));
    let begins = records.first().map_or(head.stored_to, |first| first.from) <= after.next();
    let ended = records.last().map_or(head.stored_to, |last| last.to);
    let reaches = ended > until || (ended == head.stored_to && head.to > until);
    if meet && begins && reaches { Ok(()) } else { Err(hole(after, until)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Attempt;

    #[test]
    fn a_hole_is_found_wherever_it_is() {
        let at = |ordinal| ClusterTime { seconds: 7, ordinal };
        let record = |from, to| SliceRecord {
            from: at(from),
            to: at(to),
            slice: Attempt::NONE,
            stored_bytes: 0,
            events: 0,
            event_bytes: 0,
        };
        let mut head = TimelineHead::beginning(at(1), 0);
        (head.stored_to, head.to) = (at(30), at(40));
        let check = |records: &[(u32, u32)], after, until, whole: bool| {
            let records: Vec<_> = records.iter().map(|(from, to)| record(*from, *to)).collect();
            let checked = check_gapless(&records, &head, at(after), at(until));
            assert_eq!(checked.is_ok(), whole, "{records:?} {after} {until}");
        };
        check(&[(1, 10), (10, 20), (20, 30)], 3, 25, true);
        check(&[(1, 10), (10, 20), (20, 30)], 3, 39, true);
        check(&[(1, 10), (10, 20), (20, 30)], 3, 40, false);
        check(&[(1, 10), (20, 30)], 3, 25, false);
        check(&[(1, 10), (10, 20)], 3, 25, false);
        check(&[(10, 20), (20, 30)], 3, 25, false);
        check(&[(10, 20), (20, 30)], 9, 25, true);
        check(&[], 30, 39, true);
        check(&[], 28, 39, false);
        check(&[], 5, 5, true);
    }
}
