//! The pipeline of a restore: fetch, open, decompress and check, each overlapping the others over bounded buffers.
//!
//! No plaintext is given out before its record is authenticated, and the end of the stream is only reached if the
//! object is exactly what the manifest says: length, checksum, count, bytes and document hash.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};

use crate::bson::split_documents;
use crate::compress::FrameDecoder;
use crate::document_hash::DocumentHash;
use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::format::{
    BackupPlace, Captured, Header, Manifest, ManifestChunk, ManifestNamespace, ObjectContext, ObjectKey,
};
use crate::ports::{DataKeys, ObjectStore};
use crate::seal::{MessageKey, Opener};

/// Stored bytes fetched at a time.
const FETCH_BYTES: u64 = 4 * 1024 * 1024;
/// Fetched pieces waiting to be opened.
const FETCHED_AHEAD: usize = 1;
/// Document batches waiting to be used.
const BATCHES_AHEAD: usize = 2;
/// A batch of documents is closed once it holds this many bytes or documents: what one insert takes well.
pub(super) const BATCH_BYTES: usize = 2 * 1024 * 1024;
pub(super) const BATCH_DOCUMENTS: u32 = 5000;

/// Whether documents are hashed on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hashing {
    /// Their hash must be the manifest's.
    Compare,
    /// They are hashed where they go to. Seal, length and SHA-256 show that they are what was stored.
    Later,
}

/// Reads `chunk` of the backup at `place` and gives each batch of documents to `give`, in order.
pub(super) async fn read_chunk<F: Future<Output = Result<()>>>(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    place: BackupPlace,
    (manifest, namespace, chunk): (&Manifest, &ManifestNamespace, &ManifestChunk),
    hashing: Hashing,
    mut give: impl FnMut(Bytes) -> F,
) -> Result<()> {
    let key = ObjectKey::Chunk(place, chunk.ordinal, chunk.stored.attempt);
    let context = manifest.chunk_context(namespace, chunk)?;
    let (fetched, pieces) = mpsc::channel(FETCHED_AHEAD);
    let (decoded, mut batches) = mpsc::channel(BATCHES_AHEAD);
    let opening = Opening::begin(store, keys, key, context, &chunk.stored, hashing).await?;
    let mut tasks = JoinSet::new();
    let mut worker = pieces;
    let at = opening.at;
    tasks.spawn(async move {
        let run = spawn_blocking(move || opening.run(&mut worker, &decoded)).await;
        run.map_err(|why| Error::new(ErrorKind::Internal, "open a chunk on a worker").because(why))?
    });
    let fetch = async move {
        let mut at = at;
        while at < chunk.stored.stored_bytes {
            let length = FETCH_BYTES.min(chunk.stored.stored_bytes - at);
            let piece = store.get_range(key, at, length).await?;
            at += length;
            if fetched.send(piece).await.is_err() {
                break; // the opener ended early; its own error is told below
            }
        }
        Ok(())
    };
    let consume = async {
        while let Some(batch) = batches.recv().await {
            give(batch).await?;
        }
        Ok(())
    };
    let run = async {
        tokio::try_join!(fetch, consume)?;
        tasks
            .join_next()
            .await
            .unwrap_or(Ok(Ok(())))
            .map_err(|why| Error::new(ErrorKind::Internal, "open a chunk").because(why))?
    };
    run.await.map_err(|why| why.while_doing(format!("read chunk {} ({})", chunk.ordinal, super::path(key))))
}

/// The blocking half: authenticates, decompresses, cuts, hashes.
struct Opening {
    opener: Opener,
    decoder: FrameDecoder,
    sha256: Sha256,
    expected: Captured,
    /// Stored bytes taken so far.
    at: u64,
    head: Bytes,
    plain: Vec<u8>,
    given: Given,
}

/// What was given out.
struct Given {
    documents: u64,
    hash: DocumentHash,
    hashing: Hashing,
}

impl Given {
    fn send(&mut self, batch: Vec<u8>, to: &mpsc::Sender<Bytes>) -> Result<()> {
        for document in split_documents(&batch) {
            let document = document?;
            if self.hashing == Hashing::Compare {
                self.hash.add(document);
            }
            self.documents += 1;
        }
        to.blocking_send(batch.into())
            .map_err(|_| Error::new(ErrorKind::Internal, "give out documents: nobody listens"))
    }
}

impl Opening {
    /// Reads the header, checks that the object belongs here, and opens its key.
    async fn begin(
        store: &dyn ObjectStore,
        keys: &dyn DataKeys,
        key: ObjectKey,
        context: ObjectContext,
        expected: &Captured,
        hashing: Hashing,
    ) -> Result<Self> {
        let told = |why: Error| why.while_doing(format!("read {}", super::path(key)));
        let actual = store.size(key).await?;
        if actual != Some(expected.stored_bytes) {
            return Err(told(corrupt(match actual {
                None => "the object is missing".to_owned(),
                Some(actual) => format!("the object has {actual} bytes, not {}", expected.stored_bytes),
            })));
        }
        let head = store.get_range(key, 0, Header::BYTES_MAX.min(expected.stored_bytes)).await?;
        let (header, length) = Header::expect(&head, &context).map_err(told)?;
        let data_key: MessageKey = keys.unwrap(&header.wrapped_key, &context).await.map_err(told)?;
        let mut sha256 = Sha256::new();
        sha256.update(&head);
        Ok(Self {
            opener: Opener::new(data_key, context.to_bytes()),
            decoder: FrameDecoder::new(expected.bson_bytes)?,
            sha256,
            expected: expected.clone(),
            at: u64::try_from(head.len()).unwrap_or(u64::MAX),
            head: head.slice(length..),
            plain: Vec::new(),
            given: Given { documents: 0, hash: DocumentHash::default(), hashing },
        })
    }

