//! `watch`: looks whether all is well though no operation says otherwise, and tells people what is not. It also starts
//! copying again where a region lacks a backup.
//!
//! Told first, remembered afterwards: what is told twice is better than what is lost. What cannot be looked at is
//! itself told, and hides nothing else.

use std::collections::BTreeSet;

use crate::alert::Alert;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{OperationId, RegionName, SourceName};
use crate::operation::{Operation, OperationKind};
use crate::ports::{Alerts, Catalog, Clock, DataKeys, Machines, ObjectStore, Region, Timeline};
use crate::retention::{Facts, Policy, Tier, plan, usage};
use crate::timeline::TimelineHead;
use crate::watch::{
    Finding, Lacking, Sighting, WatchSettings, WatchState, clock, lacking, late, newest_good, overdue,
    replication, storage, timeline,
};

/// Backups that are looked at: what a hundred databases keep under the procedures' policy several times over.
const BACKUPS_LOOKED_AT_MAX: u32 = 10_000;
/// How long copies of a backup may be under way before copying is started again, in milliseconds.
const COPYING_MILLIS: u64 = 30 * 60_000;
/// How many backups are copied again after one run.
const COPIES_STARTED_MAX: usize = 5;
/// How many it is tried with: what was begun not long ago keeps no others out.
const COPIES_TRIED_MAX: usize = 50;
/// Findings that are told in one run, the worst first; the next run goes on.
const TOLD_MAX: usize = 50;

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service (to open the newest manifest).
    pub keys: &'a dyn DataKeys,
    /// The other regions.
    pub regions: &'a [Region<'a>],
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The timeline.
    pub timeline: &'a dyn Timeline,
    /// The state machines, to start copying again.
    pub machines: &'a dyn Machines,
    /// The channels to people.
    pub alerts: &'a dyn Alerts,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for `source`.
///
/// An error means that people could not be told, or that it could not be remembered; what was seen is no error.
pub async fn run(
    ports: Ports<'_>,
    source: SourceName,
    settings: &WatchSettings,
    policy: &Policy,
) -> Result<()> {
    let (state, unremembered) = match ports.catalog.watch_state().await {
        Ok(state) => (state, None),
        Err(why) if why.kind().is_retryable() => return Err(why),
        // Nobody knows what was told, so all of it is.
        Err(why) => (WatchState::default(), Some(why)),
    };
    let now = ports.clock.now_millis();
    let mut watch = Watch { ports, source, settings, policy, now, seen: Sighting::default() };
    watch.look().await;
    if let Some(why) = &unremembered {
        watch.seen.fail(source, "what it told before", &[], why);
    }
    watch.seen.sort();
    let (told, failed) = watch.tell(&state).await;
    let next = state.after(&watch.seen, &told, now);
    if unremembered.is_none() && next != state {
        ports.catalog.set_watch_state(&next).await?;
    }
    failed.or(unremembered).map_or(Ok(()), Err)
}

struct Watch<'a> {
    ports: Ports<'a>,
    source: SourceName,
    settings: &'a WatchSettings,
    policy: &'a Policy,
    now: u64,
    seen: Sighting,
}

