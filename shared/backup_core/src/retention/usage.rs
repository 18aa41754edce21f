//! How many bytes the backups take, by region and tier.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::RetentionPlan;
use super::tiers::Tier;
use crate::id::{OperationId, RegionName};
use crate::operation::Operation;

/// How many bytes the backups take. Slices of the timeline are not counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// By region and tier, in that order. Each backup counts once in a region.
    pub shelves: Vec<ShelfUsage>,
    /// Bytes in all regions together.
    pub total_bytes: u64,
}

/// How many bytes the backups of one tier take in one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShelfUsage {
    /// The region.
    pub region: RegionName,
    /// The longest tier that they serve; none for what is kept, or still there, for another reason.
    pub tier: Option<Tier>,
    /// Backups.
    pub backups: u64,
    /// Bytes stored: compressed and sealed.
    pub stored_bytes: u64,
}

impl Usage {
    /// How many percent of `quota_bytes` are in use, rounded up: only what is more than 80 percent gives 81.
    #[must_use]
    pub fn share_percent(&self, quota_bytes: u64) -> u64 {
        let hundredfold = u128::from(self.total_bytes).saturating_mul(100);
        u64::try_from(hundredfold.div_ceil(u128::from(quota_bytes.max(1)))).unwrap_or(u64::MAX)
    }
}

/// How many bytes `backups` take at home and in the other regions. The tiers are those of `plan`.
#[must_use]
pub fn usage(backups: &[Operation], home: RegionName, plan: &RetentionPlan) -> Usage {
    let tiers: BTreeMap<OperationId, Option<Tier>> =
        plan.decisions.iter().map(|it| (it.backup, it.tiers.last().copied())).collect();
    let mut shelves: BTreeMap<(RegionName, Option<Tier>), (u64, u64)> = BTreeMap::new();
    for row in backups {
        let Some(detail) = row.backup().ok().filter(|it| it.manifest_sha256.is_some()) else { continue };
        let tier = tiers.get(&row.id).copied().flatten();
        let copies = detail.replicas.iter().map(|(region, copy)| (*region, copy.stored_bytes));
        for (region, bytes) in std::iter::once((home, row.totals.stored_bytes)).chain(copies) {
            let (count, sum) = shelves.entry((region, tier)).or_default();
            *count += 1;
            *sum = sum.saturating_add(bytes);
        }
    }
    let shelf =
        |((region, tier), (backups, stored_bytes))| ShelfUsage { region, tier, backups, stored_bytes };
    let shelves: Vec<ShelfUsage> = shelves.into_iter().map(shelf).collect();
    let total_bytes = shelves.iter().fold(0_u64, |sum, shelf| sum.saturating_add(shelf.stored_bytes));
    Usage { shelves, total_bytes }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::operation::{BackupDetail, Detail, Replica, Trigger};
    use crate::retention::{Decision, Reason};

    fn region(name: &str) -> RegionName {
        name.parse().unwrap()
    }

    fn backup(number: u8, stored_bytes: u64, copies: &[(&str, u64)]) -> Operation {
        let copy = |stored_bytes| Replica { completed_millis: 0, objects: 1, stored_bytes };
        let detail = BackupDetail {
            manifest_sha256: Some("00".to_owned()),
            replicas: copies.iter().map(|(name, bytes)| (region(name), copy(*bytes))).collect(),
            ..BackupDetail::requested(Trigger::Automated, false)
        };
        let (id, source) = (OperationId::from_bytes([number; 16]), "main".parse().unwrap());
        let detail = Detail::Backup(detail);
        let mut row = Operation::requested(id, source, "crm".into(), vec![], "schedule".into(), detail);
        row.totals.stored_bytes = stored_bytes;
        row
    }

    fn decision(backup: &Operation, tiers: &[Tier]) -> Decision {
        Decision {
            backup: backup.id,
            database: backup.database.clone(),
            tiers: tiers.iter().copied().collect::<BTreeSet<_>>(),
            keep: true,
            reason: Reason::Newest,
            keep_until_millis: None,
            cold: false,
            copies: BTreeMap::new(),
        }
    }

    #[test]
    fn a_backup_counts_once_in_a_region_under_its_longest_tier() {
        let (first, second) = (backup(1, 100, &[("eu-west-1", 90)]), backup(2, 30, &[]));
        let (third, fourth) = (backup(3, 7, &[]), backup(4, 5, &[]));
        let decisions = vec![
            decision(&first, &[Tier::Daily, Tier::Monthly, Tier::Weekly]),
            decision(&second, &[Tier::Monthly]),
            decision(&third, &[]),
        ];
        let plan = RetentionPlan { made_millis: 0, refused: None, decisions, unneeded_slices: vec![] };
        let usage = usage(&[first, second, third, fourth], region("us-east-1"), &plan);
        let shelf = |name, tier, backups, stored_bytes| ShelfUsage {
            region: region(name),
            tier,
            backups,
            stored_bytes,
        };
        let expected = [
            shelf("eu-west-1", Some(Tier::Monthly), 1, 90),
            shelf("us-east-1", None, 2, 12),
            shelf("us-east-1", Some(Tier::Monthly), 2, 130),
        ];
        assert_eq!(usage.shelves, expected);
        assert_eq!(usage.total_bytes, 232);
    }

    #[test]
    fn a_share_is_rounded_up() {
        for (total_bytes, quota_bytes, percent) in [
            (800, 1000, 80),
            (801, 1000, 81),
            (0, 1000, 0),
            (1500, 1000, 150),
            (5, 0, 500),
            (u64::MAX, 1, u64::MAX),
        ] {
            let usage = Usage { shelves: vec![], total_bytes };
            assert_eq!(usage.share_percent(quota_bytes), percent, "{total_bytes} of {quota_bytes}");
        }
    }
}
