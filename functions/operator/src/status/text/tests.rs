//! The lines, by tables.

use backup_core::id::{OperationId, SourceName};
use backup_core::operation::{
    BackupDetail, Detail, DrillDetail, Failure, PruneDetail, Replica, RestoreDetail, Trigger,
};
use backup_core::watch::WatchSettings;
use backup_core::{Error, ErrorKind};

use super::*;

const HOUR: u64 = 3_600_000;
/// 2026-11-22 02:00:00 UTC.
const NOW: u64 = 1_795_312_800_000;

fn region() -> RegionName {
    "eu-west-1".parse().unwrap()
}

fn row(database: &str, hours: u64, state: OperationState, detail: Detail) -> Operation {
    let id = OperationId::of_slot(NOW - hours * HOUR, &[database]);
    let source: SourceName = "main".parse().unwrap();
    let row = Operation::requested(id, source, database.into(), vec![], "somebody".into(), detail);
    Operation { state, finished_millis: Some(NOW - hours * HOUR), ..row }
}

/// A good backup with two chunks.
fn good(database: &str, hours: u64, edit: impl FnOnce(&mut BackupDetail)) -> Operation {
    let mut detail = BackupDetail::requested(Trigger::Automated, false);
    edit(&mut detail);
    let mut row = row(database, hours, OperationState::Verified, Detail::Backup(detail));
    row.totals.chunks = 2;
    row
}

fn good_of(backups: &[Operation]) -> GoodBackups<'_> {
    newest::good_backups(&WatchSettings::of("us-east-1".parse().unwrap()), backups, NOW)
}

fn check(name: &str, lines: &[String], expected: &[&str]) {
    assert_eq!(lines.len(), expected.len(), "{name}: {lines:#?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.contains(expected), "{name}: {expected:?} is not in {line:?}");
    }
}

#[test]
fn a_database_has_its_newest_and_where_else_it_is() {
    let folds = |detail: &mut BackupDetail| detail.folds = true;
    let copied = |detail: &mut BackupDetail| {
        let copy = Replica { completed_millis: NOW, objects: 1, stored_bytes: 1 };
        detail.replicas.insert(region(), copy);
    };
    let plain = |_: &mut BackupDetail| ();
    let (regions, id) = ([region()], good("crm", 7, plain).id);
    let backups = [good("crm", 2, folds), good("crm", 7, copied)];
    let elsewhere = format!("    read from the source: {id} 7 h ago; copies: eu-west-1 7 h ago");
    let expected = ["2 h ago (folded), 0 documents", elsewhere.as_str()];
    check("folded", &databases(&good_of(&backups), &regions, NOW), &expected);
    let backups = [good("crm", 7, plain)];
    let expected = ["7 h ago, 0 documents", "    copies: eu-west-1 NONE"];
    check("no copy", &databases(&good_of(&backups), &regions, NOW), &expected);
    check("one region", &databases(&good_of(&backups), &[], NOW), &["7 h ago, 0 documents"]);
    let backups = [good("crm", 7, folds), good("web", 7, plain)];
    let expected = ["(folded)", "    read from the source: NONE", "  web: "];
    check("only folded", &databases(&good_of(&backups), &[], NOW), &expected);
    let backups = [good("web", 7, plain), good("old", 900, plain)];
    check("dropped", &databases(&good_of(&backups), &[], NOW), &["others are backed up without it", "  web"]);
    let backups: Vec<Operation> = (0..12).map(|number| good(&format!("db-{number:02}"), 7, plain)).collect();
    let lines = databases(&good_of(&backups), &[], NOW);
    assert_eq!((lines.len(), lines[10].as_str()), (11, "  and 2 more"));
}

