//! Single rules: what is kept on which day, and the reason that is told.

use std::collections::BTreeSet;

use backup_core::id::{OperationId, RegionName};
use backup_core::operation::{Operation, OperationState, Trigger};
use backup_core::retention::{Decision, Facts, Policy, RetentionPlan, plan};
use backup_core::timeline::{Break, BreakReason, TimelineHead};

use crate::rows::{copy, detail, good, hold, mark, millis, region, time_at};

const NEWEST: &str = "+ newest good backup of its database";
const PROMISED: &str = "+ the promised instants are folded from it";
const MANUAL: &str = "+ manual: kept until deleted by hand";

/// What is different about a good automated backup.
type Edit = fn(&mut Operation);

fn as_is(_: &mut Operation) {}

fn folded(row: &mut Operation) {
    detail(row).folded_from = Some(OperationId::from_bytes([1; 16]));
}

fn failed(row: &mut Operation) {
    row.state = OperationState::Failed;
}

fn without_manifest(row: &mut Operation) {
    failed(row);
    detail(row).manifest_sha256 = None;
}

fn unverified(row: &mut Operation) {
    row.state = OperationState::Sealed;
}

fn incomplete(row: &mut Operation) {
    detail(row).lost = 1;
}

fn held(row: &mut Operation) {
    detail(row).hold = Some(hold("legal"));
}

fn copied(row: &mut Operation) {
    detail(row).replicas.insert(region("eu-west-1"), copy(0));
}

fn copied_and_held(row: &mut Operation) {
    copied(row);
    held(row);
}

fn marked(row: &mut Operation) {
    detail(row).removal = Some(mark(0, false));
}

fn begun(row: &mut Operation) {
    detail(row).removal = Some(mark(0, true));
}

fn manual(row: &mut Operation) {
    detail(row).trigger = Trigger::Manual;
}

fn manual_deleted(row: &mut Operation) {
    manual(row);
    detail(row).unwanted_by = Some("ana".into());
}

fn manual_failed(row: &mut Operation) {
    manual(row);
    failed(row);
}

fn manual_without_manifest(row: &mut Operation) {
    manual(row);
    without_manifest(row);
}

/// Backups of one database, and a moment. The share has no limit and there is no timeline unless a case says so.
struct Scene {
    policy: Policy,
    regions: Vec<RegionName>,
    now: u64,
    store: u64,
    rows: Vec<Operation>,
    in_use: BTreeSet<OperationId>,
    unreadable: Option<String>,
    head: Option<TimelineHead>,
    breaks: Vec<Break>,
    force: bool,
}

impl Scene {
    fn at(now: &str, backups: &[(&str, Edit)]) -> Self {
        let row = |(time, edit): &(&str, Edit)| {
            let mut row = good(millis(time), "crm", Trigger::Automated);
            edit(&mut row);
            row
        };
        Self {
            policy: Policy { share_percent_max: 100, ..Policy::default() },
            regions: vec![region("eu-west-1")],
            now: millis(now),
            store: millis(now),
            rows: backups.iter().map(row).collect(),
            in_use: BTreeSet::new(),
            unreadable: None,
            head: None,
            breaks: Vec::new(),
            force: false,
        }
    }

    fn plan(&self) -> RetentionPlan {
        let facts = Facts {
            now_millis: self.now,
            store_millis: self.store,
            backups: &self.rows,
            regions: &self.regions,
            in_use: &self.in_use,
            unreadable: self.unreadable.clone(),
            head: self.head.as_ref(),
            breaks: &self.breaks,
            force: self.force,
        };
        plan(&self.policy, &facts)
    }

    /// What is told of each, in the order in which they were given: kept (+) or let go (-), and why.
    fn told(&self) -> Vec<String> {
        let decisions = self.plan().decisions;
        let of = |row: &Operation| decisions.iter().find(|it| it.backup == row.id).unwrap();
        let sign = |keep: bool| if keep { '+' } else { '-' };
        self.rows.iter().map(|row| format!("{} {}", sign(of(row).keep), of(row).reason)).collect()
    }
}

fn check(name: &str, now: &str, cases: &[(&str, Edit, &str)]) {
    let backups: Vec<(&str, Edit)> = cases.iter().map(|(time, edit, _)| (*time, *edit)).collect();
    let expected: Vec<&str> = cases.iter().map(|(_, _, told)| *told).collect();
    assert_eq!(Scene::at(now, &backups).told(), expected, "{name}");
}

