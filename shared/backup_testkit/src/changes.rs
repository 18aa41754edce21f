//! The stream of changes of the cluster in memory.
//!
//! It breaks off where a real server's may: changes of one transaction share their instant and come in several
//! batches; what was forgotten or is too large cannot be read.

use async_trait::async_trait;
use backup_core::id::ClusterTime;
use backup_core::namespace::Namespace;
use backup_core::ports::{ChangeStream, Changes};
use backup_core::timeline::{EventBatch, Position, ResumeToken};
use backup_core::{Error, ErrorKind, Result};
use bson::{RawDocument, RawDocumentBuf, rawdoc};
use bytes::{Bytes, BytesMut};

use crate::MemoryCluster;
use crate::event::{What, event};

const SECONDS: u32 = 1_795_312_800;
/// Changes in one batch: few, so that every reader meets the seams.
const BATCH_EVENTS_MAX: usize = 5;
/// How a token goes on behind its instant, if it is behind no change of it.
const HIGH_WATER: &str = "2B0229296E04";
/// How a token goes on if it is behind a change of its instant.
const BEHIND_CHANGE: &str = "2B022C0100";

/// The cluster's instant with this number.
pub(crate) const fn instant(ordinal: u32) -> ClusterTime {
    ClusterTime { seconds: SECONDS, ordinal }
}

/// How far a reader is: behind everything before this instant, and behind this many of its changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    time: ClusterTime,
    given: u32,
}

impl Place {
    /// Where a reader begins; `Invalid` if the token is none of ours.
    pub(crate) fn of(position: &Position) -> Result<Self> {
        match position {
            Position::At(time) => Ok(Self { time: *time, given: 0 }),
            Position::After(token) => Self::read(token).ok_or_else(|| {
                Error::new(ErrorKind::Invalid, "follow the changes: the token is not this cluster's")
            }),
        }
    }

    fn read(token: &ResumeToken) -> Option<Self> {
        let text = RawDocument::from_bytes(&token.0).ok()?.get_str("_data").ok()?;
        let (time, rest) = text.strip_prefix("82")?.split_at_checked(16)?;
        let time = ClusterTime::from_u64(u64::from_str_radix(time, 16).ok()?);
        let given = if rest == HIGH_WATER {
            0
        } else {
            u32::from_str_radix(rest.strip_prefix(BEHIND_CHANGE)?.strip_suffix("04")?, 16).ok()?
        };
        Some(Self { time, given })
    }

    fn token(self) -> RawDocumentBuf {
        let time = self.time.to_u64();
        let text = match self.given {
            0 => format!("82{time:016X}{HIGH_WATER}"),
            given => format!("82{time:016X}{BEHIND_CHANGE}{given:08X}04"),
        };
        rawdoc! { "_data": text }
    }
}

struct Kept {
    /// The place behind it.
    place: Place,
    /// The event; none if it is too large to be sent.
    event: Option<Bytes>,
}

/// Every change since the last time they were forgotten.
#[derive(Default)]
pub(crate) struct ChangeLog {
    kept: Vec<Kept>,
    forgotten_before: Option<ClusterTime>,
    transactions: i64,
    in_transaction: bool,
    oversize_next: bool,
}

impl ChangeLog {
    /// Notes a change of the instant `now`. The collection is as it was before; one that was created, as it is.
    pub(crate) fn record(&mut self, now: u32, of: &Namespace, what: What<'_>) {
        let time = instant(now);
        let given = self.kept.last().filter(|it| it.place.time == time).map_or(0, |it| it.place.given);
        let place = Place { time, given: given + 1 };
        let transaction = self.in_transaction.then_some(self.transactions);
        let event = Bytes::from(event(place.token(), time, transaction, of, what).into_bytes());
        let is_too_large = std::mem::take(&mut self.oversize_next);
        self.kept.push(Kept { place, event: (!is_too_large).then_some(event) });
    }

    /// What is recorded up to [`ChangeLog::end_transaction`] belongs together.
    pub(crate) const fn begin_transaction(&mut self) {
        self.transactions += 1;
        self.in_transaction = true;
    }

    /// Ends what [`ChangeLog::begin_transaction`] began.
    pub(crate) const fn end_transaction(&mut self) {
        self.in_transaction = false;
    }

    /// Makes the next change too large to be sent.
    pub(crate) const fn oversize_next(&mut self) {
        self.oversize_next = true;
    }

    /// Forgets every change before `now`.
    pub(crate) fn forget_before(&mut self, now: u32) {
        self.forgotten_before = Some(instant(now));
        self.kept.retain(|it| it.place.time >= instant(now));
    }

    /// `HistoryLost` if the changes from `place` on are forgotten.
    pub(crate) fn check(&self, place: Place) -> Result<()> {
        if self.forgotten_before.is_some_and(|oldest| place.time < oldest) {
            return Err(Error::new(ErrorKind::HistoryLost, "follow the changes: they are forgotten"));
        }
        Ok(())
    }

