//! A source that is backed up, looked after by people, and pruned, day by day: with failures, outages, breaks of the
//! timeline and wrong clocks. Each run of the pruner is compared with the model, and then carried out as a run does.

use std::collections::{BTreeSet, HashSet};
use std::mem::{Discriminant, discriminant};

use backup_core::format::Consistency;
use backup_core::id::{Attempt, ClusterTime, OperationId};
use backup_core::operation::{Operation, OperationState, Removal, Trigger};
use backup_core::retention::{Facts, Policy, Reason, RetentionPlan, plan, slices_needed};
use backup_core::timeline::{Break, BreakReason, SliceRecord, TimelineHead};

use crate::model::{Numbers, expect, instants, needs_slice};
use crate::rows::{DAY, HOUR, copy, detail, hold, millis, region, requested, time_at, verify};

const DATABASES: [&str; 2] = ["crm", "web"];
const REGIONS: [&str; 2] = ["ap-southeast-1", "eu-west-1"];
const MINUTE: u64 = 60_000;
/// Days between looks at the slices, of which there are many.
const SLICES_EVERY_DAYS: u64 = 20;

/// Chance that follows from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(u64::try_from(all.len()).unwrap())).unwrap()]
    }
}

/// What was promised at a run, and what the timeline was then.
struct Promise {
    instants: Vec<(&'static str, ClusterTime)>,
    head: TimelineHead,
    breaks: Vec<Break>,
}

pub(crate) struct World {
    dice: Dice,
    numbers: Numbers,
    policy: Policy,
    midnight: u64,
    now: u64,
    rows: Vec<Operation>,
    head: TimelineHead,
    breaks: Vec<Break>,
    slices: Vec<SliceRecord>,
    in_use: BTreeSet<OperationId>,
    /// Until when nothing works, the timeline stands still, and nothing comes to the second region.
    outages: [u64; 3],
    promise: Option<Promise>,
    /// Every reason that was given.
    pub(crate) reasons: HashSet<Discriminant<Reason>>,
    /// Backups that were removed.
    pub(crate) removed: usize,
    /// Slices that were removed.
    pub(crate) dropped_slices: usize,
}

impl World {
    /// It begins up to five weeks before, or on, a leap day.
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let numbers = if dice.percent(40) { procedures() } else { drawn(&mut dice) };
        let policy = Policy::read(|name| numbers.parameter(name)).unwrap();
        let midnight = millis("2028-01-25 00:00") + dice.below(36) * DAY;
        Self {
            dice,
            numbers,
            policy,
            midnight,
            now: midnight,
            rows: Vec::new(),
            head: TimelineHead::beginning(time_at(midnight), midnight),
            breaks: Vec::new(),
            slices: Vec::new(),
            in_use: BTreeSet::new(),
            outages: [0; 3],
            promise: None,
            reasons: HashSet::new(),
            removed: 0,
            dropped_slices: 0,
        }
    }

    /// Backups at 2:00 and every six hours, what people do, and a run of the pruner at 22:00.
    pub(crate) fn live_a_day(&mut self) {
        for hour in [2, 8, 14, 20] {
            self.now = self.midnight + hour * HOUR + self.dice.below(40 * MINUTE);
            self.draw_outages();
            self.follow();
            for database in DATABASES {
                self.back_up_by_schedule(database, hour != 2);
                if self.dice.percent(2) {
                    self.back_up_by_hand(database);
                }
            }
        }
        self.now = self.midnight + 22 * HOUR + self.dice.below(20 * MINUTE);
        self.follow();
        self.people_work();
        self.prune();
        self.midnight += DAY;
    }

    fn draw_outages(&mut self) {
        for (outage, days_max) in [(0, 12), (1, 3), (2, 20)] {
            if self.dice.below(200) == 0 {
                self.outages[outage] = self.now + self.dice.below(days_max * DAY);
            }
        }
    }

    fn is_out(&self, outage: usize) -> bool {
        self.now < self.outages[outage]
    }

