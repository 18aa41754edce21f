//! One check for everything that must be refused: a command is run with one thing wrong, and what it leaves is looked
//! at from every side. A case that fails does not hide the others: all are told at the end, because each stands for
//! another message somebody has to understand at night.

use backup_aws::SystemClock;
use backup_core::format::ObjectKey;
use backup_core::id::OperationId;
use backup_core::operation::{OperationKind, OperationState};
use backup_core::ports::{Catalog, Clock, ObjectStore};
use mongodb::Database;
use serde_json::Value;

use crate::breakage::Fault;
use crate::fixture::Fixture;
use crate::pipeline::Pipeline;

/// Stands where a password stands. Nobody may ever read it.
pub(crate) const CANARY: &str = "s3cret-canary";

/// One thing that is wrong, and what an operator is told.
pub(crate) struct Case<'a> {
    pub(crate) name: &'a str,
    pub(crate) fault: Fault,
    /// The command, words separated by one space.
    pub(crate) line: &'a str,
    pub(crate) exit: i32,
    /// Words of the message: what, and where.
    pub(crate) says: &'a [&'a str],
    /// Words of the hint: what to do.
    pub(crate) hint: &'a str,
    /// Emails that go out: none for what a person asked for and was refused at once, one more for a restore that
    /// began.
    pub(crate) alerts: usize,
}

/// A database to ask things of, and what was wrong so far.
pub(crate) struct Scene<'a> {
    pub(crate) fixture: &'a Fixture,
    pub(crate) pipeline: Pipeline<'a>,
    pub(crate) database: Database,
    problems: Vec<String>,
}

impl<'a> Scene<'a> {
    /// A database of this name with one small collection, `there`.
    pub(crate) fn open(fixture: &'a Fixture, name: &str) -> Self {
        let database = fixture.database(name);
        fixture.fill(&database, "there", 0, 100);
        Self::of(fixture, database)
    }

    /// A database that was filled before.
    pub(crate) fn of(fixture: &'a Fixture, database: Database) -> Self {
        Self { fixture, pipeline: Pipeline::open(fixture), database, problems: Vec::new() }
    }

    /// Notes a problem unless it holds.
    pub(crate) fn expect(&mut self, holds: bool, case: &str, what: &str) {
        if !holds {
            self.problems.push(format!("{case}: {what}"));
        }
    }

    /// Runs a command that has to be refused; gives the id of the operation that failed.
    pub(crate) fn check(&mut self, case: &Case<'_>) -> OperationId {
        let (alerts, hashes) = (self.fixture.alerts(), self.fixture.hashes(&self.database));
        let undo = case.fault.make(self.fixture);
        let mut words = case.line.split(' ');
        let program = words.next().unwrap();
        let (exit, _, told) = self.fixture.output(program, &words.collect::<Vec<_>>());
        undo.carry_out(self.fixture);
        self.check_told(case, exit, &told);
        let alerts = self.fixture.alerts() - alerts;
        self.expect(alerts == case.alerts, case.name, &format!("{alerts} alerts, not {}", case.alerts));
        let same = self.fixture.hashes(&self.database) == hashes;
        self.expect(same, case.name, "what is live changed");
        // It is the first thing that is told.
        let id: Option<OperationId> = told.split_whitespace().find_map(|word| word.parse().ok());
        let id = id.unwrap_or_else(|| panic!("{}: no operation was begun: {told}", case.name));
        let kind = match program {
            "./restore.sh" => OperationKind::Restore,
            _ => OperationKind::Backup,
        };
        self.check_ended(case.name, kind, id);
        id
    }

