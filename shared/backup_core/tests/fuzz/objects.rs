//! Stored objects: the clear header, the sealed records, the zstd frames and their index.

use std::sync::LazyLock;

use backup_core::bson::{IdValue, split_documents};
use backup_core::compress::{
    Contents, DECODED_PIECE_BYTES, Frame, FrameDecoder, FrameEncoder, FrameIndex, compress_whole,
    decompress_whole,
};
use backup_core::document_hash::DocumentHash;
use backup_core::error::{ErrorKind, Result};
use backup_core::format::{Header, ObjectContext, ObjectKind};
use backup_core::id::{ClusterTime, CollectionUuid, OperationId};
use backup_core::seal::{MessageKey, Opener, RECORD_BYTES, seal};
use backup_testkit::hostile::{self, Draw, SECRET, assert_discreet};
use bolero::check;
use bson::rawdoc;

use crate::documents::document;

#[test]
fn header() {
    let context = ObjectContext {
        kind: ObjectKind::Chunk,
        source: "prod-eu".parse().unwrap(),
        operation: OperationId::from_bytes([3; 16]),
        collection: CollectionUuid([4; 16]),
        ordinal: 77,
        cluster_time: ClusterTime { seconds: 1_790_000_000, ordinal: 5 },
    };
    let mut valid = Header { context, wrapped_key: SECRET.repeat(37).into_bytes() }.to_bytes().unwrap();
    valid.extend_from_slice(b"the message");
    check!().for_each(|input: &[u8]| {
        let object = hostile::bytes(&valid, &mut Draw::new(input));
        match Header::from_bytes(&object) {
            Ok((header, length)) => {
                assert!(u64::try_from(length).unwrap() <= Header::BYTES_MAX);
                assert_eq!(header.to_bytes().unwrap(), object[..length]);
                assert!(Header::expect(&object, &header.context).is_ok());
                assert!(Header::from_bytes(&object[..length - 1]).is_err(), "a header cut short is read");
                let other = ObjectContext { ordinal: !header.context.ordinal, ..header.context };
                assert_eq!(Header::expect(&object, &other).unwrap_err().kind(), ErrorKind::Corrupt);
            }
            Err(why) => {
                assert!(object != valid, "a valid header is refused: {why}");
                assert!(matches!(why.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported));
                assert_discreet(&why);
            }
        }
    });
}

const CONTEXT: &[u8] = b"context";

fn key() -> MessageKey {
    MessageKey::new([7; 32])
}

/// Messages with a last record of every kind, and what they seal. The salt is random, and nothing depends on it.
static SEALED: LazyLock<Vec<(Vec<u8>, Vec<u8>)>> = LazyLock::new(|| {
    let lengths = [0, 1, RECORD_BYTES - 1, RECORD_BYTES, 2 * RECORD_BYTES + 100];
    let sealed = lengths.map(|length| {
        let plain: Vec<u8> = SECRET.bytes().cycle().take(length).collect();
        (seal(&key(), CONTEXT, &plain).unwrap(), plain)
    });
    sealed.into()
});

#[test]
fn sealed_records() {
    check!().for_each(|input: &[u8]| {
        let mut draw = Draw::new(input);
        let (valid, plain) = &SEALED[usize::from(draw.byte()) % SEALED.len()];
        let step = 16 + draw.below(40_000);
        let sealed = hostile::bytes(valid, &mut draw);
        let (opened, outcome) = open(&sealed, step);
        assert!(plain.starts_with(&opened), "bytes came out that were never sealed");
        match outcome {
            Ok(()) => assert!(sealed == *valid && opened == *plain, "a damaged message was opened"),
            Err(why) => {
                assert!(sealed != *valid, "a valid message is refused: {why}");
                assert_eq!(why.kind(), ErrorKind::Corrupt);
                assert_discreet(&why);
            }
        }
    });
}

fn open(sealed: &[u8], step: usize) -> (Vec<u8>, Result<()>) {
    let (mut opened, mut opener) = (Vec::new(), Opener::new(key(), CONTEXT.to_vec()));
    let outcome = sealed.chunks(step).try_for_each(|piece| opener.push(piece, &mut opened));
    let outcome = outcome.and_then(|()| opener.finish(&mut opened));
    (opened, outcome)
}

#[test]
fn frames() {
    check!().for_each(|input: &[u8]| {
        let mut draw = Draw::new(input);
        let step = 8 + draw.below(500);
        let mut groups: Vec<Vec<u8>> = Vec::new();
        for _ in 0..draw.byte() % 4 {
            groups.push((0..=draw.byte() % 8).flat_map(|_| document(&mut draw)).collect());
        }
        let (stored, frames) = stream(&groups);
        let plain = groups.concat();
        for step in [step, stored.len()] {
            let (given, outcome) = decode(&stored, plain.len(), step);
            outcome.unwrap();
            assert!(given == plain, "documents changed in pieces of {step}");
        }
        assert!(decode(&stored, plain.len() + 1, step).1.is_err(), "fewer bytes than told");
        assert!(
            plain.is_empty() || decode(&stored, plain.len() - 1, step).1.is_err(),
            "more bytes than told"
        );
        assert!(decode(&stored[..stored.len() - 1], plain.len(), step).1.is_err(), "cut short");
        let mut offset = 0;
        let index = read_index(&stored);
        assert_eq!(index.len(), frames.len());
        for ((group, frame), entry) in groups.iter().zip(&frames).zip(index) {
            check_frame(group, frame);
            let Contents { plain_bytes, documents, .. } = frame.contents;
            assert_eq!(entry, (offset, plain_bytes, documents, first_id(group)));
            offset += u64::try_from(frame.stored.len()).unwrap();
        }
    });
}

