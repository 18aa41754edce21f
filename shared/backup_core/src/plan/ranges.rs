//! Cutting a collection into ranges, and packing ranges into work items.

use crate::bson::{IdRange, IdValue};
use crate::format::WorkItem;
use crate::ports::{Sampled, SizeHint};

/// More parts of one collection than this make a plan too large to be read by every step: 32,768 parts of 256 MiB
/// are 8 TiB.
const PARTS_MAX: u64 = 32_768;
/// Samples for each part: of 1.6 million documents, 100 gave parts within a tenth of each other.
const SAMPLES_PER_PART: u64 = 100;
/// What is sampled at most: the server sorts the sample in memory.
const SAMPLES_MAX: u64 = 200_000;
/// The server draws a sample by a random cursor only below a twentieth of the documents; above, it scans them all.
const SAMPLE_SHARE_MAX: u64 = 20;
/// Each chunk costs several requests, so a work item of many empty ones still ends within a minute or two.
const CHUNKS_PER_ITEM_MAX: usize = 200;
/// A Distributed Map gives its items' answers, five bytes each, in 256 KiB: more of them end it.
const ITEMS_MAX: u64 = 50_000;

/// Into how many parts a collection is to be cut so that each has about `target_bytes`.
#[must_use]
pub fn parts(size: SizeHint, target_bytes: u64) -> u32 {
    let parts = size.bytes.div_ceil(target_bytes.max(1)).clamp(1, PARTS_MAX).min(size.documents.max(1));
    u32::try_from(parts).unwrap_or(u32::MAX)
}

/// How many `_id`s to sample for so many parts.
#[must_use]
pub fn samples(parts: u32, size: SizeHint) -> u32 {
    let parts = u64::from(parts);
    let cheap = size.documents / SAMPLE_SHARE_MAX;
    let samples = (parts * SAMPLES_PER_PART).min(cheap).max(parts * 3).min(SAMPLES_MAX);
    u32::try_from(samples).unwrap_or(u32::MAX)
}

/// At most `parts` ranges that cover every `_id` once and hold about the same number of bytes, by what was sampled
/// (in the server's order).
#[must_use]
pub fn ranges(sampled: &[Sampled], parts: u32) -> Vec<IdRange> {
    let all: u128 = sampled.iter().map(|it| u128::from(it.bytes)).sum();
    let (mut bounds, mut before, mut part): (Vec<&IdValue>, u128, u128) = (Vec::new(), 0, 1);
    for Sampled { id, bytes } in sampled {
        // The server sorted the sample, and an `_id` occurs once, so equal neighbours are the same document.
        if before * u128::from(parts) >= all * part
            && (1..all).contains(&before)
            && id.may_bound_a_range()
            && bounds.last() != Some(&id)
        {
            bounds.push(id);
            part = before * u128::from(parts) / all.max(1) + 1;
        }
        before += u128::from(*bytes);
    }
    let lowers = std::iter::once(None).chain(bounds.iter().map(|bound| Some((*bound).clone())));
    let uppers = bounds.iter().map(|bound| Some((*bound).clone())).chain(std::iter::once(None));
    lowers.zip(uppers).map(|(lower, upper)| IdRange { lower, upper }).collect()
}

/// Packs chunks, given by their expected sizes in bytes in the order of their numbers, into work items of about
/// `target_bytes`, or more where there would be too many. There is one at least, if need be without a chunk.
#[must_use]
pub fn pack(chunk_bytes: &[u64], target_bytes: u64) -> Vec<WorkItem> {
    // Any two neighbours have more than the target together.
    let all_bytes = chunk_bytes.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
    let target_bytes = target_bytes.max(all_bytes.div_ceil(ITEMS_MAX / 2));
    let mut items: Vec<WorkItem> = Vec::new();
    let (mut open_bytes, mut open_chunks) = (0_u64, 0_usize);
    for (ordinal, bytes) in (0_u32..).zip(chunk_bytes) {
        let fits = open_bytes.saturating_add(*bytes) <= target_bytes && open_chunks < CHUNKS_PER_ITEM_MAX;
        match items.last_mut() {
            Some(item) if fits => {
                item.count += 1;
                (open_bytes, open_chunks) = (open_bytes + bytes, open_chunks + 1);
            }
            _ => {
                items.push(WorkItem { first: ordinal, count: 1 });
                (open_bytes, open_chunks) = (*bytes, 1);
            }
        }
    }
    if items.is_empty() {
        items.push(WorkItem { first: 0, count: 0 }); // a Distributed Map may not take a file without a line
    }
    items
}

