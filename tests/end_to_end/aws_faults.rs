//! Faults of AWS, by microburst between the real binary and the local AWS: whatever a service does, a step completes or
//! fails clearly, and what is called a success is one.

use std::collections::BTreeSet;

use backup_aws::{DynamoCatalog, S3ObjectStore, Sdk, SystemClock};
use backup_core::audit::{AuditRecord, AuditStatus};
use backup_core::flows::open_manifest;
use backup_core::format::ObjectKey;
use backup_core::id::OperationId;
use backup_core::operation::{
    BackupDetail, Detail, Failure, Operation, OperationKind, OperationState, Trigger,
};
use backup_core::ports::{Catalog, Clock, ObjectStore, Resource};
use backup_core::{ErrorKind, Result};
use bson::spec::BinarySubtype;
use bson::{Binary, Document, doc};
use bytes::Bytes;
use local::demo::proof;
use mongodb::Database;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::aws_fault_cases::{self as cases, Case, Expected};
use crate::fixture::Fixture;
use crate::microburst::{Microburst, Rule};
use crate::numbers::Numbers;
use crate::pipeline::{Pipeline, Step};
use crate::process::Outcome;
use crate::survival::ended_once;

const DATABASE: &str = "faulty";
/// A failure of these leaves no manifest.
const BEFORE_SEAL: [&str; 2] = ["trigger-backup", "dump-chunk"];

pub(crate) fn a_fault_that_stays_is_a_clear_failure(fixture: &Fixture) {
    Ordeal::of(fixture, fill_small, &cases::that_stay());
}

pub(crate) fn a_fault_that_comes_twice_is_ridden_out(fixture: &Fixture) {
    Ordeal::of(fixture, fill_small, &cases::twice());
}

pub(crate) fn a_write_whose_answer_is_lost_changes_nothing_more(fixture: &Fixture) {
    Ordeal::of(fixture, fill_small, &cases::lost_once());
}

pub(crate) fn a_cut_or_slow_connection_is_ridden_out(fixture: &Fixture) {
    Ordeal::of(fixture, fill_small, &cases::cut_once());
}

pub(crate) fn a_damaged_body_is_read_again(fixture: &Fixture) {
    Ordeal::of(fixture, fill_small, &cases::damaged_once());
}

pub(crate) fn an_upload_in_parts_survives_faults(fixture: &Fixture) {
    Ordeal::of(fixture, fill_large, &cases::in_parts());
}

/// One chunk, which is read in two pieces.
fn fill_small(fixture: &Fixture, database: &Database) {
    fixture.fill(database, "things", 0, 150);
    let index = doc! { "key": { "key": 1 }, "name": "unique", "unique": true };
    fixture.command(database, doc! { "createIndexes": "things", "indexes": [index] });
}

/// One chunk, which is uploaded in two parts: a document that does not compress.
fn fill_large(fixture: &Fixture, database: &Database) {
    const WORDS: usize = 10 * 1024 * 1024 / 8;
    let numbers = Numbers::new(1);
    let bytes = (0..WORDS).flat_map(|_| numbers.below(u64::MAX).to_le_bytes()).collect();
    let noise = Binary { subtype: BinarySubtype::Generic, bytes };
    let large = doc! { "_id": 1, "noise": noise };
    fixture.run(async { database.collection::<Document>("things").insert_one(large).await }).unwrap();
}

/// A backup and a restore whose steps meet faults.
struct Ordeal<'a> {
    fixture: &'a Fixture,
    pipeline: Pipeline<'a>,
    microburst: Microburst<'a>,
}