#[test]
fn a_backup_stands_for_its_day_its_week_and_its_month() {
    check(
        "nightly ones, and some of every six hours",
        "2026-11-24 12:00",
        &[
            ("2026-11-01 02:00", as_is, "+ monthly until 2027-11-01"),
            ("2026-11-02 02:00", as_is, "+ weekly until 2026-12-02"),
            ("2026-11-09 02:00", as_is, "+ weekly until 2026-12-09"),
            ("2026-11-10 02:00", as_is, "- daily ended 2026-11-17"),
            ("2026-11-16 02:00", as_is, "+ weekly until 2026-12-16"),
            ("2026-11-17 02:00", as_is, "- daily ended 2026-11-24"),
            ("2026-11-18 02:00", as_is, "+ daily until 2026-11-25"),
            ("2026-11-23 02:00", as_is, "+ weekly until 2026-12-23"),
            ("2026-11-23 08:00", folded, "- recent ended 2026-11-24"),
            ("2026-11-23 14:00", folded, "+ recent until 2026-11-24"),
            ("2026-11-24 02:00", as_is, NEWEST),
        ],
    );
    check(
        "what was read from the source stands before what was folded",
        "2026-11-20 12:00",
        &[
            ("2026-11-17 08:00", folded, "+ daily until 2026-11-24"),
            ("2026-11-17 14:00", folded, "- recent ended 2026-11-18"),
            ("2026-11-18 00:30", folded, "- recent ended 2026-11-19"),
            ("2026-11-18 02:00", as_is, "+ monthly until 2027-11-18"),
            ("2026-11-20 02:00", as_is, NEWEST),
        ],
    );
    check(
        "a week goes on over the turn of the year",
        "2027-01-20 12:00",
        &[
            ("2026-12-31 02:00", as_is, "+ monthly until 2027-12-31"),
            ("2027-01-01 02:00", as_is, "+ monthly until 2028-01-01"),
            ("2027-01-02 02:00", as_is, "- daily ended 2027-01-09"),
            ("2027-01-20 02:00", as_is, NEWEST),
        ],
    );
}

#[test]
fn a_leap_day_ends_on_the_last_of_its_month() {
    for (now, told) in [
        ("2029-02-28 01:59", "+ monthly until 2029-02-28"),
        ("2029-02-28 02:00", "- monthly ended 2029-02-28"),
    ] {
        check(now, now, &[("2028-02-29 02:00", as_is, told), ("2029-02-27 02:00", as_is, NEWEST)]);
    }
}

#[test]
fn what_is_not_good_is_kept_a_while_and_stands_for_nothing() {
    check(
        "seven days",
        "2026-11-16 12:00",
        &[
            ("2026-11-08 02:00", incomplete, "- not good, was kept until 2026-11-15"),
            ("2026-11-09 02:00", as_is, "+ monthly until 2027-11-09"),
            ("2026-11-09 03:00", failed, "- not good, was kept until 2026-11-16"),
            ("2026-11-09 11:00", unverified, "- not good, was kept until 2026-11-16"),
            ("2026-11-09 13:00", unverified, "+ not finished yet"),
            ("2026-11-09 14:00", failed, "+ not good, kept until 2026-11-16"),
            ("2026-11-10 02:00", without_manifest, "+ not good, kept until 2026-11-17"),
            ("2026-11-16 02:00", as_is, NEWEST),
        ],
    );
    let mut scene = Scene::at("2026-11-16 12:00", &[("2026-11-15 02:00", unverified)]);
    scene.policy.failed = "1 hour".parse().unwrap();
    assert_eq!(scene.told(), ["+ not finished yet"], "a large one takes its time");
}

