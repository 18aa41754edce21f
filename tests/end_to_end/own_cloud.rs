//! A cloud of a test's own, for tests that change the cloud itself; and what is seen of a cloud from outside: alerts,
//! executions, servers that samples are restored to.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_sfn::types::ExecutionStatus;
use local::CloudOptions;
use serde_json::Value;

use crate::fixture::Fixture;
use crate::process::Outcome;

/// Outputs of the stack that name its state machines.
const MACHINES: [&str; 6] = [
    "ProtectMachine",
    "SynthesizeMachine",
    "ReplicateMachine",
    "RestoreMachine",
    "DrillMachine",
    "PruneMachine",
];
/// A queue that the stack has: what no schedule could deliver comes there, too, and is as bad as an alert.
const QUEUE: &str = "nightsafe-undelivered";
/// How the room of a server begins that a sample is restored to.
const ROOM: &str = "nightsafe-scratch-";
/// Such a server lives for a second or two.
const WATCH_EVERY: Duration = Duration::from_millis(50);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// One execution may start another one at its end, and a function may be about to.
const QUIET_LOOKS: u32 = 3;
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// A running cloud. Dropped, it is stopped, also by a test that fails.
pub(crate) struct OwnCloud(Fixture);

impl OwnCloud {
    pub(crate) fn start(options: &CloudOptions) -> Self {
        let began = Instant::now();
        let cloud = Self(Fixture::with(options).unwrap());
        eprintln!("a cloud of its own: {:.1} s", began.elapsed().as_secs_f32());
        cloud
    }
}

impl Deref for OwnCloud {
    type Target = Fixture;

    fn deref(&self) -> &Fixture {
        &self.0
    }
}

impl Drop for OwnCloud {
    fn drop(&mut self) {
        let stopped = self.0.stop();
        if !thread::panicking() {
            stopped.unwrap();
        }
    }
}

/// Calls the deployed function of a step, as a schedule or a state machine does.
pub(crate) async fn call(config: &SdkConfig, step: &str, event: &Value) -> Outcome {
    let client = aws_sdk_lambda::Client::new(config);
    let call =
        client.invoke().function_name(format!("nightsafe-{step}")).payload(Blob::new(event.to_string()));
    let answer = call.send().await.unwrap();
    let payload = answer.payload().map(|it| it.as_ref().to_vec()).unwrap_or_default();
    let told: Value = serde_json::from_slice(&payload).unwrap_or_default();
    if answer.function_error().is_none() {
        return Outcome::Answered(told);
    }
    let text = |field: &str| told[field].as_str().unwrap_or_default().to_owned();
    Outcome::Failed { error_type: text("errorType"), message: text("errorMessage") }
}

/// Does something again and again while something else is done.
pub(crate) fn meanwhile<T>(every: Duration, mut again: impl FnMut() + Send, work: impl FnOnce() -> T) -> T {
    let (over, is_over) = mpsc::channel::<()>();
    thread::scope(move |scope| {
        scope.spawn(move || {
            // Until the sender is gone, also by a panic.
            while is_over.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                again();
            }
        });
        let done = work();
        drop(over);
        done
    })
}

/// Every operation that is listed, newest first.
pub(crate) fn operations(fixture: &Fixture) -> Vec<Value> {
    let listed = fixture.json("nightsafe", &["list", "--limit", "1000"]);
    listed["operations"].as_array().unwrap().clone()
}

/// Waits until nothing runs any more: no operation, and no execution beside one, such as that which copies a backup.
pub(crate) fn wait_until_quiet(fixture: &Fixture, within: Duration) {
    let machines = MACHINES.map(|output| fixture.stack(output));
    let (began, mut quiet) = (Instant::now(), 0);
    while quiet < QUIET_LOOKS {
        let busy = busy(fixture, &machines);
        quiet = if busy.is_empty() { quiet + 1 } else { 0 };
        assert!(began.elapsed() < within, "it does not end: {busy:?}");
        thread::sleep(LOOK_EVERY); // nobody tells when it is over
    }
}

/// The names of executions that run, and of operations that have not ended.
fn busy(fixture: &Fixture, machines: &[String]) -> Vec<String> {
    let client = aws_sdk_sfn::Client::new(&fixture.config);
    let mut busy = Vec::new();
    for machine in machines {
        let list =
            client.list_executions().state_machine_arn(machine).status_filter(ExecutionStatus::Running);
        let found = fixture.run(list.send()).unwrap();
        busy.extend(found.executions().iter().map(|it| it.name().to_owned()));
    }
    let has_ended = |it: &&Value| {
        ["verified", "restored", "done", "failed"].contains(&it["state"].as_str().unwrap_or_default())
    };
    busy.extend(operations(fixture).iter().filter(|it| !has_ended(it)).map(|it| it["id"].to_string()));
    busy
}