    /// The timeline goes on up to five minutes ago, unless the source forgot; sometimes a break is found later.
    fn follow(&mut self) {
        let to = time_at(self.now - 5 * MINUTE);
        if self.is_out(1) || to <= self.head.to {
            return;
        }
        if self.dice.below(250) == 0 {
            self.add_break(self.head.to, to, None);
            self.head = TimelineHead { since: to, stored_to: to, to, ..self.head.clone() };
            return;
        }
        let (slice, from) = (Attempt::NONE, self.head.stored_to);
        self.slices.push(SliceRecord { from, to, slice, stored_bytes: 1, events: 1, event_bytes: 1 });
        (self.head.stored_to, self.head.to) = (to, to);
        if self.dice.below(250) == 0 {
            let from = time_at(self.now - 10 * MINUTE - self.dice.below(40 * HOUR));
            let length = u32::try_from(self.dice.below(3 * 3600)).unwrap();
            let until = ClusterTime { seconds: from.seconds + length, ..from };
            let database = self.dice.one_of(&DATABASES);
            self.add_break(from, until.min(to), Some(database));
        }
    }

    fn add_break(&mut self, from: ClusterTime, to: ClusterTime, database: Option<&str>) {
        let (reason, database) = (BreakReason::HistoryLost, database.map(str::to_owned));
        self.breaks.push(Break { from, to, database, reason, noticed_millis: self.now });
    }

    /// What is folded is folded from the newest good backup to where the timeline is.
    fn back_up_by_schedule(&mut self, database: &str, folds: bool) {
        if self.is_out(0) {
            return;
        }
        let mut row = requested(self.now, database, Trigger::Automated);
        if folds {
            let is_base = |it: &&Operation| instants(it, &self.head, &self.breaks).is_some();
            let own = self.rows.iter().filter(|it| it.database == database);
            let Some(base) = own.filter(is_base).map(|it| it.id).max() else { return };
            (detail(&mut row).folds, detail(&mut row).folded_from) = (true, Some(base));
        }
        let time = if folds { self.head.to.previous() } else { time_at(self.now + 5000) };
        self.end(&mut row, time);
        self.add(row);
    }

    /// One that is asked for twice in a millisecond is one: its id follows from the time.
    fn add(&mut self, row: Operation) {
        if self.rows.iter().all(|it| it.id != row.id) {
            self.rows.push(row);
        }
    }

    fn back_up_by_hand(&mut self, database: &str) {
        let mut row = requested(self.now + 1000, database, Trigger::Manual);
        if self.dice.percent(30) {
            row.collections.push("leads".to_owned());
        }
        let time = time_at(self.now + 5000);
        self.end(&mut row, time);
        self.add(row);
    }

    /// How it ended: mostly well.
    fn end(&mut self, row: &mut Operation, time: ClusterTime) {
        verify(row, time);
        match self.dice.below(100) {
            0..=3 => {
                row.state = OperationState::Failed;
                detail(row).manifest_sha256 = None;
            }
            4..=5 => row.state = OperationState::Failed,
            6..=9 => row.state = OperationState::Sealed,
            10..=11 => {
                row.state = OperationState::Running;
                (detail(row).manifest_sha256, detail(row).consistency) = (None, None);
            }
            12 => detail(row).lost = 1,
            13..=15 => {
                let later = ClusterTime { seconds: time.seconds + 60, ..time };
                detail(row).consistency = Some(Consistency::Mosaic);
                detail(row).restorable_from = self.dice.percent(70).then_some(later);
            }
            16 => {
                let ahead = self.dice.one_of(&[1, 3, 40, 15_000]) * DAY;
                row.id = OperationId::of_slot(self.now + ahead, &[row.database.as_str(), "ahead"]);
            }
            _ => {}
        }
        self.copy_to_regions(row);
    }

    fn copy_to_regions(&mut self, row: &mut Operation) {
        if row.state != OperationState::Verified {
            return;
        }
        for (number, name) in REGIONS.iter().enumerate() {
            let is_out = number == 1 && self.is_out(2);
            if !is_out && !self.dice.percent(4) {
                detail(row).replicas.insert(region(name), copy(self.now));
            }
        }
    }

