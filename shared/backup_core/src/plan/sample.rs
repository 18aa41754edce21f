//! Which chunks of a backup are restored to prove it, where not all of them are. The choice follows from a seed that is
//! recorded, so that anybody can make it again.

use std::collections::BTreeSet;

use crate::format::{Manifest, ManifestChunk};
use crate::id::OperationId;
use crate::settings::MIB;

/// How much a sample may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleBounds {
    /// Chunks.
    pub chunks_max: usize,
    /// Bytes of BSON.
    pub bson_bytes_max: u64,
}

impl Default for SampleBounds {
    /// What a function restores and reads back in a minute or two.
    fn default() -> Self {
        Self { chunks_max: 8, bson_bytes_max: 256 * MIB }
    }
}

/// The seed that an operation draws with: as random as its id, and the same in a repeat.
#[must_use]
pub fn seed_of(id: OperationId) -> u64 {
    id.to_bytes().last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The numbers of some chunks of a backup; none if it has no chunks.
///
/// Always in it, whatever the bounds say: the newest chunk (the latest T; of those with the same, the highest number,
/// which is the end of a collection, where the youngest documents mostly are) and the smallest (the fewest bytes of
/// BSON; of those with the same, the lowest number). Others are drawn by `seed`, as far as the bounds allow. Chunks
/// without documents are only taken where there are no others.
#[must_use]
pub fn pick(manifest: &Manifest, seed: u64, bounds: SampleBounds) -> BTreeSet<u32> {
    let chunks = || manifest.chunks().map(|(_, chunk)| chunk);
    let has_documents = chunks().any(|chunk| chunk.stored.documents > 0);
    let mut drawn: Vec<&ManifestChunk> =
        chunks().filter(|chunk| chunk.stored.documents > 0 || !has_documents).collect();
    let newest = drawn.iter().copied().max_by_key(|chunk| (chunk.stored.cluster_time, chunk.ordinal));
    let smallest = drawn.iter().copied().min_by_key(|chunk| (chunk.stored.bson_bytes, chunk.ordinal));
    drawn.sort_by_cached_key(|chunk| lot(seed, chunk.ordinal));
    let (mut picked, mut bytes) = (BTreeSet::new(), 0_u64);
    for chunk in newest.into_iter().chain(smallest) {
        if picked.insert(chunk.ordinal) {
            bytes = bytes.saturating_add(chunk.stored.bson_bytes);
        }
    }
    for chunk in drawn {
        let with_it = bytes.saturating_add(chunk.stored.bson_bytes);
        let fits = picked.len() < bounds.chunks_max && with_it <= bounds.bson_bytes_max;
        if fits && picked.insert(chunk.ordinal) {
            bytes = with_it;
        }
    }
    picked
}

/// The lot that a chunk draws: the lowest are taken first.
fn lot(seed: u64, ordinal: u32) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(&seed.to_be_bytes()).update(&ordinal.to_be_bytes());
    *hash.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use bson::RawDocumentBuf;
    use proptest::prelude::*;

    use super::*;
    use crate::bson::IdRange;
    use crate::document_hash::DocumentHash;
    use crate::format::{Captured, Consistency, MANIFEST_FORMAT, ManifestNamespace};
    use crate::id::{Attempt, ClusterTime, CollectionUuid};
    use crate::namespace::{Label, Namespace, NamespaceKind};
    use crate::operation::Trigger;

    /// One collection with chunks of so many bytes, read in so many seconds; a chunk without bytes has no documents.
    fn manifest(chunks: &[(u64, Option<u32>)]) -> Manifest {
        let chunks = (0..).zip(chunks).map(|(ordinal, (bson_bytes, seconds))| {
            let stored = Captured {
                attempt: Attempt::NONE,
                cluster_time: seconds.map(|seconds| ClusterTime { seconds, ordinal: 1 }),
                documents: u64::from(*bson_bytes > 0),
                bson_bytes: *bson_bytes,
                stored_bytes: *bson_bytes,
                stored_sha256: String::new(),
                document_hash: DocumentHash::default(),
                sealed_as: None,
            };
            ManifestChunk { ordinal, range: IdRange::ALL, stored }
        });
        let namespace = Namespace {
            name: "leads".into(),
            kind: NamespaceKind::Collection,
            uuid: Some(CollectionUuid::NONE),
            options: RawDocumentBuf::new(),
            indexes: vec![],
            unfinished_indexes: vec![],
        };
        let (reason, notes, chunks) = (None, vec![], chunks.collect());
        Manifest {
            format: MANIFEST_FORMAT,
            backup: OperationId::from_bytes([1; 16]),
            source: "main".parse().unwrap(),
            database: "crm".into(),
            collections: vec![],
            trigger: Trigger::Automated,
            server_version: "6.0.5".into(),
            cluster_time: ClusterTime { seconds: 9, ordinal: 1 },
            consistency: Consistency::SingleInstant,
            sealed_at: String::new(),
            namespaces: vec![ManifestNamespace { namespace, label: Label::Exact, reason, notes, chunks }],
            folded_from: None,
        }
    }

    #[test]
    fn the_newest_and_the_smallest_are_always_in_it() {
        let check = |chunks: &[(u64, Option<u32>)], expected: &[u32]| {
            let bounds = SampleBounds { chunks_max: 0, bson_bytes_max: 0 };
            let picked: Vec<u32> = pick(&manifest(chunks), 7, bounds).into_iter().collect();
            assert_eq!(picked, expected, "{chunks:?}");
        };
        check(&[], &[]);
        check(&[(5, Some(9))], &[0]);
        check(&[(5, Some(9)), (2, Some(9)), (7, Some(9))], &[1, 2]);
        check(&[(5, Some(9)), (2, Some(8)), (7, None)], &[0, 1]); // without an instant it is not the newest
        check(&[(2, Some(9)), (2, Some(9)), (2, Some(9))], &[0, 2]);
        check(&[(0, Some(9)), (5, Some(9)), (3, Some(9)), (0, Some(9))], &[2]); // empty ones prove little
        check(&[(0, Some(9)), (0, Some(9)), (0, Some(9))], &[0, 2]);
    }

    #[test]
    fn different_seeds_draw_different_chunks() {
        let all = manifest(&[(1, Some(9)); 100]);
        let draw = |seed| pick(&all, seed, SampleBounds::default());
        assert_eq!(draw(1), draw(1));
        let drawn: BTreeSet<u32> = (0..100).flat_map(draw).collect();
        assert!(drawn.len() > 95, "some chunks are never drawn: {drawn:?}");
    }

    proptest! {
        #[test]
        fn a_sample_keeps_its_bounds(
            chunks in proptest::collection::vec((0_u64..100, proptest::option::of(0_u32..4)), 0..60),
            seed in any::<u64>(), chunks_max in 2_usize..20, bson_bytes_max in 200_u64..2000,
        ) {
            let manifest = manifest(&chunks);
            let picked = pick(&manifest, seed, SampleBounds { chunks_max, bson_bytes_max });
            let sizes = manifest.chunks().filter(|(_, chunk)| picked.contains(&chunk.ordinal));
            prop_assert!(sizes.map(|(_, chunk)| chunk.stored.bson_bytes).sum::<u64>() <= bson_bytes_max);
            prop_assert!(picked.len() <= chunks_max);
            prop_assert_eq!(picked.is_empty(), chunks.is_empty());
        }
    }
}
