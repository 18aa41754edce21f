//! The chain that runs by itself: with its schedules shortened and nothing else, backups, folded backups, slices,
//! levels of verification, copies, drills and removals come, and nobody has a hand in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use backup_aws::SystemClock;
use backup_core::audit::iso_8601;
use backup_core::ports::Clock;
use bson::doc;
use local::CloudOptions;
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::inventory::{OTHERS, every_backup_is_whole};
use crate::own_cloud::{
    OwnCloud, alerts_told, call, collect_alerts, meanwhile, nothing_is_left_of_samples, operations,
    stop_the_clock, wait_until_quiet,
};

const DATABASES: [&str; 2] = ["crm", "shop"];
/// Applications write to each database so often.
const WRITE_EVERY: Duration = Duration::from_millis(200);
/// Documents that they write to, so that databases stay small.
const WRITTEN: i32 = 500;
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// A backup is removed four or five minutes after it was made.
const SEEN_WITHIN: Duration = Duration::from_mins(7);
/// What had to wait for its turn is carried out, though the clock was stopped.
const ENDS_WITHIN: Duration = Duration::from_mins(5);
/// Backups of each database that have to be seen.
const READ_MIN: usize = 3;
const FOLDED_MIN: usize = 2;
/// Instants that the timeline was at.
const CAPTURED_MIN: usize = 3;
/// Who asks where a schedule does.
const SCHEDULE: &str = "nightsafe: schedule";

/// Shorter, and nothing else: the local AWS knows whole minutes.
fn options() -> CloudOptions {
    let parameters = vec![
        ("TimelineSchedule", "rate(1 minute)"),
        ("WatchSchedule", "rate(1 minute)"),
        ("ReplicationSchedule", "rate(1 minute)"),
        ("BackupSchedule", "rate(1 minute)"),
        ("SynthesisSchedule", "rate(1 minute)"),
        ("RetentionSchedule", "rate(1 minute)"),
        ("SampleDrillSchedule", "rate(2 minutes)"),
        ("FullDrillSchedule", "rate(2 minutes)"),
        ("RegionDrillSchedule", "rate(3 minutes)"),
        ("BackupWindow", window()),
        ("RecentRetention", "90 seconds"),
        ("DailyRetention", "90 seconds"),
        ("WeeklyRetention", "90 seconds"),
        ("MonthlyRetention", "90 seconds"),
        ("AnySecondRetention", "60 seconds"),
        ("FailedRetention", "90 seconds"),
        ("PruneGrace", "20 seconds"),
        ("PruneShareMaxPercent", "100"),
        ("ColdStorage", "DISABLED"),
        ("LockMode", "GOVERNANCE"),
    ];
    let chunk_target_bytes = 256 * 1024;
    CloudOptions {
        chunk_target_bytes,
        schedules: true,
        regions: true,
        layer: true,
        parameters,
        ..CloudOptions::default()
    }
}

/// One that does not end while this runs: what is under way at its end is late, and rightly told.
fn window() -> &'static str {
    let hour = SystemClock::without_deadline().now_millis() / 3_600_000 % 24;
    if hour == 5 { "14:00-18:00" } else { "02:00-06:00" }
}

pub(crate) fn the_chain_runs_by_itself(_: &Fixture) {
    let cloud = OwnCloud::start(&options());
    collect_alerts(&cloud);
    fill(&cloud);
    let mut written = 0;
    let applications = || {
        written += 1;
        write(&cloud, written);
    };
    meanwhile(WRITE_EVERY, applications, || {
        look_until_all_was_seen(&cloud);
        stop_the_clock(&cloud);
        wait_until_quiet(&cloud, ENDS_WITHIN);
    });
    expect_all_well(&cloud, &operations(&cloud));
    let status = cloud.json("nightsafe", &["status"]);
    assert!(status["verdict"].as_str().unwrap().starts_with("OK"), "{status}");
    let whole = every_backup_is_whole(&cloud);
    nothing_is_left_of_samples(&cloud);
    eprintln!("in the end: {}; whole backups {whole:?}", status["verdict"]);
}