    /// The changes behind `place`, which goes on behind them. If there are none, it goes on to `now`.
    pub(crate) fn next_batch(&self, place: &mut Place, now: u32) -> Result<EventBatch> {
        self.check(*place)?;
        let given = self.kept.partition_point(|it| it.place <= *place);
        let rest = &self.kept[given..];
        let mut events = BytesMut::new();
        for next in rest.iter().take(BATCH_EVENTS_MAX) {
            let Some(event) = &next.event else { break };
            events.extend_from_slice(event);
            *place = next.place;
        }
        if events.is_empty() && !rest.is_empty() {
            return Err(Error::new(ErrorKind::Unsupported, "follow the changes: the next one is too large"));
        }
        if events.is_empty() {
            *place = (*place).max(Place { time: instant(now), given: 0 });
        }
        let token = ResumeToken(place.token().into_bytes());
        Ok(EventBatch { events: events.freeze(), token, time: place.time })
    }
}

struct Following {
    cluster: MemoryCluster,
    place: Place,
}

#[async_trait]
impl Changes for MemoryCluster {
    async fn follow(&self, position: &Position) -> Result<Box<dyn ChangeStream>> {
        let place = Place::of(position)?;
        self.with_changes(|changes, _| changes.check(place))?;
        Ok(Box::new(Following { cluster: self.clone(), place }))
    }
}

#[async_trait]
impl ChangeStream for Following {
    async fn next_batch(&mut self) -> Result<EventBatch> {
        let Self { cluster, place } = self;
        cluster.with_changes(|changes, now| changes.next_batch(place, now))
    }
}

#[cfg(test)]
mod tests {
    use backup_core::bson::split_documents;
    use backup_core::ports::{Source, Target};
    use bson::Binary;
    use bson::spec::BinarySubtype;

    use super::*;
    use crate::fixture::{DATABASE, lead};

    const START: Position = Position::At(instant(0));

    /// A cluster to which everything was done that it can tell of.
    async fn busy() -> MemoryCluster {
        let cluster = MemoryCluster::default();
        cluster.fill("leads", [lead(1)]);
        cluster.write("leads", &rawdoc! { "score": 3, "_id": 1 });
        cluster.update("leads", 1, "score", 4);
        cluster.delete("leads", 1);
        cluster.delete("leads", 1); // deletes nothing, so nothing is told
        cluster.write_together("leads", [lead(2), lead(3)]);
        cluster.tick();
        let index = rawdoc! { "v": 2, "key": { "at": 1 }, "name": "at_1" };
        cluster.create_indexes(DATABASE, "leads", &[index]).await.unwrap();
        let ttl = rawdoc! { "index": { "name": "at_1", "expireAfterSeconds": 60 } };
        cluster.modify(DATABASE, "leads", &ttl).await.unwrap();
        cluster.rename(DATABASE, "leads", "people").await.unwrap();
        cluster.define("other", &rawdoc! { "capped": true, "size": 4096 });
        cluster.replace(DATABASE, "other", "people").await.unwrap();
        cluster.drop_namespace(DATABASE, "people").await.unwrap();
        cluster.define("view", &rawdoc! { "viewOn": "people", "pipeline": [] });
        cluster
    }

    /// The changes from a position on, and the empty batch behind them.
    async fn told(cluster: &MemoryCluster, position: &Position) -> Result<(Vec<RawDocumentBuf>, EventBatch)> {
        let mut stream = cluster.follow(position).await?;
        let mut all = Vec::new();
        loop {
            let batch = stream.next_batch().await?;
            let events = split_documents(&batch.events).map(|it| it.unwrap().to_vec());
            let events: Vec<_> = events.map(|it| RawDocumentBuf::from_bytes(it).unwrap()).collect();
            let Some(last) = events.last() else { return Ok((all, batch)) };
            assert_eq!((&batch.token, batch.time), (&token_of(last), time_of(last)));
            all.extend(events);
        }
    }

    fn token_of(event: &RawDocument) -> ResumeToken {
        ResumeToken(event.get_document("_id").unwrap().as_bytes().to_vec())
    }

    fn time_of(event: &RawDocument) -> ClusterTime {
        let time = event.get_timestamp("clusterTime").unwrap();
        ClusterTime { seconds: time.time, ordinal: time.increment }
    }

