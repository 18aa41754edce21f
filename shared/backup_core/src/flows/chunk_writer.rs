//! The pipeline of a dump: read, hash, compress, seal, upload, each overlapping the others over bounded buffers.
//!
//! Compressing is by far the slowest stage, so nothing else runs on its threads, and the next frame waits at their
//! door. The order of bytes is the order of reading. A chunk is written as a whole or given up: the first error of
//! any stage ends all of them.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::compress::{Contents, FRAME_TARGET_BYTES, Frame, FrameEncoder, FrameIndex};
use crate::document_hash::DocumentHash;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Header, ObjectContext};
use crate::ports::{DataKey, DocumentStream, Upload};
use crate::seal::Sealer;
use crate::settings::Settings;

/// Batches read ahead of the hashing, and blocks hashed ahead of the compressors.
const AHEAD: usize = 1;

/// What was written.
pub(super) struct Written {
    pub(super) documents: u64,
    pub(super) bson_bytes: u64,
    pub(super) stored_bytes: u64,
    pub(super) stored_sha256: String,
    pub(super) document_hash: DocumentHash,
}

/// Documents for one frame, and where the frame is waited for.
struct Block {
    documents: Bytes,
    contents: Contents,
    frame: oneshot::Sender<Result<Frame>>,
}

/// Frames to come, in the order of reading.
type Frames = mpsc::Receiver<Result<oneshot::Receiver<Result<Frame>>>>;

/// Reads `documents` to their end and writes them as one object.
pub(super) async fn write_chunk(
    documents: Box<dyn DocumentStream>,
    upload: &mut dyn Upload,
    key: DataKey,
    context: ObjectContext,
    settings: &Settings,
) -> Result<Written> {
    let mut sink = Sink::begin(upload, key, context).await?;
    let mut stages = JoinSet::new(); // dropped, it ends them
    let batches = read(&mut stages, documents);
    let (blocks, mut frames) = assemble(&mut stages, batches, settings.compress_workers.max(1));
    compress(&mut stages, blocks, settings)?;
    while let Some(frame) = frames.recv().await {
        let gone = |_| Error::new(ErrorKind::Internal, "compress a frame: its worker ended");
        sink.frame(&frame?.await.map_err(gone)??).await?;
    }
    // The channels also close when a stage panics; a chunk must not look complete then.
    while let Some(ended) = stages.join_next().await {
        ended.map_err(|why| Error::new(ErrorKind::Internal, "read and compress").because(why))?;
    }
    sink.finish().await
}

/// Reads ahead: the server works on the next batch meanwhile.
fn read(stages: &mut JoinSet<()>, mut documents: Box<dyn DocumentStream>) -> mpsc::Receiver<Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    stages.spawn(async move {
        loop {
            let batch = documents.next_batch().await.transpose();
            let Some(batch) = batch else { return };
            let failed = batch.is_err();
            if sender.send(batch).await.is_err() || failed {
                return; // nobody listens: the chunk was given up
            }
        }
    });
    receiver
}

/// Hashes batches and puts them together into blocks that are large enough for a frame.
fn assemble(
    stages: &mut JoinSet<()>,
    mut batches: mpsc::Receiver<Result<Bytes>>,
    workers: usize,
) -> (mpsc::Receiver<Block>, Frames) {
    let (blocks, to_compress) = mpsc::channel(AHEAD);
    let (in_order, frames) = mpsc::channel(workers + AHEAD);
    stages.spawn(async move {
        let (mut documents, mut contents) = (BytesMut::new(), Contents::default());
        loop {
            let batch = batches.recv().await;
            let ended = batch.is_none();
            let added = batch.unwrap_or(Ok(Bytes::new())).and_then(|batch| {
                documents.extend_from_slice(&batch);
                contents.add(&batch)
            });
            if let Err(why) = added {
                let _ = in_order.send(Err(why)).await; // nobody listens: the chunk was given up
                return;
            }
            if documents.len() >= FRAME_TARGET_BYTES || (ended && !documents.is_empty()) {
                let (frame, finished) = oneshot::channel();
                let (documents, contents) = (documents.split().freeze(), std::mem::take(&mut contents));
                let block = Block { documents, contents, frame };
                if in_order.send(Ok(finished)).await.is_err() || blocks.send(block).await.is_err() {
                    return;
                }
            }
            if ended {
                return;
            }
        }
    });
    (to_compress, frames)
}

/// Threads that do nothing but compress.
fn compress(stages: &mut JoinSet<()>, blocks: mpsc::Receiver<Block>, settings: &Settings) -> Result<()> {
    let blocks = Arc::new(Mutex::new(blocks));
    for _ in 0..settings.compress_workers.max(1) {
        let (blocks, mut encoder) = (blocks.clone(), FrameEncoder::new(settings.compression_level)?);
        stages.spawn_blocking(move || {
            loop {
                let block = blocks.blocking_lock().blocking_recv();
                let Some(Block { documents, contents, frame }) = block else { return };
                let _ = frame.send(encoder.encode(&documents, contents)); // nobody waits: the chunk was given up
            }
        });
    }
    Ok(())
}

/// Seals, hashes and uploads.
struct Sink<'a> {
    upload: &'a mut dyn Upload,
    sealer: Sealer,
    index: FrameIndex,
    hash: Sha256,
    written: Written,
}

impl<'a> Sink<'a> {
    async fn begin(upload: &'a mut dyn Upload, key: DataKey, context: ObjectContext) -> Result<Self> {
        let bound = context.to_bytes();
        let mut out = Header { context, wrapped_key: key.wrapped }.to_bytes()?;
        let sealer = Sealer::new(&key.plain, &bound, &mut out)?;
        let written = Written {
            documents: 0,
            bson_bytes: 0,
            stored_bytes: 0,
            stored_sha256: String::new(),
            document_hash: DocumentHash::default(),
        };
        let mut sink = Self { upload, sealer, index: FrameIndex::default(), hash: Sha256::new(), written };
        sink.send(out).await?;
        Ok(sink)
    }

    async fn frame(&mut self, frame: &Frame) -> Result<()> {
        self.index.push(frame);
        self.written.documents += frame.contents.documents;
        self.written.bson_bytes += frame.contents.plain_bytes;
        self.written.document_hash += frame.contents.hash;
        let mut out = Vec::with_capacity(frame.stored.len() + frame.stored.len() / 512 + 1024);
        self.sealer.push(&frame.stored, &mut out)?;
        self.send(out).await
    }

    async fn finish(mut self) -> Result<Written> {
        let mut out = Vec::new();
        let index = std::mem::take(&mut self.index).finish()?;
        self.sealer.push(&index, &mut out)?;
        let Self { upload, sealer, mut hash, mut written, .. } = self;
        sealer.finish(&mut out)?;
        hash.update(&out);
        written.stored_bytes += u64::try_from(out.len()).unwrap_or(u64::MAX);
        upload.write(out.into()).await?;
        written.stored_sha256 = hex::encode(hash.finalize());
        Ok(written)
    }

    async fn send(&mut self, out: Vec<u8>) -> Result<()> {
        self.hash.update(&out);
        self.written.stored_bytes += u64::try_from(out.len()).unwrap_or(u64::MAX);
        self.upload.write(out.into()).await
    }
}
