//! Every command that a step sends to MongoDB fails: once, by every kind of fault; until the machine gives up; and,
//! for writes, after it was done but before a majority has it.

use std::collections::BTreeMap;

use backup_core::format::{Consistency, Manifest};
use backup_core::id::OperationId;
use backup_core::operation::{OperationKind, OperationState};
use backup_core::ports::{Catalog, Clock};
use backup_core::{Error, ErrorKind, Result};
use backup_testkit::fixture::Step;
use bson::{Bson, Document, doc};
use local::demo::proof;
use mongodb::Database;

use crate::busy_database::{BUSY, Writer, check_exact, check_restored, damage, prepare};
use crate::chain::Chain;
use crate::fixture::Fixture;
use crate::replica_set::ReplicaSet;

/// Two chunks of the large collection, each of two batches.
const DOCUMENTS: i32 = 170;

/// What servers and networks answer in place of the answer: stepped down, shutting down, interrupted by an election,
/// too late, host unreachable, host not found, and nothing.
fn faults() -> Vec<Document> {
    let codes = [189, 91, 11602, 50, 6, 7].map(|code| doc! { "errorCode": code });
    [codes.as_slice(), &[doc! { "closeConnection": true }]].concat()
}

/// A command that a step sends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Asked {
    command: &'static str,
    /// How many of this name come before it.
    after: i32,
    /// What the error says was attempted.
    attempted: &'static str,
}

const fn asked(command: &'static str, attempted: &'static str) -> Asked {
    Asked { command, after: 0, attempted }
}

const BUILD_INFO: Asked = asked("buildInfo", "look at the server");
const LIST_COLLECTIONS: Asked = asked("listCollections", "list the collections of");
const LIST_INDEXES: Asked = asked("listIndexes", "list the indexes of");
const SIZE: Asked = asked("aggregate", "ask for the size of");
/// It asks for the size twice before.
const SAMPLE: Asked = Asked { command: "aggregate", after: 2, attempted: "sample" };
const FIND: Asked = asked("find", "read \"");
const GET_MORE: Asked = asked("getMore", "read \"");
const CREATE: Asked = asked("create", "create \"");
const INSERT: Asked = asked("insert", "insert into \"");
const CREATE_INDEXES: Asked = asked("createIndexes", "build indexes on \"");
const COLL_MOD: Asked = asked("collMod", "modify \"");
const RENAME: Asked = asked("renameCollection", "rename \"");
const DROP: Asked = asked("drop", "drop \"");

const fn commands(step: Step) -> &'static [Asked] {
    match step {
        Step::TriggerBackup => &[BUILD_INFO, LIST_COLLECTIONS, LIST_INDEXES, SIZE, SAMPLE],
        Step::DumpChunk(_) | Step::ValidateChunk(_) => &[FIND, GET_MORE],
        Step::SealBackup => &[LIST_COLLECTIONS, LIST_INDEXES],
        Step::PlanRestore => &[BUILD_INFO, LIST_COLLECTIONS, LIST_INDEXES, CREATE],
        Step::RestoreChunk(_) => &[CREATE_INDEXES, INSERT],
        Step::BuildIndexes => &[CREATE_INDEXES],
        Step::FinishRestore => &[LIST_COLLECTIONS, LIST_INDEXES, COLL_MOD, RENAME, DROP, CREATE],
        // The others speak to no server, or follow its changes, which `following` and `oracle` try.
        _ => &[],
    }
}

/// Those of them that write.
const fn writes(step: Step) -> &'static [Asked] {
    match step {
        Step::PlanRestore => &[CREATE],
        Step::RestoreChunk(_) => &[CREATE_INDEXES, INSERT],
        Step::BuildIndexes => &[CREATE_INDEXES],
        Step::FinishRestore => &[COLL_MOD, RENAME, DROP, CREATE],
        _ => &[],
    }
}

/// How often a step is run against a fault.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasting {
    /// Once, and the fault strikes once.
    Once,
    /// As often as the machine runs it, and the fault stays.
    ForGood,
}