impl<'a> Ordeal<'a> {
    /// Backs up a database and restores it, every step meeting its cases on the way; proves that both are good.
    fn of(fixture: &'a Fixture, fill: fn(&Fixture, &Database), cases: &[Case]) {
        let ordeal = Self::begin(fixture);
        let database = fixture.database(DATABASE);
        fill(fixture, &database);
        let (hashes, metadata) = (fixture.hashes(&database), fixture.metadata(&database));
        let backup = ordeal.pipeline.request_backup(DATABASE);
        let mut steps = ordeal.drive(OperationKind::Backup, backup, cases);
        ordeal.prove_backup(backup, &steps);
        fixture.command(&database, doc! { "delete": "things", "deletes": [{ "q": {}, "limit": 0 }] });
        let restore = ordeal.pipeline.request_restore(DATABASE);
        steps.extend(ordeal.drive(OperationKind::Restore, restore, cases));
        let row = ordeal.pipeline.operation(OperationKind::Restore, restore);
        assert_eq!(row.state, OperationState::Restored);
        proof::ensure_equal("documents", &hashes, &fixture.hashes(&database)).unwrap();
        proof::ensure_equal("options and indexes", &metadata, &fixture.metadata(&database)).unwrap();
        ended_once(fixture, &ordeal.pipeline, &row);
        let unmet = cases.iter().find(|case| !steps.iter().any(|step| step.name == case.step));
        assert!(unmet.is_none(), "no step met {unmet:?}");
        ordeal.microburst.stop();
    }

    fn begin(fixture: &'a Fixture) -> Self {
        let pipeline = Pipeline::open(fixture);
        let now = SystemClock::without_deadline().now_millis();
        for resource in [Resource::Source, Resource::Target(DATABASE.to_owned())] {
            // A test that failed has left its lease, and this one should tell of its own troubles.
            if let Some(left) = fixture.run(pipeline.catalog.lease(&resource, now)).unwrap() {
                fixture.run(pipeline.catalog.release_lease(&resource, left.holder)).unwrap();
            }
        }
        Self { fixture, pipeline, microburst: Microburst::start(fixture) }
    }

    /// Runs the steps of an operation: each under its cases, and once more without a fault if none let it end.
    fn drive(&self, kind: OperationKind, id: OperationId, cases: &[Case]) -> Vec<Step> {
        self.pipeline.drive(kind, id, |step| {
            let mut answer = None;
            for case in cases.iter().filter(|case| case.step == step.name && step.position == 0) {
                assert!(answer.is_none(), "there is nothing left to do for {case:?}");
                answer = self.meet(case, step);
                if answer.is_none() {
                    self.check_row(case, kind, id);
                }
            }
            answer.unwrap_or_else(|| self.pipeline.run(step).answer(step))
        })
    }

    /// Runs a step under a case; gives its answer if it got one.
    fn meet(&self, case: &Case, step: &Step) -> Option<Value> {
        self.microburst.spoil(&case.rules);
        let outcome = self.run(step);
        let answer = match case.expected {
            Expected::Completes => Some(outcome.answer(case)),
            Expected::Repeats(kind, words) => {
                assert!(kind.is_retryable(), "no state machine repeats {case:?}");
                check_failure(case, kind, words, &outcome);
                Some(self.run(step).answer(case))
            }
            Expected::Fails(kind, words) => {
                check_failure(case, kind, words, &outcome);
                None
            }
        };
        for (rule, spoiled) in case.rules.iter().zip(self.microburst.spoiled()) {
            let enough = rule.limit().map_or(spoiled > 0, |limit| spoiled == limit);
            assert!(enough, "{rule:?} spoiled {spoiled} requests of {case:?}");
        }
        answer
    }

    fn run(&self, step: &Step) -> Outcome {
        self.pipeline.run_with(step, &[("AWS_ENDPOINT_URL", self.microburst.endpoint())])
    }

    /// The row tells what failed, and there is no manifest before everything is stored.
    fn check_row(&self, case: &Case, kind: OperationKind, id: OperationId) {
        let row = self.pipeline.operation(kind, id);
        if let (Expected::Fails(kind, _), false) = (case.expected, row.state.is_final()) {
            let told = row.failure.as_ref().map(|failure| (failure.step.as_str(), failure.kind));
            assert_eq!(told, Some((case.step, kind)), "{case:?}");
        }
        if BEFORE_SEAL.contains(&case.step) {
            let manifest = ObjectKey::Manifest(row.backup_place().unwrap());
            assert_eq!(self.fixture.run(self.pipeline.store.size(manifest)).unwrap(), None, "{case:?}");
        }
    }

