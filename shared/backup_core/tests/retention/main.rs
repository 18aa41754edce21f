//! What is kept and what goes: single rules as tables, and more than a year lived day by day, in which every decision
//! is compared with a model that was written in another way, and nothing that was promised may be missing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod model;
mod rows;
mod rules;
mod world;

use std::collections::HashSet;

use proptest::prelude::*;

use crate::world::World;

/// More than a year, so that what stands for the first months comes to its end, too.
const DAYS: u32 = 400;

fn live(seed: u64) -> World {
    let mut world = World::of(seed);
    (0..DAYS).for_each(|_| world.live_a_day());
    world
}

proptest! {
    // A seed that is smaller is not simpler.
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn a_year_is_kept_as_the_model_says(seed in any::<u64>()) {
        live(seed);
    }
}

/// Otherwise, years would agree because nothing happens in them.
#[test]
fn every_rule_matters_in_some_year() {
    let worlds: Vec<World> = (0..3).map(live).collect();
    let reasons: HashSet<_> = worlds.iter().flat_map(|world| world.reasons.iter().copied()).collect();
    assert!(reasons.len() >= 15, "only {} of 16 reasons", reasons.len());
    for world in &worlds {
        assert!(world.removed > 1000, "only {} backups were removed", world.removed);
    }
    assert!(worlds.iter().any(|world| world.dropped_slices > 0), "no slice was dropped");
}
