//! What the two MongoDB users need: a role that has exactly that, and the same role with one privilege missing after
//! the other. Without one the step that needs it is refused, names what it was at, and touches nothing that is live;
//! with all of them the same step goes on. What turns out not to be needed is said, too.

use std::collections::BTreeMap;

use backup_core::bson::{IdRange, IdValue};
use backup_core::error::{Error, ErrorKind};
use backup_core::id::OperationId;
use backup_core::operation::{OperationKind, OperationState};
use backup_core::ports::{ChunkRead, InsertRules, Source, Target};
use backup_mongo::Cluster;
use bson::{Document, Timestamp, doc, rawdoc};
use local::demo::proof;
use mongodb::Database;
use serde_json::Value;

use crate::breakage::{Fault, SOURCE_SECRET, TARGET_SECRET, new_secret};
use crate::fixture::Fixture;
use crate::pipeline::{Pipeline, Step};
use crate::process::Outcome;
use crate::refusals::{CANARY, Case, Scene, for_user, password, print_row};

/// An action, and the collection it is allowed on; without a name, the database and all its ordinary collections.
type Privilege = (&'static str, &'static str);

const BUCKETS: &str = "system.buckets.a_series";

/// All that a backup needs. It needs no `listDatabases`, and nothing on `system.views`.
const TO_READ: [Privilege; 6] = [
    ("listCollections", ""),
    ("listIndexes", ""),
    ("collStats", ""),
    ("find", ""),
    ("collStats", BUCKETS),
    ("find", BUCKETS),
];

/// All that a restore needs.
const TO_WRITE: [Privilege; 14] = [
    ("listCollections", ""),
    ("listIndexes", ""),
    ("find", ""),
    ("insert", ""),
    ("update", ""),
    ("bypassDocumentValidation", ""),
    ("createCollection", ""),
    ("convertToCapped", ""),
    ("createIndex", ""),
    ("collMod", ""),
    ("dropCollection", ""),
    ("renameCollectionSameDB", ""),
    ("insert", BUCKETS),
    ("find", BUCKETS),
];

/// A step is run without one privilege; what it says then, or nothing where it does not need it.
struct Missing {
    privilege: Privilege,
    step: &'static str,
    says: Option<&'static str>,
}

const fn missing(step: &'static str, privilege: Privilege, says: &'static str) -> Missing {
    Missing { privilege, step, says: Some(says) }
}

const MISSING_TO_READ: [Missing; 9] = [
    missing("trigger-backup", ("listCollections", ""), "list the collections of \"narrow\""),
    missing("trigger-backup", ("listIndexes", ""), "list the indexes of \""),
    missing("trigger-backup", ("collStats", ""), "ask for the size of \"a_zero\""),
    missing("trigger-backup", ("collStats", BUCKETS), "ask for the size of \"system.buckets.a_series\""),
    missing("trigger-backup", ("find", ""), "sample \"large\""),
    missing("dump-chunk", ("find", BUCKETS), "read \"system.buckets.a_series\""),
    missing("dump-chunk", ("find", ""), "read \"a_zero\""),
    missing("seal-backup", ("listCollections", ""), "list the collections of \"narrow\""),
    missing("seal-backup", ("listIndexes", ""), "list the indexes of \""),
];

/// The timeline is that of the whole cluster: on every database.
const MISSING_TO_FOLLOW: [Missing; 2] = [
    missing("capture-log", ("changeStream", ""), "follow the changes"),
    missing("capture-log", ("find", ""), "follow the changes"),
];

/// In an order in which no run ends a step before the next one tries it.
const MISSING_TO_WRITE: [Missing; 15] = [
    missing("plan-restore", ("listCollections", ""), "list the collections of \"narrowed\""),
    missing("plan-restore", ("listIndexes", ""), "list the indexes of \""),
    missing("plan-restore", ("createCollection", ""), "create \"nightsafe.staging."),
    missing("plan-restore", ("dropCollection", ""), "drop \"nightsafe.staging."),
    missing("plan-restore", ("convertToCapped", ""), "create \"nightsafe.staging."),
    missing("restore-chunk", ("insert", ""), "insert into \"nightsafe.staging."),
    missing("restore-chunk", ("bypassDocumentValidation", ""), "insert into \"nightsafe.staging."),
    missing("restore-chunk", ("update", ""), "insert into \"nightsafe.staging."),
    missing("restore-chunk", ("createIndex", ""), "build the indexes of \"a_zero\""),
    missing("build-indexes", ("createIndex", ""), "build the indexes of \""),
    missing("validate-chunk", ("find", ""), "read \"nightsafe.staging."),
    missing("finish-restore", ("collMod", ""), "modify \"nightsafe.staging."),
    missing("finish-restore", ("insert", BUCKETS), "insert into \"system.buckets.a_series\""),
    missing("finish-restore", ("find", BUCKETS), "read \"system.buckets.a_series\""),
    // Whoever may read, drop, insert and create indexes may rename.
    Missing { privilege: ("renameCollectionSameDB", ""), step: "finish-restore", says: None },
];

