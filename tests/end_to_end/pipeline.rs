//! The two pipelines driven step by step by real processes, with the events their state machines give, so that a test
//! decides how often each step runs, through what, and what interrupts it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use aws_sdk_s3::types::ObjectVersion;
use backup_aws::{DynamoCatalog, KmsDataKeys, S3ObjectStore, SystemClock};
use backup_core::format::{WorkItem, read_work_items};
use backup_core::id::{OperationId, SourceName};
use backup_core::operation::{BackupDetail, Detail, Operation, OperationKind, RestoreDetail, Trigger};
use backup_core::ports::{Catalog, Clock};
use bson::{Document, doc};
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::process::{Function, Invocation, Outcome};
use crate::relay::{Fuse, Relay, Script};

/// How often a state machine runs a step.
#[derive(Clone, Copy)]
enum Runs {
    Once,
    ForEachItem,
    /// Unless there is nothing to prove.
    ForEachItemToProve,
}

/// The step that reads changes.
const CAPTURE: &str = "capture-log";

/// The steps of a pipeline that goes well, as in its state machine.
const fn steps(kind: OperationKind) -> &'static [(&'static str, Runs)] {
    match kind {
        OperationKind::Backup => &[
            ("trigger-backup", Runs::Once),
            ("dump-chunk", Runs::ForEachItem),
            ("seal-backup", Runs::Once),
            ("verify-checksums", Runs::ForEachItem),
            ("sample-restore", Runs::Once),
            (CAPTURE, Runs::Once),
            ("plan-proof", Runs::Once),
            ("prove-chunk", Runs::ForEachItemToProve),
            ("close", Runs::Once),
        ],
        OperationKind::Restore => &[
            ("plan-restore", Runs::Once),
            ("restore-chunk", Runs::ForEachItem),
            ("build-indexes", Runs::Once),
            ("validate-chunk", Runs::ForEachItem),
            ("finish-restore", Runs::Once),
        ],
        OperationKind::Drill | OperationKind::Prune => &[],
    }
}

/// One state of an execution.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    /// Which item it is for, counted from 0; 0 for a step that has none.
    pub(crate) position: u64,
    event: Value,
}

impl Step {
    fn once(name: &'static str, id: OperationId) -> Self {
        Self { name, position: 0, event: json!({ "operation": id }) }
    }

    fn for_item(name: &'static str, id: OperationId, position: u64, item: WorkItem) -> Self {
        Self { name, position, event: json!({ "operation": id, "item": item }) }
    }
}

/// Everything a state machine and an operator have, and two relays that share a fuse: one in front of the local AWS,
/// one in front of mongod.
pub(crate) struct Pipeline<'a> {
    fixture: &'a Fixture,
    bootstrap: PathBuf,
    functions: HashMap<&'static str, Function>,
    relayed: HashMap<&'static str, Function>,
    source: SourceName,
    bucket: String,
    s3: aws_sdk_s3::Client,
    pub(crate) fuse: Arc<Fuse>,
    pub(crate) catalog: DynamoCatalog,
    pub(crate) store: S3ObjectStore,
    pub(crate) keys: KmsDataKeys,
    _relays: [Relay; 2],
}

impl<'a> Pipeline<'a> {
    pub(crate) fn open(fixture: &'a Fixture) -> Self {
        let (sdk, bucket, fuse) = (fixture.sdk(), fixture.stack("Bucket"), Fuse::new());
        let source: SourceName = fixture.stack("Source").parse().unwrap();
        let (rows, audit) = (fixture.stack("CatalogTable"), fixture.stack("AuditTable"));
        let relays = fixture.run(start_relays(fixture, &fuse));
        let ways = fixture.run(ways_through(fixture, &relays));
        let functions = fixture.run(find_functions(fixture));
        let relayed = functions.iter().map(|(step, function)| (*step, function.with(&ways))).collect();
        Self {
            fixture,
            bootstrap: fixture.bootstrap(),
            functions,
            relayed,
            catalog: DynamoCatalog::new(&sdk, rows, audit, source),
            store: S3ObjectStore::new(&sdk, bucket.clone()),
            keys: KmsDataKeys::new(&sdk, fixture.stack("Key")),
            s3: aws_sdk_s3::Client::new(&fixture.config),
            source,
            bucket,
            fuse,
            _relays: relays,
        }
    }

