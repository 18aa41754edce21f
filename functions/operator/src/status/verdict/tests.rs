//! The verdict, by tables.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use backup_core::id::{ClusterTime, Fence, OperationId};
use backup_core::operation::{BackupDetail, Detail, DrillDetail, Level, PruneDetail};

use super::*;
use crate::status::newest::good_backups;

const HOUR: u64 = 3_600_000;
/// 2026-11-22 02:00:00 UTC.
const NOW: u64 = 1_795_312_800_000;

fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

/// Asked for so many hours before [`NOW`], and ended well at once.
fn ended(database: &str, hours: u64, detail: Detail) -> Operation {
    let id = OperationId::of_slot(NOW - hours * HOUR, &[database, &format!("{detail:?}")]);
    let source = "main".parse().unwrap();
    let mut row = Operation::requested(id, source, database.into(), vec![], "somebody".into(), detail);
    row.state = if row.backup().is_ok() { OperationState::Verified } else { OperationState::Done };
    row.fence = Some(Fence(1));
    row.finished_millis = Some(id.requested_millis());
    row
}

fn read(database: &str, hours: u64) -> Operation {
    ended(database, hours, Detail::Backup(BackupDetail::requested(Trigger::Automated, false)))
}

fn by_hand(database: &str, hours: u64) -> Operation {
    ended(database, hours, Detail::Backup(BackupDetail::requested(Trigger::Manual, false)))
}

fn folded(database: &str, hours: u64) -> Operation {
    let detail = BackupDetail { folds: true, ..BackupDetail::requested(Trigger::Automated, false) };
    ended(database, hours, Detail::Backup(detail))
}

fn drill(database: &str, hours: u64, region: Option<RegionName>) -> Operation {
    let detail = DrillDetail::requested(Trigger::Automated, Level::SampleRestored, region);
    ended(database, hours, Detail::Drill(detail))
}

fn prune(trigger: Trigger, hours: u64) -> Operation {
    ended("", hours, Detail::Prune(PruneDetail::requested(trigger, false, false)))
}

fn failed(row: Operation) -> Operation {
    Operation { state: OperationState::Failed, ..row }
}

/// It failed before it had a lease.
fn refused(row: Operation) -> Operation {
    Operation { fence: None, ..failed(row) }
}

