//! `replicate-timeline`: copies the timeline to every other region, as far as it is, and proves it there.
//!
//! How far the copy of a region is, is noted once every slice before that instant was found there, with the length and
//! the SHA-256 it has at home. Breaks come before slices: a copy never looks followed where it cannot be. A region that
//! fails keeps no other one waiting; people are told once an hour.

use crate::alert::Alert;
use crate::at_once::at_once;
use crate::error::{Error, Result, corrupt};
use crate::format::ObjectKey;
use crate::id::{ClusterTime, RegionName, SourceName};
use crate::ports::{Alerts, Clock, ObjectStore, Region, Timeline};
use crate::timeline::{Break, ReplicatedTimeline, SliceRecord, TimelineHead};

use super::copied::{COPIES_AT_ONCE, Fingerprint, Wanted, bring, in_each};
use super::{path, record};

/// Nothing new is begun with less time than this: slices are copied in a few seconds.
const SLICES_MILLIS_MIN: u64 = 60_000;
/// The procedures' objective for transaction logs; also how often people are told.
const LAG_SECONDS_MAX: u64 = 3600;

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The timeline.
    pub timeline: &'a dyn Timeline,
    /// The other regions.
    pub regions: &'a [Region<'a>],
    /// The channels to people.
    pub alerts: &'a dyn Alerts,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for `source` until every region has everything, or time is short. Tells the first region's error once
/// all of them are done.
pub async fn run(ports: Ports<'_>, source: SourceName) -> Result<()> {
    let Some(head) = ports.timeline.head().await? else { return Ok(()) };
    let breaks = ports.timeline.breaks().await?; // all that belong to this head, or more
    let copying = Copying { ports, source, head: &head, breaks: &breaks };
    in_each(ports.regions, |region| copying.catch_up_or_tell(region)).await.map(|_| ())
}

/// How far a copy of the timeline is behind, in seconds of the source's time.
#[must_use]
pub fn lag_seconds(head: &TimelineHead, copy: &ReplicatedTimeline) -> u64 {
    u64::from(head.to.seconds.saturating_sub(copy.to.seconds))
}

struct Copying<'a> {
    ports: Ports<'a>,
    source: SourceName,
    head: &'a TimelineHead,
    breaks: &'a [Break],
}

impl Copying<'_> {
    async fn catch_up_or_tell(&self, region: Region<'_>) -> Result<()> {
        let begun = self.begin(region.name).await?;
        let done = self.catch_up(region, begun).await;
        if let Err(why) = &done {
            self.tell_lag(region.name, why).await?;
        }
        done
    }

    /// How far the copy is. One that has not begun begins now: from then on it is known since when it does not move.
    async fn begin(&self, region: RegionName) -> Result<ReplicatedTimeline> {
        let Ports { timeline, clock, .. } = self.ports;
        if let Some(copy) = timeline.replicated(region).await? {
            return Ok(copy);
        }
        let copy = ReplicatedTimeline { to: self.head.began, breaks: 0, moved_millis: clock.now_millis() };
        timeline.set_replicated(region, &copy).await?;
        Ok(copy)
    }

    async fn catch_up(&self, region: Region<'_>, mut copy: ReplicatedTimeline) -> Result<()> {
        let begun = copy;
        copy.breaks = u64::try_from(self.breaks.len()).unwrap_or(u64::MAX);
        if copy.breaks != begun.breaks {
            // A new one may stand before those that are there; these are looked at, and not copied again.
            let keys = self.breaks.iter().map(|it| record::break_key(self.source, it));
            let home = Wanted::AsAtHome(self.ports.store);
            at_once(COPIES_AT_ONCE, keys.map(|key| bring(region, key, home))).await?;
        }
        let slices = self.slices_from(copy.to).await?;
        for slices in slices.chunks(COPIES_AT_ONCE) {
            if self.ports.clock.left_millis() < SLICES_MILLIS_MIN {
                return Ok(()); // the next run goes on from here
            }
            at_once(COPIES_AT_ONCE, slices.iter().map(|slice| self.bring_slice(region, slice))).await?;
            copy.to = slices.iter().map(|slice| slice.to).fold(copy.to, Ord::max);
            self.note(region.name, &mut copy).await?;
        }
        copy.to = copy.to.max(self.head.to); // behind the last slice there was no change
        if (copy.to, copy.breaks) == (begun.to, begun.breaks) {
            return Ok(());
        }
        self.note(region.name, &mut copy).await
    }

    async fn slices_from(&self, from: ClusterTime) -> Result<Vec<SliceRecord>> {
        if from >= self.head.to {
            return Ok(Vec::new());
        }
        self.ports.timeline.slices(from, self.head.to).await
    }

    async fn note(&self, region: RegionName, copy: &mut ReplicatedTimeline) -> Result<()> {
        copy.moved_millis = self.ports.clock.now_millis();
        self.ports.timeline.set_replicated(region, copy).await
    }

    async fn bring_slice(&self, region: Region<'_>, slice: &SliceRecord) -> Result<()> {
        let key = ObjectKey::Slice(self.source, slice.from, slice.slice);
        let at_home = Fingerprint::of_stored(self.ports.store, key).await?;
        let sound = at_home.filter(|it| it.bytes == slice.stored_bytes).ok_or_else(|| {
            let what = "it is missing at home, or has another length than its row tells";
            corrupt(format!("copy {}: {what}", path(key)))
        })?;
        bring(region, key, Wanted::Known(sound)).await.map(|_| ())
    }

    /// Tells people, unless the copy moved within the last hour, or they were told.
    async fn tell_lag(&self, region: RegionName, why: &Error) -> Result<()> {
        let Ports { timeline, alerts, clock, .. } = self.ports;
        let Some(mut copy) = timeline.replicated(region).await? else { return Ok(()) };
        let lag = lag_seconds(self.head, &copy);
        let since = clock.now_millis().saturating_sub(copy.moved_millis) / 1000;
        if lag < LAG_SECONDS_MAX || since < LAG_SECONDS_MAX {
            return Ok(());
        }
        alerts.publish(&Alert::timeline_copy_lags(self.source, region, copy.to, lag / 60, why)).await?;
        self.note(region, &mut copy).await // so that they are told again an hour from now
    }
}
