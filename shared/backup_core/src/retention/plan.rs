//! The plan: one decision for each backup, with its reason.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::candidate::Candidate;
use super::needed::Needed;
use super::policy::Policy;
use super::reason::Reason;
use super::tiers::{End, Representatives, Tier};
use crate::id::{Attempt, ClusterTime, OperationId, RegionName};
use crate::operation::Operation;
use crate::timeline::{Break, TimelineHead};

/// How far the store's clock and ours may be apart, in milliseconds. Behind a wrong clock everything looks old.
const CLOCKS_APART_MILLIS_MAX: u64 = 600_000;
/// A backup that is not finished is left alone for so long at least, in milliseconds, however short the owner keeps
/// failed ones: a large one takes its time.
const UNDER_WAY_MILLIS: u64 = 48 * 3_600_000;

/// What a plan is made from.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Our clock, in milliseconds since 1970 UTC.
    pub now_millis: u64,
    /// The store's clock, in milliseconds since 1970 UTC.
    pub store_millis: u64,
    /// Every row of a backup, in any order.
    pub backups: &'a [Operation],
    /// The other regions that are to have copies.
    pub regions: &'a [RegionName],
    /// Every backup that an operation under way reads.
    pub in_use: &'a BTreeSet<OperationId>,
    /// Why the manifest of a newest good backup did not open, if one did not.
    pub unreadable: Option<String>,
    /// How far the timeline is, read before the breaks.
    pub head: Option<&'a TimelineHead>,
    /// Where it cannot be followed.
    pub breaks: &'a [Break],
    /// The operator agreed that more than the configured share goes in one run.
    pub force: bool,
}

/// What is to be kept, and what is to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionPlan {
    /// When it was made, in milliseconds since 1970 UTC.
    pub made_millis: u64,
    /// Why nothing is removed, marked or unmarked, if something looks wrong.
    pub refused: Option<String>,
    /// One for each backup, the newest first.
    pub decisions: Vec<Decision>,
    /// Slices of the timeline that no backup needs any more. A later run removes those of which it finds the same.
    #[serde(default)]
    pub unneeded_slices: Vec<UnneededSlice>,
}

/// A slice of the timeline that no backup needs any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnneededSlice {
    /// The first instant that is in it.
    pub from: ClusterTime,
    /// Its name: the attempt that wrote it.
    pub slice: Attempt,
}

/// What is decided about one backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The backup.
    pub backup: OperationId,
    /// Its database.
    pub database: String,
    /// The tiers that it serves now.
    pub tiers: BTreeSet<Tier>,
    /// Whether it is kept.
    pub keep: bool,
    /// Why.
    pub reason: Reason,
    /// Until when it is kept at least, in milliseconds since 1970 UTC; none if no end is known, or it is to go.
    pub keep_until_millis: Option<u64>,
    /// Whether its chunks belong into cold storage: only its month keeps it.
    pub cold: bool,
    /// For each other region with a copy, whether that is kept. Never if the backup itself is to go.
    pub copies: BTreeMap<RegionName, bool>,
}

/// What is to be kept, and what is to go, for each backup and why.
#[must_use]
pub fn plan(policy: &Policy, facts: &Facts<'_>) -> RetentionPlan {
    let rows = facts.backups.iter();
    let mut backups: Vec<Candidate<'_>> =
        rows.filter_map(|row| Candidate::of(row, facts.now_millis)).collect();
    backups.sort_by_key(|it| Reverse(it.id()));
    let rules = Rules {
        policy,
        facts,
        needed: Needed::of(policy, facts, &backups),
        representatives: Representatives::of(&backups),
    };
    let mut decisions: Vec<Decision> = backups.iter().map(|backup| rules.decide(backup)).collect();
    let refused = why_refused(facts);
    if refused.is_some() {
        decisions.iter_mut().for_each(keep_as_it_is);
    } else {
        if !facts.force {
            keep_to_share(policy.share_percent_max, &backups, &mut decisions);
        }
        for (backup, decision) in backups.iter().zip(&mut decisions) {
            rules.place_copies(backup, decision);
        }
    }
    RetentionPlan { made_millis: facts.now_millis, refused, decisions, unneeded_slices: Vec::new() }
}

fn why_refused(facts: &Facts<'_>) -> Option<String> {
    let apart = facts.now_millis.abs_diff(facts.store_millis);
    if apart > CLOCKS_APART_MILLIS_MAX {
        return Some(format!("the clock here and that of the store are {} minutes apart", apart / 60_000));
    }
    let why = facts.unreadable.as_ref()?;
    Some(format!("the newest good backup of a database could not be opened: {why}"))
}

fn keep_as_it_is(decision: &mut Decision) {
    if !decision.keep {
        (decision.keep, decision.reason) = (true, Reason::Refused);
    }
    decision.cold = false;
    decision.copies.values_mut().for_each(|kept| *kept = true);
}

