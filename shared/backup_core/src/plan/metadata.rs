//! The shape in which a restore creates collections and indexes: exactly what was backed up, with everything that
//! could delete or refuse documents left out until they are validated.

use bson::{RawBson, RawBsonRef, RawDocument, RawDocumentBuf, cstr, rawdoc};

use crate::error::{Result, corrupt};
use crate::namespace::{Namespace, NamespaceKind};

const EXPIRY: &str = "expireAfterSeconds";
const PREPARE_UNIQUE: &str = "prepareUnique";

/// The options a collection or view is created with. A time-series collection's buckets are staged in an ordinary
/// collection, so its staging has none.
pub fn creation_options(namespace: &Namespace) -> Result<RawDocumentBuf> {
    match namespace.kind {
        NamespaceKind::Timeseries => Ok(RawDocumentBuf::new()),
        NamespaceKind::Collection => without(&namespace.options, &[EXPIRY, "autoIndexId"]),
        NamespaceKind::View => Ok(namespace.options.clone()),
    }
}

/// The indexes to build on staging: all but the one that comes with the collection, without their expiry.
pub fn index_specs(namespace: &Namespace) -> Result<Vec<RawDocumentBuf>> {
    if namespace.kind == NamespaceKind::Timeseries {
        return Ok(Vec::new());
    }
    let has_collation = matches!(namespace.options.get("collation"), Ok(Some(_)));
    namespace
        .indexes
        .iter()
        .filter(|index| !comes_with_the_collection(index))
        .map(|index| {
            let mut spec = without(index, &[EXPIRY, PREPARE_UNIQUE, "ns"])?;
            // An index without a collation is a simple one; created so, it would take the collection's.
            if has_collation && matches!(index.get("collation"), Ok(None)) {
                spec.append(cstr!("collation"), rawdoc! { "locale": "simple" });
            }
            Ok(spec)
        })
        .collect()
}

/// The index on `_id`, or the key of a clustered collection.
#[must_use]
pub fn comes_with_the_collection(index: &RawDocument) -> bool {
    let clustered = matches!(index.get("clustered"), Ok(Some(RawBsonRef::Boolean(true))));
    clustered || matches!(index.get("name"), Ok(Some(RawBsonRef::String("_id_"))))
}

/// The `collMod` fields that bring back what could delete or refuse documents, once these are validated.
pub fn last_options(namespace: &Namespace) -> Result<Vec<RawDocumentBuf>> {
    let mut all = Vec::new();
    if namespace.kind != NamespaceKind::Collection {
        return Ok(all);
    }
    if let Ok(Some(value)) = namespace.options.get(EXPIRY) {
        all.push(rawdoc! { "expireAfterSeconds": RawBson::from(value) });
    }
    for index in namespace.indexes.iter().filter(|index| !comes_with_the_collection(index)) {
        let name = index.get_str("name").map_err(|why| corrupt("read an index's name").because(why))?;
        if let Ok(Some(value)) = index.get(EXPIRY) {
            all.push(rawdoc! { "index": { "name": name, "expireAfterSeconds": RawBson::from(value) } });
        }
        // It refuses new duplicates, but the documents may have some already.
        if let Ok(Some(value)) = index.get(PREPARE_UNIQUE) {
            all.push(rawdoc! { "index": { "name": name, "prepareUnique": RawBson::from(value) } });
        }
    }
    Ok(all)
}

/// `document` without some top-level fields.
pub fn without(document: &RawDocument, names: &[&str]) -> Result<RawDocumentBuf> {
    let mut kept = RawDocumentBuf::new();
    for element in document {
        let (name, value) = element.map_err(|why| corrupt("read metadata").because(why))?;
        if !names.contains(&name.as_str()) {
            kept.append(name, value);
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::CollectionUuid;
    use crate::namespace::same_fields;

    fn namespace(options: RawDocumentBuf, indexes: Vec<RawDocumentBuf>) -> Namespace {
        Namespace {
            name: "c".into(),
            kind: NamespaceKind::Collection,
            uuid: Some(CollectionUuid::NONE),
            options,
            indexes,
            unfinished_indexes: vec![],
        }
    }

    #[test]
    fn an_expiry_waits_until_documents_are_validated() {
        let ttl = rawdoc! { "v": 2, "key": { "at": 1 }, "name": "at_1", "expireAfterSeconds": 60, "partialFilterExpression": { "x": 1 } };
        let id = rawdoc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" };
        let namespace =
            namespace(rawdoc! { "expireAfterSeconds": 9_i64, "validator": { "a": 1 } }, vec![id, ttl]);
        assert!(same_fields(&creation_options(&namespace).unwrap(), &rawdoc! { "validator": { "a": 1 } }));
        let specs = index_specs(&namespace).unwrap();
        assert_eq!(specs.len(), 1);
        assert!(specs[0].get(EXPIRY).unwrap().is_none());
        assert!(specs[0].get("partialFilterExpression").unwrap().is_some());
        assert_eq!(
            last_options(&namespace).unwrap(),
            [
                rawdoc! { "expireAfterSeconds": 9_i64 },
                rawdoc! { "index": { "name": "at_1", "expireAfterSeconds": 60 } }
            ]
        );
    }

    #[test]
    fn a_simple_index_of_a_collated_collection_stays_simple() {
        let simple = rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a_1" };
        let german = rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a_de", "collation": { "locale": "de" } };
        let collated =
            namespace(rawdoc! { "collation": { "locale": "de" } }, vec![simple.clone(), german.clone()]);
        let specs = index_specs(&collated).unwrap();
        assert_eq!(specs[0].get_document("collation").unwrap(), &*rawdoc! { "locale": "simple" });
        assert_eq!(specs[1], german);
        assert_eq!(index_specs(&namespace(RawDocumentBuf::new(), vec![simple.clone()])).unwrap(), [simple]);
    }
}
