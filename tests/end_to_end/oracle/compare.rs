//! Compares what a restore made with the truth: documents byte for byte, collections, views, options, indexes.

use backup_core::namespace::{Namespace, OwnName, same_fields, same_set};
use backup_core::ports::Source;
use backup_mongo::Cluster;
use bson::{Document, RawDocument, RawDocumentBuf};

use super::truth::{Held, Sample, read};

/// Panics at the first difference. `compares_capped` is whether documents of capped collections are compared, too.
pub(super) async fn check_restored(target: &Cluster, sample: &Sample, compares_capped: bool) {
    let mut found = target.namespaces(sample.database).await.unwrap();
    found.retain(|it| OwnName::parse(&it.name).is_none());
    assert_eq!(names(&found), names(sample.held.iter().map(|held| &held.namespace)), "{sample}");
    for (namespace, held) in found.iter().zip(&sample.held) {
        check_metadata(sample, namespace, &held.namespace);
        check_documents(target, sample, namespace, held, compares_capped).await;
    }
}

/// Names, and what they are of.
fn names<'a>(all: impl IntoIterator<Item = &'a Namespace>) -> Vec<String> {
    all.into_iter().map(|it| format!("{:?} {:?}", it.kind, it.name)).collect()
}

fn check_metadata(sample: &Sample, found: &Namespace, expected: &Namespace) {
    let name = &expected.name;
    assert!(
        same_fields(&found.options, &expected.options),
        "{sample}: {name:?} has the options {}, not {}",
        told(found.options.as_bytes()),
        told(expected.options.as_bytes()),
    );
    let all = |indexes: &[RawDocumentBuf]| indexes.iter().map(|it| told(it.as_bytes())).collect::<Vec<_>>();
    assert!(
        same_set(&found.indexes, &expected.indexes),
        "{sample}: {name:?} has the indexes {:?}, not {:?}",
        all(&found.indexes),
        all(&expected.indexes),
    );
    assert_eq!(found.unfinished_indexes, expected.unfinished_indexes, "{sample}: {name:?}");
}

async fn check_documents(
    target: &Cluster,
    sample: &Sample,
    namespace: &Namespace,
    held: &Held,
    compares_capped: bool,
) {
    let is_compared = compares_capped || !namespace.is_capped();
    let Some(expected) = held.documents.as_ref().filter(|_| is_compared) else { return };
    let found = read(target, sample.database, namespace, None).await.unwrap();
    if let Some(difference) = difference(&found, expected) {
        panic!("{sample}: {:?}: {difference}", namespace.name);
    }
}

fn difference(found: &[Vec<u8>], expected: &[Vec<u8>]) -> Option<String> {
    if found == expected {
        return None;
    }
    let first = |all: &[Vec<u8>], others: &[Vec<u8>]| {
        let first = all.iter().find(|it| !others.contains(it));
        first.map_or("none".to_owned(), |document| told(document))
    };
    Some(format!(
        "{} documents, not {}, or in another order; the first that is lacking: {}; the first that should not be \
         there: {}",
        found.len(),
        expected.len(),
        first(expected, found),
        first(found, expected),
    ))
}

/// A document for messages: all of them are made up here.
fn told(bytes: &[u8]) -> String {
    let document = RawDocument::from_bytes(bytes).and_then(Document::try_from);
    document.map_or_else(|why| why.to_string(), |document| document.to_string())
}