    fn run(mut self, pieces: &mut mpsc::Receiver<Bytes>, batches: &mpsc::Sender<Bytes>) -> Result<()> {
        let head = std::mem::take(&mut self.head);
        let mut opened = Vec::new();
        self.opener.push(&head, &mut opened)?;
        self.decode(&mut opened, batches)?;
        while let Some(piece) = pieces.blocking_recv() {
            self.sha256.update(&piece);
            self.at += u64::try_from(piece.len()).unwrap_or(u64::MAX);
            self.opener.push(&piece, &mut opened)?;
            self.decode(&mut opened, batches)?;
        }
        if self.at != self.expected.stored_bytes {
            // Fetching failed; it tells why.
            return Err(Error::new(ErrorKind::Transient, "fetch a chunk: it ended early"));
        }
        // The message ends here: an opener of nothing takes this one's place.
        std::mem::replace(&mut self.opener, Opener::new(MessageKey::default(), Vec::new()))
            .finish(&mut opened)?;
        self.decode(&mut opened, batches)?;
        self.give_batches(batches, true)?;
        self.check_end()
    }

    fn decode(&mut self, opened: &mut Vec<u8>, batches: &mpsc::Sender<Bytes>) -> Result<()> {
        let mut pieces = Vec::new();
        let Self { decoder, plain, given, .. } = self;
        // Batches leave as they fill up, so that a frame that decompresses well does not pile up.
        decoder.push(opened, |piece| {
            plain.extend_from_slice(piece);
            if plain.len() >= BATCH_BYTES {
                cut_batches(plain, false, &mut pieces)?;
                for batch in pieces.drain(..) {
                    given.send(batch, batches)?;
                }
            }
            Ok(())
        })?;
        opened.clear();
        self.give_batches(batches, false)
    }

    fn give_batches(&mut self, batches: &mpsc::Sender<Bytes>, last: bool) -> Result<()> {
        let mut pieces = Vec::new();
        cut_batches(&mut self.plain, last, &mut pieces)?;
        pieces.into_iter().try_for_each(|batch| self.given.send(batch, batches))
    }

    fn check_end(self) -> Result<()> {
        if hex::encode(self.sha256.finalize()) != self.expected.stored_sha256 {
            return Err(corrupt("check the object: its SHA-256 is not the manifest's"));
        }
        self.decoder.finish()?;
        let Given { documents, hash, hashing } = self.given;
        if documents != self.expected.documents {
            let (found, expected) = (documents, self.expected.documents);
            return Err(corrupt(format!("check the chunk: it holds {found} documents, not {expected}")));
        }
        if hashing == Hashing::Compare && hash != self.expected.document_hash {
            return Err(corrupt("check the chunk: the hash of its documents is not the manifest's"));
        }
        Ok(())
    }
}

/// Moves whole documents from the front of `plain` into batches; what is left is the start of one document, and at
/// the `last` call nothing may be left.
fn cut_batches(plain: &mut Vec<u8>, last: bool, out: &mut Vec<Vec<u8>>) -> Result<()> {
    let (mut used, mut batch_start, mut batch_documents) = (0, 0, 0);
    while let Some(rest) = plain.get(used..).filter(|rest| rest.len() >= 4) {
        let length = crate::bson::document_length(rest)
            .ok_or_else(|| corrupt("cut documents apart: a length is wrong"))?;
        if rest.len() < length {
            break;
        }
        used += length;
        batch_documents += 1;
        if used - batch_start >= BATCH_BYTES || batch_documents >= BATCH_DOCUMENTS {
            out.push(plain.get(batch_start..used).unwrap_or_default().to_vec());
            (batch_start, batch_documents) = (used, 0);
        }
    }
    if last && used < plain.len() {
        return Err(corrupt("cut documents apart: the last one is cut short"));
    }
    if last && used > batch_start {
        out.push(plain.get(batch_start..used).unwrap_or_default().to_vec());
        batch_start = used;
    }
    plain.drain(..batch_start);
    Ok(())
}

#[cfg(test)]
mod tests {
    use backup_testkit::hostile::{self, Draw, assert_discreet};

    use super::*;
    use crate::bson::DOCUMENT_BYTES_MAX;

    #[test]
    fn batches_are_the_stream_cut_between_documents() {
        let two_documents = b"\x05\0\0\0\0\x0c\0\0\0\x10a\0\x01\0\0\0\0";
        bolero::check!().for_each(|input: &[u8]| {
            let mut draw = Draw::new(input);
            let (step, copies) = (64 + draw.below(4000), 1 + draw.below(1500));
            let valid = two_documents.repeat(copies);
            let stream = hostile::bytes(&valid, &mut draw);
            let (mut plain, mut batches) = (Vec::new(), Vec::new());
            let cut = stream.chunks(step).try_for_each(|piece| {
                plain.extend_from_slice(piece);
                cut_batches(&mut plain, false, &mut batches)
            });
            let cut = cut.and_then(|()| cut_batches(&mut plain, true, &mut batches));
            if let Err(why) = cut {
                assert!(split_documents(&stream).any(|document| document.is_err()), "refused without reason");
                assert_discreet(&why);
                return;
            }
            assert_eq!(batches.concat(), stream);
            for batch in batches {
                let documents = split_documents(&batch).take_while(Result::is_ok).count();
                assert!(documents <= usize::try_from(BATCH_DOCUMENTS).unwrap());
                assert!(batch.len() < BATCH_BYTES + DOCUMENT_BYTES_MAX);
            }
        });
    }
}