/// Keeps the newest of those that would be marked, so that a slip in the policy is seen before much is gone. What is
/// marked already was counted by the run that marked it.
fn keep_to_share(percent: u8, backups: &[Candidate<'_>], decisions: &mut [Decision]) {
    let stored = backups.iter().filter(|it| it.has_manifest() && !it.has_begun_to_go()).count();
    let allowed = (stored.saturating_mul(usize::from(percent)) / 100).max(1);
    let newly = backups.iter().zip(decisions).filter(|(backup, decision)| {
        !decision.keep && backup.has_manifest() && backup.detail.removal.is_none()
    });
    for (_, decision) in newly.rev().skip(allowed) {
        (decision.keep, decision.reason) = (true, Reason::ShareReached(percent));
    }
}

/// What decides about one backup when all are known.
struct Rules<'a> {
    policy: &'a Policy,
    facts: &'a Facts<'a>,
    needed: Needed<'a>,
    representatives: Representatives<'a>,
}

impl Rules<'_> {
    /// Copies are decided later, when it is sure what is kept.
    fn decide(&self, backup: &Candidate<'_>) -> Decision {
        let is_current = |end: &&End| self.facts.now_millis < end.until_millis;
        let ends = self.ends(backup);
        let mut tiers: BTreeSet<Tier> = ends.iter().filter(is_current).filter_map(|end| end.tier).collect();
        if backup.is_kept_by_hand() {
            tiers.insert(Tier::Manual);
        }
        let last = ends.iter().max_by_key(|end| (end.until_millis, end.tier));
        let current = last.filter(is_current);
        let (keep, reason) = match (self.never_removed(backup), last) {
            (Some(reason), _) => (true, reason),
            (None, Some(end)) => (current.is_some(), reason_of(end, current.is_some())),
            (None, None) if backup.has_begun_to_go() => (false, Reason::RemovalBegun),
            (None, None) => (false, Reason::DeletedByHand),
        };
        let only_monthly = matches!(reason, Reason::Serves(Tier::Monthly, _)) && tiers.len() == 1;
        Decision {
            backup: backup.id(),
            database: backup.database().to_owned(),
            tiers,
            keep,
            reason,
            keep_until_millis: ends
                .iter()
                .filter(|end| is_current(end) && end.is_settled)
                .map(|end| end.until_millis)
                .max(),
            cold: self.policy.cold && only_monthly,
            copies: backup.detail.replicas.keys().map(|region| (*region, false)).collect(),
        }
    }

    /// The ends of what keeps a backup for a time. None for one that is on its way out, or of which no date is known.
    fn ends(&self, backup: &Candidate<'_>) -> Vec<End> {
        if backup.has_begun_to_go() || backup.is_future_dated {
            return Vec::new();
        }
        let mut ends = self.representatives.ends(self.policy, backup, self.facts.now_millis);
        // What a person asked for is theirs to delete, good or not.
        if !backup.is_good() && (backup.is_automated() || !backup.has_manifest()) {
            let until_millis = self.policy.failed.end(backup.requested_millis());
            ends.push(End { tier: None, until_millis, is_settled: true });
        }
        ends
    }

    /// What keeps a backup whatever its age.
    fn never_removed(&self, backup: &Candidate<'_>) -> Option<Reason> {
        if let Some(hold) = &backup.detail.hold {
            return Some(Reason::Held(hold.reason.clone()));
        }
        let open_ended = [
            (backup.is_future_dated, Reason::FutureDated),
            (self.facts.in_use.contains(&backup.id()), Reason::InUse),
            (self.is_under_way(backup), Reason::UnderWay),
            (self.needed.is_newest(backup), Reason::Newest),
            (self.needed.is_promised(backup), Reason::Promised),
        ];
        let found = open_ended.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason);
        let copy = || self.needed.newest_copy(backup).map(Reason::NewestCopy);
        found.or_else(copy).or_else(|| backup.is_kept_by_hand().then_some(Reason::Manual))
    }

    fn is_under_way(&self, backup: &Candidate<'_>) -> bool {
        let requested = backup.requested_millis();
        let until = self.policy.failed.end(requested).max(requested.saturating_add(UNDER_WAY_MILLIS));
        !backup.row.state.is_final() && self.facts.now_millis < until
    }

    fn place_copies(&self, backup: &Candidate<'_>, decision: &mut Decision) {
        let is_rested_on = backup.detail.hold.is_some()
            || backup.is_future_dated
            || self.facts.in_use.contains(&backup.id())
            || self.needed.is_promised(backup);
        let is_cross_region = [Tier::Weekly, Tier::Monthly].iter().any(|tier| decision.tiers.contains(tier));
        for (region, kept) in &mut decision.copies {
            let is_replaced = self.needed.has_newer_copy(backup, *region);
            *kept = decision.keep && (is_cross_region || is_rested_on || !is_replaced);
        }
    }
}

fn reason_of(end: &End, is_current: bool) -> Reason {
    match (end.tier, is_current) {
        (Some(tier), true) => Reason::Serves(tier, end.until_millis),
        (Some(tier), false) => Reason::Ended(tier, end.until_millis),
        (None, true) => Reason::NotGood(end.until_millis),
        (None, false) => Reason::NotGoodEnded(end.until_millis),
    }
}