    /// The manifest is there and every object it names is what it says: as read here, and by another process.
    fn prove_backup(&self, id: OperationId, steps: &[Step]) {
        let (fixture, pipeline) = (self.fixture, &self.pipeline);
        let row = pipeline.operation(OperationKind::Backup, id);
        assert_eq!(row.state, OperationState::Verified);
        let manifest = fixture.run(open_manifest(&pipeline.store, &pipeline.keys, &row)).unwrap();
        assert_eq!(manifest.chunks().count(), 1);
        for (_, chunk) in manifest.chunks() {
            let (place, stored) = (row.backup_place().unwrap(), &chunk.stored);
            let key = ObjectKey::Chunk(place, chunk.ordinal, stored.attempt);
            let object = fixture.run(pipeline.store.get(key, stored.stored_bytes)).unwrap();
            assert_eq!(u64::try_from(object.len()).unwrap(), stored.stored_bytes);
            assert_eq!(hex::encode(Sha256::digest(&object)), stored.stored_sha256);
        }
        for step in steps.iter().filter(|step| step.name == "verify-checksums") {
            pipeline.run(step).answer(step);
        }
        ended_once(fixture, pipeline, &row);
    }
}

fn check_failure(case: &Case, kind: ErrorKind, words: &str, outcome: &Outcome) {
    let Outcome::Failed { error_type, message } = outcome else { panic!("{case:?}: {outcome:?}") };
    assert_eq!(error_type, kind.name(), "{case:?}: {message}");
    assert!(message.contains(words), "{case:?}: {message}");
}

/// A conditional write that the SDK sends again, because the first answer was lost, meets its own work and knows it.
pub(crate) fn a_conditional_write_whose_answer_is_lost_counts_once(fixture: &Fixture) {
    let (microburst, mut row) = (Microburst::start(fixture), request());
    let sdk = Sdk::from_config(fixture.config.to_builder().endpoint_url(microburst.endpoint()).build());
    let (rows, trail) = (fixture.stack("CatalogTable"), fixture.stack("AuditTable"));
    let catalog = DynamoCatalog::new(&sdk, rows, trail, row.source);
    let lose = Losing { fixture, microburst: &microburst };
    begin_once(&lose, &catalog, &mut row);
    end_once(&lose, &catalog, &mut row);

    let store = S3ObjectStore::new(&sdk, fixture.stack("Bucket"));
    let key = ObjectKey::ChunkResult(row.backup_place().unwrap(), 0);
    // It may say that there is one already: its own. All who call it read what is there.
    lose.answer(Rule::on("s3", "PutObject"), store.put_if_absent(key, Bytes::from_static(b"own")));
    assert_eq!(fixture.run(store.get(key, 3)).unwrap(), "own");
    microburst.stop();
}

fn begin_once(lose: &Losing<'_>, catalog: &DynamoCatalog, row: &mut Operation) {
    lose.answer(Rule::of("dynamodb"), catalog.create_operation(row)); // whatever it writes with
    assert_eq!(lose.read(catalog, row), *row);
    let (put, source) = (Rule::on("dynamodb", "PutItem"), Resource::Source);
    row.fence = Some(lose.answer(put, catalog.acquire_lease(&source, row, false, 0, 60)));
    lose.fixture.run(catalog.check_lease(row)).unwrap();
    lose.answer(Rule::on("dynamodb", "TransactWriteItems"), catalog.update_operation(row));
    assert_eq!(row.revision, 1);
    assert_eq!(lose.read(catalog, row), *row);
}