pub(crate) fn each_privilege_of_the_backup_user_is_needed(fixture: &Fixture) {
    let database = filled(fixture, "narrow");
    let user = NarrowUser::create(fixture, "narrow-reader", "narrow", &TO_READ);
    let mut scene = Scene::of(fixture, database);
    user.may_all_but(("listCollections", ""));
    scene.check(&Case {
        name: "backup by a user without listCollections",
        fault: Fault::Secret(SOURCE_SECRET, user.uri.clone()),
        line: "./backup.sh -d narrow",
        exit: 7,
        says: &["trigger-backup", "list the collections of \"narrow\"", "nauthorized"],
        hint: "README",
        alerts: 1,
    });
    let id = scene.pipeline.request_backup("narrow");
    walk(&mut scene, &user, OperationKind::Backup, id, &MISSING_TO_READ);
    let state = scene.pipeline.operation(OperationKind::Backup, id).state;
    scene.expect(state == OperationState::Verified, "a role of exactly what is needed", "it is not verified");
    eprintln!("a backup needs exactly {TO_READ:?}");
    scene.close();
}

pub(crate) fn each_privilege_of_the_restore_user_is_needed(fixture: &Fixture) {
    let database = filled(fixture, "narrowed");
    let whole = fixture.hashes(&database);
    fixture.back_up("narrowed");
    damage(fixture, &database);
    let user = NarrowUser::create(fixture, "narrow-writer", "narrowed", &TO_WRITE);
    let mut scene = Scene::of(fixture, database.clone());
    user.may_all_but(("insert", ""));
    scene.check(&Case {
        name: "restore by a user without insert",
        fault: Fault::Secret(TARGET_SECRET, user.uri.clone()),
        line: "./restore.sh -d narrowed --full --yes",
        exit: 7,
        says: &["restore-chunk", "insert into \"nightsafe.staging.", "nauthorized"],
        hint: "README",
        alerts: 2, // one that it began
    });
    let id = scene.pipeline.request_restore("narrowed");
    walk(&mut scene, &user, OperationKind::Restore, id, &MISSING_TO_WRITE);
    let state = scene.pipeline.operation(OperationKind::Restore, id).state;
    scene.expect(state == OperationState::Restored, "a role of exactly what is needed", "it is not restored");
    proof::ensure_equal("documents", &whole, &fixture.hashes(&database)).unwrap();
    eprintln!("a restore needs no more than {TO_WRITE:?}");
    scene.close();
}

/// Drives an operation as the user: each step first without one privilege after the other, then with all.
fn walk(scene: &mut Scene<'_>, user: &NarrowUser<'_>, kind: OperationKind, id: OperationId, all: &[Missing]) {
    let pipeline = Pipeline::open(scene.fixture); // the scene's own is looked at meanwhile
    let secret = user.secret.clone();
    let variables = [("NIGHTSAFE_SOURCE_SECRET", secret.clone()), ("NIGHTSAFE_TARGET_SECRET", secret)];
    let run = |step: &Step| -> Value {
        if step.name == "capture-log" {
            for missing in &MISSING_TO_FOLLOW {
                user.may_follow_but(missing.privilege);
                judge(scene, missing, kind, id, pipeline.run_with(step, &variables));
            }
            user.may_follow_but(("", ""));
            return pipeline.run_with(step, &variables).answer(step);
        }
        let is_tried = |it: &&Missing| it.step == step.name && step.position == 0;
        for missing in all.iter().filter(is_tried) {
            user.may_all_but(missing.privilege);
            let live = Live::of(scene.fixture, &scene.database);
            let outcome = pipeline.run_with(step, &variables);
            judge(scene, missing, kind, id, outcome);
            let holds = missing.says.is_none() || live.is_untouched(scene.fixture, &scene.database);
            scene.expect(holds, &missing.name(), "what was live is not as it was");
        }
        user.may_all();
        pipeline.run_with(step, &variables).answer(step)
    };
    pipeline.drive(kind, id, run);
}

