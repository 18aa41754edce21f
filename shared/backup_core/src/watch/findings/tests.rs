//! The decisions of the watch, by tables.

use super::*;
use crate::alert::Severity;
use crate::error::{Error, ErrorKind};
use crate::id::ClusterTime;
use crate::operation::{BackupDetail, Detail, Removal, Replica};
use crate::retention::ShelfUsage;
use crate::watch::Sighting;

const HOUR: u64 = HOUR_MILLIS;
/// 2026-11-22 02:00:00 UTC.
const NOW: u64 = 1_795_312_800_000;

fn source() -> SourceName {
    "main".parse().unwrap()
}

fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

fn settings() -> WatchSettings {
    WatchSettings::of(region("us-east-1"))
}

/// A good backup that a schedule asked for so many hours before [`NOW`], and that was done at once.
fn good(database: &str, hours: u64) -> Operation {
    let id = OperationId::of_slot(NOW - hours * HOUR, &[database]);
    let detail = Detail::Backup(BackupDetail::requested(Trigger::Automated, false));
    let mut row = Operation::requested(id, source(), database.into(), vec![], "schedule".into(), detail);
    row.state = OperationState::Verified;
    row.finished_millis = Some(id.requested_millis());
    row
}

fn with(mut row: Operation, edit: impl FnOnce(&mut Operation, &mut BackupDetail)) -> Operation {
    let mut detail = row.backup().unwrap().clone();
    edit(&mut row, &mut detail);
    row.detail = Detail::Backup(detail);
    row
}

fn failed(database: &str, hours: u64) -> Operation {
    with(good(database, hours), |row, _| row.state = OperationState::Failed)
}

fn folded(database: &str, hours: u64) -> Operation {
    with(good(database, hours), |_, it| it.folds = true)
}

fn by_hand(database: &str, hours: u64) -> Operation {
    with(good(database, hours), |_, it| it.trigger = Trigger::Manual)
}

fn keys(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.key.as_str()).collect()
}

fn head(moved_millis: u64, lag_told_millis: u64) -> TimelineHead {
    let to = ClusterTime { seconds: u32::try_from(NOW / 1000).unwrap(), ordinal: 1 };
    TimelineHead { lag_told_millis, ..TimelineHead::beginning(to, moved_millis) }
}

#[test]
fn the_dead_mans_switch() {
    let bogus =
        |edit: fn(&mut Operation, &mut BackupDetail)| vec![good("crm", 29), with(good("crm", 1), edit)];
    let (none, late): (&[&str], &[&str]) = (&[], &["backup/crm"]);
    let cases: Vec<(&str, Vec<Operation>, &[&str])> = vec![
        ("nothing was ever asked for", vec![], none),
        ("new enough", vec![good("crm", 27)], none),
        ("too old", vec![good("crm", 28)], late),
        ("nothing ran for a month", vec![good("crm", 720), good("crm", 744)], late),
        (
            "the newest failed, but the one before is new enough",
            vec![failed("crm", 1), good("crm", 25)],
            none,
        ),
        ("they fail since the day before yesterday", vec![failed("crm", 1), good("crm", 49)], late),
        ("the first is under way", vec![failed("crm", 3)], none),
        ("the first never succeeded", vec![failed("crm", 4), failed("crm", 28)], late),
        ("one of two", vec![good("crm", 28), good("web", 1)], late),
        ("folding goes on, reading does not", vec![folded("crm", 1), good("crm", 49)], late),
        ("only folded ones are left", vec![folded("crm", 1), folded("crm", 31)], late),
        ("of some collections", bogus(|row, _| row.collections.push("leads".into())), late),
        ("not whole", bogus(|_, it| it.lost = 1), late),
        ("not verified", bogus(|row, _| row.state = OperationState::Sealed), late),
        (
            "of the year 2027",
            vec![
                good("crm", 29),
                with(good("crm", 0), |row, _| {
                    row.id = OperationId::of_slot(NOW + 9000 * HOUR, &["crm"]);
                }),
            ],
            late,
        ),
        ("only by hand", vec![by_hand("crm", 29)], late),
        ("once by hand, then by schedules", vec![by_hand("crm", 9000), good("crm", 29)], late),
        ("by hand, beside what schedules ask for", vec![by_hand("web", 29), good("crm", 1)], none),
        ("dropped, and told the day before", vec![good("crm", 72), good("web", 24), good("web", 1)], none),
    ];
    for (name, backups, expected) in cases {
        let found = overdue((source(), &settings()), &backups, None, NOW);
        assert_eq!(keys(&found), expected, "{name}");
        let databases = overdue_databases(&settings(), &backups, NOW);
        let told: Vec<String> = databases.iter().map(|it| format!("backup/{}", it.database)).collect();
        assert_eq!(told, expected, "{name}");
        assert!(
            found.iter().all(|it| it.alert.severity == Severity::Critical && it.patience_millis == 0),
            "{name}"
        );
    }
    let marked = with(good("crm", 1), |_, it| {
        it.removal = Some(Removal { reason: "bogus".into(), marked_millis: NOW, begun: false });
    });
    assert_eq!(keys(&overdue((source(), &settings()), &[good("crm", 29), marked], None, NOW)), late);
}