    /// Holds, deletions, late verifications and operations that read backups.
    fn people_work(&mut self) {
        for row in &mut self.rows {
            let is_late = row.state == OperationState::Sealed;
            if is_late && self.dice.percent(40) {
                row.state = self.dice.one_of(&[OperationState::Verified, OperationState::Failed]);
            }
            let (is_manual, detail) = (row.trigger() == Trigger::Manual, detail(row));
            if detail.hold.is_some() && self.dice.percent(8) {
                detail.hold = None;
            } else if self.dice.below(2000) == 0 {
                detail.hold = Some(hold("legal"));
            }
            if is_manual && detail.manifest_sha256.is_some() && self.dice.percent(3) {
                detail.unwanted_by = Some("ana".into());
            }
        }
        self.in_use.clear();
        for _ in 0..self.dice.below(3) {
            if !self.rows.is_empty() {
                let ids: Vec<OperationId> = self.rows.iter().map(|it| it.id).collect();
                self.in_use.insert(self.dice.one_of(&ids));
            }
        }
        if !self.rows.is_empty() {
            let turned = self.dice.below(u64::try_from(self.rows.len()).unwrap());
            self.rows.rotate_left(usize::try_from(turned).unwrap()); // the order of rows means nothing
        }
    }

    fn prune(&mut self) {
        let odd = self.dice.below(40);
        let regions = REGIONS.map(region);
        let facts = Facts {
            regions: &regions,
            now_millis: self.now,
            store_millis: if odd == 0 { self.now - 11 * MINUTE } else { self.now + 9 * MINUTE },
            backups: &self.rows,
            in_use: &self.in_use,
            unreadable: (odd == 1).then(|| "open the manifest: access denied".to_owned()),
            head: Some(&self.head),
            breaks: &self.breaks,
            force: odd == 2,
        };
        let plan = plan(&self.policy, &facts);
        self.compare(&plan, &facts);
        assert_eq!(plan.refused.is_some(), odd < 2);
        self.reasons.extend(plan.decisions.iter().map(|it| discriminant(&it.reason)));
        if plan.refused.is_some() {
            self.promise = None;
            return;
        }
        let before = self.rows.clone();
        self.carry_out(&plan);
        self.check_newest(&before);
        self.check_promises(&before);
        if (self.midnight / DAY).is_multiple_of(SLICES_EVERY_DAYS) {
            self.drop_slices();
        }
    }

    fn compare(&self, plan: &RetentionPlan, facts: &Facts<'_>) {
        let expected = expect(&self.numbers, facts);
        assert_eq!(plan.decisions.len(), self.rows.len());
        assert!(plan.decisions.is_sorted_by(|left, right| left.backup > right.backup), "newest first, once");
        for decision in &plan.decisions {
            let told = &expected[&decision.backup];
            let is_same = decision.keep == told.keep
                && decision.tiers == told.tiers
                && decision.cold == told.cold
                && decision.copies == told.copies;
            let row = || self.rows.iter().find(|it| it.id == decision.backup);
            assert!(is_same, "at {}: {decision:?}, not {told:?}: {:?}, {:?}", self.now, row(), self.numbers);
            let is_over = decision.keep_until_millis.is_some_and(|until| until <= self.now);
            assert!(!is_over && (decision.keep || decision.keep_until_millis.is_none()), "{decision:?}");
        }
    }