/// Whether the step told what is missing, as an operator reads it later; or did not miss it.
fn judge(scene: &mut Scene<'_>, missing: &Missing, kind: OperationKind, id: OperationId, outcome: Outcome) {
    let name = missing.name();
    let (error_type, message) = match (outcome, missing.says) {
        (Outcome::Failed { error_type, message }, Some(_)) => (error_type, message),
        (Outcome::Answered(_), None) => return print_row(&name, 0, "not needed", ""),
        (other, _) => return scene.expect(false, &name, &format!("{other:?}")),
    };
    let failure = scene.pipeline.operation(kind, id).failure.unwrap();
    let hint = failure.hint.unwrap_or_default();
    print_row(&name, i32::from(failure.kind.exit_code()), &failure.message, &hint);
    scene.expect(error_type == ErrorKind::Denied.name(), &name, &format!("it fails with {error_type}"));
    scene.expect(failure.message == message, &name, "the catalog tells something else");
    scene.expect(message.contains(missing.says.unwrap_or_default()), &name, &message);
    scene.expect(message.contains("Unauthorized, 13"), &name, "it does not say that this was refused");
    scene.expect(hint.contains("README"), &name, &format!("the hint is {hint:?}"));
    scene.expect_discreet(&name, &format!("{message} {hint}"));
}

impl Missing {
    fn name(&self) -> String {
        let (action, collection) = self.privilege;
        let on = if collection.is_empty() { String::new() } else { format!(" on {collection}") };
        format!("{} without {action}{on}", self.step)
    }
}

/// A user of the server with one role, whose privileges a test sets.
struct NarrowUser<'a> {
    fixture: &'a Fixture,
    name: &'static str,
    database: &'static str,
    all: &'static [Privilege],
    uri: String,
    /// The secret that holds the connection string.
    secret: String,
}

impl<'a> NarrowUser<'a> {
    /// A user who may nothing so far, and with `all` what is needed.
    fn create(
        fixture: &'a Fixture,
        name: &'static str,
        database: &'static str,
        all: &'static [Privilege],
    ) -> Self {
        let uri = for_user(&fixture.users().backup, name);
        let admin = fixture.client.database("admin");
        fixture.command(&admin, doc! { "createRole": name, "privileges": [], "roles": [] });
        fixture.command(&admin, doc! { "createUser": name, "pwd": password(&uri), "roles": [name] });
        let secret = fixture.run(new_secret(&fixture.config, &format!("nightsafe/{name}"), &uri));
        Self { fixture, name, database, all, uri, secret }
    }

    fn may_all(&self) {
        self.may(self.all.iter().copied());
    }

    fn may_all_but(&self, missing: Privilege) {
        self.may(self.all.iter().copied().filter(|privilege| *privilege != missing));
    }

    /// The changes of every database, without one of the two privileges.
    fn may_follow_but(&self, missing: Privilege) {
        let all = MISSING_TO_FOLLOW.iter().map(|it| it.privilege.0).filter(|action| *action != missing.0);
        let actions: Vec<&str> = all.collect();
        let everything = doc! { "resource": { "db": "", "collection": "" }, "actions": actions };
        let admin = self.fixture.client.database("admin");
        self.fixture.command(&admin, doc! { "updateRole": self.name, "privileges": [everything] });
    }

    fn may(&self, privileges: impl Iterator<Item = Privilege>) {
        let privilege = |(action, collection): Privilege| {
            doc! { "resource": { "db": self.database, "collection": collection }, "actions": [action] }
        };
        let privileges: Vec<Document> = privileges.map(privilege).collect();
        let admin = self.fixture.client.database("admin");
        self.fixture.command(&admin, doc! { "updateRole": self.name, "privileges": privileges });
    }
}

