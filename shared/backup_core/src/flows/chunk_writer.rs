//! The pipeline of a dump: read, compress, seal, upload, each overlapping the others over bounded buffers.
//!
//! The order of bytes is the order of reading. A chunk is written as a whole or given up: the first error of any
//! stage ends all of them.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::unfold;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};

use crate::compress::{FRAME_TARGET_BYTES, Frame, FrameIndex};
use crate::document_hash::DocumentHash;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Header, ObjectContext};
use crate::ports::{DataKey, DocumentStream, Upload};
use crate::seal::Sealer;
use crate::settings::Settings;

/// Frames read ahead of the compressors. One: it bounds memory at (workers + 2) frames.
const FRAMES_AHEAD: usize = 1;

/// What was written.
pub(super) struct Written {
    pub(super) documents: u64,
    pub(super) bson_bytes: u64,
    pub(super) stored_bytes: u64,
    pub(super) stored_sha256: String,
    pub(super) document_hash: DocumentHash,
}

/// Reads `documents` to their end and writes them as one object.
pub(super) async fn write_chunk(
    documents: Box<dyn DocumentStream>,
    upload: &mut dyn Upload,
    key: DataKey,
    context: ObjectContext,
    settings: &Settings,
) -> Result<Written> {
    let mut sink = Sink::begin(upload, key, context).await?;
    let (blocks, mut reading) = read_ahead(documents);
    let level = settings.compression_level;
    let frames = unfold(blocks, |mut blocks| async { blocks.recv().await.map(|block| (block, blocks)) })
        .map(|block| async move {
            let block = block?;
            spawn_blocking(move || Frame::compress(&block, level))
                .await
                .map_err(|why| Error::new(ErrorKind::Internal, "compress on a worker").because(why))?
        })
        .buffered(settings.compress_workers.max(1));
    let mut frames = std::pin::pin!(frames);
    while let Some(frame) = frames.next().await {
        sink.frame(&frame?).await?;
    }
    // The channel also closes when the reader panics; a chunk must not look complete then.
    while let Some(ended) = reading.join_next().await {
        ended.map_err(|why| Error::new(ErrorKind::Internal, "read documents").because(why))?;
    }
    sink.finish().await
}

/// Reads in a task of its own and cuts frames where batches end. Dropping the set ends the task.
fn read_ahead(mut documents: Box<dyn DocumentStream>) -> (mpsc::Receiver<Result<Bytes>>, JoinSet<()>) {
    let (sender, receiver) = mpsc::channel(FRAMES_AHEAD);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut block = BytesMut::new();
        loop {
            let batch = match documents.next_batch().await {
                Ok(batch) => batch,
                Err(why) => {
                    let _ = sender.send(Err(why)).await; // nobody listens: the chunk was given up already
                    return;
                }
            };
            let ended = batch.is_none();
            block.extend_from_slice(&batch.unwrap_or_default());
            let full = block.len() >= FRAME_TARGET_BYTES;
            if (full || ended) && !block.is_empty() && sender.send(Ok(block.split().freeze())).await.is_err()
            {
                return;
            }
            if ended {
                return;
            }
        }
    });
    (receiver, tasks)
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
        self.written.documents += frame.documents;
        self.written.bson_bytes += frame.plain_bytes;
        self.written.document_hash += frame.hash;
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