#[test]
fn some_are_kept_whatever_their_age() {
    let mut scene = Scene::at(
        "2026-11-16 12:00",
        &[
            ("2024-01-01 02:00", held),
            ("2024-01-02 02:00", as_is),
            ("2024-01-03 02:00", as_is),
            ("2024-01-04 02:00", copied),
            ("2024-01-05 02:00", marked),
            ("2027-01-01 02:00", as_is),
        ],
    );
    scene.in_use.insert(scene.rows[1].id);
    let expected = [
        "+ held: legal",
        "+ an operation under way uses it",
        "- daily ended 2024-01-10",
        "+ newest good backup that eu-west-1 has a copy of",
        NEWEST,
        "+ dated in the future",
    ];
    assert_eq!(scene.told(), expected);
    let other = good(millis("2024-01-06 02:00"), "web", Trigger::Automated);
    scene.rows.push(other);
    assert_eq!(scene.told()[4..], [NEWEST, "+ dated in the future", NEWEST], "of each database");
    scene.regions.clear();
    assert_eq!(scene.told()[3], "- daily ended 2024-01-11", "of a region that is to have copies");
}

#[test]
fn what_a_person_asked_for_is_theirs_to_delete() {
    check(
        "manual ones",
        "2026-11-16 12:00",
        &[
            ("2020-05-05 02:00", manual, MANUAL),
            ("2020-05-06 02:00", manual_deleted, "- deleted by hand"),
            ("2020-05-07 02:00", manual_failed, MANUAL),
            ("2020-05-08 02:00", manual_without_manifest, "- not good, was kept until 2020-05-15"),
            ("2026-11-02 01:00", manual, MANUAL),
            ("2026-11-02 02:00", as_is, "+ monthly until 2027-11-02"),
            ("2026-11-16 03:00", manual_deleted, NEWEST),
        ],
    );
}

#[test]
fn what_began_to_go_stands_for_nothing() {
    check(
        "one that is half gone",
        "2026-11-16 12:00",
        &[
            ("2026-11-02 02:00", begun, "- its removal has begun"),
            ("2026-11-03 02:00", marked, "+ monthly until 2027-11-03"),
            ("2026-11-15 02:00", marked, NEWEST),
            ("2026-11-16 02:00", begun, "- its removal has begun"),
        ],
    );
}

#[test]
fn nothing_goes_while_a_clock_or_a_key_looks_wrong() {
    let backups: [(&str, Edit); 3] =
        [("2026-10-05 02:00", as_is), ("2026-10-06 02:00", copied), ("2026-11-24 02:00", copied)];
    let mut scene = Scene::at("2026-11-24 12:00", &backups);
    assert_eq!(scene.told()[1], "- daily ended 2026-10-13");
    for (now, unreadable, refused) in [
        ("2086-11-24 12:00", None, true),
        ("1990-11-24 12:00", None, true),
        ("2026-11-24 12:11", None, true),
        ("2026-11-24 11:49", None, true),
        ("2026-11-24 12:10", None, false),
        ("2026-11-24 11:50", None, false),
        ("2026-11-24 12:00", Some("open the manifest: access denied".to_owned()), true),
    ] {
        (scene.now, scene.unreadable) = (millis(now), unreadable);
        let plan = scene.plan();
        assert_eq!(plan.refused.is_some(), refused, "{now}: {:?}", plan.refused);
        let is_whole = |it: &Decision| it.keep && it.copies.values().all(|kept| *kept);
        assert_eq!(plan.decisions.iter().all(is_whole), refused, "{now}");
    }
}

#[test]
fn only_a_share_goes_in_one_run() {
    let times: Vec<String> = (0..10).map(|hour| format!("2026-10-05 0{hour}:00")).collect();
    let mut backups: Vec<(&str, Edit)> = times.iter().map(|time| (time.as_str(), failed as Edit)).collect();
    backups.push(("2026-11-24 02:00", as_is));
    for (percent, marks, force, expected) in [
        (25, 0, false, 2),
        (1, 0, false, 1),
        (50, 0, false, 5),
        (100, 0, false, 10),
        (25, 0, true, 10),
        (25, 3, false, 5), // those that an earlier run marked, and two more
        (25, 10, false, 10),
    ] {
        let mut scene = Scene::at("2026-11-24 12:00", &backups);
        (scene.policy.share_percent_max, scene.force) = (percent, force);
        scene.rows.iter_mut().take(marks).for_each(marked);
        let told = scene.told();
        let gone = told.iter().take_while(|told| told.starts_with('-')).count();
        assert_eq!(gone, expected, "the oldest go first: {told:?}");
        let spared = format!("+ more than {percent} percent would go in one run");
        assert!(told[gone..10].iter().all(|told| *told == spared), "{told:?}");
    }
}

