//! The [`Changes`] port: the change stream of a whole cluster, batch by batch, the empty ones too.
//!
//! The driver's own change streams hide empty batches and tell the place behind one only bit by bit, so the
//! aggregation is run as a plain command. Opening it again after a failure is up to the caller.
//!
//! Updates come as the diffs that the server logs. The usual description of an update does not tell a field that is put
//! to the end from one that is set in its place, nor (before 6.1) a field with a dot in its name from one in a document.

use std::time::Duration;

use async_trait::async_trait;
use backup_core::error::corrupt;
use backup_core::id::ClusterTime;
use backup_core::ports::{ChangeStream, Changes, Source};
use backup_core::timeline::{EventBatch, Position, ResumeToken};
use backup_core::{Error, ErrorKind, Result};
use bson::{RawDocument, RawDocumentBuf, Timestamp, cstr, rawdoc};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};

use crate::connection::{Cluster, within};
use crate::error::{code, code_of, told};
use crate::token;

/// Changes in one batch: a MB or two of usual ones. The server ends a batch at 16 MB in any case.
const BATCH_CHANGES: u32 = 1000;
/// How long the server waits for a change before it gives an empty batch, which tells how far it has looked.
const AWAIT: Duration = Duration::from_secs(1);
const ATTEMPTED: &str = "follow the changes";

#[async_trait]
impl Changes for Cluster {
    async fn follow(&self, position: &Position) -> Result<Box<dyn ChangeStream>> {
        let (place, instant) = place(position)?;
        // The server takes an instant to come, and says at once that it has looked up to there.
        if instant > self.cluster_time().await?.next() {
            let why = "the cluster has not come to where the stream is to go on";
            return Err(Error::new(ErrorKind::Transient, ATTEMPTED).because(why));
        }
        let database = self.database("admin")?;
        let open = async {
            let aggregate = database.run_raw_cursor_command(command(place));
            // The driver sends both with every getMore, and none of them with the command itself.
            let aggregate = aggregate.batch_size(BATCH_CHANGES).max_time(AWAIT);
            let opened = aggregate.batch().await;
            opened.map_err(|why| not_taken(code_of(&why)).unwrap_or_else(|| told(ATTEMPTED, &why)))
        };
        let cursor = within(ATTEMPTED, open).await?;
        Ok(Box::new(Following { cursor }))
    }
}

/// Where to begin, as a field of `$changeStream`, and its instant.
fn place(position: &Position) -> Result<(RawDocumentBuf, ClusterTime)> {
    match position {
        Position::At(time) => {
            let at = Timestamp { time: time.seconds, increment: time.ordinal };
            Ok((rawdoc! { "startAtOperationTime": at }, *time))
        }
        Position::After(ResumeToken(bytes)) => {
            let wrong = || corrupt("read a resume token");
            let token = RawDocumentBuf::from_bytes(bytes.clone()).map_err(|_| wrong())?;
            let time = token::time(&token).ok_or_else(wrong)?;
            Ok((rawdoc! { "resumeAfter": token }, time))
        }
    }
}

fn command(mut stage: RawDocumentBuf) -> RawDocumentBuf {
    stage.append(cstr!("allChangesForCluster"), true);
    stage.append(cstr!("showExpandedEvents"), true); // creates, indexes and collMod, too
    stage.append(cstr!("showRawUpdateDescription"), true); // `rawUpdateDescription`, and no `updateDescription`
    rawdoc! {
        "aggregate": 1,
        "pipeline": [{ "$changeStream": stage }],
        "cursor": { "batchSize": i64::from(BATCH_CHANGES) },
        "readConcern": { "level": "majority" },
    }
}

/// The failure to open a stream where the server does not know an option of it: no change is lost or too large.
fn not_taken(code: Option<i32>) -> Option<Error> {
    (code == Some(code::UNKNOWN_FIELD)).then(|| {
        Error::new(ErrorKind::Invalid, ATTEMPTED)
            .because("the server does not know an option of the stream")
            .hint("this server does not take showRawUpdateDescription; Nightsafe was tried on MongoDB 6.0")
    })
}

