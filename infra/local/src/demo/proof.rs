//! Proofs that do not trust us: a copy made by plain snapshot reads at T, and the server's own `dbHash`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use backup_core::id::ClusterTime;
use bson::{Document, RawDocumentBuf, Timestamp, doc};
use futures_util::{StreamExt, TryStreamExt};
use mongodb::{Client, Database};

/// The server's hash of each collection's documents. What restores keep aside is left out.
pub async fn db_hash(database: &Database) -> Result<BTreeMap<String, String>> {
    let reply = database.run_command(doc! { "dbHash": 1 }).await.context("dbHash")?;
    let hashes = reply.get_document("collections")?.iter();
    Ok(hashes
        .filter(|(name, _)| !name.starts_with("nightsafe.") && *name != "system.views")
        .map(|(name, hash)| (name.clone(), hash.as_str().unwrap_or_default().to_owned()))
        .collect())
}

/// The instant of the newest write the server has, to whatever database.
pub async fn last_write(database: &Database) -> Result<ClusterTime> {
    let reply = database.run_command(doc! { "hello": 1 }).await.context("hello")?;
    let newest = reply.get_document("lastWrite")?.get_document("opTime")?.get_timestamp("ts")?;
    Ok(ClusterTime { seconds: newest.time, ordinal: newest.increment })
}

/// Copies the ordinary collections of `from` as they were at `time` into the database `into`, by the driver's own
/// cursors.
pub async fn copy_at(client: &Client, from: &str, into: &str, time: (u32, u32)) -> Result<()> {
    let (source, copy) = (client.database(from), client.database(into));
    copy.drop().await?;
    let at = Timestamp { time: time.0, increment: time.1 };
    for collection in source.list_collections().await?.try_collect::<Vec<_>>().await? {
        let name = collection.name.as_str();
        if collection.collection_type != mongodb::results::CollectionType::Collection
            || name.starts_with("system.")
        {
            continue;
        }
        copy.run_command(doc! { "create": name }).await?;
        let find = doc! {
            "find": name,
            "hint": { "$natural": 1 },
            "readConcern": { "level": "snapshot", "atClusterTime": at },
        };
        let cursor = source.run_cursor_command(find).await.with_context(|| format!("read {name} at T"))?;
        let mut batches = cursor.with_type::<RawDocumentBuf>().ready_chunks(500);
        let target = copy.collection::<RawDocumentBuf>(name);
        while let Some(batch) = batches.next().await {
            target.insert_many(batch.into_iter().collect::<Result<Vec<_>, _>>()?).await?;
        }
    }
    Ok(())
}

/// Options and indexes of every collection and view, field by field.
pub async fn metadata(database: &Database) -> Result<BTreeMap<String, (Document, Vec<Document>)>> {
    let listed =
        database.run_command(doc! { "listCollections": 1, "cursor": { "batchSize": 10_000 } }).await?;
    let mut all = BTreeMap::new();
    for entry in listed.get_document("cursor")?.get_array("firstBatch")? {
        let entry = entry.as_document().context("an entry of listCollections")?;
        let name = entry.get_str("name")?;
        if name.starts_with("nightsafe.") || name == "system.views" {
            continue;
        }
        let mut indexes = Vec::new();
        if entry.get_str("type")? != "view" {
            let listed = database.run_command(doc! { "listIndexes": name }).await?;
            for index in listed.get_document("cursor")?.get_array("firstBatch")? {
                indexes.push(sorted(index.as_document().context("an index")?));
            }
            indexes.sort_by_key(ToString::to_string);
        }
        all.insert(name.to_owned(), (sorted(entry.get_document("options")?), indexes));
    }
    Ok(all)
}

/// The same fields, by name: servers list them in the order they were given.
fn sorted(document: &Document) -> Document {
    let fields: BTreeMap<_, _> = document.clone().into_iter().collect();
    fields.into_iter().collect()
}

/// An error that names the collections that differ.
pub fn ensure_equal<T: PartialEq>(
    what: &str,
    expected: &BTreeMap<String, T>,
    found: &BTreeMap<String, T>,
) -> Result<()> {
    let differing: Vec<&String> =
        expected.keys().chain(found.keys()).filter(|name| expected.get(*name) != found.get(*name)).collect();
    ensure!(differing.is_empty(), "{what} differ: {differing:?}");
    Ok(())
}