    fn check_told(&mut self, case: &Case<'_>, exit: i32, told: &str) {
        let line = |begin: &str| told.lines().find_map(|it| it.strip_prefix(begin)).unwrap_or_default();
        let (message, hint) = (line("error: "), line("hint: "));
        print_row(case.name, exit, message, hint);
        self.expect(exit == case.exit, case.name, &format!("exit code {exit}, not {}", case.exit));
        for says in case.says {
            self.expect(message.contains(says), case.name, &format!("{message:?} does not say {says:?}"));
        }
        let hints = !hint.is_empty() && hint.contains(case.hint);
        self.expect(hints, case.name, &format!("the hint {hint:?} does not say {:?}", case.hint));
        self.expect_discreet(case.name, told);
    }

    /// It is marked, told to the audit trail once, holds no lease, and nothing of it is left but what says so.
    pub(crate) fn check_ended(&mut self, case: &str, kind: OperationKind, id: OperationId) {
        let operation = self.pipeline.operation(kind, id);
        let state = operation.state;
        self.expect(state == OperationState::Failed, case, &format!("the operation is {state}"));
        let audit = self.fixture.json("nightsafe", &["audit", "--limit", "5"]);
        let id = id.to_string();
        let is_mine = |record: &&Value| record["details"]["id"].as_str() == Some(id.as_str());
        let mine: Vec<&Value> = audit["records"].as_array().unwrap().iter().filter(is_mine).collect();
        let is_told = mine.len() == 1 && mine[0]["status"] == "failure";
        self.expect(is_told, case, &format!("the audit trail has {mine:?}"));
        self.expect_discreet(case, &format!("{operation:?} {mine:?}"));
        let now = SystemClock::without_deadline().now_millis();
        let lease = self.fixture.run(self.pipeline.catalog.lease(&operation.resource(), now)).unwrap();
        self.expect(lease.is_none(), case, "the lease is held");
        if let Ok(place) = operation.backup_place() {
            let manifest = self.pipeline.store.size(ObjectKey::Manifest(place));
            let manifest = self.fixture.run(manifest).unwrap();
            self.expect(manifest.is_none(), case, "there is a manifest");
        }
        let names = self.fixture.run(async { self.database.list_collection_names().await }).unwrap();
        let left: Vec<&String> = names.iter().filter(|name| is_a_leftover(name)).collect();
        self.expect(left.is_empty(), case, &format!("left behind: {left:?}"));
    }

    /// No password is in it, neither one that was wrong nor those that are right.
    pub(crate) fn expect_discreet(&mut self, case: &str, text: &str) {
        let right = password(&self.fixture.users().backup);
        self.expect(!text.contains(CANARY) && !text.contains(&right), case, "it tells a password");
    }

    /// A plain backup succeeds.
    pub(crate) fn backs_up(&self) {
        self.fixture.back_up(self.database.name());
    }

    /// A plain restore succeeds.
    pub(crate) fn restores(&self) {
        let arguments = ["-d", self.database.name(), "--full", "--yes"];
        assert_eq!(self.fixture.json("./restore.sh", &arguments)["state"], "restored");
    }

    /// Fails if anything was wrong.
    pub(crate) fn close(self) {
        let count = self.problems.len();
        assert!(self.problems.is_empty(), "{count} problems:\n{}", self.problems.join("\n"));
    }
}

/// A row of the table for people: case, exit code, message and hint.
pub(crate) fn print_row(case: &str, exit: i32, message: &str, hint: &str) {
    eprintln!("| {case} | {exit} | {message} | {hint} |");
}

/// Whether a restore should have taken it away when it failed.
fn is_a_leftover(name: &str) -> bool {
    name.starts_with("nightsafe.staging.") || name.starts_with("nightsafe.filling.")
}

/// The password in a connection string.
pub(crate) fn password(uri: &str) -> String {
    let (user, _) = uri.split_once('@').unwrap();
    user.rsplit_once(':').unwrap().1.to_owned()
}

/// The same connection string for another user with the same password.
pub(crate) fn for_user(uri: &str, user: &str) -> String {
    let (_, host) = uri.split_once('@').unwrap();
    format!("mongodb://{user}:{}@{host}", password(uri))
}