/// An open stream. Dropping it ends its cursor on the server.
struct Following {
    cursor: RawBatchCursor,
}

#[async_trait]
impl ChangeStream for Following {
    async fn next_batch(&mut self) -> Result<EventBatch> {
        let next = async { self.cursor.next().await.transpose().map_err(|why| told(ATTEMPTED, &why)) };
        let batch = within(ATTEMPTED, next).await?.ok_or_else(|| {
            Error::new(ErrorKind::Transient, ATTEMPTED).because("the server has ended the stream")
        })?;
        let (token, time) = place_behind(batch.as_raw_document())?;
        Ok(EventBatch { events: concatenated(&batch)?, token, time })
    }
}

/// Where the stream goes on behind a batch.
fn place_behind(reply: &RawDocument) -> Result<(ResumeToken, ClusterTime)> {
    let token = reply.get_document("cursor").and_then(|cursor| cursor.get_document("postBatchResumeToken"));
    let token = token.map_err(|_| strange("a batch has no resume token"))?;
    let time = token::time(token).ok_or_else(|| strange("a resume token is not understood"))?;
    Ok((ResumeToken(token.as_bytes().to_vec()), time))
}

fn concatenated(batch: &RawBatch) -> Result<Bytes> {
    let documents = batch.doc_slices().map_err(|why| told(ATTEMPTED, &why))?;
    let mut bytes = BytesMut::with_capacity(documents.as_bytes().len());
    for document in documents {
        let document = document.ok().and_then(bson::RawBsonRef::as_document);
        let document = document.ok_or_else(|| strange("a batch holds something other than documents"))?;
        bytes.extend_from_slice(document.as_bytes());
    }
    Ok(bytes.freeze())
}

fn strange(what: &'static str) -> Error {
    Error::new(ErrorKind::Internal, ATTEMPTED).because(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "826B036BB8000000032B022C0100296E5A1004";
    const INSTANT: ClusterTime = ClusterTime { seconds: 1_795_386_296, ordinal: 3 };

    #[test]
    fn a_stream_begins_at_an_instant_or_behind_a_token() {
        let check = |position: Position, expected: RawDocumentBuf| {
            let (place, instant) = place(&position).unwrap();
            assert_eq!((place, instant), (expected, INSTANT));
        };
        let at = Timestamp { time: INSTANT.seconds, increment: INSTANT.ordinal };
        check(Position::At(INSTANT), rawdoc! { "startAtOperationTime": at });
        let token = rawdoc! { "_data": TOKEN };
        let after = Position::After(ResumeToken(token.as_bytes().to_vec()));
        check(after, rawdoc! { "resumeAfter": token });
        for bad in [rawdoc! {}.into_bytes(), rawdoc! { "_data": "82" }.into_bytes(), vec![1, 2, 3]] {
            let refused = place(&Position::After(ResumeToken(bad))).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_server_that_does_not_know_an_option_has_lost_nothing() {
        let check = |code: Option<i32>, expected: Option<ErrorKind>| {
            assert_eq!(not_taken(code).map(|why| why.kind()), expected, "{code:?}");
        };
        check(Some(code::UNKNOWN_FIELD), Some(ErrorKind::Invalid));
        check(Some(code::NAMESPACE_NOT_FOUND), None);
        check(None, None);
    }

    #[test]
    fn a_reply_without_a_place_to_go_on_is_refused() {
        let check = |cursor: RawDocumentBuf, expected: Option<ClusterTime>| {
            let told = place_behind(&rawdoc! { "cursor": cursor });
            assert_eq!(told.ok().map(|(_, time)| time), expected);
        };
        check(rawdoc! { "postBatchResumeToken": { "_data": TOKEN } }, Some(INSTANT));
        check(rawdoc! { "postBatchResumeToken": { "_data": "new" } }, None);
        check(rawdoc! { "nextBatch": [] }, None);
    }
}