    /// Asks for a backup of the whole database, as `./backup.sh` does.
    pub(crate) fn request_backup(&self, database: &str) -> OperationId {
        let detail = BackupDetail::requested(Trigger::Manual, false);
        self.request(database, Detail::Backup(detail))
    }

    /// Asks for a restore of the whole database from its newest backup, as `./restore.sh --full --yes` does.
    pub(crate) fn request_restore(&self, database: &str) -> OperationId {
        let detail = RestoreDetail { may_replace: true, ..RestoreDetail::requested(true) };
        self.request(database, Detail::Restore(detail))
    }

    fn request(&self, database: &str, detail: Detail) -> OperationId {
        let id = fresh_id();
        self.fixture.run(async {
            let user = self.fixture.sdk().caller().await.unwrap();
            let (source, database) = (self.source, database.to_owned());
            let operation = Operation::requested(id, source, database, Vec::new(), user, detail);
            self.catalog.create_operation(&operation).await.unwrap();
        });
        id
    }

    pub(crate) fn operation(&self, kind: OperationKind, id: OperationId) -> Operation {
        self.fixture.run(self.catalog.operation(kind, id)).unwrap()
    }

    /// Runs the steps of an operation in order, each by `run`, which gives the step's answer. Gives the steps.
    pub(crate) fn drive(
        &self,
        kind: OperationKind,
        id: OperationId,
        mut run: impl FnMut(&Step) -> Value,
    ) -> Vec<Step> {
        let (&(first, _), rest) = steps(kind).split_first().unwrap();
        let first = Step::once(first, id);
        let items = self.work_items(&run(&first));
        let (mut all, mut has_proof) = (vec![first], true);
        for &(name, runs) in rest {
            if name == CAPTURE {
                self.move_time_on();
            }
            let next: Vec<Step> = match runs {
                Runs::Once => vec![Step::once(name, id)],
                Runs::ForEachItemToProve if !has_proof => Vec::new(),
                Runs::ForEachItem | Runs::ForEachItemToProve => {
                    let numbered = (0_u64..).zip(&items);
                    numbered.map(|(position, item)| Step::for_item(name, id, position, *item)).collect()
                }
            };
            for step in &next {
                let answer = run(step);
                has_proof &= answer["proceed"] != false;
            }
            all.extend(next);
        }
        all
    }

    /// A server does so by itself every ten seconds. Until then the timeline cannot pass what was just read, and the
    /// proof would have to wait.
    fn move_time_on(&self) {
        let ticks = self.fixture.client.database("pipeline-tick").collection::<Document>("ticks");
        self.fixture.run(async { ticks.insert_one(doc! {}).await }).unwrap();
    }

    /// The items of a Map, where the first step's answer says they are.
    fn work_items(&self, planned: &Value) -> Vec<WorkItem> {
        let key = planned["work_key"].as_str().unwrap();
        let lines = self.fixture.run(async {
            let found = self.s3.get_object().bucket(&self.bucket).key(key).send().await.unwrap();
            found.body.collect().await.unwrap().into_bytes()
        });
        read_work_items(&lines).unwrap()
    }

    /// Runs a step.
    pub(crate) fn run(&self, step: &Step) -> Outcome {
        self.fixture.run(self.invocation(&self.functions, step).run(None))
    }

    /// Runs a step with other values for those of its variables that are named.
    pub(crate) fn run_with(&self, step: &Step, variables: &[(&str, String)]) -> Outcome {
        let function = self.functions[step.name].with(variables);
        let invocation = Invocation { bootstrap: &self.bootstrap, function: &function, event: &step.event };
        self.fixture.run(invocation.run(None))
    }