/// What there is, in any order.
#[derive(Default)]
struct Scene {
    backups: Vec<Operation>,
    drills: Vec<Operation>,
    prunes: Vec<Operation>,
    /// For how many hours the timeline has not moved.
    still: Option<u64>,
    told: Vec<&'static str>,
    /// What the watch has seen for so many minutes, and has not told.
    untold: Vec<(&'static str, u64)>,
}

fn judged(mut scene: Scene) -> Verdict {
    for rows in [&mut scene.backups, &mut scene.drills, &mut scene.prunes] {
        rows.sort_by_key(|row| Reverse(row.id));
    }
    let settings = WatchSettings::of(region("us-east-1"));
    let began = ClusterTime { seconds: 1, ordinal: 1 };
    let head = scene.still.map(|hours| TimelineHead::beginning(began, NOW - hours * HOUR));
    let told: BTreeMap<String, u64> = scene.told.iter().map(|key| ((*key).to_owned(), NOW)).collect();
    let mut since = told.clone();
    since.extend(scene.untold.iter().map(|(key, minutes)| ((*key).to_owned(), NOW - minutes * 60_000)));
    let facts = Facts {
        backups: &scene.backups,
        good: &good_backups(&settings, &scene.backups, NOW),
        drills: &scene.drills,
        prunes: &scene.prunes,
        regions: &[region("eu-west-1")],
        head: head.as_ref(),
        watch: &WatchState { told, since, ..WatchState::default() },
    };
    judge(&settings, &facts, NOW)
}

fn check(name: &str, scene: Scene, expected: &str) {
    assert_eq!(judged(scene).to_string(), expected, "{name}");
}

/// All is well but for this.
fn check_backups(name: &str, backups: Vec<Operation>, expected: &str) {
    check(name, Scene { backups, ..Scene::default() }, expected);
}

#[test]
fn what_counts_is_what_was_read_from_the_source() {
    let none = "NO BACKUP – there is no good backup yet";
    check_backups("nothing was ever asked for", vec![], none);
    check_backups("none succeeded", vec![failed(read("crm", 1))], none);
    let some = Operation { collections: vec!["leads".into()], ..read("crm", 1) };
    check_backups("of some collections", vec![some], none);
    check_backups("new enough", vec![read("crm", 7)], "OK – every database that is backed up was within 7 h");
    let both = vec![folded("crm", 1), read("crm", 7), read("web", 7), folded("web", 5)];
    check_backups("folded since", both, "OK – every database that is backed up was within 5 h");
    check_backups(
        "too old",
        vec![read("crm", 30)],
        "LATE – \"crm\" has had no good backup read from the source for 30 hours",
    );
    check_backups(
        "folding goes on, reading fails for days",
        vec![folded("crm", 1), failed(read("crm", 6)), failed(read("crm", 30)), read("crm", 54)],
        "LATE – \"crm\" has had no good backup read from the source for 54 hours",
    );
    check_backups(
        "the longest comes first",
        vec![read("crm", 30), failed(read("web", 30)), read("web", 40), read("shop", 31)],
        "LATE – \"web\" has had no good backup read from the source for 40 hours, and 2 more",
    );
    let dropped = vec![read("crm", 7), read("old", 900), failed(read("old", 899))];
    check_backups("dropped long ago", dropped, "OK – every database that is backed up was within 7 h");
}

#[test]
fn the_newest_try_of_each_kind_is_judged_apart() {
    let well = "OK – every database that is backed up was within 30 min";
    let recent = |database: &str| {
        let mut row = by_hand(database, 0);
        row.id = OperationId::of_slot(NOW - HOUR / 2, &[database]);
        row
    };
    check_backups("by hand, half an hour ago", vec![recent("crm")], well);
    check_backups("mended by hand", vec![recent("crm"), failed(read("crm", 1))], well);
    check_backups(
        "reading failed, folding goes on",
        vec![folded("crm", 1), failed(read("crm", 2)), read("crm", 26)],
        "WARNING – the newest backup read from the source failed for \"crm\"",
    );
    check_backups(
        "folding failed, reading goes on",
        vec![read("crm", 1), failed(folded("crm", 2)), read("web", 1), failed(folded("web", 2))],
        "WARNING – the newest folded backup failed for \"crm\", \"web\"",
    );
    check_backups(
        "a schedule's failed before it had a lease",
        vec![refused(read("crm", 1)), read("crm", 20)],
        "WARNING – the newest backup read from the source failed for \"crm\"",
    );
    check_backups(
        "a person's was refused at once",
        vec![refused(by_hand("crm", 1)), read("crm", 20)],
        "OK – every database that is backed up was within 20 h",
    );
    check_backups(
        "a person's failed on the way",
        vec![failed(by_hand("crm", 1)), read("crm", 20)],
        "WARNING – the newest backup read from the source failed for \"crm\"",
    );
    let some = Operation { collections: vec!["leads".into()], ..failed(read("crm", 1)) };
    check_backups(
        "of some collections",
        vec![some, read("crm", 20)],
        "OK – every database that is backed up was within 20 h",
    );
    check_backups(
        "what is good is of a database that was dropped",
        vec![read("old", 900), Operation { state: OperationState::Running, ..read("crm", 1) }],
        "WARNING – no database that is backed up now has a good backup yet",
    );
}

const WELL: &str = "OK – every database that is backed up was within 7 h";

#[test]
fn removals_are_missed() {
    let scene = |prunes| Scene { backups: vec![read("crm", 7)], prunes, ..Scene::default() };
    let (automated, manual) = (Trigger::Automated, Trigger::Manual);
    let waiting =
        Operation { state: OperationState::Requested, finished_millis: None, ..prune(automated, 49) };
    let mut only_a_plan = prune(manual, 1);
    only_a_plan.prune_mut().unwrap().dry_run = true;
    let cases = [
        ("never asked for", vec![], WELL),
        ("yesterday's", vec![prune(automated, 24)], WELL),
        ("nearly two days", vec![prune(automated, 47)], WELL),
        ("two days", vec![prune(automated, 48)], "WARNING – no removal has ended for 2 d"),
        ("one by hand since", vec![prune(manual, 5), prune(automated, 48)], WELL),
        ("a plan since", vec![only_a_plan, prune(automated, 48)], "WARNING – no removal has ended for 2 d"),
        ("only by hand", vec![prune(manual, 900)], WELL),
        ("it never ends", vec![waiting], "WARNING – no removal has ended for 2 d"),
        (
            "failed",
            vec![failed(prune(automated, 1)), prune(automated, 25)],
            "WARNING – the last removal failed",
        ),
        ("refused by hand", vec![refused(prune(manual, 1)), prune(automated, 25)], WELL),
        (
            "failed, and none since",
            vec![failed(prune(automated, 50))],
            "WARNING – the last removal failed; no removal has ended for 2 d",
        ),
    ];
    for (name, prunes, expected) in cases {
        check(name, scene(prunes), expected);
    }
}

#[test]
fn a_failed_drill_counts_until_the_next_one() {
    let (eu, ap) = (Some(region("eu-west-1")), Some(region("ap-southeast-1")));
    let scene = |drills| Scene { backups: vec![read("crm", 7), read("web", 7)], drills, ..Scene::default() };
    let at_home = "WARNING – the newest drill at home failed for \"crm\"";
    let cases = [
        ("well", vec![drill("crm", 1, None), drill("web", 1, eu)], WELL),
        ("failed", vec![failed(drill("crm", 1, None)), drill("crm", 99, None)], at_home),
        ("mended", vec![drill("crm", 1, None), failed(drill("crm", 99, None))], WELL),
        (
            "another database's is no mend",
            vec![drill("web", 1, None), failed(drill("crm", 2, None))],
            at_home,
        ),
        ("another place is no mend", vec![drill("crm", 1, eu), failed(drill("crm", 2, None))], at_home),
        (
            "in another region",
            vec![drill("crm", 1, None), failed(drill("crm", 2, eu)), failed(drill("web", 2, eu))],
            "WARNING – the newest drill in eu-west-1 failed for \"crm\", \"web\"",
        ),
        ("in a region that holds copies no more", vec![failed(drill("crm", 1, ap))], WELL),
        ("of a database without backups", vec![failed(drill("old", 1, None))], WELL),
    ];
    for (name, drills, expected) in cases {
        check(name, scene(drills), expected);
    }
}

#[test]
fn what_the_watch_told_lasts() {
    let scene = |told| Scene { backups: vec![read("crm", 7)], told, ..Scene::default() };
    check("nothing", scene(vec![]), WELL);
    check("judged anew", scene(vec!["backup/crm", "backup/"]), WELL);
    check(
        "two",
        scene(vec!["backup/crm", "replication/eu-west-1", "storage"]),
        "WARNING – the watch has told: replication/eu-west-1, storage",
    );
    let scene = |untold| Scene { backups: vec![read("crm", 7)], untold, ..Scene::default() };
    check("a hiccup", scene(vec![("clock", 9)]), WELL);
    check(
        "nobody could be told",
        scene(vec![("key/eu-west-1", 10), ("backup/crm", 60)]),
        "WARNING – the watch could not tell people of: key/eu-west-1",
    );
}

#[test]
fn a_timeline_that_stands_still_is_told_where_schedules_run() {
    let scene = |row, still| Scene { backups: vec![row], still, ..Scene::default() };
    check("not begun", scene(read("crm", 7), None), WELL);
    check("moving", scene(read("crm", 7), Some(0)), WELL);
    check("still", scene(read("crm", 7), Some(2)), "WARNING – the timeline has not moved for 2 h");
    check("without schedules", scene(by_hand("crm", 7), Some(2)), WELL);
}

#[test]
fn what_the_line_leaves_out_stands_beside_it() {
    let wrong = |backups| Scene {
        backups,
        prunes: vec![failed(prune(Trigger::Automated, 1))],
        told: vec!["storage"],
        ..Scene::default()
    };
    let beside = ["the last removal failed", "the watch has told: storage"];
    let late = "\"crm\" has had no good backup read from the source for 30 hours";
    for (backups, health, expected, left_out) in [
        (vec![], "no_backup", "there is no good backup yet", beside.to_vec()),
        (vec![read("crm", 30)], "late", late, beside.to_vec()),
        (vec![read("crm", 1)], "warning", beside[0], vec![]),
    ] {
        let verdict = judged(wrong(backups));
        assert_eq!(serde_json::to_value(verdict.health).unwrap(), health);
        assert_eq!(verdict.reasons[0], expected);
        assert_eq!(verdict.beside(), left_out, "{health}");
    }
    let well = judged(Scene { backups: vec![read("crm", 7)], ..Scene::default() });
    assert_eq!(serde_json::to_value(well.health).unwrap(), "ok");
    assert!(well.reasons.is_empty() && well.beside().is_empty());
}
