//! Collections, views and indexes of a database, as the server describes them.

use std::collections::{HashMap, HashSet};

use backup_core::at_once::at_once;
use backup_core::id::CollectionUuid;
use backup_core::namespace::{Namespace, NamespaceKind};
use backup_core::{Error, ErrorKind, Result};
use bson::{Binary, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc, spec::BinarySubtype};

use crate::connection::{Cluster, each_row};
use crate::error::{code, code_of, told};

/// `listIndexes` commands in flight.
const LISTS_AT_ONCE: usize = 8;
/// How often it is looked again while collections are being renamed.
const LOOKS_MAX: u32 = 20;
const BUCKETS: &str = "system.buckets.";

/// Everything in `database`, sorted by name. Time series stand once, with the UUID of their buckets.
///
/// Indexes can only be asked for by name (by UUID it takes a privilege that no role for reading has), and a name may
/// pass from one collection to another meanwhile. So names are looked at again after that, and what was renamed is
/// asked for again.
pub(crate) async fn namespaces(cluster: &Cluster, database: &str) -> Result<Vec<Namespace>> {
    let (mut all, mut asked) = (Vec::new(), list_collections(cluster, database).await?);
    for _ in 0..LOOKS_MAX {
        let described = describe(cluster, database, asked.clone()).await?;
        let listed = list_collections(cluster, database).await?;
        let (before, now) = (names_of(&asked), names_of(&listed));
        let renamed =
            |uuid: &CollectionUuid| now.get(uuid).is_some_and(|name| before.get(uuid) != Some(name));
        let there = |uuid: CollectionUuid| now.contains_key(&uuid) && !renamed(&uuid);
        all.extend(described.into_iter().filter(|it| it.uuid.is_none_or(there)));
        asked = listed
            .into_iter()
            .filter(|it| it.uuid.is_some_and(|uuid| before.contains_key(&uuid) && renamed(&uuid)))
            .collect();
        if asked.is_empty() {
            all.sort_by(|left: &Namespace, right| left.name.cmp(&right.name));
            if all.windows(2).all(|pair| !matches!(pair, [left, right] if left.name == right.name)) {
                return Ok(all);
            }
            // One name was seen at two collections, one after the other.
            (all, asked) = (Vec::new(), list_collections(cluster, database).await?);
        }
    }
    let attempted = format!("list the indexes of {database:?}: its collections keep being renamed");
    Err(Error::new(ErrorKind::Transient, attempted))
}

fn names_of(listed: &[Namespace]) -> HashMap<CollectionUuid, String> {
    listed.iter().filter_map(|it| Some((it.uuid?, it.name.clone()))).collect()
}

/// What was listed, with its indexes. What was dropped since is left out.
async fn describe(cluster: &Cluster, database: &str, listed: Vec<Namespace>) -> Result<Vec<Namespace>> {
    let buckets: HashMap<String, CollectionUuid> =
        listed.iter().filter_map(|it| Some((it.name.strip_prefix(BUCKETS)?.to_owned(), it.uuid?))).collect();
    let series: HashSet<String> =
        listed.iter().filter(|it| it.kind == NamespaceKind::Timeseries).map(|it| it.name.clone()).collect();
    // Buckets whose time series is gone stand for themselves.
    let wanted = listed.into_iter().filter(|it| {
        it.name != "system.views" && !it.name.strip_prefix(BUCKETS).is_some_and(|name| series.contains(name))
    });
    let described = wanted.map(|mut namespace| {
        if namespace.kind == NamespaceKind::Timeseries {
            namespace.uuid = buckets.get(&namespace.name).copied();
        }
        with_indexes(cluster, database, namespace)
    });
    Ok(at_once(LISTS_AT_ONCE, described).await?.into_iter().flatten().collect())
}

async fn list_collections(cluster: &Cluster, database: &str) -> Result<Vec<Namespace>> {
    let attempted = format!("list the collections of {database:?}");
    let command = rawdoc! { "listCollections": 1, "cursor": {} };
    let rows =
        cluster.open_rows(database, command, &attempted).await?.map_err(|why| told(&attempted, &why))?;
    let mut all = Vec::new();
    each_row(rows, &attempted, |entry| {
        let namespace = read_entry(entry).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, &attempted).because("an entry is not understood")
        });
        all.push(namespace?);
        Ok(())
    })
    .await?;
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
    // Buckets on their own are named, never read: their time series is gone, or not there yet.
    if namespace.kind == NamespaceKind::View || namespace.name.starts_with(BUCKETS) {
        return Ok(Some(namespace));
    }
    let attempted = format!("list the indexes of {:?}", namespace.name);
    // With build UUIDs the server tells finished indexes from those still being built.
    let command = rawdoc! { "listIndexes": namespace.name.as_str(), "includeBuildUUIDs": true, "cursor": {} };
    let rows = match cluster.open_rows(database, command, &attempted).await? {
        Ok(rows) => rows,
        Err(why) if code_of(&why) == Some(code::NAMESPACE_NOT_FOUND) => return Ok(None),
        Err(why) => return Err(told(attempted, &why)),
    };
    let (mut indexes, mut unfinished) = (Vec::new(), Vec::new());
    each_row(rows, &attempted, |index| {
        match index.get_document("spec") {
            Ok(spec) if index.get("buildUUID").ok().flatten().is_some() => {
                unfinished.push(spec.get_str("name").unwrap_or_default().to_owned());
            }
            Ok(spec) => indexes.push(spec.to_owned()),
            Err(_) => indexes.push(index.to_owned()),
        }
        Ok(())
    })
    .await?;
    (namespace.indexes, namespace.unfinished_indexes) = (indexes, unfinished);
    Ok(Some(namespace))
}

/// A UUID as commands take it.
pub(crate) fn binary(uuid: CollectionUuid) -> Binary {
    Binary { subtype: BinarySubtype::Uuid, bytes: uuid.0.to_vec() }
}

/// `documents` as a BSON array.
pub(crate) fn array(documents: &[RawDocumentBuf]) -> RawArrayBuf {
    let mut array = RawArrayBuf::new();
    for document in documents {
        array.push(document.clone());
    }
    array
}