    /// Runs a step through the relays.
    pub(crate) fn run_through(&self, step: &Step, script: Script) -> Outcome {
        self.fixture.run(self.invocation(&self.relayed, step).run(Some((&*self.fuse, script))))
    }

    /// Runs a step in two processes at the same time.
    pub(crate) fn run_twice_at_once(&self, step: &Step) -> [Outcome; 2] {
        let invocation = self.invocation(&self.functions, step);
        self.fixture.run(async { tokio::join!(invocation.run(None), invocation.run(None)) }).into()
    }

    fn invocation<'b>(
        &'b self,
        functions: &'b HashMap<&'static str, Function>,
        step: &'b Step,
    ) -> Invocation<'b> {
        Invocation { bootstrap: &self.bootstrap, function: &functions[step.name], event: &step.event }
    }

    /// Every version of every object whose path begins with `prefix`, also of what lost, and of what was replaced.
    pub(crate) fn versions(&self, prefix: &str) -> Vec<ObjectVersion> {
        self.fixture.run(async {
            let (mut all, mut key, mut version) = (Vec::new(), None, None);
            loop {
                let list = self.s3.list_object_versions().bucket(&self.bucket).prefix(prefix);
                let list = list.set_key_marker(key).set_version_id_marker(version);
                let page = list.send().await.unwrap();
                all.extend(page.versions().iter().cloned());
                if page.is_truncated() != Some(true) {
                    return all;
                }
                (key, version) = (page.next_key_marker, page.next_version_id_marker);
            }
        })
    }

    /// The bytes of one version.
    pub(crate) async fn object(&self, version: &ObjectVersion) -> Vec<u8> {
        let get = self.s3.get_object().bucket(&self.bucket).key(version.key().unwrap());
        let found = get.version_id(version.version_id().unwrap()).send().await.unwrap();
        found.body.collect().await.unwrap().to_vec()
    }
}

fn fresh_id() -> OperationId {
    OperationId::generate(SystemClock::without_deadline().now_millis()).unwrap()
}

async fn start_relays(fixture: &Fixture, fuse: &Arc<Fuse>) -> [Relay; 2] {
    let aws = fixture.config.endpoint_url().unwrap().strip_prefix("http://").unwrap().to_owned();
    let (_, mongod) = user_and_host(&fixture.users().backup);
    [Relay::start(address(&aws), fuse).await, Relay::start(address(&mongod), fuse).await]
}

fn address(host: &str) -> SocketAddr {
    host.parse().unwrap()
}

/// A connection string up to the `@`, and its host.
fn user_and_host(uri: &str) -> (String, String) {
    let (user, rest) = uri.split_once('@').unwrap();
    (user.to_owned(), rest.split('/').next().unwrap().to_owned())
}

/// The variables that lead a function through the relays. A driver that found the cluster's members by itself would
/// go past the relay, so the connection is direct.
async fn ways_through(fixture: &Fixture, [aws, mongod]: &[Relay; 2]) -> [(&'static str, String); 3] {
    let (users, unique) = (fixture.users(), fresh_id());
    let secrets = aws_sdk_secretsmanager::Client::new(&fixture.config);
    let store = async |name: &str, uri: &str| {
        let (user, _) = user_and_host(uri);
        let uri = format!("{user}@{}/?authSource=admin&directConnection=true", mongod.address());
        let create = secrets.create_secret().name(format!("nightsafe/relayed/{name}/{unique}"));
        create.secret_string(uri).send().await.unwrap().arn.unwrap()
    };
    [
        ("AWS_ENDPOINT_URL", format!("http://{}", aws.address())),
        ("NIGHTSAFE_SOURCE_SECRET", store("source", &users.backup).await),
        ("NIGHTSAFE_TARGET_SECRET", store("target", &users.restore).await),
    ]
}

async fn find_functions(fixture: &Fixture) -> HashMap<&'static str, Function> {
    let mut functions = HashMap::new();
    for &(step, _) in [OperationKind::Backup, OperationKind::Restore].into_iter().flat_map(steps) {
        functions.insert(step, Function::find(&fixture.config, step).await);
    }
    functions
}
