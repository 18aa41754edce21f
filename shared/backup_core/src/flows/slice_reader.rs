//! Reading a slice of the timeline: its index first, then single frames of the groups that are wanted.

use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::format::{ObjectContext, ObjectKey, SliceFrame, SliceIndex, read_frame};
use crate::id::{Attempt, ClusterTime, SourceName};
use crate::ports::{DataKeys, ObjectStore};
use crate::timeline::SliceRecord;

use super::path;
use super::sealed_ranges::SealedRanges;

/// Read from a slice's end at first: the index of all slices but those of very many collections.
const FIRST_TAIL_BYTES: u64 = 64 * 1024;
/// What an operator can do about a slice that cannot be read.
const DAMAGED: &str = "the timeline is damaged here: restore an instant before it, and take a new backup, so that later instants can be restored from that one";

/// A slice whose index was read.
pub(super) struct OpenSlice {
    key: ObjectKey,
    ranges: SealedRanges,
    /// Where everything is in it.
    pub(super) index: SliceIndex,
}

impl OpenSlice {
    /// Opens the slice of `source` that the catalog knows as `record`; `Corrupt` if it is another one.
    pub(super) async fn open(
        store: &dyn ObjectStore,
        keys: &dyn DataKeys,
        source: SourceName,
        record: &SliceRecord,
    ) -> Result<Self> {
        Self::try_open(store, keys, source, record).await.map_err(advised)
    }

    async fn try_open(
        store: &dyn ObjectStore,
        keys: &dyn DataKeys,
        source: SourceName,
        record: &SliceRecord,
    ) -> Result<Self> {
        let key = ObjectKey::Slice(source, record.from, record.slice);
        let context = ObjectContext::of_slice(source, record.slice, record.from);
        let ranges = SealedRanges::open(store, keys, key, &context, record.stored_bytes).await?;
        let index_frame = fetch_index(store, key, &ranges).await?;
        let index = SliceIndex::parse(&index_frame, ranges.plain_bytes()).map_err(|why| told(key, why))?;
        let found = (index.source, index.from, index.to, index.events(), index.event_bytes());
        if found != (source, record.from, record.to, record.events, record.event_bytes) {
            return Err(told(key, corrupt("its index is not what the catalog tells of it")));
        }
        Ok(Self { key, ranges, index })
    }

    /// The changes in one frame of the index: concatenated BSON, in the order in which they happened.
    pub(super) async fn frame(&self, store: &dyn ObjectStore, frame: &SliceFrame) -> Result<Vec<u8>> {
        let stored = self.ranges.read(store, frame.offset, frame.stored_bytes).await.map_err(advised)?;
        read_frame(&stored, frame).map_err(|why| advised(told(self.key, why)))
    }
}

/// What the catalog is to know of the slice that an attempt wrote from `from` on, and that has so many bytes; `Corrupt`
/// if the object is another one.
pub(super) async fn describe(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    source: SourceName,
    from: ClusterTime,
    slice: Attempt,
    stored_bytes: u64,
) -> Result<SliceRecord> {
    let key = ObjectKey::Slice(source, from, slice);
    let context = ObjectContext::of_slice(source, slice, from);
    let ranges = SealedRanges::open(store, keys, key, &context, stored_bytes).await?;
    let index_frame = fetch_index(store, key, &ranges).await?;
    let index = SliceIndex::parse(&index_frame, ranges.plain_bytes()).map_err(|why| told(key, why))?;
    if (index.source, index.from) != (source, from) {
        return Err(told(key, corrupt("its index is another slice's")));
    }
    let (events, event_bytes) = (index.events(), index.event_bytes());
    Ok(SliceRecord { from, to: index.to, slice, stored_bytes, events, event_bytes })
}

async fn fetch_index(store: &dyn ObjectStore, key: ObjectKey, ranges: &SealedRanges) -> Result<Vec<u8>> {
    let plain_bytes = ranges.plain_bytes();
    let tail_at = plain_bytes.saturating_sub(FIRST_TAIL_BYTES);
    let mut tail = ranges.read(store, tail_at, plain_bytes - tail_at).await?;
    let length = SliceIndex::length_from_tail(&tail).map_err(|why| told(key, why))?;
    let too_long = || told(key, corrupt("its index is longer than itself"));
    let index_at = plain_bytes.checked_sub(length).ok_or_else(too_long)?;
    if let Some(other_bytes) = index_at.checked_sub(tail_at) {
        let other_bytes = usize::try_from(other_bytes).map_err(|_| too_long())?;
        return Ok(tail.split_off(other_bytes.min(tail.len())));
    }
    let mut index_frame = ranges.read(store, index_at, tail_at - index_at).await?;
    index_frame.extend(tail);
    Ok(index_frame)
}