/// Lets every alert from now on come into a queue as well, where it can be looked at.
pub(crate) fn collect_alerts(fixture: &Fixture) {
    let client = aws_sdk_sns::Client::new(&fixture.config);
    for output in ["PageTopic", "MailTopic"] {
        let topic = fixture.stack(output);
        let (place, _) = topic.rsplit_once(':').unwrap();
        let queue = format!("{}:{QUEUE}", place.replace(":sns:", ":sqs:"));
        let subscribe = client.subscribe().topic_arn(&topic).protocol("sqs").endpoint(queue);
        fixture.run(subscribe.send()).unwrap();
    }
}

/// The subjects of all alerts since then.
pub(crate) fn alerts_told(fixture: &Fixture) -> Vec<String> {
    let found = ask(fixture, "GET", "sqs", "/_ministack/sqs/messages");
    let queues = values(&found["messages"]).flat_map(values).flat_map(values);
    queues.flat_map(|messages| messages.as_array().into_iter().flatten()).map(subject).collect()
}

fn values(of: &Value) -> impl Iterator<Item = &Value> {
    of.as_object().into_iter().flat_map(serde_json::Map::values)
}

/// What is no alert stands for itself.
fn subject(message: &Value) -> String {
    let body = message["Body"].as_str().unwrap_or_default();
    let envelope: Value = serde_json::from_str(body).unwrap_or_default();
    let why =
        envelope["Message"].as_str().and_then(|text| text.lines().find(|line| line.starts_with("Why:")));
    format!("{} {}", envelope["Subject"].as_str().unwrap_or(body), why.unwrap_or_default())
}

/// Removes every schedule: nothing begins by itself any more. What was begun goes on.
pub(crate) fn stop_the_clock(fixture: &Fixture) {
    let found = ask(fixture, "GET", "scheduler", "/schedules?MaxResults=100");
    let schedules = found["Schedules"].as_array().unwrap();
    assert!(!schedules.is_empty(), "{found}");
    for schedule in schedules {
        let name = schedule["Name"].as_str().unwrap();
        ask(fixture, "DELETE", "scheduler", &format!("/schedules/{name}"));
    }
}

/// Asks the local AWS something for which there is no SDK crate here. Small HTTP/1.0, so that the end of the answer is
/// the end of the connection; whom it is for stands where a signature says it.
fn ask(fixture: &Fixture, method: &str, service: &str, path: &str) -> Value {
    let address = fixture.config.endpoint_url().unwrap().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(ANSWERS_WITHIN)).unwrap();
    let head = [
        format!("{method} {path} HTTP/1.0"),
        format!("Host: {address}"),
        format!("Authorization: AWS4-HMAC-SHA256 Credential=test/20261122/us-east-1/{service}/aws4_request"),
        "Content-Length: 0".to_owned(),
    ];
    stream.write_all(format!("{}\r\n\r\n", head.join("\r\n")).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(head.split(' ').nth(1), Some("200"), "{method} {path}: {answer}");
    serde_json::from_str(body).unwrap_or_else(|why| panic!("{method} {path}: {why}: {answer}"))
}

/// Where functions have their temporary files.
fn temporary(fixture: &Fixture) -> PathBuf {
    fixture.directory().canonicalize().unwrap().join("aws/temporary")
}

/// The programs of the servers that run now to have samples restored to them.
fn scratch_servers(fixture: &Fixture) -> Vec<String> {
    let room = temporary(fixture).join(ROOM).display().to_string();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        // One that has just ended has no command line any more.
        let Ok(line) = fs::read(process.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line);
        if line.contains(&room) {
            found.extend(line.split('\0').next().map(str::to_owned));
        }
    }
    found
}

/// Gives the programs of the servers that ran meanwhile to have samples restored to them.
pub(crate) fn while_watching_samples<T>(
    fixture: &Fixture,
    work: impl FnOnce() -> T,
) -> (T, BTreeSet<String>) {
    let mut seen = BTreeSet::new();
    let done = meanwhile(WATCH_EVERY, || seen.extend(scratch_servers(fixture)), work);
    (done, seen)
}

/// No server that a sample was restored to runs any more, and none has left files.
pub(crate) fn nothing_is_left_of_samples(fixture: &Fixture) {
    let servers = scratch_servers(fixture);
    assert!(servers.is_empty(), "they still run: {servers:?}");
    let files = fs::read_dir(temporary(fixture)).unwrap().flatten().map(|it| it.file_name());
    let rooms: Vec<_> = files.filter(|name| name.to_string_lossy().starts_with(ROOM)).collect();
    assert!(rooms.is_empty(), "left behind: {rooms:?}");
}
