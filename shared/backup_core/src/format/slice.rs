//! What is inside a slice of the timeline: frames of changes, and the index that tells where they are.
//!
//! Each frame holds changes of one group only (those of one collection, or what else happened in one database), in the
//! order in which they happened, so that a restore reads no frame of collections it does not want. The index is checked
//! as a whole, before it is written and after it is read: no frame overlaps another, and nothing lies between them.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::FORMAT_VERSION;
use crate::bson::{DOCUMENT_BYTES_MAX, split_documents};
use crate::compress::{compress_whole, decompress_whole};
use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::id::{ClusterTime, CollectionUuid, SourceName};
use crate::settings::MIB;

/// A frame is closed once it holds so many bytes of changes: a reader holds one frame of each group it reads.
pub(super) const SLICE_FRAME_TARGET_BYTES: usize = 1024 * 1024;
/// A frame that is closed at once after a largest change.
const FRAME_PLAIN_BYTES_MAX: u64 = (SLICE_FRAME_TARGET_BYTES + DOCUMENT_BYTES_MAX) as u64;
const SKIPPABLE_MAGIC: [u8; 4] = 0x184D_2A5E_u32.to_le_bytes();
const INDEX_MAGIC: [u8; 4] = *b"NSTX";
/// What stands before the index (magic and length), and what stands behind it (length and magic).
const INDEX_EDGE_BYTES: usize = 8;
/// An index of 250,000 groups, the most a slice can have, takes about 20 MiB, and about 80 MiB of JSON.
const INDEX_BYTES_MAX: u64 = 64 * MIB;
const INDEX_JSON_BYTES_MAX: u64 = 256 * MIB;

/// Where everything is in a slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceIndex {
    /// Version of the format; see `docs/FORMAT.md`.
    pub format: u16,
    /// The protected cluster.
    pub source: SourceName,
    /// The first instant that is in the slice.
    pub from: ClusterTime,
    /// The first instant behind it.
    pub to: ClusterTime,
    /// Its groups, sorted by database and collection (none comes first). Empty if nothing happened.
    pub groups: Vec<SliceGroup>,
}

/// Changes of one collection, or what else happened in one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceGroup {
    /// The database.
    pub database: String,
    /// The collection whose documents changed; none for all other changes.
    pub collection: Option<CollectionUuid>,
    /// When the first of the changes happened.
    pub first: ClusterTime,
    /// When the last of the changes happened.
    pub last: ClusterTime,
    /// How many there are.
    pub events: u64,
    /// Where they are, in the order in which they happened.
    pub frames: Vec<SliceFrame>,
}

/// One compressed frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceFrame {
    /// Where it begins in the slice's plaintext.
    pub offset: u64,
    /// How many bytes of the plaintext it takes.
    pub stored_bytes: u64,
    /// How many bytes of changes it holds.
    pub plain_bytes: u64,
    /// How many changes it holds.
    pub events: u64,
}

/// What of an index every version of the format has.
#[derive(Deserialize)]
struct Versioned {
    format: u16,
}

impl SliceIndex {
    /// The end of a slice's plaintext that is enough for [`SliceIndex::length_from_tail`].
    pub const TAIL_BYTES: u64 = INDEX_EDGE_BYTES as u64;

    /// The length of the frame with the index, which ends the slice's plaintext, from the last bytes of it.
    pub fn length_from_tail(tail: &[u8]) -> Result<u64> {
        let (length, _) = tail
            .last_chunk::<INDEX_EDGE_BYTES>()
            .and_then(|tail| tail.split_first_chunk::<4>())
            .filter(|(_, magic)| *magic == INDEX_MAGIC)
            .ok_or_else(|| damaged("it is not at the slice's end"))?;
        let length = u64::from(u32::from_le_bytes(*length));
        let is_possible = (2 * Self::TAIL_BYTES..=INDEX_BYTES_MAX).contains(&length);
        is_possible.then_some(length).ok_or_else(|| damaged("its length is impossible"))
    }