/// Lets commands fail, step by step.
struct Trial<'a> {
    set: &'a ReplicaSet,
    chain: &'a Chain,
    commands: fn(Step) -> &'static [Asked],
    faults: Vec<Document>,
    lasting: Lasting,
    /// How many faults each command of each step failed by.
    failed: BTreeMap<(String, Asked), usize>,
}

impl<'a> Trial<'a> {
    fn new(set: &'a ReplicaSet, chain: &'a Chain, faults: Vec<Document>) -> Self {
        Self { set, chain, commands, faults, lasting: Lasting::Once, failed: BTreeMap::new() }
    }

    /// Backs up while somebody writes, and restores over what was damaged, by steps that all fail first.
    async fn run(&mut self, database: &Database) {
        let writer = Writer::ordinary(database);
        let backup = self.chain.request_backup(BUSY, &[]).await;
        self.drive(OperationKind::Backup, backup).await;
        assert!(writer.stop().await > 0, "nobody wrote");
        let manifest = self.chain.manifest(backup).await.unwrap();
        assert_eq!(manifest.consistency, Consistency::SingleInstant);
        check_exact(self.chain, &manifest, self.set.client()).await;
        damage(database).await;
        let restore = self.chain.request_restore(BUSY, &[]).await;
        self.drive(OperationKind::Restore, restore).await;
        check_restored(self.chain, &manifest, database).await;
        for (which, faults) in &self.failed {
            // One may have struck a read of an earlier run that was still on its way.
            let all_but_one = faults + 1 >= self.faults.len();
            assert!(all_but_one || *faults == 0, "{which:?} failed by {faults} faults only");
        }
        // A chunk that the writer made smaller is read in one batch, so that nothing more is asked for.
        let asked = self.failed.values().filter(|faults| **faults > 0).count();
        assert!(asked + 2 >= self.failed.len(), "{asked} of {} commands failed", self.failed.len());
    }

    async fn drive(&mut self, kind: OperationKind, id: OperationId) {
        let chain = self.chain;
        chain.drive(kind, id, async |step| self.step(id, step).await).await.unwrap();
    }

    /// Runs a step against every fault in each of its commands, and then without. The first item of a Map stands for
    /// all.
    async fn step(&mut self, id: OperationId, step: Step) -> Result<()> {
        let word = format!("{step:?}").split('(').next().unwrap().to_owned();
        for asked in (self.commands)(step) {
            let which = (word.clone(), *asked);
            // What comes later than others of its name cannot be let fail for good.
            let skipped = self.lasting == Lasting::ForGood && asked.after > 0;
            if skipped || self.failed.contains_key(&which) {
                continue;
            }
            let mut failed = 0;
            for fault in &self.faults {
                failed += usize::from(self.fails(id, step, *asked, fault).await);
            }
            self.failed.insert(which, failed);
        }
        self.set.heal(0).await;
        self.chain.run(id, step).await
    }

    async fn fails(&self, id: OperationId, step: Step, asked: Asked, fault: &Document) -> bool {
        let mode: Bson = match self.lasting {
            Lasting::ForGood => "alwaysOn".into(),
            Lasting::Once if asked.after > 0 => doc! { "skip": asked.after }.into(),
            Lasting::Once => doc! { "times": 1 }.into(),
        };
        self.set.fail(0, mode, &[asked.command], fault).await;
        let done = match self.lasting {
            Lasting::Once => self.chain.run_once(id, step).await,
            Lasting::ForGood => self.chain.run(id, step).await,
        };
        let Err(why) = done else { return false };
        let (kind, told) = (why.kind(), why.to_string());
        assert!(kind.is_retryable(), "{step:?}, {asked:?}, {fault}: {kind:?}: {told}");
        // Where a step does several things at once, another one may have lost the connection first.
        let attempted = (self.commands)(step).iter().any(|it| told.contains(it.attempted));
        assert!(attempted, "{step:?}, {asked:?}, {fault}: {told}");
        true
    }
}