/// Packs some chunks, given by their numbers and sizes in bytes, in order of their numbers. Only neighbours share an item;
/// where there are no chunks, there is none.
#[must_use]
pub fn pack_some(chunks: impl IntoIterator<Item = (u32, u64)>, target_bytes: u64) -> Vec<WorkItem> {
    let mut runs: Vec<(u32, Vec<u64>)> = Vec::new();
    let mut all_bytes = 0_u64;
    for (ordinal, bytes) in chunks {
        all_bytes = all_bytes.saturating_add(bytes);
        let next = |(first, sizes): &(u32, Vec<u64>)| {
            first.saturating_add(u32::try_from(sizes.len()).unwrap_or(u32::MAX))
        };
        match runs.last_mut() {
            Some(run) if next(run) == ordinal => run.1.push(bytes),
            _ => runs.push((ordinal, vec![bytes])),
        }
    }
    let target_bytes = target_bytes.max(all_bytes.div_ceil(ITEMS_MAX / 2));
    let packed = runs.into_iter().flat_map(|(first, sizes)| {
        let items = pack(&sizes, target_bytes).into_iter();
        items.map(move |item| WorkItem { first: first + item.first, ..item })
    });
    packed.collect()
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;
    use proptest::prelude::*;

    use super::*;
    use crate::bson::check_coverage;

    fn sampled(values: impl IntoIterator<Item = (i32, u64)>) -> Vec<Sampled> {
        let id = |value: i32| IdValue::of_document(rawdoc! { "_id": value }.as_bytes()).unwrap().unwrap();
        values.into_iter().map(|(value, bytes)| Sampled { id: id(value), bytes }).collect()
    }

    #[test]
    fn parts_follow_the_size_and_stay_bounded() {
        for (documents, bytes, expected) in [
            (0, 0, 1),
            (1, 5000, 1),
            (10, 1000, 1),
            (10, 1001, 2),
            (3, 1_000_000, 3),
            (0, 1_000_000, 1),
            (u64::MAX, u64::MAX, 32_768),
        ] {
            assert_eq!(
                parts(SizeHint { documents, bytes }, 1000),
                expected,
                "{documents} documents, {bytes} bytes"
            );
        }
    }

    #[test]
    fn samples_stay_cheap_for_the_server_where_they_can() {
        for (parts, documents, expected) in
            [(8, 1_600_000, 800), (8, 10_000, 500), (20, 100, 60), (30_000, u64::MAX, 200_000)]
        {
            assert_eq!(samples(parts, SizeHint { documents, bytes: 0 }), expected);
        }
    }

    #[test]
    fn there_are_not_more_items_than_a_map_takes() {
        for (chunks, bytes) in [(200_000, 1000), (200_000, 600), (60_000, 1000)] {
            let items = pack(&vec![bytes; chunks], 1000);
            assert!(items.len() <= 50_000, "{chunks} chunks of {bytes}: {}", items.len());
            let half = u32::try_from(chunks / 2).unwrap();
            let two_runs = (0..half).chain(500_000..500_000 + half).map(|ordinal| (ordinal, bytes));
            let items = pack_some(two_runs, 1000);
            assert!(items.len() <= 50_000, "{chunks} chunks of {bytes}, in two runs: {}", items.len());
        }
    }

    #[test]
    fn only_neighbours_share_an_item() {
        let chunks = [(2, 10), (3, 10), (4, 90), (7, 10), (9, 10), (10, 90)];
        let items: Vec<_> = pack_some(chunks, 100).into_iter().map(|item| (item.first, item.count)).collect();
        assert_eq!(items, [(2, 2), (4, 1), (7, 1), (9, 2)]);
        assert!(pack_some([], 100).is_empty());
    }

    proptest! {
        #[test]
        fn ranges_cover_every_id_once_and_are_even(
            sizes in proptest::collection::vec(0_u64..500, 0..300),
            parts in 1_u32..40,
        ) {
            let sampled = sampled((0..).zip(sizes.iter().copied()));
            let ranges = ranges(&sampled, parts);
            prop_assert!(check_coverage(&ranges).is_ok());
            prop_assert!(!ranges.is_empty() && ranges.len() <= usize::try_from(parts).unwrap());
            let even = sizes.iter().sum::<u64>() / u64::from(parts) + 1;
            for range in &ranges {
                let begins = |bound: &Option<IdValue>| bound.as_ref().map(|id| sampled.iter().position(|it| it.id == *id).unwrap());
                let (from, to) = (begins(&range.lower).unwrap_or(0), begins(&range.upper).unwrap_or(sizes.len()));
                prop_assert!(sizes[from..to].iter().sum::<u64>() <= even + 500, "no more than one document too many");
            }
        }

        #[test]
        fn items_hold_every_chunk_once_and_are_not_overfull(sizes in proptest::collection::vec(0_u64..3000, 0..700)) {
            let items = pack(&sizes, 1000);
            let ordinals: Vec<u32> = items.iter().flat_map(|item| item.ordinals()).collect();
            prop_assert_eq!(ordinals, (0..u32::try_from(sizes.len()).unwrap()).collect::<Vec<_>>());
            for item in items {
                let bytes: u64 = item.ordinals().map(|ordinal| sizes[usize::try_from(ordinal).unwrap()]).sum();
                prop_assert!(item.count == 1 || bytes <= 1000);
            }
        }
    }
}