    /// Reads the frame with the index of a slice that has so many bytes of plaintext, and checks it.
    pub fn parse(index_frame: &[u8], plain_bytes: u64) -> Result<Self> {
        let length = byte_count(index_frame);
        let frames_bytes = plain_bytes.checked_sub(length).filter(|_| is_framed(index_frame));
        let frames_bytes = frames_bytes.ok_or_else(|| damaged("its frame is wrong"))?;
        let stored = index_frame.get(INDEX_EDGE_BYTES..index_frame.len().saturating_sub(INDEX_EDGE_BYTES));
        let json = decompress_whole(stored.unwrap_or_default(), INDEX_JSON_BYTES_MAX)
            .map_err(|why| why.while_doing("read a slice's index"))?;
        let Versioned { format } = read_json(&json)?;
        if format > FORMAT_VERSION {
            return Err(Error::new(ErrorKind::Unsupported, format!("read a slice of format {format}"))
                .hint("a newer Nightsafe wrote it"));
        }
        let index: Self = read_json(&json)?;
        index.check(frames_bytes)?;
        Ok(index)
    }

    /// The frame that closes a slice whose other frames take so many bytes.
    pub(super) fn to_frame(&self, frames_bytes: u64) -> Result<Vec<u8>> {
        self.check(frames_bytes)?;
        let json = serde_json::to_vec(self)
            .map_err(|why| Error::new(ErrorKind::Internal, "write JSON").because(why))?;
        framed(&json)
    }

    /// How many changes are in the slice.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.groups.iter().map(|group| group.events).sum()
    }

    /// How many bytes of changes are in the slice.
    #[must_use]
    pub fn event_bytes(&self) -> u64 {
        self.frames().map(|frame| frame.plain_bytes).sum()
    }

    fn frames(&self) -> impl Iterator<Item = &SliceFrame> {
        self.groups.iter().flat_map(|group| &group.frames)
    }

    /// Checks what must hold of every index, of a slice whose frames take so many bytes.
    fn check(&self, frames_bytes: u64) -> Result<()> {
        if self.format != FORMAT_VERSION {
            return Err(damaged("its format was never written"));
        }
        if self.to <= self.from {
            return Err(damaged("it is of no time"));
        }
        if !self.groups.is_sorted_by(|one, next| one.name() < next.name()) {
            return Err(damaged("a group stands twice, or out of order"));
        }
        self.groups.iter().try_for_each(|group| group.check(self.from, self.to))?;
        let mut frames: Vec<&SliceFrame> = self.frames().collect();
        frames.sort_unstable_by_key(|frame| frame.offset);
        let end = frames.into_iter().try_fold(0_u64, |end, frame| {
            end.checked_add(frame.stored_bytes).filter(|_| frame.offset == end)
        });
        if end == Some(frames_bytes) {
            Ok(())
        } else {
            Err(damaged("its frames do not lie behind one another"))
        }
    }
}

impl SliceGroup {
    fn name(&self) -> (&str, Option<CollectionUuid>) {
        (&self.database, self.collection)
    }

    fn check(&self, from: ClusterTime, to: ClusterTime) -> Result<()> {
        if self.first < from || self.last < self.first || to <= self.last {
            return Err(damaged("a group is outside of its time"));
        }
        // Each count is bounded, so no sum of as many as there can be overflows.
        let is_possible = |frame: &SliceFrame| {
            frame.stored_bytes > 0
                && (1..=FRAME_PLAIN_BYTES_MAX).contains(&frame.plain_bytes)
                && (1..=frame.plain_bytes).contains(&frame.events)
        };
        if self.frames.is_empty() || !self.frames.iter().all(is_possible) {
            return Err(damaged("a frame is impossible"));
        }
        if !self.frames.is_sorted_by(|one, next| one.offset < next.offset) {
            return Err(damaged("frames are out of order"));
        }
        if self.frames.iter().map(|frame| frame.events).sum::<u64>() != self.events {
            return Err(damaged("a group has another number of changes than its frames"));
        }
        Ok(())
    }
}

/// The changes in a frame, concatenated BSON, from the bytes of plaintext it takes.
pub fn read_frame(stored: &[u8], frame: &SliceFrame) -> Result<Vec<u8>> {
    let refused = |what: &str| corrupt(format!("read a frame of a slice: {what}"));
    if byte_count(stored) != frame.stored_bytes {
        return Err(refused("it has another length than the index says"));
    }
    let events = decompress_whole(stored, frame.plain_bytes)
        .map_err(|why| why.while_doing("read a frame of a slice"))?;
    if byte_count(&events) != frame.plain_bytes {
        return Err(refused("it holds less than the index says"));
    }
    let count = split_documents(&events).try_fold(0_u64, |count, event| event.map(|_| count + 1))?;
    if count != frame.events {
        return Err(refused("it holds another number of changes than the index says"));
    }
    Ok(events)
}

pub(super) fn byte_count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn damaged(what: &str) -> Error {
    corrupt(format!("check a slice's index: {what}"))
}