/// One of everything that takes a privilege of its own: a time series, a document with a zero timestamp, a capped
/// collection, a view, an index that expires, and a collection of several chunks. The first two are in the first item.
fn filled(fixture: &Fixture, name: &str) -> Database {
    let database = fixture.database(name);
    let never = Timestamp { time: 0, increment: 0 };
    let zero = doc! { "$replaceWith": { "$literal": { "_id": "zero", "at": never } } };
    let index = |field: &str| doc! { "key": { field: 1 }, "name": field };
    let mut expiring = index("expires");
    expiring.insert("expireAfterSeconds", 3600);
    for command in [
        doc! { "create": "a_series", "timeseries": { "timeField": "t", "metaField": "m" } },
        doc! { "insert": "a_series", "documents": [{ "t": bson::DateTime::now(), "m": 1, "v": 1 }] },
        doc! { "createIndexes": "a_zero", "indexes": [index("n")] },
        doc! { "update": "a_zero", "updates": [{ "q": { "_id": "zero" }, "u": [zero], "upsert": true }] },
        doc! { "create": "log", "capped": true, "size": 4096 },
        doc! { "insert": "log", "documents": [{ "_id": 1 }] },
        doc! { "create": "few", "viewOn": "large", "pipeline": [{ "$limit": 1 }] },
        doc! { "createIndexes": "large", "indexes": [expiring] },
    ] {
        fixture.command(&database, command);
    }
    fixture.fill(&database, "large", 0, 600);
    database
}

/// So that every name has to be swapped. A time series cannot be replaced.
fn damage(fixture: &Fixture, database: &Database) {
    fixture.run(async {
        for name in ["a_zero", "log"] {
            database.collection::<Document>(name).insert_one(doc! { "_id": "more" }).await.unwrap();
        }
        database.collection::<Document>("large").delete_many(doc! { "_id": { "$lt": 100 } }).await.unwrap();
        database.collection::<Document>("a_series").drop().await.unwrap();
    });
    fixture.command(database, doc! { "collMod": "few", "viewOn": "large", "pipeline": [{ "$limit": 2 }] });
}

/// What was live before a step.
struct Live {
    hashes: BTreeMap<String, String>,
    metadata: BTreeMap<String, (Document, Vec<Document>)>,
}

impl Live {
    fn of(fixture: &Fixture, database: &Database) -> Self {
        Self { hashes: fixture.hashes(database), metadata: fixture.metadata(database) }
    }

    /// Whether all of it is as it was. Something new may be there.
    fn is_untouched(&self, fixture: &Fixture, database: &Database) -> bool {
        let now = Self::of(fixture, database);
        self.hashes.iter().all(|(name, hash)| now.hashes.get(name) == Some(hash))
            && self.metadata.iter().all(|(name, metadata)| now.metadata.get(name) == Some(metadata))
    }
}

/// The server says which command it refused, with all that was in it: documents, and bounds of ranges.
pub(crate) fn a_refusal_quotes_no_document(fixture: &Fixture) {
    let database = fixture.database("quoted");
    fixture.fill(&database, "there", 0, 10);
    let user = NarrowUser::create(fixture, "narrow-nobody", "quoted", &[]);
    let never = Timestamp { time: 0, increment: 0 };
    let (one, zero) = (rawdoc! { "_id": CANARY }, rawdoc! { "_id": CANARY, "at": never });
    let rules = InsertRules { ordered: false };
    let refused = fixture.run(async {
        let reader = Cluster::connect(&fixture.users().backup).await.unwrap();
        let uuid = reader.namespaces("quoted").await.unwrap()[0].uuid.unwrap();
        let read = ChunkRead {
            database: "quoted".to_owned(),
            name: "there".to_owned(),
            uuid,
            range: IdRange { lower: IdValue::of_document(one.as_bytes()).unwrap(), upper: None },
            at: None,
            document_bytes_hint: 0,
        };
        let nobody = Cluster::connect(&user.uri).await.unwrap();
        let insert = async |bytes: Vec<u8>| nobody.insert("quoted", "there", bytes.into(), rules).await;
        [
            ("read", nobody.read(&read).await.err().unwrap()),
            ("insert", insert(one.clone().into_bytes()).await.unwrap_err()),
            ("insert of a zero timestamp", insert(zero.into_bytes()).await.unwrap_err()),
        ]
    });
    let told: Vec<String> = refused.iter().filter_map(|(what, why)| quotes(what, why)).collect();
    assert!(told.is_empty(), "a document is told:\n{}", told.join("\n"));
}

fn quotes(what: &str, why: &Error) -> Option<String> {
    assert_eq!(why.kind(), ErrorKind::Denied, "{what}: {why}");
    let text = format!("{what}: {why} {why:?}");
    text.contains(CANARY).then_some(text)
}