fn fill(fixture: &Fixture) {
    for name in DATABASES {
        let database = fixture.database(name);
        fixture.fill(&database, "leads", 0, 400);
        fixture.fill(&database, "messages", 0, 100);
        let index = doc! { "key": { "key": 1 }, "name": "by key", "unique": true };
        fixture.command(&database, doc! { "createIndexes": "leads", "indexes": [index] });
    }
}

/// What an application does once more.
fn write(fixture: &Fixture, number: i32) {
    for name in DATABASES {
        let database = fixture.client.database(name);
        let one = doc! { "q": { "_id": number % WRITTEN }, "u": { "$set": { "n": number } }, "upsert": true };
        fixture.command(&database, doc! { "update": "calls", "updates": [one] });
        let gone = doc! { "q": { "_id": (number + WRITTEN / 2) % WRITTEN }, "limit": 1 };
        fixture.command(&database, doc! { "delete": "calls", "deletes": [gone] });
    }
}

/// Only looks.
fn look_until_all_was_seen(fixture: &Fixture) {
    let (began, mut seen, mut told) = (Instant::now(), Seen::default(), String::new());
    loop {
        let (status, operations) = (fixture.json("nightsafe", &["status"]), operations(fixture));
        expect_all_well(fixture, &operations);
        seen.look(&status, &operations);
        let (missing, seconds) = (seen.missing(), began.elapsed().as_secs());
        if seen.to_string() != told {
            told = seen.to_string();
            eprintln!("{seconds:>4} s  {told}");
        }
        if missing.is_empty() {
            return;
        }
        assert!(began.elapsed() < SEEN_WITHIN, "after {seconds} s there were not yet {missing:?}: {told}");
        thread::sleep(LOOK_EVERY); // nobody may be asked to tell
    }
}

/// No operation has failed, and nobody was told of anything that needs a hand.
fn expect_all_well(fixture: &Fixture, operations: &[Value]) {
    let failed: Vec<String> =
        operations.iter().filter(|row| row["state"] == "failed").map(ToString::to_string).collect();
    let mut alerts = alerts_told(fixture);
    alerts.retain(|subject| !subject.starts_with("[INFO]"));
    let is_well = failed.is_empty() && alerts.is_empty();
    assert!(is_well, "alerts {alerts:#?}, failed:\n{}", failed.join("\n"));
}

/// What was seen so far, at some time.
#[derive(Default)]
struct Seen {
    /// Verified backups that were read from the source, by database.
    read: BTreeMap<String, BTreeSet<String>>,
    /// Verified backups that were folded, by database.
    folded: BTreeMap<String, BTreeSet<String>>,
    /// Where the timeline was.
    captured: BTreeSet<String>,
    /// Backups at L0 to L3.
    sampled: BTreeSet<String>,
    /// Backups at L4.
    restored: BTreeSet<String>,
    /// Backups with a copy in every other region.
    copied: BTreeSet<String>,
    /// What drills proved, and where.
    drills: BTreeSet<String>,
    /// How many backups each run of the pruner removed.
    pruned: BTreeMap<String, u64>,
    /// Backups that were listed, and are no more.
    gone: BTreeSet<String>,
}

impl Seen {
    fn look(&mut self, status: &Value, operations: &[Value]) {
        self.captured.extend(status["captured"].as_str().map(str::to_owned));
        for row in operations {
            let (id, detail) = (text(&row["id"]), &row["detail"]);
            if row["state"] == "verified" {
                self.look_at_backup(&id, &text(&row["database"]), &detail["backup"]);
            }
            if row["state"] == "done" && detail["drill"].is_object() {
                let place = detail["drill"]["region"].as_str().unwrap_or("home");
                self.drills.insert(format!("{} {place}", text(&detail["drill"]["reached"])));
            }
            if let Some(removed) = detail["prune"]["removed"].as_u64() {
                self.pruned.insert(id, removed);
            }
        }
        let listed: BTreeSet<String> = operations.iter().map(|row| text(&row["id"])).collect();
        let known = self.read.values().chain(self.folded.values()).flatten();
        self.gone = known.filter(|id| !listed.contains(*id)).cloned().collect();
    }