#[test]
fn a_sample_that_was_not_restored_is_told() {
    let sampled = |detail: &mut BackupDetail| {
        detail.levels.insert(Level::SampleRestored, NOW);
    };
    let plain = |_: &mut BackupDetail| ();
    let mut empty = good("crm", 1, plain);
    empty.totals.chunks = 0;
    let folded = good("crm", 1, |detail| detail.folds = true);
    let untried = Some("samples: NONE restored from the newest backup read of \"crm\"");
    for (name, backups, expected) in [
        ("restored", vec![good("crm", 7, sampled)], None),
        ("not restored", vec![good("crm", 7, plain), good("web", 7, sampled)], untried),
        ("not since", vec![good("crm", 1, plain), good("crm", 7, sampled)], untried),
        ("folded ones are not sampled", vec![folded, good("crm", 7, sampled)], None),
        ("there is nothing to restore", vec![empty], None),
    ] {
        assert_eq!(samples(&good_of(&backups)).as_deref(), expected, "{name}");
    }
}

#[test]
fn a_place_without_a_drill_is_told() {
    let drill = |hours, level, region: Option<RegionName>| {
        let requested = DrillDetail::requested(Trigger::Automated, level, region);
        let detail = DrillDetail { reached: Some(level), ..requested };
        row("crm", hours, OperationState::Done, Detail::Drill(detail))
    };
    let (sample, full) = (Level::SampleRestored, Level::FullyRestored);
    check("none", &drills(&[], &[region()], NOW), &["drills: home NEVER", "drills: eu-west-1 NEVER"]);
    let all = [
        drill(50, sample, None),
        drill(99, full, Some(region())),
        drill(200, sample, None),
        drill(300, full, None),
    ];
    let expected = ["drills: home L4 12 d ago, L3 2 d ago", "drills: eu-west-1 L4 4 d ago"];
    check("some", &drills(&all, &[region()], NOW), &expected);
}

#[test]
fn what_is_under_way_and_what_failed_is_told() {
    let backup = || Detail::Backup(BackupDetail::requested(Trigger::Automated, false));
    let why = Error::new(ErrorKind::Denied, "read ".repeat(100));
    let failed = |hours, detail| {
        let row = row("crm", hours, OperationState::Failed, detail);
        Operation { failure: Some(Failure::of("dump-chunk", &why)), ..row }
    };
    let prune = || PruneDetail::requested(Trigger::Automated, false, false);
    let all = [9, 3, 5, 7].map(|hours| failed(hours, backup()));
    let lines = failures(all.iter(), NOW);
    check("the newest", &lines, &["of crm 3 h ago: read", "5 h ago", "7 h ago"]);
    assert!(lines[0].starts_with("failed: backup ") && lines[0].ends_with("read …"), "{}", lines[0]);
    assert_eq!(removal(&[], NOW), "removal: NEVER");
    let done = Detail::Prune(PruneDetail { kept: 40, removed: 3, ..prune() });
    let done = [row("", 6, OperationState::Done, done)];
    assert_eq!(removal(&done, NOW), "removal: 6 h ago, 3 removed, 40 kept");
    let told = removal(&[failed(6, Detail::Prune(prune()))], NOW);
    assert!(told.starts_with("removal: 6 h ago, FAILED: read read"), "{told}");
    let thawing = RestoreDetail { thawing_since_millis: Some(NOW), ..RestoreDetail::requested(true) };
    let thawing = row("crm", 0, OperationState::Requested, Detail::Restore(thawing));
    check("cold", &under_way("waits", &[&thawing]), &["of crm, waits for cold storage since 2026-11-22"]);
    let many: Vec<&Operation> = all.iter().cycle().take(12).collect();
    let lines = under_way("waits", &many);
    assert_eq!((lines.len(), lines[10].as_str()), (11, "  and 2 more"));
}

#[test]
fn there_is_always_a_word_on_the_quota() {
    let stored = BTreeMap::from([(region(), 1024)]);
    check("none", &room(&stored, None), &["stored: 1.0 KiB in eu-west-1", "quota: none"]);
    check("some", &room(&stored, Some(4096)), &["stored", "quota: 1.0 KiB of 4.0 KiB (25 %)"]);
}