/// Each command of each step fails by each fault once: the step tells what it attempted, and done again it is good.
pub(crate) fn every_command_may_fail(fixture: &Fixture) {
    fixture.run(async {
        let set = ReplicaSet::start(1, &[]).await;
        let (chain, database) = prepare(&set, &set.uri(), DOCUMENTS).await;
        Trial::new(&set, &chain, faults()).run(&database).await;
    });
}

/// A write that was done, but that no majority has confirmed, may be undone by an election: it counts as failed.
pub(crate) fn what_no_majority_has_is_done_again(fixture: &Fixture) {
    fixture.run(async {
        let set = ReplicaSet::start(1, &[]).await;
        let (chain, database) = prepare(&set, &set.uri(), DOCUMENTS).await;
        let unconfirmed = doc! {
            "writeConcernError": { "code": 91, "codeName": "ShutdownInProgress", "errmsg": "stopping" },
        };
        let mut trial = Trial { commands: writes, ..Trial::new(&set, &chain, vec![unconfirmed]) };
        trial.run(&database).await;
    });
}

/// Commands that fail again and again end every step, and every operation, clearly; nothing is left of it, and the
/// next one is good.
pub(crate) fn what_keeps_failing_ends_clearly(fixture: &Fixture) {
    fixture.run(async {
        let set = ReplicaSet::start(1, &[]).await;
        let (chain, database) = prepare(&set, &set.uri(), DOCUMENTS).await;
        let fault = doc! { "errorCode": 6 };
        let mut trial = Trial { lasting: Lasting::ForGood, ..Trial::new(&set, &chain, vec![fault.clone()]) };
        trial.run(&database).await;

        let too_old = doc! { "errorCode": 239 };
        set.fail(0, "alwaysOn".into(), &["find"], &too_old).await;
        let why = chain.back_up(BUSY, &[]).await.expect_err("every snapshot is too old");
        ended_clearly(&chain, OperationKind::Backup, &why, ErrorKind::SnapshotLost).await;
        set.heal(0).await;
        let manifest = chain.back_up(BUSY, &[]).await.unwrap();
        check_exact(&chain, &manifest, set.client()).await;

        damage(&database).await;
        restore_is_given_up_and_tried_again(&set, &chain, &database, &manifest, &fault).await;
    });
}

async fn restore_is_given_up_and_tried_again(
    set: &ReplicaSet,
    chain: &Chain,
    database: &Database,
    manifest: &Manifest,
    fault: &Document,
) {
    let before = (proof::db_hash(database).await.unwrap(), proof::metadata(database).await.unwrap());
    set.fail(0, "alwaysOn".into(), &["renameCollection"], fault).await;
    let why = chain.restore(BUSY, &[]).await.expect_err("nothing can be renamed");
    ended_clearly(chain, OperationKind::Restore, &why, ErrorKind::Transient).await;
    let after = (proof::db_hash(database).await.unwrap(), proof::metadata(database).await.unwrap());
    assert!(before == after, "a restore that was given up left something");
    set.heal(0).await;
    chain.restore(BUSY, &[]).await.unwrap();
    check_restored(chain, manifest, database).await;
}

/// The newest operation has failed with what its step told, people were told, and its lease is free.
async fn ended_clearly(chain: &Chain, kind: OperationKind, why: &Error, expected: ErrorKind) {
    assert_eq!(why.kind(), expected, "{why}");
    let row = chain.ports.catalog.operations(kind, 1).await.unwrap().remove(0);
    assert_eq!(row.state, OperationState::Failed);
    let failure = row.failure.as_ref().unwrap();
    assert_eq!((failure.kind, &failure.message), (expected, &why.to_string()));
    let alert = chain.ports.alerts.published().pop().unwrap();
    assert!(format!("{alert:?}").contains(&failure.step), "{alert:?}");
    let now = chain.ports.clock.now_millis();
    assert_eq!(chain.ports.catalog.lease(&row.resource(), now).await.unwrap(), None);
}
