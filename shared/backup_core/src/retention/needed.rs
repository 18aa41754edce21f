//! What must not go because something would be lost with it, whatever the tiers say.

use std::collections::{BTreeMap, BTreeSet};

use super::candidate::Candidate;
use super::plan::Facts;
use super::policy::Policy;
use crate::id::{ClusterTime, OperationId, RegionName};
use crate::plan::windows::{Base, base_for, windows};

/// Backups that something else rests on.
pub(super) struct Needed<'a> {
    /// The newest good one of each database.
    newest: BTreeMap<&'a str, OperationId>,
    /// The newest good one of each database that a region has a copy of.
    newest_copies: BTreeMap<(RegionName, &'a str), OperationId>,
    /// What the promised instants are folded from.
    promised: BTreeSet<OperationId>,
}

impl<'a> Needed<'a> {
    /// `backups` are sorted, the newest first.
    pub(super) fn of(policy: &Policy, facts: &Facts<'_>, backups: &[Candidate<'a>]) -> Self {
        let (mut newest, mut newest_copies) = (BTreeMap::new(), BTreeMap::new());
        for backup in backups.iter().filter(|it| it.is_good()) {
            newest.entry(backup.database()).or_insert(backup.id());
            // What a region has that is to have none any more keeps nothing.
            for region in backup.detail.replicas.keys().filter(|region| facts.regions.contains(region)) {
                newest_copies.entry((*region, backup.database())).or_insert(backup.id());
            }
        }
        Self { newest, newest_copies, promised: promised(policy, facts, backups) }
    }

    pub(super) fn is_newest(&self, backup: &Candidate<'_>) -> bool {
        self.newest.get(backup.database()) == Some(&backup.id())
    }

    pub(super) fn is_promised(&self, backup: &Candidate<'_>) -> bool {
        self.promised.contains(&backup.id())
    }

    /// The first region that has a copy of no newer good one.
    pub(super) fn newest_copy(&self, backup: &Candidate<'_>) -> Option<RegionName> {
        let is_newest = |region: &&RegionName| {
            self.newest_copies.get(&(**region, backup.database())) == Some(&backup.id())
        };
        backup.detail.replicas.keys().find(is_newest).copied()
    }

    /// Whether a region has a copy of a good backup that is newer.
    pub(super) fn has_newer_copy(&self, backup: &Candidate<'_>, region: RegionName) -> bool {
        let newest = self.newest_copies.get(&(region, backup.database()));
        newest.is_some_and(|newest| *newest > backup.id())
    }
}

/// For each window with instants that are promised, the newest base at or before the first of them. It reaches all
/// that are behind it in the window.
fn promised(policy: &Policy, facts: &Facts<'_>, backups: &[Candidate<'_>]) -> BTreeSet<OperationId> {
    let good = backups.iter().filter(|it| it.is_good());
    let bases: Vec<Base> = good.filter_map(|it| Base::marked_or_not(it.row)).collect();
    let start = ClusterTime { seconds: seconds(policy.any_second.start(facts.now_millis)), ordinal: 0 };
    let end = ClusterTime { seconds: seconds(facts.now_millis), ordinal: u32::MAX };
    let windows = windows(&bases, facts.head, facts.breaks);
    let promised = windows.iter().filter(|it| it.until >= start && it.from <= end);
    let base = promised.filter_map(|window| {
        let first = window.from.max(start);
        base_for(&bases, facts.head, facts.breaks, &window.database, first).ok()
    });
    base.map(|base| base.backup).collect()
}

fn seconds(millis: u64) -> u32 {
    u32::try_from(millis / 1000).unwrap_or(u32::MAX)
}