/// The frame with the index that this is the JSON of.
fn framed(json: &[u8]) -> Result<Vec<u8>> {
    let stored = compress_whole(json)?;
    let fits =
        |length: &u32| u64::from(*length) <= INDEX_BYTES_MAX && byte_count(json) <= INDEX_JSON_BYTES_MAX;
    let length = u32::try_from(stored.len() + 2 * INDEX_EDGE_BYTES).ok().filter(fits);
    let length = length.ok_or_else(|| Error::new(ErrorKind::Internal, "write an index: it is too long"))?;
    let mut out = Vec::new();
    out.extend_from_slice(&SKIPPABLE_MAGIC);
    out.extend_from_slice(&length.saturating_sub(8).to_le_bytes()); // what follows
    out.extend_from_slice(&stored);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&INDEX_MAGIC);
    Ok(out)
}

/// Whether the bytes are one skippable frame that tells its own length at both ends.
fn is_framed(index_frame: &[u8]) -> bool {
    let length = byte_count(index_frame);
    let payload = index_frame
        .split_first_chunk::<4>()
        .filter(|(magic, _)| **magic == SKIPPABLE_MAGIC)
        .and_then(|(_, rest)| rest.first_chunk::<4>())
        .map(|payload| u64::from(u32::from_le_bytes(*payload)));
    SliceIndex::length_from_tail(index_frame).is_ok_and(|told| told == length)
        && payload == Some(length.saturating_sub(8))
}

/// A JSON error tells line and column, and may quote a value: only the place may be told.
fn read_json<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|why| {
        let (line, column) = (why.line(), why.column());
        damaged(&format!("unexpected JSON at line {line} column {column}"))
    })
}

#[cfg(test)]
mod tests {
    use backup_testkit::hostile::{self, Draw, SECRET, assert_discreet};
    use bson::rawdoc;

    use super::*;

    /// All frames of [`index`] together.
    const FRAMES_BYTES: u64 = 100;

    fn index() -> SliceIndex {
        let at = |ordinal| ClusterTime { seconds: 1_790_000_000, ordinal };
        let frame =
            |offset, stored_bytes, events| SliceFrame { offset, stored_bytes, plain_bytes: 300, events };
        let group = |collection: Option<u8>, first, last, events, frames| SliceGroup {
            database: SECRET.to_owned(),
            collection: collection.map(|byte| CollectionUuid([byte; 16])),
            first: at(first),
            last: at(last),
            events,
            frames,
        };
        let groups = vec![
            group(None, 10, 10, 1, vec![frame(40, 10, 1)]),
            group(Some(3), 10, 19, 5, vec![frame(0, 40, 3), frame(50, 20, 2)]),
            group(Some(4), 12, 17, 4, vec![frame(70, 30, 4)]),
        ];
        SliceIndex { format: 1, source: "main".parse().unwrap(), from: at(10), to: at(20), groups }
    }

    fn parse_json(json: &[u8]) -> Result<SliceIndex> {
        let frame = framed(json).unwrap();
        assert_eq!(SliceIndex::length_from_tail(&frame).unwrap(), byte_count(&frame));
        SliceIndex::parse(&frame, FRAMES_BYTES + byte_count(&frame))
    }

    #[test]
    fn an_index_comes_back_and_tells_its_length() {
        let frame = index().to_frame(FRAMES_BYTES).unwrap();
        let plain_bytes = FRAMES_BYTES + byte_count(&frame);
        assert_eq!(SliceIndex::length_from_tail(&frame[frame.len() - 8..]).unwrap(), byte_count(&frame));
        assert_eq!(SliceIndex::parse(&frame, plain_bytes).unwrap(), index());
        assert_eq!((index().events(), index().event_bytes()), (10, 1200));
        assert!(SliceIndex::parse(&frame, plain_bytes + 1).is_err(), "bytes behind the frames");
        assert!(SliceIndex::parse(&frame, plain_bytes - 1).is_err(), "frames reach into the index");
        assert!(SliceIndex::parse(&[&[0][..], frame.as_slice()].concat(), plain_bytes + 1).is_err());
        for cut in 0..frame.len() {
            assert!(SliceIndex::parse(&frame[..cut], plain_bytes).is_err(), "cut at {cut}");
        }
        let nothing = SliceIndex { groups: Vec::new(), ..index() };
        let frame = nothing.to_frame(0).unwrap();
        assert_eq!(SliceIndex::parse(&frame, byte_count(&frame)).unwrap(), nothing);
    }

