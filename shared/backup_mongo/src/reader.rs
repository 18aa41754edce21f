//! Raw batches of a cursor as a stream of concatenated documents.

use async_trait::async_trait;
use backup_core::ports::{ChunkRead, DocumentStream};
use backup_core::{Error, ErrorKind, Result};
use bson::{Binary, RawArrayBuf, RawDocumentBuf, Timestamp, cstr, rawdoc, spec::BinarySubtype};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use mongodb::raw_batch_cursor::RawBatchCursor;

use crate::connection::{Cluster, within};
use crate::error::told;

/// A batch of 1 to 4 MB is best for speed and memory (measured: the server's own 16 MB are slower).
const BATCH_BYTES: u64 = 2 * 1024 * 1024;
const BATCH_DOCUMENTS_MAX: u64 = 3000;
/// Without a hint at the size of documents.
const BATCH_DOCUMENTS_DEFAULT: u64 = 1000;

/// A cursor over one range.
struct CursorStream {
    cursor: RawBatchCursor,
    name: String,
}

#[async_trait]
impl DocumentStream for CursorStream {
    async fn next_batch(&mut self) -> Result<Option<Bytes>> {
        let attempted = || format!("read {:?}", self.name);
        let next = async { self.cursor.next().await.transpose().map_err(|why| told(attempted(), &why)) };
        let Some(batch) = within(&attempted(), next).await? else { return Ok(None) };
        let documents = batch.doc_slices().map_err(|why| told(attempted(), &why))?;
        let mut bytes = BytesMut::with_capacity(documents.as_bytes().len());
        for document in documents {
            let document = document.ok().and_then(bson::RawBsonRef::as_document).ok_or_else(|| {
                Error::new(ErrorKind::Internal, attempted())
                    .because("a batch holds something other than documents")
            })?;
            bytes.extend_from_slice(document.as_bytes());
        }
        Ok(Some(bytes.freeze()))
    }
}

/// Opens a cursor for `read`.
pub(crate) async fn open(cluster: &Cluster, read: &ChunkRead) -> Result<Box<dyn DocumentStream>> {
    let batch = batch_documents(read.document_bytes_hint);
    let attempted = format!("read {:?}", read.name);
    let database = cluster.database(&read.database)?;
    let open = async {
        let find = database.run_raw_cursor_command(find_command(read, batch)).batch_size(batch);
        find.batch().await.map_err(|why| told(&attempted, &why))
    };
    let cursor = within(&attempted, open).await?;
    Ok(Box::new(CursorStream { cursor, name: read.name.clone() }))
}

fn batch_documents(document_bytes_hint: u64) -> u32 {
    let documents = match document_bytes_hint {
        0 => BATCH_DOCUMENTS_DEFAULT,
        bytes => (BATCH_BYTES / bytes).clamp(1, BATCH_DOCUMENTS_MAX),
    };
    u32::try_from(documents).unwrap_or(1)
}

/// By name *and* UUID: at an instant, a name whose collection was dropped reads as empty, without an error.
fn find_command(read: &ChunkRead, batch: u32) -> RawDocumentBuf {
    let uuid = Binary { subtype: BinarySubtype::Uuid, bytes: read.uuid.0.to_vec() };
    let mut command = rawdoc! { "find": read.name.as_str(), "collectionUUID": uuid };
    command.append(cstr!("batchSize"), i64::from(batch));
    if read.range.is_all() {
        command.append(cstr!("hint"), rawdoc! { "$natural": 1 });
    } else {
        command.append(cstr!("filter"), range_filter(read));
        command.append(cstr!("hint"), rawdoc! { "_id": 1 });
    }
    let concern = if let Some(time) = read.at {
        let at = Timestamp { time: time.seconds, increment: time.ordinal };
        rawdoc! { "level": "snapshot", "atClusterTime": at }
    } else {
        rawdoc! { "level": "majority" }
    };
    command.append(cstr!("readConcern"), concern);
    command
}

/// `$expr` compares over all types as the index is ordered; `$gte` and `$lt` outside it would lose documents of
/// other types, and `min`/`max` those at the end. The literals become index bounds.
fn range_filter(read: &ChunkRead) -> RawDocumentBuf {
    let mut sides = RawArrayBuf::new();
    for (operator, bound) in [(cstr!("$gte"), &read.range.lower), (cstr!("$lt"), &read.range.upper)] {
        let Some(value) = bound.as_ref().and_then(|bound| bound.as_document().get("_id").ok().flatten())
        else {
            continue;
        };
        let mut literal = RawDocumentBuf::new();
        literal.append(cstr!("$literal"), value);
        let mut operands = RawArrayBuf::new();
        operands.push("$_id");
        operands.push(literal);
        let mut side = RawDocumentBuf::new();
        side.append(operator, operands);
        sides.push(side);
    }
    rawdoc! { "$expr": { "$and": sides } }
}
