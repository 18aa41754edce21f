//! What is known of a collection or view: the metadata the server gave, and how exactly a backup holds it.

use bson::{RawBsonRef, RawDocument, RawDocumentBuf};
use serde::{Deserialize, Serialize};

use crate::bson::{base64_document, base64_documents};
use crate::id::{CollectionUuid, OperationId};

/// What kind of namespace it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamespaceKind {
    /// An ordinary, capped or clustered collection.
    Collection,
    /// A time-series collection: documents live in buckets.
    Timeseries,
    /// A view: a definition without documents.
    View,
}

/// A collection or view as the server describes it. Options and indexes are the BSON it gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// The name within its database.
    pub name: String,
    /// What it is.
    pub kind: NamespaceKind,
    /// The collection's identity (of its bucket collection, for time series); none for a view.
    pub uuid: Option<CollectionUuid>,
    /// The `options` of `listCollections`: validator, collation, capped, clustered index, view definition, …
    #[serde(with = "base64_document")]
    pub options: RawDocumentBuf,
    /// Every finished index as `listIndexes` tells it, the one on `_id` included.
    #[serde(with = "base64_documents")]
    pub indexes: Vec<RawDocumentBuf>,
    /// Names of indexes that were still being built: their definition is not part of the backup.
    pub unfinished_indexes: Vec<String>,
}

impl Namespace {
    /// The name under which the documents are read.
    #[must_use]
    pub fn documents_name(&self) -> String {
        match self.kind {
            NamespaceKind::Timeseries => format!("system.buckets.{}", self.name),
            NamespaceKind::Collection | NamespaceKind::View => self.name.clone(),
        }
    }

    /// Whether the collection is capped: it has an order of insertion, and servers before 8.0 refuse snapshot reads.
    #[must_use]
    pub fn is_capped(&self) -> bool {
        matches!(self.options.get("capped"), Ok(Some(RawBsonRef::Boolean(true))))
    }

    /// Whether the collection is stored in the order of `_id`, without a separate index on it.
    #[must_use]
    pub fn is_clustered(&self) -> bool {
        matches!(self.options.get("clusteredIndex"), Ok(Some(_)))
    }

    /// Whether both describe the same collection in the same state (name, options and indexes in any order).
    #[must_use]
    pub fn is_same_state(&self, other: &Self) -> bool {
        self.name == other.name
            && self.kind == other.kind
            && self.uuid == other.uuid
            && same_fields(&self.options, &other.options)
            && same_set(&self.indexes, &other.indexes)
            && self.unfinished_indexes == other.unfinished_indexes
    }
}

/// Whether both documents have the same top-level fields with the same values, in any order.
#[must_use]
pub fn same_fields(left: &RawDocument, right: &RawDocument) -> bool {
    fields(left) == fields(right)
}

/// Whether both lists hold the same documents (each compared by its fields), in any order.
#[must_use]
pub fn same_set(left: &[RawDocumentBuf], right: &[RawDocumentBuf]) -> bool {
    let sorted = |list: &[RawDocumentBuf]| {
        let mut all: Vec<_> = list.iter().map(|document| fields(document)).collect();
        all.sort();
        all
    };
    sorted(left) == sorted(right)
}

/// Top-level elements as bytes, sorted by name. Numbers of the same value but another type count as equal, because
/// servers and drivers store `1` as any of them in index and option documents.
fn fields(document: &RawDocument) -> Vec<(Vec<u8>, u8, Vec<u8>)> {
    let mut all: Vec<_> = crate::bson::elements(document.as_bytes())
        .filter_map(Result::ok)
        .map(|element| {
            let value = match (element.kind, element.value) {
                (0x10, value) => value.first_chunk().map(|bytes| f64::from(i32::from_le_bytes(*bytes))),
                (0x01, value) => value.first_chunk().map(|bytes| f64::from_le_bytes(*bytes)),
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "options are small numbers; this only compares"
                )]
                (0x12, value) => value.first_chunk().map(|bytes| i64::from_le_bytes(*bytes) as f64),
                _ => None,
            };
            match value {
                Some(number) => (element.name.to_vec(), 0x01, number.to_le_bytes().to_vec()),
                None => (element.name.to_vec(), element.kind, element.value.to_vec()),
            }
        })
        .collect();
    all.sort();
    all
}

