//! What there is, what is in use, whether clocks and keys are sound; and what follows for every backup.

use std::collections::{BTreeMap, BTreeSet};

use crate::at_once::at_once;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{OperationId, RegionName};
use crate::operation::{Operation, OperationKind, OperationState};
use crate::ports::Catalog;
use crate::retention::{Facts, Policy, RetentionPlan, plan};

use super::{AT_ONCE, Ports, time_for_more, unneeded_slices};
use crate::flows::{open_manifest, uses};

/// Backups that a run can judge. It has to see all of them: what it does not see it cannot keep.
const BACKUPS_MAX: u32 = 100_000;
/// A backup that was asked for later than this from now has a wrong date.
const FUTURE_MILLIS_MAX: u64 = 300_000;

/// What a run goes by.
pub(super) struct Survey {
    /// When it looked.
    pub(super) now_millis: u64,
    /// Every backup.
    pub(super) backups: BTreeMap<OperationId, Operation>,
    /// Those that an operation under way reads.
    pub(super) in_use: BTreeSet<OperationId>,
    /// What is to become of them.
    pub(super) plan: RetentionPlan,
    /// The other regions that are to have copies, whether they answer or not.
    pub(super) regions: Vec<RegionName>,
    /// Databases whose newest good backup is damaged: nothing of them is removed.
    pub(super) damaged: BTreeSet<String>,
}

/// Looks at everything, and decides.
pub(super) async fn look(ports: Ports<'_>, policy: &Policy, operation: &Operation) -> Result<Survey> {
    let Ports { store, catalog, timeline, clock, .. } = ports;
    time_for_more(clock)?;
    let now_millis = clock.now_millis();
    let (backups, in_use) = (all_backups(catalog).await?, uses::in_use(catalog, now_millis).await?);
    let (head, breaks) = (timeline.head().await?, timeline.breaks().await?);
    let canaries = canaries(ports, &backups, now_millis).await?;
    let regions: Vec<RegionName> = ports.regions.iter().map(|region| region.name).collect();
    let facts = Facts {
        now_millis,
        store_millis: store.store_millis().await?,
        backups: &backups,
        regions: &regions,
        in_use: &in_use,
        unreadable: canaries.unreadable,
        head: head.as_ref(),
        breaks: &breaks,
        force: operation.prune()?.force,
    };
    let mut plan = plan(policy, &facts);
    // They are announced together with the backups that go, and go with them.
    let stay: BTreeSet<OperationId> =
        plan.decisions.iter().filter(|it| it.keep).map(|it| it.backup).collect();
    let staying: Vec<Operation> = backups.iter().filter(|it| stay.contains(&it.id)).cloned().collect();
    let unneeded = unneeded_slices::find(timeline, clock, &staying).await?;
    plan.unneeded_slices = unneeded.iter().map(unneeded_slices::named).collect();
    let backups = backups.into_iter().map(|backup| (backup.id, backup)).collect();
    Ok(Survey { now_millis, backups, in_use, plan, regions, damaged: canaries.damaged })
}

/// Every backup, newest first; `Refused` if there are more than can be judged.
pub(super) async fn all_backups(catalog: &dyn Catalog) -> Result<Vec<Operation>> {
    let all = catalog.operations(OperationKind::Backup, BACKUPS_MAX).await?;
    if u32::try_from(all.len()).is_ok_and(|count| count < BACKUPS_MAX) {
        return Ok(all);
    }
    let what = format!("judge what is kept: there are {BACKUPS_MAX} backups or more");
    Err(Error::new(ErrorKind::Refused, what)
        .hint("shorten the retention of single tiers, or take fewer backups"))
}

/// Whether the newest good backups open.
struct Canaries {
    /// Why the keys may be lost, so that what was sealed earlier may be all there is.
    unreadable: Option<String>,
    /// Databases whose newest one is damaged, while others open.
    damaged: BTreeSet<String>,
}

async fn canaries(ports: Ports<'_>, backups: &[Operation], now_millis: u64) -> Result<Canaries> {
    let mut newest: BTreeMap<&str, &Operation> = BTreeMap::new();
    for backup in backups.iter().filter(|backup| is_good(backup, now_millis)) {
        newest.entry(&backup.database).or_insert(backup);
    }
    let newest: Vec<Operation> = newest.into_values().cloned().collect();
    let opened = newest.iter().map(|backup| async move {
        time_for_more(ports.clock)?;
        match open_manifest(ports.store, ports.keys, backup).await {
            Err(why) if why.kind().is_retryable() => Err(why),
            opened => Ok((backup, opened.err())),
        }
    });
    let opened = at_once(AT_ONCE, opened).await?;
    let one_opens = opened.iter().any(|(_, why)| why.is_none());
    let is_damage = |why: &Error| matches!(why.kind(), ErrorKind::Corrupt | ErrorKind::NotFound);
    let mut found = Canaries { unreadable: None, damaged: BTreeSet::new() };
    for (backup, why) in opened {
        match why {
            Some(why) if one_opens && is_damage(&why) => {
                tracing::error!(backup = %backup.id, why = %why, "the newest good backup is damaged");
                found.damaged.insert(backup.database.clone());
            }
            Some(why) => {
                let told = format!("{} of {:?}: {why}", backup.id, backup.database);
                found.unreadable.get_or_insert(told);
            }
            None => {}
        }
    }
    Ok(found)
}

fn is_good(backup: &Operation, now_millis: u64) -> bool {
    let is_past = backup.id.requested_millis() <= now_millis.saturating_add(FUTURE_MILLIS_MAX);
    let is_whole = backup.collections.is_empty()
        && backup.backup().is_ok_and(|detail| {
            detail.lost == 0 && !detail.removal.as_ref().is_some_and(|removal| removal.begun)
        });
    backup.state == OperationState::Verified && is_past && is_whole
}
