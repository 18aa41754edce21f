//! Collections, views and indexes of a database, as the server describes them.

use std::collections::HashMap;

use backup_core::id::CollectionUuid;
use backup_core::namespace::{Namespace, NamespaceKind};
use backup_core::{Error, ErrorKind, Result};
use bson::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::connection::Cluster;
use crate::error::{code, code_of, told};

/// `listIndexes` commands in flight.
const LISTS_AT_ONCE: usize = 8;
const BUCKETS: &str = "system.buckets.";

/// Everything in `database`, sorted by name. Time series stand once, with the UUID of their buckets.
pub(crate) async fn namespaces(cluster: &Cluster, database: &str) -> Result<Vec<Namespace>> {
    let listed = list_collections(cluster, database).await?;
    let buckets: HashMap<String, CollectionUuid> =
        listed.iter().filter_map(|it| Some((it.name.strip_prefix(BUCKETS)?.to_owned(), it.uuid?))).collect();
    let wanted = listed.into_iter().filter(|it| !it.name.starts_with(BUCKETS) && it.name != "system.views");
    let mut all: Vec<Namespace> = stream::iter(wanted)
        .map(|mut namespace| {
            if namespace.kind == NamespaceKind::Timeseries {
                namespace.uuid = buckets.get(&namespace.name).copied();
            }
            with_indexes(cluster, database, namespace)
        })
        .buffer_unordered(LISTS_AT_ONCE)
        .try_filter_map(async |namespace| Ok(namespace))
        .try_collect()
        .await?;
    all.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(all)
}

async fn list_collections(cluster: &Cluster, database: &str) -> Result<Vec<Namespace>> {
    let attempted = || format!("list the collections of {database:?}");
    let mut batches = cluster
        .database(database)?
        .run_raw_cursor_command(rawdoc! { "listCollections": 1, "cursor": {} })
        .batch()
        .await
        .map_err(|why| told(attempted(), &why))?;
    let mut all = Vec::new();
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(|why| told(attempted(), &why))?;
        for entry in batch.doc_slices().map_err(|why| told(attempted(), &why))? {
            let entry = entry.ok().and_then(bson::RawBsonRef::as_document);
            let namespace = entry.and_then(read_entry);
            all.push(namespace.ok_or_else(|| {
                Error::new(ErrorKind::Unsupported, attempted()).because("an entry is not understood")
            })?);
        }
    }
    Ok(all)
}

fn read_entry(entry: &RawDocument) -> Option<Namespace> {
    let kind = match entry.get_str("type").ok()? {
        "collection" => NamespaceKind::Collection,
        "view" => NamespaceKind::View,
        "timeseries" => NamespaceKind::Timeseries,
        _ => return None,
    };
    let uuid = match entry.get_document("info").ok()?.get("uuid") {
        Ok(Some(RawBsonRef::Binary(uuid))) => Some(CollectionUuid(uuid.bytes.try_into().ok()?)),
        _ => None,
    };
    Some(Namespace {
        name: entry.get_str("name").ok()?.to_owned(),
        kind,
        uuid,
        options: entry.get_document("options").ok()?.to_owned(),
        indexes: Vec::new(),
        unfinished_indexes: Vec::new(),
    })
}

/// `None` if it was dropped since it was listed.
async fn with_indexes(
    cluster: &Cluster,
    database: &str,
    mut namespace: Namespace,
) -> Result<Option<Namespace>> {
    if namespace.kind == NamespaceKind::View {
        return Ok(Some(namespace));
    }
    let attempted = || format!("list the indexes of {:?}", namespace.name);
    // With build UUIDs the server tells finished indexes from those still being built.
    let command = rawdoc! { "listIndexes": namespace.name.as_str(), "includeBuildUUIDs": true, "cursor": {} };
    let mut batches = match cluster.database(database)?.run_raw_cursor_command(command).batch().await {
        Ok(batches) => batches,
        Err(why) if code_of(&why) == Some(code::NAMESPACE_NOT_FOUND) => return Ok(None),
        Err(why) => return Err(told(attempted(), &why)),
    };
    let (mut indexes, mut unfinished) = (Vec::new(), Vec::new());
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(|why| told(attempted(), &why))?;
        for index in batch.doc_slices().map_err(|why| told(attempted(), &why))? {
            let index = index.ok().and_then(RawBsonRef::as_document).ok_or_else(|| {
                Error::new(ErrorKind::Unsupported, attempted()).because("an entry is not understood")
            })?;
            match index.get_document("spec") {
                Ok(spec) if index.get("buildUUID").ok().flatten().is_some() => {
                    unfinished.push(spec.get_str("name").unwrap_or_default().to_owned());
                }
                Ok(spec) => indexes.push(spec.to_owned()),
                Err(_) => indexes.push(index.to_owned()),
            }
        }
    }
    (namespace.indexes, namespace.unfinished_indexes) = (indexes, unfinished);
    Ok(Some(namespace))
}

/// `documents` as a BSON array.
pub(crate) fn array(documents: &[RawDocumentBuf]) -> RawArrayBuf {
    let mut array = RawArrayBuf::new();
    for document in documents {
        array.push(document.clone());
    }
    array
}