#[test]
fn other_regions_keep_weeks_and_months_and_the_newest() {
    let cases: [(&str, Edit, Option<bool>, bool); 9] = [
        ("2025-11-26 02:00", copied_and_held, Some(true), false),
        ("2025-12-01 02:00", copied, Some(true), true),
        ("2026-11-02 02:00", copied, Some(true), false),
        ("2026-11-09 02:00", copied, Some(true), false),
        ("2026-11-10 02:00", copied, Some(false), false),
        ("2026-11-16 02:00", copied, Some(true), false),
        ("2026-11-18 02:00", copied, Some(false), false),
        ("2026-11-24 02:00", copied, Some(true), false),
        ("2026-11-24 08:00", folded, None, false),
    ];
    let backups = cases.map(|(time, edit, ..)| (time, edit));
    let mut scene = Scene::at("2026-11-24 12:00", &backups);
    for (is_cold, decision) in [(true, scene.plan()), (false, without_cold(&mut scene))] {
        for ((time, _, copy, cold), found) in cases.iter().zip(decision.decisions.iter().rev()) {
            assert_eq!(found.copies.get(&region("eu-west-1")), copy.as_ref(), "{time}");
            assert_eq!(found.cold, *cold && is_cold, "{time}");
        }
    }
}

fn without_cold(scene: &mut Scene) -> RetentionPlan {
    scene.policy.cold = false;
    scene.plan()
}

#[test]
fn every_promised_second_keeps_its_base() {
    let backups: [(&str, Edit); 9] = [
        ("2026-11-01 02:00", as_is),
        ("2026-11-09 02:00", as_is),
        ("2026-11-13 02:00", as_is),
        ("2026-11-14 02:00", as_is),
        ("2026-11-14 20:00", folded),
        ("2026-11-16 02:00", as_is),
        ("2026-11-17 02:00", as_is),
        ("2026-11-18 02:00", as_is),
        ("2026-11-24 02:00", as_is),
    ];
    let mut scene = Scene::at("2026-11-24 12:00", &backups);
    scene.policy.any_second = "10 days".parse().unwrap(); // since November 14, 12:00
    let began = millis("2026-11-01 00:00");
    let head = TimelineHead { to: time_at(scene.now), ..TimelineHead::beginning(time_at(began), began) };
    let ended = ["- daily ended 2026-11-21", "- recent ended 2026-11-15", "- daily ended 2026-11-24"];
    let weekly = "+ weekly until 2026-12-16";
    for (head, lost, expected) in [
        (None, None, [ended[0], ended[1], weekly, ended[2]]),
        (Some(&head), None, [PROMISED, ended[1], weekly, ended[2]]),
        // A window on each side, with a base that the break is in the way of.
        (Some(&head), Some(("2026-11-15 00:00", "2026-11-16 03:00")), [PROMISED, ended[1], weekly, PROMISED]),
        // The first window ended before what is promised.
        (
            Some(&head),
            Some(("2026-11-14 04:00", "2026-11-14 21:00")),
            [ended[0], ended[1], PROMISED, ended[2]],
        ),
    ] {
        scene.head = head.cloned();
        scene.breaks = lost.map(|(from, to)| cut(from, to)).into_iter().collect();
        let told = scene.told();
        assert_eq!(told[3..7], expected, "{lost:?}");
        assert_eq!(told[2], "- daily ended 2026-11-20", "it is older than needed: {lost:?}");
        assert_eq!([&told[7], &told[8]], ["+ daily until 2026-11-25", NEWEST], "{lost:?}");
    }
}

fn cut(from: &str, to: &str) -> Break {
    let (from, to) = (time_at(millis(from)), time_at(millis(to)));
    Break { from, to, database: None, reason: BreakReason::HistoryLost, noticed_millis: 0 }
}

#[test]
fn a_plan_reads_as_it_was_written() {
    let scene = Scene::at(
        "2026-11-24 12:00",
        &[("2026-11-23 08:00", copied_and_held), ("2026-11-24 02:00", failed), ("2020-01-01 02:00", manual)],
    );
    let plan = scene.plan();
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<RetentionPlan>(&json).unwrap(), plan);
}