impl Watch<'_> {
    async fn look(&mut self) {
        let reached = self.look_at_regions().await;
        let head = self.look_at_timeline().await;
        match self.ports.catalog.operations(OperationKind::Backup, BACKUPS_LOOKED_AT_MAX).await {
            Ok(backups) => self.look_at_backups(&backups, head.as_ref(), &reached).await,
            Err(why) => {
                let unseen = ["backup/", "window/", "replication/", "storage", "key/"];
                self.seen.fail(self.source, "the backups in the catalog", &unseen, &why);
            }
        }
    }

    /// Gives the regions whose buckets answer.
    async fn look_at_regions(&mut self) -> Vec<RegionName> {
        let Ports { store, regions, clock: our_clock, .. } = self.ports;
        let mut reached = Vec::with_capacity(regions.len() + 1);
        match store.store_millis().await {
            Ok(millis) => {
                self.seen.findings.extend(clock(self.source, our_clock.now_millis(), millis));
                reached.push(self.settings.home);
            }
            Err(why) => {
                self.seen.unseen.push("clock".to_owned());
                self.miss_region(self.settings.home, true, &why);
            }
        }
        for region in regions {
            match region.store.store_millis().await {
                Ok(_) => reached.push(region.name),
                Err(why) => self.miss_region(region.name, false, &why),
            }
        }
        reached
    }

    fn miss_region(&mut self, region: RegionName, is_home: bool, why: &Error) {
        let alert = Alert::region_unreachable(self.source, region, is_home, why);
        self.seen.findings.push(Finding::new(format!("region/{region}"), alert).caused_by(why));
        self.seen.unseen.push(format!("key/{region}"));
    }

    async fn look_at_timeline(&mut self) -> Option<TimelineHead> {
        let head = match self.ports.timeline.head().await {
            Ok(head) => head?,
            Err(why) => {
                self.seen.fail(self.source, "the timeline", &["timeline", "timeline-copy/", "backup/"], &why);
                return None;
            }
        };
        let mut copies = Vec::with_capacity(self.ports.regions.len());
        for region in self.ports.regions {
            match self.ports.timeline.replicated(region.name).await {
                Ok(copy) => copies.push((region.name, copy)),
                Err(why) => {
                    let what = format!("the copy of the timeline in {}", region.name);
                    let unseen = format!("timeline-copy/{}", region.name);
                    self.seen.fail(self.source, &what, &[unseen.as_str()], &why);
                }
            }
        }
        self.seen.findings.extend(timeline((self.source, self.settings), &head, &copies, self.now));
        Some(head)
    }

    async fn look_at_backups(
        &mut self,
        backups: &[Operation],
        head: Option<&TimelineHead>,
        reached: &[RegionName],
    ) {
        let (whose, now) = ((self.source, self.settings), self.now);
        if backups.len() >= usize::try_from(BACKUPS_LOOKED_AT_MAX).unwrap_or(usize::MAX) {
            let why =
                Error::new(ErrorKind::Partial, format!("look further back than {} backups", backups.len()));
            self.seen.fail(self.source, "the oldest backups", &[], &why);
        }
        self.seen.findings.extend(overdue(whose, backups, head, now));
        self.seen.findings.extend(late(whose, backups, now));
        let regions: Vec<RegionName> = self.ports.regions.iter().map(|region| region.name).collect();
        // Only its tiers count here, which follow from the backups alone.
        let facts = Facts {
            now_millis: now,
            store_millis: now,
            backups,
            regions: &regions,
            in_use: &BTreeSet::new(),
            unreadable: None,
            head: None,
            breaks: &[],
            force: false,
        };
        let plan = plan(self.policy, &facts);
        let usage = usage(backups, self.settings.home, &plan);
        self.seen.findings.extend(storage(whose, &usage, self.policy.quota_bytes));
        let is_kept_everywhere = |tier: &Tier| matches!(tier, Tier::Weekly | Tier::Monthly);
        let everywhere =
            plan.decisions.iter().filter(|it| it.keep && it.tiers.iter().any(is_kept_everywhere));
        let everywhere: BTreeSet<OperationId> = everywhere.map(|it| it.backup).collect();
        let lacking = lacking(backups, &everywhere, &regions, now);
        self.seen.findings.extend(replication(whose, &lacking, &regions));
        self.copy_again(&lacking, reached).await;
        self.open_newest(backups, reached).await;
    }

    /// What could not be copied meanwhile is begun again, the newest first; a region that does not answer has to wait.
    async fn copy_again(&mut self, lacking: &[Lacking<'_>], reached: &[RegionName]) {
        let is_wanted = |it: &&Lacking<'_>| {
            it.millis >= COPYING_MILLIS && it.regions.iter().any(|region| reached.contains(region))
        };
        let mut started = 0;
        for it in lacking.iter().filter(is_wanted).take(COPIES_TRIED_MAX) {
            match self.ports.machines.copy_again(it.backup).await {
                Ok(is_new) => started += usize::from(is_new),
                Err(why) => {
                    self.seen.fail(self.source, "starting to copy backups again", &[], &why);
                    return;
                }
            }
            if started == COPIES_STARTED_MAX {
                return;
            }
        }
    }

    /// The canary of the keys: the newest good backup that each region has opens there.
    async fn open_newest(&mut self, backups: &[Operation], reached: &[RegionName]) {
        let Ports { store, keys, regions, .. } = self.ports;
        let mut places = vec![(self.settings.home, None, store, keys)];
        places.extend(regions.iter().map(|it| (it.name, Some(it.name), it.store, it.keys)));
        for (name, copy, store, keys) in places {
            let newest = newest_good(backups, copy, self.now).filter(|_| reached.contains(&name));
            let Some(newest) = newest else { continue };
            if let Err(why) = super::open_manifest(store, keys, newest).await {
                let alert = Alert::key_fails(self.source, name, newest.id, &why);
                self.seen.findings.push(Finding::new(format!("key/{name}"), alert).caused_by(&why));
            }
        }
    }

    /// Tells what is new; gives the keys of what was told, and the first failure to tell.
    async fn tell(&self, state: &WatchState) -> (BTreeSet<String>, Option<Error>) {
        let (mut told, mut failed) = (BTreeSet::new(), None);
        let news = self.seen.findings.iter().filter(|finding| state.is_news(finding, self.now));
        let news: Vec<&Finding> = news.take(TOLD_MAX).collect();
        for finding in news {
            match self.ports.alerts.publish(&finding.alert).await {
                Ok(()) => {
                    told.insert(finding.key.clone());
                }
                Err(why) => failed = failed.or(Some(why)),
            }
        }
        (told, failed)
    }
}