    #[tokio::test]
    async fn every_write_is_told_as_a_server_tells_it() {
        let (all, _) = told(&busy().await, &START).await.unwrap();
        let full_name = |name: &str| rawdoc! { "db": DATABASE, "coll": name };
        let check = |n: usize, ordinal: u32, kind: &str, name: &str, field: &str, says: RawDocumentBuf| {
            let event = &all[n];
            assert_eq!(time_of(event), instant(ordinal), "{n}");
            assert_eq!(event.get_str("operationType").unwrap(), kind, "{n}");
            assert_eq!(event.get_document("ns").unwrap(), &*full_name(name), "{n}");
            assert_eq!(event.get_document(field).unwrap(), &*says, "{n}");
            let is_of_a_transaction = ordinal == 7;
            assert_eq!(event.get_document("lsid").is_ok(), is_of_a_transaction, "{n}");
            assert_eq!(event.get_i64("txnNumber").is_ok(), is_of_a_transaction, "{n}");
        };
        let id_index = rawdoc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" };
        let index = rawdoc! { "v": 2, "key": { "at": 1 }, "name": "at_1" };
        let ttl = rawdoc! { "index": { "name": "at_1", "expireAfterSeconds": 60 } };
        let score = rawdoc! { "$v": 2, "diff": { "u": { "score": 4 } } };
        let capped = rawdoc! { "capped": true, "size": 4096, "idIndex": id_index.clone() };
        let dropped = Binary { subtype: BinarySubtype::Uuid, bytes: 1_u128.to_be_bytes().to_vec() };
        let view = rawdoc! { "viewOn": "people", "pipeline": [] };
        let operation = "operationDescription";
        check(0, 1, "create", "leads", operation, rawdoc! { "idIndex": id_index });
        check(1, 2, "insert", "leads", "fullDocument", lead(1));
        check(2, 3, "replace", "leads", "fullDocument", rawdoc! { "score": 3, "_id": 1 });
        check(3, 4, "update", "leads", "rawUpdateDescription", score);
        check(4, 5, "delete", "leads", "documentKey", rawdoc! { "_id": 1 });
        check(5, 7, "insert", "leads", "fullDocument", lead(2));
        check(6, 7, "insert", "leads", "fullDocument", lead(3));
        check(7, 9, "createIndexes", "leads", operation, rawdoc! { "indexes": [index] });
        check(8, 10, "modify", "leads", operation, ttl);
        check(9, 11, "rename", "leads", operation, rawdoc! { "to": full_name("people") });
        check(10, 12, "create", "other", operation, capped);
        let onto = rawdoc! { "to": full_name("people"), "dropTarget": dropped };
        check(11, 13, "rename", "other", operation, onto);
        check(12, 14, "drop", "people", "ns", full_name("people"));
        check(13, 15, "create", "view", operation, view);
        assert_eq!(all.len(), 14);
    }

    #[tokio::test]
    async fn the_stream_goes_on_from_every_place() {
        let cluster = busy().await;
        let (all, end) = told(&cluster, &START).await.unwrap();
        for (n, event) in all.iter().enumerate() {
            let (rest, _) = told(&cluster, &Position::After(token_of(event))).await.unwrap();
            assert_eq!(rest, all[n + 1..], "behind change {n}");
            let first = all.iter().position(|it| time_of(it) == time_of(event)).unwrap();
            let (rest, _) = told(&cluster, &Position::At(time_of(event))).await.unwrap();
            assert_eq!(rest, all[first..], "with the instant of change {n}");
        }
        let last = all.last().unwrap();
        assert_eq!((&end.token, end.time), (&token_of(last), time_of(last)), "nothing came behind it");
        cluster.tick();
        let (none, idle) = told(&cluster, &Position::After(end.token)).await.unwrap();
        assert_eq!((none.len(), idle.time), (0, instant(16)), "time goes on without changes");
        cluster.fill("late", []);
        let (late, _) = told(&cluster, &Position::After(idle.token)).await.unwrap();
        assert_eq!(late.len(), 1);
    }

    #[tokio::test]
    async fn what_cannot_be_told_is_an_error() {
        let cluster = busy().await;
        let (_, end) = told(&cluster, &START).await.unwrap();
        let mut open = cluster.follow(&START).await.unwrap();
        cluster.forget_changes();
        assert_eq!(open.next_batch().await.unwrap_err().kind(), ErrorKind::HistoryLost);
        for position in [START, Position::At(end.time), Position::After(end.token)] {
            let lost = told(&cluster, &position).await.unwrap_err();
            assert_eq!(lost.kind(), ErrorKind::HistoryLost, "{position:?}");
        }
        let now = Position::At(cluster.cluster_time().await.unwrap());
        assert!(told(&cluster, &now).await.unwrap().0.is_empty());

        cluster.define("late", &rawdoc! {});
        cluster.oversize_next();
        cluster.write("late", &lead(1));
        let mut stream = cluster.follow(&now).await.unwrap();
        let before = stream.next_batch().await.unwrap();
        assert_eq!(split_documents(&before.events).count(), 1, "what comes before it is told");
        assert_eq!(stream.next_batch().await.unwrap_err().kind(), ErrorKind::Unsupported);
        let next = Position::At(cluster.cluster_time().await.unwrap().next());
        cluster.write("late", &lead(2));
        assert_eq!(told(&cluster, &next).await.unwrap().0.len(), 1);
    }
}