fn told(key: ObjectKey, why: Error) -> Error {
    why.while_doing(format!("read {}", path(key)))
}

fn advised(why: Error) -> Error {
    if why.kind() == ErrorKind::Corrupt { why.hint(DAMAGED) } else { why }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use bson::rawdoc;
    use futures_util::FutureExt;

    use super::super::sealed_ranges::one_object::{OneKey, OneObject, sealed};
    use super::*;
    use crate::format::SliceBuilder;
    use crate::id::CollectionUuid;

    fn at(ordinal: u32) -> ClusterTime {
        ClusterTime { seconds: 1_795_312_800, ordinal }
    }

    fn source() -> SourceName {
        "main".parse().unwrap()
    }

    /// No two look alike, so that their index does not compress to nothing.
    fn uuid(collection: u32) -> CollectionUuid {
        let spread = u128::from(collection + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        CollectionUuid(spread.to_be_bytes())
    }

    fn event(number: u32) -> Vec<u8> {
        rawdoc! { "n": i64::from(number) }.into_bytes()
    }

    /// A slice of two changes of each collection.
    fn slice(collections: u32) -> (OneObject, SliceRecord) {
        let (from, to) = (at(1), at(2 * collections + 2));
        let mut builder = SliceBuilder::new(3).unwrap();
        let mut plain = Vec::new();
        for number in 0..2 * collections {
            let uuid = uuid(number % collections);
            let ready = builder.push("d", Some(uuid), at(1 + number), &event(number)).unwrap();
            plain.extend_from_slice(&ready);
        }
        let finished = builder.finish(source(), from, to).unwrap();
        plain.extend_from_slice(&finished.rest);
        let slice: Attempt = "01M80FPN78VHXM75HQT0PV8SYY".parse().unwrap();
        let body = sealed(&ObjectContext::of_slice(source(), slice, from), &plain);
        let stored_bytes = u64::try_from(body.len()).unwrap();
        let (events, event_bytes) = (finished.events, finished.event_bytes);
        let record = SliceRecord { from, to, slice, stored_bytes, events, event_bytes };
        (OneObject { body, ..OneObject::default() }, record)
    }

    fn open(store: &OneObject, record: &SliceRecord) -> Result<OpenSlice> {
        OpenSlice::open(store, &OneKey, source(), record).now_or_never().unwrap()
    }

    #[test]
    fn every_group_is_read_alone() {
        for (collections, requests) in [(0, 2), (1, 2), (50, 2), (6000, 3)] {
            let (store, record) = slice(collections);
            let slice = open(&store, &record).unwrap();
            assert_eq!(store.replies.load(Ordering::SeqCst), requests, "{collections} collections");
            assert_eq!(slice.index.groups.len(), usize::try_from(collections).unwrap());
            for number in (0..collections).step_by(37) {
                let wanted = Some(uuid(number));
                let group = slice.index.groups.iter().find(|group| group.collection == wanted).unwrap();
                let frame = slice.frame(&store, &group.frames[0]).now_or_never().unwrap().unwrap();
                assert_eq!(frame, [event(number), event(number + collections)].concat());
            }
        }
    }

    #[test]
    fn a_slice_that_is_not_the_catalogs_is_refused() {
        let (store, record) = slice(3);
        let changes: [fn(&mut SliceRecord); 6] = [
            |it| it.from = at(2),
            |it| it.to = it.to.next(),
            |it| it.slice = Attempt::generate(0).unwrap(),
            |it| it.stored_bytes -= 1,
            |it| it.events += 1,
            |it| it.event_bytes += 1,
        ];
        assert!(open(&store, &record).is_ok());
        for (number, change) in changes.into_iter().enumerate() {
            let mut other = record.clone();
            change(&mut other);
            let refused = open(&store, &other).err().unwrap();
            assert_eq!(refused.kind(), ErrorKind::Corrupt, "change {number}");
            assert_eq!(refused.hint_text(), Some(DAMAGED), "change {number}");
        }
        let elsewhere = OpenSlice::open(&store, &OneKey, "other".parse().unwrap(), &record);
        assert_eq!(elsewhere.now_or_never().unwrap().err().unwrap().kind(), ErrorKind::Corrupt);
    }
}
