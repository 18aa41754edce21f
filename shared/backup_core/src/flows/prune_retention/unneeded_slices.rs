//! Slices of the timeline that no backup can be folded with any more: removed from every bucket, their rows last.

use std::collections::HashSet;

use crate::at_once::at_once;
use crate::error::Result;
use crate::format::ObjectKey;
use crate::id::ClusterTime;
use crate::operation::Operation;
use crate::plan::windows::Base;
use crate::retention::slices_needed;
use crate::timeline::SliceRecord;

use super::survey::all_backups;
use super::{AT_ONCE, Ports, bytes, time_for_more};

/// Slices that are removed with one call: a call takes 1000 versions, and a slice has one, seldom more.
const SLICES_AT_ONCE: usize = 200;

/// Removes them; what that frees is counted in the run's row.
pub(super) async fn remove(ports: Ports<'_>, run: &mut Operation) -> Result<()> {
    let Ports { timeline, catalog, clock, .. } = ports;
    let Some(head) = timeline.head().await? else { return Ok(()) };
    let breaks = timeline.breaks().await?;
    let slices = timeline.slices(ClusterTime::from_u64(0), head.to).await?;
    let mut backups = all_backups(catalog).await?;
    backups.retain(|backup| !has_begun_to_go(backup)); // a mark alone may be taken back
    // An index without a single good backup is more likely a lost one than one of which nothing is needed.
    if !backups.iter().any(|backup| Base::marked_or_not(backup).is_some()) {
        return Ok(());
    }
    let needed = slices_needed(clock.now_millis(), &backups, Some(&head), &breaks, &slices);
    let unneeded: Vec<SliceRecord> =
        slices.into_iter().zip(needed).filter(|(_, needed)| !needed).map(|(slice, _)| slice).collect();
    for some in unneeded.chunks(SLICES_AT_ONCE) {
        time_for_more(clock)?;
        catalog.update_operation(run).await?; // refused, if another run has taken over
        let freed = remove_some(ports, run, some).await?;
        let sum = &mut run.prune_mut()?.freed_bytes;
        *sum = sum.saturating_add(freed);
    }
    Ok(())
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