#[test]
fn a_database_that_is_backed_up_no_more_is_told_once() {
    // Both are backed up at 02:00; then one is dropped. The watch runs every five minutes.
    let backups = |now: u64| -> Vec<Operation> {
        let web = (0..).map(|day| day * 24 * HOUR).take_while(move |at| *at <= now);
        let all = web.map(|at| ("web", at)).chain([("crm", 0)]);
        all.map(|(database, at)| {
            with(good(database, 0), |row, _| row.id = OperationId::of_slot(NOW + at, &[database]))
        })
        .collect()
    };
    let times = (0..5 * 24 * 12).map(|run| run * HOUR / 12);
    let overdue_at = |at: &u64| {
        let found = overdue((source(), &settings()), &backups(*at), None, NOW + at);
        assert!(found.iter().all(|it| it.key == "backup/crm"));
        !found.is_empty()
    };
    let seen: Vec<u64> = times.filter(overdue_at).collect();
    assert_eq!((seen.first(), seen.last()), (Some(&(28 * HOUR)), Some(&(48 * HOUR - HOUR / 12))));
}

#[test]
fn many_databases_without_a_backup_are_told_together() {
    let names: Vec<String> = (0..30).map(|number| format!("db-{number:02}")).collect();
    let backups: Vec<Operation> = names.iter().map(|name| good(name, 30)).collect();
    let found = overdue((source(), &settings()), &backups, None, NOW);
    assert_eq!(keys(&found), ["backup/"]);
    assert!(found[0].alert.subject.contains("for 30 h main/30 databases"), "{}", found[0].alert.subject);
    let body = &found[0].alert.body;
    assert!(
        body.contains("\"db-19\"") && !body.contains("\"db-20\"") && body.contains("and 10 more"),
        "{body}"
    );
    assert_eq!(overdue((source(), &settings()), &backups[..10], None, NOW).len(), 10);
    let databases = overdue_databases(&settings(), &backups, NOW).into_iter().map(|it| it.database);
    assert_eq!(databases.collect::<Vec<String>>(), names);
}