fn end_once(lose: &Losing<'_>, catalog: &DynamoCatalog, row: &mut Operation) {
    let (fixture, source) = (lose.fixture, Resource::Source);
    let record = AuditRecord::of(row, AuditStatus::Failure, 5);
    lose.answer(Rule::on("dynamodb", "TransactWriteItems"), catalog.append_audit(row.id, &record));
    assert_eq!(fixture.run(catalog.audit(10)).unwrap(), [record], "once");
    let (step, message) = ("close".to_owned(), "no".to_owned());
    row.failure = Some(Failure { step, kind: ErrorKind::Denied, message, hint: None });
    // Nothing relies on whether it says that it was this call that ended it.
    lose.answer(Rule::on("dynamodb", "UpdateItem"), catalog.fail_operation(row, 5));
    let ended = lose.read(catalog, row);
    assert_eq!((ended.state, ended.finished_millis), (OperationState::Failed, Some(5)));
    assert_eq!(ended.failure, row.failure);
    lose.answer(Rule::on("dynamodb", "UpdateItem"), catalog.release_lease(&source, row.id));
    assert_eq!(fixture.run(catalog.lease(&source, 1)).unwrap(), None);
}

fn request() -> Operation {
    let detail = BackupDetail::requested(Trigger::Manual, false);
    let id = OperationId::generate(SystemClock::without_deadline().now_millis()).unwrap();
    let (source, database) = ("lost".parse().unwrap(), DATABASE.to_owned());
    Operation::requested(id, source, database, Vec::new(), "ana".into(), Detail::Backup(detail))
}

struct Losing<'a> {
    fixture: &'a Fixture,
    microburst: &'a Microburst<'a>,
}

impl Losing<'_> {
    /// Loses the answer to the first of these requests of a call, which must succeed all the same; gives its result.
    fn answer<T>(&self, requests: Rule, call: impl Future<Output = Result<T>>) -> T {
        let rule = requests.lost().times(1);
        self.microburst.spoil(std::slice::from_ref(&rule));
        let done = self.fixture.run(call).unwrap_or_else(|why| panic!("{rule:?}: {why}"));
        assert_eq!(self.microburst.spoiled(), [1], "{rule:?}");
        done
    }

    fn read(&self, catalog: &DynamoCatalog, row: &Operation) -> Operation {
        self.fixture.run(catalog.operation(row.kind(), row.id)).unwrap()
    }
}

/// The kinds that say of themselves that they are worth another try are those that every task repeats.
pub(crate) fn the_machines_repeat_what_is_worth_it(_: &Fixture) {
    // Only the first step of what a schedule starts waits for its turn.
    let worth_it = ErrorKind::ALL.into_iter().filter(|kind| kind.is_retryable() && *kind != ErrorKind::Busy);
    let worth_it: BTreeSet<&str> = worth_it.map(ErrorKind::name).collect();
    for (machine, tasks_min) in [
        (include_str!("../../infra/statemachines/protect.asl.json"), 9),
        (include_str!("../../infra/statemachines/synthesize.asl.json"), 7),
        (include_str!("../../infra/statemachines/replicate.asl.json"), 2),
        (include_str!("../../infra/statemachines/restore.asl.json"), 7),
        (include_str!("../../infra/statemachines/drill.asl.json"), 4),
        (include_str!("../../infra/statemachines/prune.asl.json"), 2),
    ] {
        let tasks = repeated(&serde_json::from_str(machine).unwrap());
        assert!(tasks.len() >= tasks_min, "a machine has more tasks than {}", tasks.len());
        assert!(tasks.iter().all(|kinds| kinds.iter().eq(&worth_it)), "{tasks:?} {worth_it:?}");
    }
}

/// Of each task in this part of a machine: our kinds that it repeats.
fn repeated(part: &Value) -> Vec<BTreeSet<String>> {
    let inner: Vec<&Value> = match part {
        Value::Object(fields) => fields.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    let mut tasks: Vec<_> = inner.into_iter().flat_map(repeated).collect();
    if let Some(retriers) = part["Retry"].as_array().filter(|_| part["Type"] == "Task") {
        let names = retriers.iter().flat_map(|retrier| retrier["ErrorEquals"].as_array().unwrap());
        let ours = names
            .filter_map(Value::as_str)
            .filter(|name| name.starts_with("Nightsafe.") && *name != "Nightsafe.Busy");
        tasks.push(ours.map(str::to_owned).collect());
    }
    tasks
}
