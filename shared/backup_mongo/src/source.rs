//! The [`Source`] port: what is there, and its documents.

use async_trait::async_trait;
use backup_core::bson::IdValue;
use backup_core::id::{ClusterTime, CollectionUuid};
use backup_core::namespace::Namespace;
use backup_core::ports::{ChunkRead, DocumentStream, Sampled, ServerFacts, SizeHint, Source};
use backup_core::{Error, ErrorKind, Result};
use bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, cstr, rawdoc};

use crate::connection::{Cluster, each_row, within};
use crate::error::told;
use crate::target::append_all;
use crate::{metadata, reader};

/// Up to here every `_id` is read from the index, in a fraction of a second, and parts come out even. `$sample` is
/// for larger collections: it draws pages, and those of a small or freshly filled collection are very unequal.
const ALL_IDS_DOCUMENTS_MAX: u64 = 200_000;
/// Up to here the sizes of all documents are asked for, which the server must read for that: half a second or a few.
/// Above, `_id`s alone are read, and parts come out even in documents.
const ALL_SIZES_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// MongoDB 6.0: change streams tell DDL since then.
const WIRE_VERSION_MIN: i64 = 17;

#[async_trait]
impl Source for Cluster {
    async fn preflight(&self) -> Result<ServerFacts> {
        let attempted = "look at the server";
        let hello = self.command("admin", rawdoc! { "hello": 1 }, attempted).await?;
        let build = self.command("admin", rawdoc! { "buildInfo": 1 }, attempted).await?;
        let version = build.get_str("version").unwrap_or("unknown").to_owned();
        let unsupported = |what: String, hint: &str| Err(Error::new(ErrorKind::Unsupported, what).hint(hint));
        if whole_number(&hello, "maxWireVersion") < WIRE_VERSION_MIN {
            return unsupported(format!("use MongoDB {version}"), "Nightsafe needs MongoDB 6.0 or newer");
        }
        if hello.get_str("msg").is_ok_and(|kind| kind == "isdbgrid") {
            return unsupported("use a sharded cluster".into(), "this release backs up replica sets only");
        }
        if hello.get_str("setName").is_err() {
            return unsupported(
                "use a standalone server".into(),
                "snapshot reads need a replica set; one of a single member will do (rs.initiate())",
            );
        }
        Ok(ServerFacts { version })
    }

    async fn cluster_time(&self) -> Result<ClusterTime> {
        let hello = self.command("admin", rawdoc! { "hello": 1 }, "ask for the cluster time").await?;
        let newest = hello
            .get_document("lastWrite")
            .and_then(|write| write.get_document("majorityOpTime"))
            .and_then(|time| time.get_timestamp("ts"));
        let newest = newest.map_err(|why| {
            Error::new(ErrorKind::Transient, "ask for the cluster time: the server has no majority yet")
                .because(why)
        })?;
        Ok(ClusterTime { seconds: newest.time, ordinal: newest.increment })
    }

    async fn databases(&self) -> Result<Vec<String>> {
        let attempted = "list the databases";
        let list = async { self.client.list_database_names().await.map_err(|why| told(attempted, &why)) };
        let listed = within(attempted, list).await?;
        Ok(listed.into_iter().filter(|name| !matches!(name.as_str(), "admin" | "config" | "local")).collect())
    }

    async fn namespaces(&self, database: &str) -> Result<Vec<Namespace>> {
        metadata::namespaces(self, database).await
    }

    async fn size_hint(&self, database: &str, name: &str) -> Result<SizeHint> {
        let attempted = format!("ask for the size of {name:?}");
        let command = rawdoc! {
            "aggregate": name,
            "pipeline": [{ "$collStats": { "storageStats": {} } }, { "$project": { "storageStats.size": 1, "storageStats.count": 1 } }],
            "cursor": {},
        };
        let reply = self.command(database, command, &attempted).await?;
        let stats = reply
            .get_document("cursor")
            .and_then(|cursor| cursor.get_array("firstBatch"))
            .ok()
            .and_then(|batch| batch.first()?.as_document()?.get_document("storageStats").ok());
        let number = |field| stats.map_or(0, |stats| u64::try_from(whole_number(stats, field)).unwrap_or(0));
        Ok(SizeHint { documents: number("count"), bytes: number("size") })
    }

    async fn sample(
        &self,
        database: &str,
        name: &str,
        uuid: CollectionUuid,
        count: u32,
    ) -> Result<Vec<Sampled>> {
        let size = self.size_hint(database, name).await?;
        let mut command = rawdoc! { "collectionUUID": metadata::binary(uuid), "cursor": {} };
        let mut aggregate = |pipeline: RawArrayBuf| command.append(cstr!("pipeline"), pipeline);
        let sizes = rawdoc! { "$project": { "bytes": { "$bsonSize": "$$ROOT" } } };
        let sort = rawdoc! { "$sort": { "_id": 1 } };
        if size.documents > ALL_IDS_DOCUMENTS_MAX {
            let draw = rawdoc! { "$sample": { "size": i64::from(count) } };
            aggregate([draw, sizes, sort].into_iter().collect());
            return self.sampled(database, name, command, 1).await;
        }
        let step = usize::try_from(size.documents / u64::from(count.max(1))).unwrap_or(1).max(1);
        // In the order of the index on `_id`, which has the values, but not the sizes of the documents.
        let project = if size.bytes > ALL_SIZES_BYTES_MAX {
            rawdoc! { "$project": { "_id": 1 } }
        } else {
            sizes
        };
        aggregate([sort, project].into_iter().collect());
        command.append(cstr!("hint"), rawdoc! { "_id": 1 });
        self.sampled(database, name, command, step).await
    }

    async fn read(&self, read: &ChunkRead) -> Result<Box<dyn DocumentStream>> {
        reader::open(self, read).await
    }
}

impl Cluster {
    /// What an aggregation gives, every `step` documents as one. Where the server told no sizes, all count the same.
    async fn sampled(
        &self,
        database: &str,
        name: &str,
        aggregation: RawDocumentBuf,
        step: usize,
    ) -> Result<Vec<Sampled>> {
        let attempted = format!("sample {name:?}");
        let mut command = rawdoc! { "aggregate": name };
        append_all(&mut command, &aggregation)?;
        let rows =
            self.open_rows(database, command, &attempted).await?.map_err(|why| told(&attempted, &why))?;
        let (mut all, mut seen): (Vec<Sampled>, usize) = (Vec::new(), 0);
        each_row(rows, &attempted, |document| {
            let bytes =
                document.get_i32("bytes").ok().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(1);
            match all.last_mut().filter(|_| !seen.is_multiple_of(step)) {
                Some(last) => last.bytes += bytes,
                None => {
                    all.extend(IdValue::of_document(document.as_bytes())?.map(|id| Sampled { id, bytes }));
                }
            }
            seen += 1;
            Ok(())
        })
        .await?;
        Ok(all)
    }
}

/// A number the server may send as any of its types; 0 if there is none.
fn whole_number(document: &Document, field: &str) -> i64 {
    match document.get(field) {
        Some(Bson::Int32(number)) => i64::from(*number),
        Some(Bson::Int64(number)) => *number,
        #[expect(clippy::cast_possible_truncation, reason = "saturates; these are sizes and versions")]
        Some(Bson::Double(number)) => *number as i64,
        _ => 0,
    }
}
