//! Building a slice of the timeline: changes come in the order in which they happened and leave as frames of one group
//! each, so that memory is bounded whatever the slice holds.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::FORMAT_VERSION;
use super::slice::{SLICE_FRAME_TARGET_BYTES, SliceFrame, SliceGroup, SliceIndex, byte_count};
use crate::bson::document_length;
use crate::compress::{Contents, FrameEncoder};
use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::id::{ClusterTime, CollectionUuid, SourceName};

/// Changes that wait for their frame, of all groups together. If there are more, the largest groups are closed early.
const OPEN_BYTES_MAX: usize = 16 * SLICE_FRAME_TARGET_BYTES;
/// No slice has as many: a change has some hundred bytes, and slices end long before there are so many of them.
const GROUPS_MAX: usize = 250_000;

/// Takes changes and gives the plaintext of a slice, piece by piece.
pub struct SliceBuilder {
    groups: BTreeMap<(String, Option<CollectionUuid>), OpenGroup>,
    last: ClusterTime,
    frames: Frames,
}

/// How a slice ends.
#[derive(Debug)]
pub struct FinishedSlice {
    /// The last plaintext bytes.
    pub rest: Vec<u8>,
    /// Changes in the slice.
    pub events: u64,
    /// Bytes of BSON of those changes.
    pub event_bytes: u64,
}

/// A group that may get more changes.
struct OpenGroup {
    first: ClusterTime,
    last: ClusterTime,
    frames: Vec<SliceFrame>,
    /// The changes of the next frame.
    open: Vec<u8>,
    open_events: u64,
}

/// Where the next frame goes to.
struct Frames {
    encoder: FrameEncoder,
    /// Bytes of all frames so far.
    stored_bytes: u64,
    /// Bytes of changes that wait for their frame.
    open_bytes: usize,
}

impl SliceBuilder {
    /// Begins a slice whose frames are compressed at this level.
    pub fn new(compression_level: i32) -> Result<Self> {
        let frames =
            Frames { encoder: FrameEncoder::new(compression_level)?, stored_bytes: 0, open_bytes: 0 };
        Ok(Self { groups: BTreeMap::new(), last: ClusterTime { seconds: 0, ordinal: 0 }, frames })
    }

    /// Takes the next change (its raw BSON) into the group of the collection, or of all else in the database. Gives the
    /// plaintext that comes next, often none.
    pub fn push(
        &mut self,
        database: &str,
        collection: Option<CollectionUuid>,
        time: ClusterTime,
        event: &[u8],
    ) -> Result<Vec<u8>> {
        if document_length(event) != Some(event.len()) {
            return Err(corrupt("add a change to a slice: its length is wrong"));
        }
        if time < self.last {
            return Err(corrupt("add a change to a slice: it happened before the last one"));
        }
        let name = (database.to_owned(), collection);
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&name) {
            return Err(Error::new(ErrorKind::Internal, "add a change to a slice: too many collections"));
        }
        self.last = time;
        let group = self.groups.entry(name).or_insert_with(|| OpenGroup::beginning(time));
        group.last = time;
        group.open.extend_from_slice(event);
        group.open_events += 1;
        self.frames.open_bytes += event.len();
        let mut out = Vec::new();
        if group.open.len() >= SLICE_FRAME_TARGET_BYTES {
            self.frames.close(group, &mut out)?;
        }
        if self.frames.open_bytes > OPEN_BYTES_MAX {
            self.make_room(&mut out)?;
        }
        Ok(out)
    }

    /// Closes the largest groups until half of the room is free: one at a time would be looking for it forever, where
    /// there are many small ones.
    fn make_room(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let mut groups: Vec<&mut OpenGroup> = self.groups.values_mut().collect();
        groups.sort_by_key(|group| Reverse(group.open.len()));
        for group in groups {
            if self.frames.open_bytes <= OPEN_BYTES_MAX / 2 {
                break;
            }
            self.frames.close(group, out)?;
        }
        Ok(())
    }

    /// Ends the slice of what happened from `from` up to and without `to`. `Corrupt` if a change did not.
    pub fn finish(mut self, source: SourceName, from: ClusterTime, to: ClusterTime) -> Result<FinishedSlice> {
        let mut rest = Vec::new();
        for group in self.groups.values_mut() {
            self.frames.close(group, &mut rest)?;
        }
        let groups = self.groups.into_iter().map(|((database, collection), group)| SliceGroup {
            database,
            collection,
            first: group.first,
            last: group.last,
            events: group.frames.iter().map(|frame| frame.events).sum(),
            frames: group.frames,
        });
        let index = SliceIndex { format: FORMAT_VERSION, source, from, to, groups: groups.collect() };
        rest.extend(index.to_frame(self.frames.stored_bytes)?);
        Ok(FinishedSlice { rest, events: index.events(), event_bytes: index.event_bytes() })
    }
}

