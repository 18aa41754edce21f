//! What a folded backup is folded from, chunk by chunk: those that grew too large are split, neighbours that shrank
//! are put together.

use serde::{Deserialize, Serialize};

use crate::bson::{IdKey, IdRange, IdValue};
use crate::error::Result;
use crate::format::{Captured, ManifestChunk, ManifestNamespace};
use crate::id::OperationId;
use crate::namespace::{Label, NamespaceKind};
use crate::plan::point_in_time::{FoldUnit, PointInTime};

/// The plan of a folded backup. Stored sealed: it holds names and range bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SynthesisPlan {
    /// The backup it is folded from.
    pub base: OperationId,
    /// The database as of its instant, with the units to fold.
    pub at: PointInTime,
}

/// A chunk this many times larger than the target is split.
const SPLIT_TIMES: u64 = 2;
/// Neighbours that together have no more than this part of the target are put together.
const MERGE_PART: u64 = 2;

/// Into how many parts a chunk is to be split; 1 leaves it as it is.
#[must_use]
pub fn parts(chunk: &Captured, target_bytes: u64) -> u64 {
    let target = target_bytes.max(1);
    if chunk.bson_bytes > target.saturating_mul(SPLIT_TIMES) { chunk.bson_bytes.div_ceil(target) } else { 1 }
}

/// Bounds that split a chunk into at most `parts` even parts, chosen from `_id`s that occur in it.
pub fn split_bounds(ids: Vec<IdValue>, range: &IdRange, parts: u64) -> Result<Vec<IdValue>> {
    let usable = ids.into_iter().filter(IdValue::may_bound_a_range);
    let mut keys: Vec<IdKey> = usable.map(IdKey::new).collect::<Result<_>>()?;
    keys.sort();
    keys.dedup();
    let count = u64::try_from(keys.len()).unwrap_or(u64::MAX);
    let parts = parts.min(count).max(1); // more than it has keys it cannot be cut into
    let mut bounds: Vec<IdValue> = Vec::new();
    for part in 1..parts {
        let at = usize::try_from(count.saturating_mul(part) / parts).unwrap_or(usize::MAX);
        let bound = keys.get(at).map(IdKey::id).filter(|id| {
            range.lower.as_ref() != Some(*id)
                && range.upper.as_ref() != Some(*id)
                && bounds.last() != Some(*id)
        });
        bounds.extend(bound.cloned());
    }
    Ok(bounds)
}

/// Puts neighbours together, and splits by `bounds` (which gives those of a chunk of the base by its number), in every
/// collection that is followed.
#[must_use]
pub fn regroup(at: PointInTime, bounds: impl Fn(u32) -> Vec<IdValue>, target_bytes: u64) -> PointInTime {
    let mut units: Vec<FoldUnit> = Vec::new();
    let mut namespaces = Vec::with_capacity(at.manifest.namespaces.len());
    for entry in at.manifest.namespaces {
        let mut chunks: Vec<ManifestChunk> = Vec::new();
        let is_cut = entry.label == Label::Exact && entry.namespace.kind == NamespaceKind::Collection;
        for chunk in &entry.chunks {
            let bases = at.units.iter().find(|it| it.ordinal == chunk.ordinal).map(|it| it.bases.clone());
            let bases = bases.unwrap_or_default();
            if is_cut
                && let Some((last, unit)) = chunks.last_mut().zip(units.last_mut())
                && fits(last, chunk, target_bytes)
            {
                last.range.upper.clone_from(&chunk.range.upper);
                last.stored.bson_bytes += chunk.stored.bson_bytes;
                last.stored.documents += chunk.stored.documents;
                unit.bases.extend(bases);
                continue;
            }
            let cuts = bases.first().filter(|_| is_cut).map(|base| bounds(*base)).unwrap_or_default();
            for range in split(&chunk.range, cuts) {
                let ordinal = u32::try_from(units.len()).unwrap_or(u32::MAX);
                units.push(FoldUnit { ordinal, bases: bases.clone() });
                chunks.push(ManifestChunk { ordinal, range, stored: chunk.stored.clone() });
            }
        }
        namespaces.push(ManifestNamespace { chunks, ..entry });
    }
    PointInTime { time: at.time, units, manifest: crate::format::Manifest { namespaces, ..at.manifest } }
}

fn fits(last: &ManifestChunk, next: &ManifestChunk, target_bytes: u64) -> bool {
    last.stored.bson_bytes.saturating_add(next.stored.bson_bytes) <= target_bytes / MERGE_PART
}

fn split(range: &IdRange, bounds: Vec<IdValue>) -> Vec<IdRange> {
    let (mut ranges, mut lower) = (Vec::with_capacity(bounds.len() + 1), range.lower.clone());
    for bound in bounds {
        ranges.push(IdRange { lower, upper: Some(bound.clone()) });
        lower = Some(bound);
    }
    ranges.push(IdRange { lower, upper: range.upper.clone() });
    ranges
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    fn id(value: i32) -> IdValue {
        IdValue::of_document(rawdoc! { "_id": value }.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn a_chunk_is_split_evenly_by_what_is_in_it() {
        let check = |ids: &[i32], range: IdRange, parts: u64, expected: &[i32]| {
            let bounds = split_bounds(ids.iter().map(|it| id(*it)).collect(), &range, parts).unwrap();
            assert_eq!(bounds, expected.iter().map(|it| id(*it)).collect::<Vec<_>>(), "{ids:?} in {parts}");
        };
        let from = |lower: i32| IdRange { lower: Some(id(lower)), upper: None };
        check(&[40, 10, 30, 20], IdRange::ALL, 2, &[30]);
        check(&[10, 20, 30, 40], IdRange::ALL, 4, &[20, 30, 40]);
        check(&[10, 20, 30, 40], from(20), 4, &[30, 40]);
        check(&[10, 10, 10], from(10), 3, &[]);
        check(&[], IdRange::ALL, 3, &[]);
        check(&[10], IdRange::ALL, 1, &[]);
        check(&[10, 20, 30], IdRange::ALL, 9000, &[20, 30]);
    }
}
