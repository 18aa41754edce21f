//! Each stage alone, over the same documents.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::bson::IdRange;
use backup_core::compress::{Contents, FRAME_TARGET_BYTES, Frame, FrameDecoder, FrameEncoder};
use backup_core::ports::{ChunkRead, InsertRules, Source, Target};
use backup_core::seal::{MessageKey, Opener, Sealer};
use backup_mongo::Cluster;
use bson::RawDocumentBuf;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use sha2::{Digest, Sha256};

use crate::Options;
use crate::documents::DATABASE;

/// What was read, in batches of the server and in blocks for frames.
pub(crate) struct Sample {
    pub(crate) blocks: Vec<Bytes>,
    pub(crate) bytes: u64,
}

/// Reads the ranges one after another and throws the documents away, but for a copy if `keep`.
pub(crate) async fn drain(cluster: &Cluster, reads: &[ChunkRead], keep: bool) -> (Duration, Sample) {
    let began = Instant::now();
    let (mut blocks, mut block, mut bytes) = (Vec::new(), BytesMut::new(), 0);
    for read in reads {
        let mut stream = cluster.read(read).await.unwrap();
        while let Some(batch) = stream.next_batch().await.unwrap() {
            bytes += u64::try_from(batch.len()).unwrap();
            if keep {
                block.extend_from_slice(&batch);
                if block.len() >= FRAME_TARGET_BYTES {
                    blocks.push(block.split().freeze());
                }
            }
        }
    }
    if !block.is_empty() {
        blocks.push(block.freeze());
    }
    (began.elapsed(), Sample { blocks, bytes })
}

pub(crate) fn hash(sample: &Sample) -> Duration {
    let began = Instant::now();
    let mut contents = Contents::default();
    for block in &sample.blocks {
        contents.add(block).unwrap();
    }
    assert_eq!(contents.plain_bytes, sample.bytes);
    began.elapsed()
}

/// Compresses on as many threads as the pipeline would.
pub(crate) fn compress(sample: &Sample, options: &Options) -> (Duration, Vec<Frame>) {
    let began = Instant::now();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let worker = || {
        let (mut encoder, mut frames) = (FrameEncoder::new(options.level).unwrap(), Vec::new());
        loop {
            let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some(block) = sample.blocks.get(at) else { return frames };
            frames.push((at, encoder.encode(block, Contents::default()).unwrap()));
        }
    };
    let mut all: Vec<(usize, Frame)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.workers).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let elapsed = began.elapsed();
    all.sort_by_key(|(at, _)| *at);
    (elapsed, all.into_iter().map(|(_, frame)| frame).collect())
}

pub(crate) fn seal(frames: &[Frame]) -> (Duration, Vec<u8>) {
    let mut out = Vec::with_capacity(frames.iter().map(|frame| frame.stored.len() + 8192).sum());
    let began = Instant::now();
    let mut sealer = Sealer::new(&MessageKey::new([7; 32]), b"bench", &mut out).unwrap();
    for frame in frames {
        sealer.push(&frame.stored, &mut out).unwrap();
    }
    sealer.finish(&mut out).unwrap();
    (began.elapsed(), out)
}

pub(crate) fn checksum(stored: &[u8]) -> Duration {
    let began = Instant::now();
    assert_ne!(Sha256::digest(stored).as_slice(), [0; 32]);
    began.elapsed()
}

pub(crate) fn open(stored: &[u8]) -> (Duration, Vec<u8>) {
    let mut out = Vec::with_capacity(stored.len());
    let began = Instant::now();
    let mut opener = Opener::new(MessageKey::new([7; 32]), b"bench".to_vec());
    for piece in stored.chunks(4 << 20) {
        opener.push(piece, &mut out).unwrap();
    }
    opener.finish(&mut out).unwrap();
    (began.elapsed(), out)
}

pub(crate) fn decompress(stored: &[u8], bytes: u64) -> Duration {
    let began = Instant::now();
    let (mut decoder, mut given) = (FrameDecoder::new(bytes).unwrap(), 0);
    let mut give = |piece: &[u8]| {
        given += u64::try_from(piece.len()).unwrap();
        Ok(())
    };
    for piece in stored.chunks(1 << 20) {
        decoder.push(piece, &mut give).unwrap();
    }
    decoder.finish().unwrap();
    assert_eq!(given, bytes);
    began.elapsed()
}

/// Inserts everything into a new collection, as a restore does.
pub(crate) async fn insert(cluster: &Cluster, sample: &Sample, options: &Options) -> Duration {
    const NAME: &str = "inserted";
    cluster.drop_namespace(DATABASE, NAME).await.unwrap();
    cluster.create(DATABASE, NAME, &RawDocumentBuf::new()).await.unwrap();
    let began = Instant::now();
    let rules = InsertRules { ordered: false };
    let insert = |block: &Bytes| {
        let block = block.clone();
        async move { cluster.insert(DATABASE, NAME, block, rules).await.unwrap() }
    };
    futures_util::stream::iter(&sample.blocks).map(insert).buffer_unordered(options.writers).count().await;
    let elapsed = began.elapsed();
    cluster.drop_namespace(DATABASE, NAME).await.unwrap();
    elapsed
}

/// Reads of all ranges of a backup, as its dump makes them.
pub(crate) fn reads(
    plan: &[(backup_core::id::CollectionUuid, IdRange)],
    name: &str,
    hint: u64,
) -> Arc<[ChunkRead]> {
    let read = |(uuid, range): &(backup_core::id::CollectionUuid, IdRange)| ChunkRead {
        database: DATABASE.to_owned(),
        name: name.to_owned(),
        uuid: *uuid,
        range: range.clone(),
        at: None,
        document_bytes_hint: hint,
    };
    plan.iter().map(read).collect()
}
