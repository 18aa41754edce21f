//! The database as of an instant: what it is folded from, and how exactly.

use serde::{Deserialize, Serialize};

use crate::bson::{IdRange, needs_collation};
use crate::document_hash::DocumentHash;
use crate::fold::metadata::{Folded, Origin};
use crate::format::{Captured, Consistency, Manifest, ManifestChunk, ManifestNamespace};
use crate::id::{Attempt, ClusterTime};
use crate::namespace::{Label, Namespace, NamespaceKind};
use crate::plan::capture::capture;

/// What a restore to an instant restores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointInTime {
    /// The instant: every change up to it and of it is in.
    pub time: ClusterTime,
    /// The database as of that instant. Each chunk is one unit of folding; its figures are those of what it is folded
    /// from, and are known for sure only once it is.
    pub manifest: Manifest,
    /// What each unit is folded from.
    pub units: Vec<FoldUnit>,
}

/// One unit of folding: a range of a collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoldUnit {
    /// Its number: that of its chunk in [`PointInTime::manifest`].
    pub ordinal: u32,
    /// The chunks of the base that hold its range, by their numbers there; none for a collection that came later.
    pub bases: Vec<u32>,
}

const CLONED: &str = "a capped collection that is younger than the backup: what cloneCollectionAsCapped may have copied into it is in no change";
const CUT_BY_TEXT: &str =
    "its collation orders the `_id`s it was cut by, which cannot be followed: it is as it was in the backup";

/// The database `folded` to `time`, from the backup with manifest `base`.
#[must_use]
pub fn point_in_time(base: &Manifest, folded: Vec<Folded>, time: ClusterTime) -> PointInTime {
    let (mut namespaces, mut units) = (Vec::with_capacity(folded.len()), Vec::new());
    for Folded { namespace, origin } in folded {
        // What a version can capture was decided with the base; what is never captured is ours or the server's.
        let never = capture(&namespace, u32::MAX);
        let entry = match origin {
            Origin::Unknown(reason) => left_out(namespace, reason),
            _ if never.label == Label::NotCaptured => left_out(namespace, never.reason.unwrap_or_default()),
            _ if namespace.kind == NamespaceKind::View => ManifestNamespace {
                namespace,
                label: Label::Exact,
                reason: None,
                notes: vec![],
                chunks: vec![],
            },
            Origin::Base => from_base(base, namespace, &mut units),
            Origin::Created => created(base, namespace, &mut units),
        };
        namespaces.push(entry);
    }
    let manifest =
        Manifest { cluster_time: time, consistency: Consistency::SingleInstant, namespaces, ..base.clone() };
    PointInTime { time, manifest, units }
}

fn left_out(namespace: Namespace, reason: &str) -> ManifestNamespace {
    let reason = Some(reason.to_owned());
    ManifestNamespace { namespace, label: Label::NotCaptured, reason, notes: vec![], chunks: vec![] }
}

fn from_base(base: &Manifest, namespace: Namespace, units: &mut Vec<FoldUnit>) -> ManifestNamespace {
    let of_base =
        |it: &&ManifestNamespace| it.namespace.uuid.is_some() && it.namespace.uuid == namespace.uuid;
    let Some(entry) = base.namespaces.iter().find(of_base) else {
        return left_out(namespace, "the backup does not have it");
    };
    let (mut label, mut reason) = (entry.label, entry.reason.clone());
    if label == Label::Exact && why_not_followed(entry).is_some() {
        (label, reason) = (Label::BaseOnly, why_not_followed(entry).map(str::to_owned));
    }
    let chunks = entry.chunks.iter().map(|chunk| {
        let ordinal = next_ordinal(units);
        units.push(FoldUnit { ordinal, bases: vec![chunk.ordinal] });
        ManifestChunk { ordinal, ..chunk.clone() }
    });
    ManifestNamespace { chunks: chunks.collect(), label, reason, notes: vec![], namespace }
}

/// Why the changes of a collection cannot be assigned to its chunks.
#[must_use]
pub fn why_not_followed(entry: &ManifestNamespace) -> Option<&'static str> {
    let is_collated = matches!(entry.namespace.options.get("collation"), Ok(Some(_)));
    let mut bounds = entry.chunks.iter().filter_map(|chunk| chunk.range.lower.as_ref());
    (is_collated && bounds.any(needs_collation)).then_some(CUT_BY_TEXT)
}

fn created(base: &Manifest, namespace: Namespace, units: &mut Vec<FoldUnit>) -> ManifestNamespace {
    let ordinal = next_ordinal(units);
    units.push(FoldUnit { ordinal, bases: Vec::new() });
    let stored = Captured {
        attempt: Attempt::NONE,
        cluster_time: Some(base.cluster_time),
        documents: 0,
        bson_bytes: 0,
        stored_bytes: 0,
        stored_sha256: String::new(),
        document_hash: DocumentHash::default(),
        sealed_as: None,
    };
    let chunks = vec![ManifestChunk { ordinal, range: IdRange::ALL, stored }];
    let is_capped = namespace.is_capped();
    let (label, reason) =
        if is_capped { (Label::Fuzzy, Some(CLONED.to_owned())) } else { (Label::Exact, None) };
    ManifestNamespace { namespace, label, reason, notes: vec![], chunks }
}

fn next_ordinal(units: &[FoldUnit]) -> u32 {
    u32::try_from(units.len()).unwrap_or(u32::MAX)
}