#[test]
fn a_database_that_others_are_backed_up_without_was_dropped() {
    for (name, backups, expected) in [
        ("the only one", vec![good("crm", 720)], vec![]),
        ("both late", vec![good("crm", 30), good("web", 40)], vec![]),
        ("new enough", vec![good("crm", 28), good("web", 0)], vec![]),
        ("long ago", vec![good("crm", 29), good("web", 0)], vec!["crm"]),
        ("it is still tried", vec![good("crm", 99), failed("crm", 1), good("web", 0)], vec![]),
        ("the others fail", vec![good("crm", 99), failed("web", 0)], vec!["crm"]),
    ] {
        let found: Vec<&str> = dropped(&settings(), &backups, NOW).into_iter().collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_source_without_any_backup_is_told_once_its_timeline_is_old() {
    let head = head(NOW, 0);
    for (hours, expected) in [(27, vec![]), (28, vec!["backup/"])] {
        let found = overdue((source(), &settings()), &[], Some(&head), NOW + hours * HOUR);
        assert_eq!(keys(&found), expected, "after {hours} hours");
        assert!(overdue_databases(&settings(), &[], NOW + hours * HOUR).is_empty());
    }
}

#[test]
fn what_runs_past_its_window_is_late() {
    type Edit = fn(&mut Operation, &mut BackupDetail);
    let running: Edit = |row, _| row.state = OperationState::Running;
    let cases: [(&str, u64, Edit, bool); 8] = [
        ("before the end", 4 * HOUR - 1, running, false),
        ("at the end", 4 * HOUR, running, true),
        ("two days later", 52 * HOUR, running, true),
        ("not begun", 4 * HOUR, |row, _| row.state = OperationState::Requested, true),
        ("sealed, but not verified", 4 * HOUR, |row, _| row.state = OperationState::Sealed, true),
        ("done", 4 * HOUR, |_, _| (), false),
        ("failed", 4 * HOUR, |row, _| row.state = OperationState::Failed, false),
        (
            "by hand",
            4 * HOUR,
            |row, it| {
                row.state = OperationState::Running;
                it.trigger = Trigger::Manual;
            },
            false,
        ),
    ];
    for (name, after, edit, expected) in cases {
        let backups = [with(good("crm", 0), edit), with(good("web", 3), running)];
        let found = late((source(), &settings()), &backups, NOW + after);
        let key = format!("window/{}", NOW + 4 * HOUR);
        let expected = if expected { vec![key.as_str()] } else { vec![] };
        assert_eq!(keys(&found), expected, "{name}");
        assert!(found.iter().all(|it| it.alert.severity == Severity::High), "{name}");
    }
}

fn copied(mut row: Operation, to: &[&str]) -> Operation {
    let copy = Replica { completed_millis: NOW, objects: 1, stored_bytes: 1 };
    for name in to {
        row.backup_mut().unwrap().replicas.insert(region(name), copy);
    }
    row
}

/// A name, the rows, and at each time what is wrong.
type Case = (&'static str, Vec<Operation>, Vec<(u64, &'static [&'static str])>);

#[test]
fn a_region_lacks_what_is_newest_and_what_it_is_to_keep() {
    let (ap, everywhere): (&[&str], &[&str]) = (&["ap"], &["ap", "eu"]);
    let weekly = || good("crm", 100);
    let cases: Vec<Case> = vec![
        ("copied", vec![copied(good("crm", 2), everywhere)], vec![]),
        ("nowhere", vec![good("crm", 2)], vec![(2, everywhere)]),
        ("in one", vec![copied(good("crm", 2), &["eu"])], vec![(2, ap)]),
        ("superseded", vec![copied(good("crm", 2), everywhere), good("crm", 26)], vec![]),
        (
            "superseded in one region",
            vec![copied(good("crm", 2), &["eu"]), copied(good("crm", 26), &["ap"])],
            vec![(2, ap)],
        ),
        ("never since", vec![good("crm", 2), good("crm", 26)], vec![(2, everywhere), (26, everywhere)]),
        (
            "of another database",
            vec![copied(good("web", 1), everywhere), good("crm", 2)],
            vec![(2, everywhere)],
        ),
        ("of its week", vec![copied(good("crm", 2), everywhere), weekly()], vec![(100, everywhere)]),
        (
            "of its month, and cold",
            vec![copied(good("crm", 2), everywhere), with(weekly(), |_, it| it.is_cold = true)],
            vec![],
        ),
        ("failed", vec![failed("crm", 2)], vec![]),
    ];
    for (name, backups, expected) in cases {
        let kept = BTreeSet::from([weekly().id]);
        let found = lacking(&backups, &kept, &[region("ap"), region("eu")], NOW);
        let found: Vec<(u64, Vec<String>)> = found
            .iter()
            .map(|it| (it.millis / HOUR, it.regions.iter().map(ToString::to_string).collect()))
            .collect();
        let expected: Vec<(u64, Vec<String>)> = expected
            .into_iter()
            .map(|(hours, regions)| (hours, regions.iter().map(|it| (*it).to_owned()).collect()))
            .collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_copy_is_late_after_an_hour() {
    let regions = [region("ap"), region("eu")];
    for (backups, expected) in [
        (vec![good("crm", 0)], vec![]),
        (vec![good("crm", 1)], vec!["replication/ap", "replication/eu"]),
        (vec![copied(good("crm", 1), &["ap"])], vec!["replication/eu"]),
        (vec![copied(good("crm", 0), &["ap"]), good("crm", 5)], vec!["replication/eu"]),
    ] {
        let lacking = lacking(&backups, &BTreeSet::new(), &regions, NOW);
        let found = replication((source(), &settings()), &lacking, &regions);
        assert_eq!(keys(&found), expected, "{backups:?}");
        assert!(found.iter().all(|it| it.alert.severity == Severity::High));
    }
}

#[test]
fn the_newest_good_backup_of_a_region_is_what_it_has_a_copy_of() {
    let newest = good("crm", 2);
    let (older, other) = (copied(good("web", 9), &["eu"]), copied(good("crm", 30), &["eu"]));
    let backups = [failed("crm", 1), other, older.clone(), newest.clone()];
    let found = |region: Option<RegionName>| newest_good(&backups, region, NOW).map(|it| it.id);
    assert_eq!(found(None), Some(newest.id));
    assert_eq!(found(Some(region("eu"))), Some(older.id));
    assert_eq!(found(Some(region("ap"))), None);
}

#[test]
fn a_timeline_that_stands_still_is_told_unless_a_capture_told_it() {
    for (name, moved, told, expected) in [
        ("moving", NOW - HOUR + 1, 0, false),
        ("dead", NOW - HOUR, 0, true),
        ("failing, and telling", NOW - HOUR, NOW - HOUR / 2, false),
        ("failed, and dead since", NOW - 9 * HOUR, NOW - 2 * HOUR, true),
        ("moved in the future", NOW + HOUR, 0, false),
    ] {
        let found = timeline((source(), &settings()), &head(moved, told), &[], NOW);
        assert_eq!(!found.is_empty(), expected, "{name}");
    }
}

#[test]
fn a_copy_of_the_timeline_is_told_once_it_is_an_hour_behind() {
    let began = head(NOW, 0).began;
    let later = |seconds: u32| ClusterTime { seconds: began.seconds + seconds, ordinal: 1 };
    let copy = |to: ClusterTime| Some(ReplicatedTimeline { to, breaks: 0, moved_millis: NOW });
    for (name, stored_to, copy, expected) in [
        ("there is nothing", began, None, false),
        ("all is there", later(9000), copy(later(9000)), false),
        ("a little is missing", later(9000), copy(later(5401)), false),
        ("an hour is missing", later(9000), copy(later(5400)), true),
        ("not begun", later(3599), None, false),
        ("never begun", later(3600), None, true),
    ] {
        let head = TimelineHead { stored_to, to: stored_to, ..head(NOW, 0) };
        let found = timeline((source(), &settings()), &head, &[(region("eu"), copy)], NOW);
        assert_eq!(keys(&found), if expected { vec!["timeline-copy/eu"] } else { vec![] }, "{name}");
        assert!(found.iter().all(|it| it.patience_millis > 0), "a slice of an idle source is an hour long");
    }
}

#[test]
fn clocks_that_are_ten_minutes_apart_are_told() {
    for (store, expected) in [
        (NOW, false),
        (NOW - HOUR / 6, false),
        (NOW + HOUR / 6, false),
        (NOW - HOUR / 6 - 1, true),
        (NOW + HOUR / 6 + 1, true),
        (u64::MAX, true),
    ] {
        assert_eq!(clock(source(), NOW, store).is_some(), expected, "{store}");
    }
}

#[test]
fn more_than_eighty_percent_of_the_quota_is_a_warning() {
    for (used, quota, expected) in [
        (80, Some(100), false),
        (81, Some(100), true),
        (801, Some(1000), true),
        (u64::MAX, Some(1), true),
        (u64::MAX, Some(0), false),
        (u64::MAX, None, false),
    ] {
        let shelf = ShelfUsage { region: region("eu"), tier: None, backups: 3, stored_bytes: used };
        let usage = Usage { shelves: vec![shelf], total_bytes: used };
        let found = storage((source(), &settings()), &usage, quota);
        assert_eq!(found.is_some(), expected, "{used} of {quota:?}");
        if let Some(found) = found {
            assert_eq!(found.alert.severity, Severity::Warning);
            assert!(found.alert.body.contains("region eu, other"), "{}", found.alert.body);
        }
    }
}

#[test]
fn the_worst_is_told_first() {
    let why = Error::new(ErrorKind::Denied, "look");
    let mut seen = Sighting::default();
    let usage = Usage { shelves: vec![], total_bytes: 100 };
    seen.findings.extend(storage((source(), &settings()), &usage, Some(100)));
    seen.findings.extend(timeline((source(), &settings()), &head(NOW - HOUR, 0), &[], NOW));
    seen.fail(source(), "the catalog", &[], &why);
    seen.sort();
    assert_eq!(keys(&seen.findings), ["look/the catalog", "timeline", "storage"]);
}
