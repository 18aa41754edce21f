//! Compression: independent zstd frames of whole documents, and one skippable frame at the end that indexes them.
//!
//! Any zstd reader turns the stream into concatenated BSON (mongodump's `.bson`): it skips the index. Decoding is
//! bounded: it stops as soon as more comes out than the authenticated manifest says (a "zstd bomb" costs nothing).

use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::DParameter;

use crate::bson::{IdValue, elements, split_documents};
use crate::document_hash::DocumentHash;
use crate::error::{Error, ErrorKind, Result, corrupt};

/// A frame is closed once it holds this much BSON. Measured: larger frames compress no better, smaller ones worse.
pub const FRAME_TARGET_BYTES: usize = 4 * 1024 * 1024;
/// Plaintext comes out of [`FrameDecoder`] in pieces of at most this size.
pub const DECODED_PIECE_BYTES: usize = 1024 * 1024;
/// Frames are at most a few 16 MiB documents, so no honest one needs a window over 128 MiB.
const WINDOW_LOG_MAX: u32 = 27;
const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
const INDEX_MAGIC: &[u8; 4] = b"NSIX";

/// What is known of some documents that are stored together.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Bytes of BSON.
    pub plain_bytes: u64,
    /// Documents.
    pub documents: u64,
    /// The sum of their hashes.
    pub hash: DocumentHash,
    /// The first document's `_id` as type byte and value; empty if it has none or a long one.
    first_id: Vec<u8>,
}

impl Contents {
    /// Counts and hashes more documents (concatenated BSON), which come behind the others.
    pub fn add(&mut self, documents: &[u8]) -> Result<()> {
        for document in split_documents(documents) {
            let document = document?;
            self.hash.add(document);
            if self.documents == 0 {
                self.first_id = id_for_index(document)?;
            }
            self.documents += 1;
        }
        self.plain_bytes += u64::try_from(documents.len()).unwrap_or(u64::MAX);
        Ok(())
    }
}

/// One compressed frame and what is in it.
#[derive(Debug)]
pub struct Frame {
    /// The zstd frame.
    pub stored: Vec<u8>,
    /// What is in it.
    pub contents: Contents,
}

/// Makes frames, one after another, with buffers that are used again.
pub struct FrameEncoder(zstd::bulk::Compressor<'static>);

impl FrameEncoder {
    /// Will compress at this level.
    pub fn new(level: i32) -> Result<Self> {
        let internal = |why| Error::new(ErrorKind::Internal, "set up zstd").because(why);
        zstd::bulk::Compressor::new(level).map(Self).map_err(internal)
    }

    /// Compresses documents (concatenated BSON), of which `contents` tells.
    pub fn encode(&mut self, documents: &[u8], contents: Contents) -> Result<Frame> {
        let internal = |why| Error::new(ErrorKind::Internal, "compress a frame").because(why);
        Ok(Frame { stored: self.0.compress(documents).map_err(internal)?, contents })
    }
}

fn id_for_index(document: &[u8]) -> Result<Vec<u8>> {
    for element in elements(document) {
        let element = element?;
        if element.name == b"_id" {
            let fits = element.value.len() <= IdValue::BYTES_MAX;
            return Ok(if fits { [&[element.kind], element.value].concat() } else { Vec::new() });
        }
    }
    Ok(Vec::new())
}

/// Collects what the closing index says of each frame.
#[derive(Debug, Default)]
pub struct FrameIndex {
    entries: Vec<u8>,
    frames: u32,
    stored_bytes: u64,
}

impl FrameIndex {
    /// Notes `frame`, which is written next.
    pub fn push(&mut self, frame: &Frame) {
        self.entries.extend_from_slice(&self.stored_bytes.to_le_bytes());
        let Contents { plain_bytes, documents, first_id, .. } = &frame.contents;
        self.entries.extend_from_slice(&plain_bytes.to_le_bytes());
        self.entries.extend_from_slice(&documents.to_le_bytes());
        self.entries.extend_from_slice(&u16::try_from(first_id.len()).unwrap_or(0).to_le_bytes());
        self.entries.extend_from_slice(first_id);
        self.frames += 1;
        self.stored_bytes += u64::try_from(frame.stored.len()).unwrap_or(u64::MAX);
    }

    /// The skippable frame that closes the stream.
    pub fn finish(self) -> Result<Vec<u8>> {
        let payload_bytes = u32::try_from(self.entries.len() + 12)
            .map_err(|_| Error::new(ErrorKind::Unsupported, "index more frames than a chunk can have"))?;
        let mut out = Vec::with_capacity(self.entries.len() + 20);
        out.extend_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
        out.extend_from_slice(&payload_bytes.to_le_bytes());
        out.extend_from_slice(&self.entries);
        out.extend_from_slice(&self.frames.to_le_bytes());
        out.extend_from_slice(&(payload_bytes + 8).to_le_bytes());
        out.extend_from_slice(INDEX_MAGIC);
        Ok(out)
    }
}

/// One frame of a chunk, as the index tells of it.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameEntry {
    /// Where it begins in the plaintext.
    pub offset: u64,
    /// Bytes of the compressed frame.
    pub stored_bytes: u64,
    /// Bytes of BSON in it.
    pub plain_bytes: u64,
    /// Documents in it.
    pub documents: u64,
    /// The first document's `_id`, unless it is a long one.
    pub first_id: Option<IdValue>,
}