    #[test]
    fn an_index_that_cannot_be_is_neither_written_nor_read() {
        type Spoil = fn(&mut SliceIndex);
        let spoil: [(&str, Spoil); 18] = [
            ("no format", |it| it.format = 0),
            ("no time", |it| it.to = it.from),
            ("a group before it", |it| it.groups[0].first.ordinal = 9),
            ("a group behind it", |it| it.groups[1].last.ordinal = 20),
            ("a group that ends first", |it| it.groups[2].last.ordinal = 11),
            ("groups out of order", |it| it.groups.swap(0, 1)),
            ("a group twice", |it| it.groups[2].collection = it.groups[1].collection),
            ("no frames", |it| it.groups[0].frames.clear()),
            ("frames out of order", |it| it.groups[1].frames.swap(0, 1)),
            ("another count", |it| it.groups[1].events = 6),
            ("an impossible sum", |it| it.groups[1].frames[0].events = u64::MAX),
            ("no changes", |it| it.groups[1].frames[0].events = 0),
            ("nothing stored", |it| it.groups[0].frames[0].stored_bytes = 0),
            ("nothing in it", |it| it.groups[0].frames[0].plain_bytes = 0),
            ("too much in it", |it| it.groups[0].frames[0].plain_bytes = FRAME_PLAIN_BYTES_MAX + 1),
            ("an overlap", |it| it.groups[0].frames[0].offset = 39),
            ("a hole", |it| it.groups[0].frames[0].offset = 41),
            ("no end", |it| it.groups[2].frames[0].stored_bytes = u64::MAX),
        ];
        assert!(parse_json(&serde_json::to_vec(&index()).unwrap()).is_ok());
        for (what, spoil) in spoil {
            let mut bad = index();
            spoil(&mut bad);
            assert!(bad.to_frame(FRAMES_BYTES).is_err(), "{what} is written");
            let read = parse_json(&serde_json::to_vec(&bad).unwrap());
            assert_eq!(read.unwrap_err().kind(), ErrorKind::Corrupt, "{what}");
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let newer = br#"{"format":2,"something":"new"}"#;
        assert_eq!(parse_json(newer).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    /// What is wrong with a damaged index is refused, or it is at least one that could be.
    fn check_damaged(read: Result<SliceIndex>) {
        match read {
            Ok(index) => drop(index.to_frame(FRAMES_BYTES).unwrap()),
            Err(why) => {
                assert!(matches!(why.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported));
                assert_discreet(&why);
            }
        }
    }

    #[test]
    fn a_bit_that_flipped_does_no_harm() {
        let frame = index().to_frame(FRAMES_BYTES).unwrap();
        for bit in 0..8 * frame.len() {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            check_damaged(SliceIndex::parse(&bad, FRAMES_BYTES + byte_count(&bad)));
        }
    }

    #[test]
    fn hostile_json_does_no_harm() {
        let valid = serde_json::to_value(index()).unwrap();
        bolero::check!().for_each(|input: &[u8]| {
            check_damaged(parse_json(&hostile::json(&valid, &mut Draw::new(input))));
        });
    }

    #[test]
    fn a_frame_holds_what_the_index_says() {
        let events: Vec<u8> = (0..3_i32).flat_map(|n| rawdoc! { "n": n }.into_bytes()).collect();
        let stored = compress_whole(&events).unwrap();
        let (stored_bytes, plain_bytes) = (byte_count(&stored), byte_count(&events));
        let frame = SliceFrame { offset: 7, stored_bytes, plain_bytes, events: 3 };
        assert_eq!(read_frame(&stored, &frame).unwrap(), events);
        for bad in [
            SliceFrame { stored_bytes: stored_bytes - 1, ..frame.clone() },
            SliceFrame { plain_bytes: plain_bytes - 1, ..frame.clone() },
            SliceFrame { plain_bytes: plain_bytes + 1, ..frame.clone() },
            SliceFrame { events: 2, ..frame.clone() },
        ] {
            assert_eq!(read_frame(&stored, &bad).unwrap_err().kind(), ErrorKind::Corrupt, "{bad:?}");
        }
        let cut = compress_whole(&events[..events.len() - 1]).unwrap();
        let (stored_bytes, plain_bytes) = (byte_count(&cut), plain_bytes - 1);
        assert!(
            read_frame(&cut, &SliceFrame { stored_bytes, plain_bytes, ..frame }).is_err(),
            "half a change"
        );
    }
}
