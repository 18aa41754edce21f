//! Slices of the timeline that no backup can be folded with any more: removed from every bucket, their rows last.

use std::collections::{BTreeSet, HashSet};

use crate::at_once::at_once;
use crate::error::Result;
use crate::format::ObjectKey;
use crate::id::ClusterTime;
use crate::operation::{Operation, OperationKind};
use crate::plan::windows::Base;
use crate::ports::{Clock, Timeline};
use crate::retention::{Policy, UnneededSlice, slices_needed};
use crate::timeline::SliceRecord;

use super::survey::all_backups;
use super::{AT_ONCE, Ports, bytes, time_for_more};
use crate::flows::open_retention_plan;

/// Slices that are removed with one call: a call takes 1000 versions, and a slice has one, seldom more.
const SLICES_AT_ONCE: usize = 200;
/// Earlier runs that are looked at: those of a day, if one runs every few minutes.
const RUNS_LOOKED_AT_MAX: u32 = 1000;
/// How many of their plans are tried.
const PLANS_OPENED_MAX: usize = 3;

/// Removes those of which an earlier run has found the same, a grace period ago: an index that lacks backups for a while
/// costs no slice. What that frees is counted in the run's row.
pub(super) async fn remove(ports: Ports<'_>, policy: &Policy, run: &mut Operation) -> Result<()> {
    let Ports { timeline, catalog, clock, .. } = ports;
    let earlier = found_earlier(ports, policy, run).await?;
    if earlier.is_empty() {
        return Ok(());
    }
    let mut unneeded = find(timeline, clock, &all_backups(catalog).await?).await?;
    unneeded.retain(|slice| earlier.contains(&named(slice)));
    for some in unneeded.chunks(SLICES_AT_ONCE) {
        time_for_more(clock)?;
        catalog.update_operation(run).await?; // refused, if another run has taken over
        let freed = remove_some(ports, run, some).await?;
        let sum = &mut run.prune_mut()?.freed_bytes;
        *sum = sum.saturating_add(freed);
    }
    Ok(())
}

/// Those that none of `backups` needs.
pub(super) async fn find(
    timeline: &dyn Timeline,
    clock: &dyn Clock,
    backups: &[Operation],
) -> Result<Vec<SliceRecord>> {
    let Some(head) = timeline.head().await? else { return Ok(Vec::new()) };
    let breaks = timeline.breaks().await?;
    let slices = timeline.slices(ClusterTime::from_u64(0), head.to).await?;
    // A mark alone may be taken back.
    let stay: Vec<Operation> = backups.iter().filter(|it| !has_begun_to_go(it)).cloned().collect();
    // An index without a single good backup is more likely a lost one than one of which nothing is needed.
    if !stay.iter().any(|backup| Base::marked_or_not(backup).is_some()) {
        return Ok(Vec::new());
    }
    let needed = slices_needed(clock.now_millis(), &stay, Some(&head), &breaks, &slices);
    Ok(slices.into_iter().zip(needed).filter(|(_, needed)| !needed).map(|(slice, _)| slice).collect())
}

/// What a plan calls it.
pub(super) fn named(slice: &SliceRecord) -> UnneededSlice {
    UnneededSlice { from: slice.from, slice: slice.slice }
}

/// What the newest run that ended a grace period ago, and whose plan can be read, found to be unneeded.
async fn found_earlier(
    ports: Ports<'_>,
    policy: &Policy,
    run: &Operation,
) -> Result<BTreeSet<UnneededSlice>> {
    let now = ports.clock.now_millis();
    let is_over = |it: &&Operation| it.finished_millis.is_some_and(|ended| policy.grace.end(ended) <= now);
    let runs = ports.catalog.operations(OperationKind::Prune, RUNS_LOOKED_AT_MAX).await?;
    let earlier = runs.iter().filter(|it| it.id != run.id && !it.is_dry_run()).filter(is_over);
    for it in earlier.take(PLANS_OPENED_MAX) {
        match open_retention_plan(ports.store, ports.keys, it).await {
            Ok(plan) if plan.refused.is_some() => {} // something looked wrong
            Ok(plan) => return Ok(plan.unneeded_slices.into_iter().collect()),
            Err(why) if why.kind().is_retryable() => return Err(why),
            Err(why) => tracing::warn!(run = %it.id, why = %why, "the plan of an earlier run cannot be read"),
        }
    }
    Ok(BTreeSet::new())
}

fn has_begun_to_go(backup: &Operation) -> bool {
    backup.backup().is_ok_and(|detail| detail.removal.as_ref().is_some_and(|removal| removal.begun))
}

async fn remove_some(ports: Ports<'_>, run: &Operation, slices: &[SliceRecord]) -> Result<u64> {
    let keys: Vec<ObjectKey> =
        slices.iter().map(|slice| ObjectKey::Slice(run.source, slice.from, slice.slice)).collect();
    let (mut freed, mut locked) = (0_u64, HashSet::new());
    let mut buckets: Vec<_> = ports.regions.iter().map(|region| region.shelves).collect();
    buckets.push(ports.shelves);
    for shelves in buckets {
        let found = keys.clone().into_iter().map(|key| shelves.versions_of(key));
        let versions = at_once(AT_ONCE, found).await?.concat();
        if versions.is_empty() {
            continue;
        }
        let stay = shelves.remove(&versions).await?;
        freed = freed.saturating_add(bytes(&versions).saturating_sub(bytes(&stay)));
        locked.extend(stay.into_iter().map(|version| version.path));
    }
    let mut gone = Vec::new();
    for (slice, key) in slices.iter().zip(keys) {
        if !locked.contains(&key.to_path()?) {
            gone.push(slice.clone());
        }
    }
    let timeline = ports.timeline;
    at_once(AT_ONCE, gone.into_iter().map(|slice| async move { timeline.forget_slice(&slice).await }))
        .await?;
    Ok(freed)
}