impl OpenGroup {
    const fn beginning(at: ClusterTime) -> Self {
        Self { first: at, last: at, frames: Vec::new(), open: Vec::new(), open_events: 0 }
    }
}

impl Frames {
    /// Makes a frame of what waits for one in `group`, and frees its memory.
    fn close(&mut self, group: &mut OpenGroup, out: &mut Vec<u8>) -> Result<()> {
        if group.open.is_empty() {
            return Ok(());
        }
        let events = std::mem::take(&mut group.open);
        let stored = self.encoder.encode(&events, Contents::default())?.stored;
        let frame = SliceFrame {
            offset: self.stored_bytes,
            stored_bytes: byte_count(&stored),
            plain_bytes: byte_count(&events),
            events: std::mem::take(&mut group.open_events),
        };
        self.open_bytes -= events.len();
        self.stored_bytes += frame.stored_bytes;
        group.frames.push(frame);
        out.extend(stored);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;
    use proptest::prelude::*;

    use super::super::slice::read_frame;
    use super::*;
    use crate::compress::decompress_whole;

    /// A change: group, time and size.
    type Change = (u16, u32, usize);

    fn name(group: u16) -> (String, Option<CollectionUuid>) {
        let collection = (!group.is_multiple_of(3)).then(|| {
            let mut uuid = [0; 16];
            uuid[..2].copy_from_slice(&group.to_be_bytes());
            CollectionUuid(uuid)
        });
        (format!("d{}", group % 5), collection)
    }

    fn event(number: usize, bytes: usize) -> Vec<u8> {
        let letter = char::from(b'a' + u8::try_from(number % 26).unwrap());
        rawdoc! { "n": i64::try_from(number).unwrap(), "x": letter.to_string().repeat(bytes) }.into_bytes()
    }

    fn time(ordinal: u32) -> ClusterTime {
        ClusterTime { seconds: 1_790_000_000, ordinal }
    }

    /// Builds a slice of `changes`, reads it back, and gives its index.
    fn check(changes: &[Change]) -> SliceIndex {
        let mut builder = SliceBuilder::new(3).unwrap();
        let mut expected: BTreeMap<_, (Vec<u8>, u32, u32)> = BTreeMap::new();
        let (mut plain, mut waiting_bytes): (Vec<u8>, usize) = (Vec::new(), 0);
        for (number, (group, ordinal, bytes)) in changes.iter().enumerate() {
            let (name, event) = (name(*group), event(number, *bytes));
            plain.extend(builder.push(&name.0, name.1, time(*ordinal), &event).unwrap());
            let (events, _, last) = expected.entry(name).or_insert((Vec::new(), *ordinal, *ordinal));
            events.extend_from_slice(&event);
            *last = *ordinal;
            waiting_bytes = waiting_bytes.max(builder.frames.open_bytes);
        }
        let (from, to) = (time(1), time(1_000_000));
        let finished = builder.finish("main".parse().unwrap(), from, to).unwrap();
        plain.extend(&finished.rest);
        assert!(waiting_bytes <= OPEN_BYTES_MAX, "{waiting_bytes} bytes wait for their frames");

        let length = usize::try_from(SliceIndex::length_from_tail(&plain).unwrap()).unwrap();
        let index = SliceIndex::parse(&plain[plain.len() - length..], byte_count(&plain)).unwrap();
        assert_eq!((index.from, index.to), (from, to));
        assert_eq!(index.events(), u64::try_from(changes.len()).unwrap());
        assert_eq!((finished.events, finished.event_bytes), (index.events(), index.event_bytes()));
        let anybody = decompress_whole(&plain, index.event_bytes()).unwrap();
        assert_eq!(byte_count(&anybody), index.event_bytes(), "what any reader of zstd finds");
        assert_eq!(index.groups.len(), expected.len());
        for (group, (name, (events, first, last))) in index.groups.iter().zip(expected) {
            assert_eq!((&group.database, group.collection), (&name.0, name.1));
            assert_eq!((group.first, group.last), (time(first), time(last)));
            let mut found = Vec::new();
            for frame in &group.frames {
                let start = usize::try_from(frame.offset).unwrap();
                let end = start + usize::try_from(frame.stored_bytes).unwrap();
                found.extend(read_frame(&plain[start..end], frame).unwrap());
            }
            assert!(found == events, "the changes of {name:?}, in their order");
        }
        index
    }

    #[test]
    fn a_slice_gives_back_its_changes_by_group_and_in_order() {
        let frames = |index: &SliceIndex| index.groups.iter().map(|group| group.frames.len()).sum::<usize>();
        assert!(check(&[]).groups.is_empty());
        assert_eq!(frames(&check(&[(1, 1, 0)])), 1);
        assert_eq!(frames(&check(&[(1, 1, 10), (1, 1, 10), (0, 999_999, 10)])), 2);
        assert_eq!(frames(&check(&[(1, 1, 15 << 20), (1, 2, 1), (2, 2, 2), (1, 3, 15 << 20)])), 3);
        let in_turn = |groups: u16, count: usize, bytes| -> Vec<Change> {
            (0..groups).cycle().zip(1..).map(|(n, time)| (3 * n + 1, time, bytes)).take(count).collect()
        };
        // One collection: a frame for each MiB.
        assert_eq!(frames(&check(&in_turn(1, 110, 100_000))), 10);
        // As many as fit: every group comes to a MiB.
        assert_eq!(frames(&check(&in_turn(10, 200, 100_000))), 20);
        // More than fit: groups are closed before they come to a MiB.
        assert!(frames(&check(&in_turn(40, 400, 100_000))) > 40);
        // Thousands of tiny collections: one frame each.
        let index = check(&in_turn(4000, 8000, 100));
        assert_eq!(frames(&index), index.groups.len());
        assert_eq!(index.groups.len(), 4000);
    }

    proptest! {
        #[test]
        fn any_changes_come_back(
            changes in proptest::collection::vec((0_u16..3, 0_u32..3, 0_usize..100_000), 0..40),
        ) {
            let mut now = 1;
            let in_order = changes.into_iter().map(|(group, later, bytes)| {
                now += later;
                (group, now, bytes)
            });
            check(&in_order.collect::<Vec<Change>>());
        }
    }

    #[test]
    fn a_change_that_cannot_be_is_refused() {
        let mut builder = SliceBuilder::new(3).unwrap();
        builder.push("d", None, time(5), &event(0, 1)).unwrap();
        let mut refused = |time, event: &[u8]| builder.push("d", None, time, event).unwrap_err().kind();
        assert_eq!(refused(time(4), &event(1, 1)), ErrorKind::Corrupt, "earlier than the last one");
        assert_eq!(refused(time(5), &event(1, 1)[1..]), ErrorKind::Corrupt, "cut short");
        assert_eq!(refused(time(5), &[event(1, 1), vec![0]].concat()), ErrorKind::Corrupt, "too long");
        assert_eq!(refused(time(5), &[]), ErrorKind::Corrupt, "nothing");
        for (from, to) in [(6, 9), (1, 5), (5, 5)] {
            let mut builder = SliceBuilder::new(3).unwrap();
            builder.push("d", None, time(5), &event(0, 1)).unwrap();
            assert!(builder.finish("main".parse().unwrap(), time(from), time(to)).is_err(), "{from} to {to}");
        }
    }
}