impl FrameIndex {
    /// Bytes of the whole index, by the last eight bytes of the plaintext.
    pub fn length_from_tail(tail: &[u8]) -> Result<u64> {
        let bad = || corrupt("read a chunk's index: it is not at its end");
        let (length, magic) = tail.split_last_chunk::<4>().ok_or_else(bad)?;
        let length = length.last_chunk().filter(|_| magic == INDEX_MAGIC).ok_or_else(bad)?;
        Ok(u64::from(u32::from_le_bytes(*length)))
    }

    /// Reads what [`FrameIndex::finish`] wrote behind `frames_bytes` of frames.
    pub fn parse(index: &[u8], frames_bytes: u64) -> Result<Vec<FrameEntry>> {
        let bad = || corrupt("read a chunk's index: it is malformed");
        let (body, trailer) = index.split_last_chunk::<12>().ok_or_else(bad)?;
        let mut rest = body.get(8..).ok_or_else(bad)?;
        let count = u32::from_le_bytes(*trailer.first_chunk().ok_or_else(bad)?);
        if Self::length_from_tail(trailer).ok() != u64::try_from(index.len()).ok() {
            return Err(bad());
        }
        let mut entries: Vec<FrameEntry> = Vec::new();
        while !rest.is_empty() {
            let entry = take_entry(&mut rest).ok_or_else(bad)??;
            if let Some(last) = entries.last_mut() {
                last.stored_bytes = entry.offset.checked_sub(last.offset).ok_or_else(bad)?;
            }
            entries.push(entry);
        }
        if let Some(last) = entries.last_mut() {
            last.stored_bytes = frames_bytes.checked_sub(last.offset).ok_or_else(bad)?;
        }
        let begins = entries.first().is_none_or(|first| first.offset == 0);
        let is_whole = u32::try_from(entries.len()) == Ok(count);
        if begins && is_whole && entries.iter().all(|it| it.stored_bytes > 0) {
            Ok(entries)
        } else {
            Err(bad())
        }
    }
}

fn take_entry(rest: &mut &[u8]) -> Option<Result<FrameEntry>> {
    let mut number = || {
        let (head, tail) = rest.split_first_chunk::<8>()?;
        *rest = tail;
        Some(u64::from_le_bytes(*head))
    };
    let (offset, plain_bytes, documents) = (number()?, number()?, number()?);
    let (length, tail) = rest.split_first_chunk::<2>()?;
    let (id, tail) = tail.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    *rest = tail;
    let first_id = match id.split_first() {
        None => Ok(None),
        Some((kind, value)) => IdValue::from_parts(*kind, value).map(Some),
    };
    Some(first_id.map(|first_id| FrameEntry { offset, stored_bytes: 0, plain_bytes, documents, first_id }))
}