fn stream(groups: &[Vec<u8>]) -> (Vec<u8>, Vec<Frame>) {
    let mut encoder = FrameEncoder::new(1).unwrap();
    let mut frame = |group: &Vec<u8>| {
        let mut contents = Contents::default();
        contents.add(group).unwrap();
        encoder.encode(group, contents).unwrap()
    };
    let frames: Vec<Frame> = groups.iter().map(&mut frame).collect();
    let (mut stored, mut index) = (Vec::new(), FrameIndex::default());
    for frame in &frames {
        index.push(frame);
        stored.extend_from_slice(&frame.stored);
    }
    stored.extend(index.finish().unwrap());
    (stored, frames)
}

/// What comes out of `stored` in pieces of `step` bytes, never more than `plain_bytes_max`.
fn decode(stored: &[u8], plain_bytes_max: usize, step: usize) -> (Vec<u8>, Result<()>) {
    let mut decoder = FrameDecoder::new(u64::try_from(plain_bytes_max).unwrap()).unwrap();
    let mut given = Vec::new();
    let outcome = stored.chunks(step).try_for_each(|piece| {
        decoder.push(piece, |plain| {
            assert!(!plain.is_empty() && plain.len() <= DECODED_PIECE_BYTES);
            given.extend_from_slice(plain);
            Ok(())
        })
    });
    assert!(given.len() <= plain_bytes_max, "more came out than is allowed");
    (given, outcome.and_then(|()| decoder.finish()))
}

fn check_frame(group: &[u8], frame: &Frame) {
    let (mut documents, mut hash) = (0, DocumentHash::default());
    for document in split_documents(group) {
        hash.add(document.unwrap());
        documents += 1;
    }
    assert_eq!((frame.contents.documents, frame.contents.hash), (documents, hash));
    assert_eq!(frame.contents.plain_bytes, u64::try_from(group.len()).unwrap());
}

/// The first document's `_id` as the index has it: type byte and value.
fn first_id(group: &[u8]) -> Vec<u8> {
    let Some(first) = split_documents(group).next() else { return Vec::new() };
    let Some(id) = IdValue::of_document(first.unwrap()).unwrap() else { return Vec::new() };
    let document = id.as_document().as_bytes();
    [&document[4..5], &document[9..document.len() - 1]].concat() // {_id: value} without the name
}

/// Reads the closing index as `docs/FORMAT.md` tells it: offset, bytes, documents and first `_id` of each frame.
fn read_index(stored: &[u8]) -> Vec<(u64, u64, u64, Vec<u8>)> {
    let mut tail = &stored[stored.len() - 8..];
    let length = usize::try_from(number(&mut tail, 4)).unwrap();
    assert_eq!(tail, b"NSIX");
    let mut index = &stored[stored.len() - length..];
    assert_eq!(take(&mut index, 4), [0x5e, 0x2a, 0x4d, 0x18]);
    assert_eq!(number(&mut index, 4), u64::try_from(length - 8).unwrap());
    let mut entries = Vec::new();
    while index.len() > 12 {
        let (offset, bytes, documents) =
            (number(&mut index, 8), number(&mut index, 8), number(&mut index, 8));
        let id_bytes = usize::try_from(number(&mut index, 2)).unwrap();
        entries.push((offset, bytes, documents, take(&mut index, id_bytes).to_vec()));
    }
    assert_eq!(number(&mut index, 4), u64::try_from(entries.len()).unwrap());
    entries
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (head, tail) = bytes.split_at(count);
    *bytes = tail;
    head
}

fn number(bytes: &mut &[u8], width: usize) -> u64 {
    take(bytes, width).iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// A stream of two frames, and how many bytes of BSON are in it.
static STREAM: LazyLock<(Vec<u8>, usize)> = LazyLock::new(|| {
    let documents = |from: i32| -> Vec<u8> {
        (from..from + 200)
            .flat_map(|n| rawdoc! { "_id": n, "text": SECRET.repeat(20) }.into_bytes())
            .collect()
    };
    let groups = [documents(0), documents(200)];
    (stream(&groups).0, groups.concat().len())
});

#[test]
fn damaged_frames() {
    check!().for_each(|input: &[u8]| {
        let mut draw = Draw::new(input);
        let (valid, plain_bytes) = &*STREAM;
        let step = 16 + draw.below(2000);
        let stored = hostile::bytes(valid, &mut draw);
        let (in_one, one) = decode(&stored, *plain_bytes, stored.len().max(1));
        let (in_many, many) = decode(&stored, *plain_bytes, step);
        // zstd looks closer at some headers if a frame does not come in one piece, so one way may fail alone.
        if one.is_ok() && many.is_ok() {
            assert!(in_one == in_many, "pieces of {step} bytes give something else");
        }
        for why in [one, many].into_iter().filter_map(Result::err) {
            assert!(stored != *valid, "a valid stream is refused: {why}");
            assert_eq!(why.kind(), ErrorKind::Corrupt);
            assert_discreet(&why);
        }
    });
}

#[test]
fn whole_object() {
    let plain = SECRET.repeat(500).into_bytes();
    let valid = compress_whole(&plain).unwrap();
    check!().for_each(|input: &[u8]| {
        let mut draw = Draw::new(input);
        let plain_bytes_max = draw.below(2 * plain.len());
        let stored = hostile::bytes(&valid, &mut draw);
        match decompress_whole(&stored, u64::try_from(plain_bytes_max).unwrap()) {
            Ok(given) => {
                assert!(given.len() <= plain_bytes_max);
                assert!(stored != valid || given == plain);
            }
            Err(why) => {
                assert!(stored != valid || plain_bytes_max < plain.len(), "a valid object is refused: {why}");
                assert_eq!(why.kind(), ErrorKind::Corrupt);
                assert_discreet(&why);
            }
        }
    });
}