    fn look_at_backup(&mut self, id: &str, database: &str, detail: &Value) {
        let id = id.to_owned();
        let has = |level: &&str| detail["levels"][*level].is_u64();
        if ["L0", "L1", "L2", "L3"].iter().all(has) {
            self.sampled.insert(id.clone());
        }
        if has(&"L4") {
            self.restored.insert(id.clone());
        }
        if OTHERS.iter().all(|region| detail["replicas"][*region].is_object()) {
            self.copied.insert(id.clone());
        }
        let kind = if detail["folds"] == true { &mut self.folded } else { &mut self.read };
        kind.entry(database.to_owned()).or_default().insert(id);
    }

    fn missing(&self) -> Vec<&'static str> {
        let of_each = |kind: &BTreeMap<String, BTreeSet<String>>, count: usize| {
            DATABASES.iter().all(|name| kind.get(*name).is_some_and(|ids| ids.len() >= count))
        };
        let drills = ["L3 home".to_owned(), "L4 home".to_owned(), format!("L4 {}", OTHERS[0])];
        let looked_for = [
            (of_each(&self.read, READ_MIN), "backups read from the source"),
            (of_each(&self.folded, FOLDED_MIN), "folded backups"),
            (self.captured.len() >= CAPTURED_MIN, "slices"),
            (!self.sampled.is_empty(), "a backup at L0 to L3"),
            (!self.restored.is_empty(), "a backup at L4"),
            (!self.copied.is_empty(), "copies in both other regions"),
            (drills.iter().all(|drill| self.drills.contains(drill)), "drills of every kind"),
            (self.pruned.values().any(|removed| *removed > 0), "a run that removed backups"),
            (!self.gone.is_empty(), "backups that are listed no more"),
        ];
        looked_for.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what).collect()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = |kind: &BTreeMap<String, BTreeSet<String>>| -> Vec<usize> {
            kind.values().map(BTreeSet::len).collect()
        };
        write!(
            f,
            "read {:?}, folded {:?}, instants {}, at L3 {}, at L4 {}, copied {}, drills {:?}, pruned {}, \
             gone {}",
            counts(&self.read),
            counts(&self.folded),
            self.captured.len(),
            self.sampled.len(),
            self.restored.len(),
            self.copied.len(),
            self.drills,
            self.pruned.values().sum::<u64>(),
            self.gone.len(),
        )
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn wait_until_done(fixture: &Fixture, id: &Value) {
    let began = Instant::now();
    loop {
        let rows = operations(fixture);
        let row = rows.iter().find(|row| row["id"] == *id).unwrap();
        assert!(row["state"] != "failed" && began.elapsed() < ENDS_WITHIN, "{row}");
        if row["state"] == "done" {
            return;
        }
    }
}

/// Told twice at once, and once more when all is over: one row, one execution.
pub(crate) fn a_doubled_trigger_runs_once(fixture: &Fixture) {
    let now = iso_8601(SystemClock::without_deadline().now_millis());
    let (to_minutes, _) = now.rsplit_once(':').unwrap();
    let event = json!({ "start": "prune", "slot": format!("{to_minutes}:00Z") });
    let trigger = || call(&fixture.config, "start-pipeline", &event);
    let (first, second) = fixture.run(async { tokio::join!(trigger(), trigger()) });
    let (first, second) = (first.answer(&event), second.answer(&event));
    let [id] = first["operations"].as_array().unwrap().as_slice() else { panic!("{first}") };
    assert_eq!(first, second, "both are told of the same operation");
    wait_until_done(fixture, id);
    assert_eq!(fixture.run(trigger()).answer(&event), first, "and so is who comes later");
    let mut rows = operations(fixture);
    rows.retain(|row| row["user"] == SCHEDULE);
    assert_eq!(rows.iter().map(|row| &row["id"]).collect::<Vec<_>>(), [id]);
    let client = aws_sdk_sfn::Client::new(&fixture.config);
    let machine = fixture.stack("PruneMachine");
    let list = client.list_executions().state_machine_arn(machine);
    let found = fixture.run(list.send()).unwrap();
    let name = format!("prune-{}", text(id));
    let executions = found.executions().iter().filter(|it| it.name() == name).count();
    assert_eq!(executions, 1, "{found:?}");
    eprintln!("{event}, told three times: {name}, one row, one execution");
}