/// Decodes a stream of frames, piece by piece, into at most a given number of bytes.
pub struct FrameDecoder {
    decoder: Decoder<'static>,
    piece: Vec<u8>,
    left_bytes: u64,
    at_frame_end: bool,
}

impl FrameDecoder {
    /// Will give out at most `plain_bytes_max` bytes; one more is an error.
    pub fn new(plain_bytes_max: u64) -> Result<Self> {
        let internal = |why| Error::new(ErrorKind::Internal, "set up zstd").because(why);
        let mut decoder = Decoder::new().map_err(internal)?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(internal)?;
        let piece = vec![0; DECODED_PIECE_BYTES];
        Ok(Self { decoder, piece, left_bytes: plain_bytes_max, at_frame_end: true })
    }

    /// Decodes all of `stored`; `give` gets the plaintext in order, in pieces of [`DECODED_PIECE_BYTES`] at most.
    pub fn push(&mut self, stored: &[u8], mut give: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if stored.is_empty() {
            return Ok(()); // after a frame's end, zstd would take a call without input for the start of another
        }
        let mut input = InBuffer::around(stored);
        loop {
            let mut output = OutBuffer::around(self.piece.as_mut_slice());
            let hint = self
                .decoder
                .run(&mut input, &mut output)
                .map_err(|why| corrupt("decompress a frame").because(why))?;
            self.at_frame_end = hint == 0;
            let plain = output.as_slice();
            let plain_bytes = u64::try_from(plain.len()).unwrap_or(u64::MAX);
            self.left_bytes = self
                .left_bytes
                .checked_sub(plain_bytes)
                .ok_or_else(|| corrupt("decompress a chunk: it holds more than the manifest says"))?;
            let full = plain.len() == DECODED_PIECE_BYTES;
            if !plain.is_empty() {
                give(plain)?;
            }
            if input.pos() == stored.len() && (!full || self.at_frame_end) {
                return Ok(());
            }
        }
    }

    /// Checks that the stream ended with a frame and gave exactly what was expected.
    pub fn finish(self) -> Result<()> {
        if self.at_frame_end && self.left_bytes == 0 {
            Ok(())
        } else {
            Err(corrupt("decompress a chunk: it holds less than the manifest says"))
        }
    }
}

/// Compresses a small object that is in memory as a whole (manifests and plans).
pub fn compress_whole(plain: &[u8]) -> Result<Vec<u8>> {
    zstd::bulk::compress(plain, 3).map_err(|why| Error::new(ErrorKind::Internal, "compress").because(why))
}

