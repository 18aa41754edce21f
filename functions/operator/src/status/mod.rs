//! `nightsafe status`: the verdict first, then what it rests on.

mod newest;
mod text;
mod verdict;

use std::collections::BTreeMap;

use backup_core::Result;
use backup_core::id::{OperationId, RegionName, SourceName};
use backup_core::operation::{Operation, OperationKind, OperationState};
use backup_core::ports::{Catalog, Lease, Resource};
use backup_core::watch::{WatchSettings, WatchState};
use serde_json::{Value, json};

use self::newest::GoodBackups;
use self::verdict::{Facts, Verdict, judge};
use crate::list::is_shown;
use crate::session::Session;
use crate::windows::Restorable;

/// Operations of each kind that are looked at.
const LOOKED_AT_MAX: u32 = 10_000;

pub(crate) async fn run(session: &Session) -> Result<()> {
    let seen = Seen::look(session).await?;
    let settings = WatchSettings::of(seen.home);
    let good = newest::good_backups(&settings, &seen.backups, seen.now_millis);
    let verdict = judge(&settings, &seen.facts(&good), seen.now_millis);
    if session.json {
        println!("{}", as_json(&seen, &good, &verdict));
    } else {
        print!("{}", text::page(&seen, &good, &verdict));
    }
    Ok(())
}

/// What there is. Operations come newest first.
struct Seen {
    now_millis: u64,
    source: SourceName,
    home: RegionName,
    /// The other regions that are to hold copies.
    regions: Vec<RegionName>,
    quota_bytes: Option<u64>,
    backups: Vec<Operation>,
    restores: Vec<Operation>,
    drills: Vec<Operation>,
    prunes: Vec<Operation>,
    restorable: Restorable,
    /// That of the source.
    lease: Option<Lease>,
    watch: WatchState,
}

impl Seen {
    async fn look(session: &Session) -> Result<Self> {
        let (catalog, now_millis) = (&session.catalog, Session::now_millis());
        let backups = catalog.operations(OperationKind::Backup, LOOKED_AT_MAX).await?;
        Ok(Self {
            now_millis,
            source: session.source,
            home: session.region()?,
            regions: session.replica_regions()?,
            quota_bytes: session.quota_bytes()?,
            restores: catalog.operations(OperationKind::Restore, LOOKED_AT_MAX).await?,
            drills: catalog.operations(OperationKind::Drill, LOOKED_AT_MAX).await?,
            prunes: catalog.operations(OperationKind::Prune, LOOKED_AT_MAX).await?,
            restorable: Restorable::look(session, &backups).await?,
            lease: catalog.lease(&Resource::Source, now_millis).await?,
            watch: catalog.watch_state().await?,
            backups,
        })
    }

    fn facts<'a>(&'a self, good: &'a GoodBackups<'a>) -> Facts<'a> {
        Facts {
            backups: &self.backups,
            good,
            drills: &self.drills,
            prunes: &self.prunes,
            regions: &self.regions,
            head: self.restorable.head.as_ref(),
            watch: &self.watch,
        }
    }

    /// Of every kind; plans that were only looked at are none.
    fn operations(&self) -> impl Iterator<Item = &Operation> {
        let kinds = [&self.backups, &self.restores, &self.drills, &self.prunes];
        kinds.into_iter().flatten().filter(|it| is_shown(it))
    }

    fn running(&self) -> Vec<&Operation> {
        let goes_on = |it: &&Operation| matches!(it.state, OperationState::Running | OperationState::Sealed);
        self.operations().filter(goes_on).collect()
    }

    /// What was asked for and has not begun.
    fn waiting(&self) -> Vec<&Operation> {
        self.operations().filter(|it| it.state == OperationState::Requested).collect()
    }

    /// Bytes of backups in each region.
    fn stored_bytes(&self) -> BTreeMap<RegionName, u64> {
        let mut bytes = BTreeMap::from([(self.home, 0)]);
        for backup in &self.backups {
            let Ok(detail) = backup.backup() else { continue };
            if detail.manifest_sha256.is_some() {
                *bytes.entry(self.home).or_default() += backup.totals.stored_bytes;
            }
            for (region, copy) in &detail.replicas {
                *bytes.entry(*region).or_default() += copy.stored_bytes;
            }
        }
        bytes
    }
}

fn as_json(seen: &Seen, good: &GoodBackups<'_>, verdict: &Verdict) -> Value {
    let regions = || seen.regions.iter().copied();
    let newest_in = |region| (region, newest::copy_in(region, &seen.backups));
    let newest_read = good.values().filter_map(|it| it.newest_read);
    json!({
        "message_type": "status",
        "verdict": verdict.to_string(),
        "health": verdict.health,
        "reasons": verdict.reasons,
        "source": seen.source,
        "newest_verified": ids(newest::verified(&seen.backups).into_values()),
        "newest_read": ids(newest_read),
        "running": ids(seen.running()),
        "waiting": ids(seen.waiting()),
        "lease_holder": seen.lease.as_ref().map(|lease| lease.holder),
        "captured": seen.restorable.captured(),
        "windows": seen.restorable.windows.len(),
        "stored_bytes": seen.stored_bytes(),
        "quota_bytes": seen.quota_bytes,
        "replicas": regions().map(newest_in).collect::<BTreeMap<_, _>>(),
        "copies": regions().map(|region| (region, copies(good, region))).collect::<BTreeMap<_, _>>(),
        "newest_drills": newest::proved(&seen.drills),
        "newest_prune": newest::removal(&seen.prunes).map(|(run, _)| run.id),
    })
}

fn ids<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> Vec<OperationId> {
    operations.into_iter().map(|operation| operation.id).collect()
}

/// Of each database the newest good backup that a region has a copy of.
fn copies<'a>(good: &GoodBackups<'a>, region: RegionName) -> BTreeMap<&'a str, Option<OperationId>> {
    let copy = |it: &newest::Good<'_>| it.copies.get(&region).map(|copy| copy.id);
    good.iter().map(|(database, it)| (*database, copy(it))).collect()
}