/// How exactly a backup holds a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Label {
    /// Every chunk is exactly what the collection was at the chunk's T.
    Exact,
    /// Read in one scan without a snapshot: writes during the scan may or may not be in it.
    Fuzzy,
    /// Exact at its T, but its changes cannot be followed afterwards.
    BaseOnly,
    /// Not in the backup; the reason says why.
    NotCaptured,
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Fuzzy => "fuzzy",
            Self::BaseOnly => "base-only",
            Self::NotCaptured => "not captured",
        })
    }
}

/// Names of collections that restores keep beside the live ones, in the same database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnName {
    /// Documents being restored, before they are validated and swapped in.
    Staging(OperationId, u32),
    /// What was live before a restore replaced it.
    Aside(OperationId, u32),
    /// An empty collection: the mark of a time series that a restore is filling.
    Filling(OperationId, u32),
    /// The staging of a time series that was filled from it, until the whole restore is done.
    Filled(OperationId, u32),
}

impl OwnName {
    /// The restore that made it and drops it at its end, if it is not for keeping.
    #[must_use]
    pub const fn passing(self) -> Option<OperationId> {
        match self {
            Self::Staging(id, _) | Self::Filling(id, _) | Self::Filled(id, _) => Some(id),
            Self::Aside(..) => None,
        }
    }

    const STAGING: &str = "nightsafe.staging.";
    const ASIDE: &str = "nightsafe.aside.";
    const FILLING: &str = "nightsafe.filling.";
    const FILLED: &str = "nightsafe.filled.";

    /// Reads a name; `None` if it is not one of ours.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        type Make = fn(OperationId, u32) -> OwnName;
        let kinds: [(&str, Make); 4] = [
            (Self::STAGING, Self::Staging),
            (Self::ASIDE, Self::Aside),
            (Self::FILLING, Self::Filling),
            (Self::FILLED, Self::Filled),
        ];
        let (make, rest) =
            kinds.iter().find_map(|(prefix, make)| Some((make, name.strip_prefix(prefix)?)))?;
        let (id, number) = rest.split_once('.')?;
        let own = make(id.parse().ok()?, number.parse().ok()?);
        (own.to_string() == name).then_some(own) // "+7" and "007" are numbers, too
    }
}

impl std::fmt::Display for OwnName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Staging(id, number) => write!(f, "{}{id}.{number}", Self::STAGING),
            Self::Aside(id, number) => write!(f, "{}{id}.{number}", Self::ASIDE),
            Self::Filling(id, number) => write!(f, "{}{id}.{number}", Self::FILLING),
            Self::Filled(id, number) => write!(f, "{}{id}.{number}", Self::FILLED),
        }
    }
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    #[test]
    fn metadata_is_compared_by_fields_not_by_their_order() {
        let check = |left: RawDocumentBuf, right: RawDocumentBuf, same: bool| {
            assert_eq!(same_fields(&left, &right), same, "{left:?} {right:?}");
        };
        check(rawdoc! { "a": 1, "b": "x" }, rawdoc! { "b": "x", "a": 1.0 }, true);
        check(rawdoc! { "a": 1_i64 }, rawdoc! { "a": 1 }, true);
        check(rawdoc! { "a": 1 }, rawdoc! { "a": 2 }, false);
        check(rawdoc! { "a": 1 }, rawdoc! { "a": true }, false);
        check(rawdoc! { "key": { "x": 1, "y": 1 } }, rawdoc! { "key": { "y": 1, "x": 1 } }, false);
        check(rawdoc! { "a": 1 }, rawdoc! { "a": 1, "b": 1 }, false);
    }

    #[test]
    fn own_names_are_told_from_users_names() {
        let id = OperationId::generate(1).unwrap();
        for name in [OwnName::Staging(id, 0), OwnName::Aside(id, 4_000_000), OwnName::Filling(id, 1)] {
            assert_eq!(OwnName::parse(&name.to_string()), Some(name));
        }
        for name in ["leads", "nightsafe.staging.x.1", "nightsafe.aside.", "nightsafe.staging"] {
            assert_eq!(OwnName::parse(name), None);
        }
    }
}