/// Decompresses what [`compress_whole`] made, into at most `plain_bytes_max` bytes.
pub fn decompress_whole(stored: &[u8], plain_bytes_max: u64) -> Result<Vec<u8>> {
    let (mut out, mut decoder) = (Vec::new(), FrameDecoder::new(plain_bytes_max)?);
    decoder.push(stored, |piece| {
        out.extend_from_slice(piece);
        Ok(())
    })?;
    if decoder.at_frame_end { Ok(out) } else { Err(corrupt("decompress: cut short")) }
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    fn stream(frames: &[Frame]) -> Vec<u8> {
        let (mut out, mut index) = (Vec::new(), FrameIndex::default());
        for frame in frames {
            index.push(frame);
            out.extend_from_slice(&frame.stored);
        }
        out.extend(index.finish().unwrap());
        out
    }

    fn frame(documents: &[u8]) -> Frame {
        let mut contents = Contents::default();
        contents.add(documents).unwrap();
        FrameEncoder::new(3).unwrap().encode(documents, contents).unwrap()
    }

    fn decode(stored: &[u8], plain_bytes: u64, step: usize) -> Result<Vec<u8>> {
        let (mut out, mut decoder) = (Vec::new(), FrameDecoder::new(plain_bytes)?);
        for piece in stored.chunks(step) {
            decoder.push(piece, |plain| {
                out.extend_from_slice(plain);
                Ok(())
            })?;
        }
        decoder.finish().map(|()| out)
    }

    fn documents(from: i32, count: i32) -> Vec<u8> {
        let text = "x".repeat(300);
        (from..from + count).flat_map(|n| rawdoc! { "_id": n, "text": text.as_str() }.into_bytes()).collect()
    }

    #[test]
    fn frames_of_any_size_come_back_whatever_the_pieces() {
        let plain = [documents(0, 9000), documents(9000, 1)];
        let frames: Vec<Frame> = plain.iter().map(|plain| frame(plain)).collect();
        let (stored, whole) = (stream(&frames), plain.concat());
        let plain_bytes = u64::try_from(whole.len()).unwrap();
        for step in [1, 7, 1000, stored.len()] {
            assert!(decode(&stored, plain_bytes, step).unwrap() == whole, "step {step}");
        }
        assert_eq!(frames[0].contents.documents, 9000);
        assert!(decode(&stored, plain_bytes - 1, 1000).is_err(), "more than expected");
        assert!(decode(&stored, plain_bytes + 1, 1000).is_err(), "less than expected");
        assert!(decode(&stored[..stored.len() - 1], plain_bytes, 1000).is_err(), "cut short");
        assert!(decode(&[], 0, 1).unwrap().is_empty());
    }

    #[test]
    fn a_stream_that_ends_with_its_input_is_whole() {
        let stored = stream(&[frame(&documents(0, 100))]);
        let mut decoder = FrameDecoder::new(u64::try_from(documents(0, 100).len()).unwrap()).unwrap();
        decoder.push(&stored, |_| Ok(())).unwrap();
        decoder.push(&[], |_| Ok(())).unwrap(); // what an empty last record opens to
        decoder.finish().unwrap();
        for pieces in 1..4 {
            let plain = vec![7; pieces * DECODED_PIECE_BYTES];
            let stored = compress_whole(&plain).unwrap();
            assert!(decompress_whole(&stored, u64::MAX).unwrap() == plain, "{pieces} full pieces");
        }
    }

    #[test]
    fn an_empty_chunk_is_only_an_index() {
        assert!(decode(&stream(&[]), 0, 3).unwrap().is_empty());
    }

    #[test]
    fn a_bomb_stops_at_the_expected_size() {
        let bomb = compress_whole(&vec![0; 50_000_000]).unwrap();
        assert!(bomb.len() < 5000);
        assert_eq!(decompress_whole(&bomb, 1000).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn the_index_tells_where_each_frame_is() {
        let frames = [frame(&documents(5, 2)), frame(&documents(7, 3))];
        let stored = stream(&frames);
        let tail = &stored[stored.len() - 8..];
        let length = usize::try_from(FrameIndex::length_from_tail(tail).unwrap()).unwrap();
        let (before, index) = stored.split_at(stored.len() - length);
        assert_eq!(index[..4], SKIPPABLE_MAGIC.to_le_bytes());
        let entries = FrameIndex::parse(index, u64::try_from(before.len()).unwrap()).unwrap();
        assert_eq!(entries.len(), 2);
        for (entry, (frame, first)) in entries.iter().zip(frames.iter().zip([5, 7])) {
            let offset = usize::try_from(entry.offset).unwrap();
            assert_eq!(before[offset..][..usize::try_from(entry.stored_bytes).unwrap()], frame.stored);
            assert_eq!(entry.documents, frame.contents.documents);
            let id = IdValue::of_document(rawdoc! { "_id": first }.as_bytes()).unwrap();
            assert_eq!(entry.first_id, id);
        }
        for cut in 0..index.len() {
            assert!(FrameIndex::parse(&index[..cut], 9).is_err(), "{cut}");
        }
    }
}