    /// As a run does: marks first, and removes what has been marked long enough. Some runs die while they remove.
    fn carry_out(&mut self, plan: &RetentionPlan) {
        let (now, grace) = (self.now, self.numbers.grace_hours * HOUR);
        for decision in &plan.decisions {
            let at = self.rows.iter().position(|it| it.id == decision.backup).unwrap();
            let detail = detail(&mut self.rows[at]);
            detail.replicas.retain(|region, _| decision.copies[region]);
            detail.is_cold |= decision.cold;
            match (detail.removal.clone(), decision.keep) {
                (Some(removal), true) if !removal.begun => detail.removal = None,
                (None, false) => {
                    let reason = decision.reason.to_string();
                    detail.removal = Some(Removal { reason, marked_millis: now, begun: false });
                }
                (Some(removal), false) if removal.begun || removal.marked_millis + grace <= now => {
                    if !removal.begun && self.dice.percent(10) {
                        detail.removal = Some(Removal { begun: true, ..removal });
                    } else {
                        self.rows.remove(at);
                        self.removed += 1;
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether it may be restored by somebody who names nothing.
    fn is_usable(&self, row: &Operation) -> bool {
        let detail = row.backup().unwrap();
        let is_whole = row.collections.is_empty() && detail.lost == 0;
        let is_dated_well = row.id.requested_millis() <= self.now + 5 * MINUTE;
        row.state == OperationState::Verified && is_whole && is_dated_well && !is_begun(row)
    }

    fn check_newest(&self, before: &[Operation]) {
        for database in DATABASES {
            let own = before.iter().filter(|it| it.database == database && self.is_usable(it));
            let Some(newest) = own.map(|it| it.id).max() else { continue };
            let found = self.rows.iter().find(|it| it.id == newest);
            let is_there = found.is_some_and(|it| it.backup().unwrap().removal.is_none());
            assert!(is_there, "at {}: the newest good backup of {database} is gone or marked", self.now);
        }
    }

    /// Every instant that was promised at this run can be restored from what is not marked, and every one of the run
    /// before, as the timeline was then, from what is there.
    fn check_promises(&mut self, before: &[Operation]) {
        let mut promised = Vec::new();
        for database in DATABASES {
            let usable = |it: &&Operation| it.database == database && self.is_usable(it);
            let reach = |it: &Operation| instants(it, &self.head, &self.breaks);
            let could: Vec<_> = before.iter().filter(usable).filter_map(reach).collect();
            let unmarked = |it: &&Operation| it.backup().unwrap().removal.is_none();
            let can: Vec<_> = self.rows.iter().filter(usable).filter(unmarked).filter_map(reach).collect();
            let start = time_at(self.now - self.numbers.any_second_hours * HOUR);
            let edges = could.iter().flat_map(|(first, last)| [*first, *last]).chain([start]);
            for time in edges.filter(|time| start <= *time).collect::<BTreeSet<_>>() {
                let covers = |(first, last): &(ClusterTime, ClusterTime)| *first <= time && time <= *last;
                if could.iter().any(covers) {
                    assert!(can.iter().any(covers), "at {}: {time} of {database} is lost", self.now);
                    promised.push((database, time));
                }
            }
        }
        if let Some(promise) = &self.promise {
            for (database, time) in &promise.instants {
                let covers = |it: &Operation| {
                    let reach = instants(it, &promise.head, &promise.breaks);
                    reach.is_some_and(|(first, last)| first <= *time && *time <= last)
                };
                let mut there = self.rows.iter().filter(|it| it.database == **database && !is_begun(it));
                assert!(there.any(covers), "at {}: {time} of {database} was promised", self.now);
            }
        }
        let (head, breaks) = (self.head.clone(), self.breaks.clone());
        self.promise = Some(Promise { instants: promised, head, breaks });
    }

    fn drop_slices(&mut self) {
        let there: Vec<Operation> = self.rows.iter().filter(|it| !is_begun(it)).cloned().collect();
        let found = slices_needed(self.now, &there, Some(&self.head), &self.breaks, &self.slices);
        assert_eq!(found.len(), self.slices.len());
        for (slice, found) in self.slices.iter().zip(&found) {
            let is_young = u64::from(slice.to.seconds) + 2 * 86_400 > self.now / 1000;
            let expected = is_young || there.iter().any(|row| needs_slice(row, slice, &self.breaks));
            assert_eq!(*found, expected, "at {}: {slice:?}", self.now);
        }
        let mut found = found.into_iter();
        let before = self.slices.len();
        self.slices.retain(|_| found.next().unwrap());
        self.dropped_slices += before - self.slices.len();
    }
}

fn is_begun(row: &Operation) -> bool {
    row.backup().unwrap().removal.as_ref().is_some_and(|it| it.begun)
}

fn procedures() -> Numbers {
    Numbers {
        recent_hours: 24,
        daily_days: 7,
        weekly_days: 30,
        monthly_months: 12,
        any_second_hours: 24,
        failed_days: 7,
        grace_hours: 24,
        share_percent: 25,
        cold: true,
    }
}

fn drawn(dice: &mut Dice) -> Numbers {
    Numbers {
        recent_hours: dice.one_of(&[6, 12, 24, 48]),
        daily_days: dice.one_of(&[2, 7, 10]),
        weekly_days: dice.one_of(&[7, 30, 40]),
        monthly_months: dice.one_of(&[1, 6, 12]),
        any_second_hours: dice.one_of(&[6, 24, 36, 72]),
        failed_days: dice.one_of(&[1, 7, 9]),
        grace_hours: dice.one_of(&[12, 24, 48]),
        share_percent: dice.one_of(&[10, 25, 50, 100]),
        cold: dice.percent(70),
    }
}
