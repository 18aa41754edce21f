//! microburst: a process between our binary and the local AWS that spoils what its rules say. What our launcher adds
//! to it stands in `launch_microburst.py`.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::fixture::Fixture;

const STARTS_WITHIN: Duration = Duration::from_secs(30);
const ENDS_WITHIN: Duration = Duration::from_secs(10);
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// A running microburst without rules: everything passes. Dropped, it is killed.
pub(crate) struct Microburst<'a> {
    fixture: &'a Fixture,
    address: SocketAddr,
    process: Child,
}

impl<'a> Microburst<'a> {
    pub(crate) fn start(fixture: &'a Fixture) -> Self {
        let (process, port) = fixture.run(async {
            let mut process = command(fixture).spawn().unwrap();
            let port = read_port(process.stdout.take().unwrap()).await;
            (process, port)
        });
        Self { fixture, address: (Ipv4Addr::LOCALHOST, port).into(), process }
    }

    /// Asks it to end, by the end of its input; makes it end if it does not.
    pub(crate) fn stop(self) {
        let Self { fixture, mut process, .. } = self;
        fixture.run(async {
            drop(process.stdin.take());
            if timeout(ENDS_WITHIN, process.wait()).await.is_err() {
                process.kill().await.unwrap();
            }
        });
    }

    /// Where it stands for AWS.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it goes by these rules, in their order: the first one that matches a request counts.
    pub(crate) fn spoil(&self, rules: &[Rule]) {
        let rules: Vec<Value> = rules.iter().map(|rule| Value::Object(rule.0.clone())).collect();
        self.rules("POST", &Value::from(rules).to_string());
    }

    /// How many requests each rule spoiled since.
    pub(crate) fn spoiled(&self) -> Vec<u64> {
        let rules = self.rules("GET", "");
        rules.as_array().unwrap().iter().map(|rule| rule["fired_count"].as_u64().unwrap()).collect()
    }

    /// Small HTTP/1.0, so that the end of the answer is the end of the connection.
    fn rules(&self, method: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(ANSWERS_WITHIN)).unwrap();
        let length = body.len();
        let request =
            format!("{method} /_microburst/rules HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, rules) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(head.split(' ').nth(1), Some("200"), "{body}: {answer}");
        serde_json::from_str(rules).unwrap()
    }
}

fn command(fixture: &Fixture) -> Command {
    let launcher = Path::new(env!("CARGO_MANIFEST_DIR")).join("launch_microburst.py");
    let mut command = Command::new(local::Cloud::default_directory().join("python/bin/python"));
    command
        .arg(launcher)
        .arg(fixture.config.endpoint_url().unwrap())
        .env_clear() // credentials of this machine are none of its business
        .stdin(Stdio::piped()) // it ends with this, so also with a test run that was killed
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn read_port(stdout: ChildStdout) -> u16 {
    let mut lines = BufReader::new(stdout).lines();
    let line = timeout(STARTS_WITHIN, lines.next_line()).await.expect("microburst hangs").unwrap();
    line.expect("microburst did not start").parse().unwrap()
}

/// Which requests are spoiled, how, and how often (always, unless it says). Without an effect it lets requests pass
/// that a later rule would spoil.
#[derive(Clone)]
pub(crate) struct Rule(Map<String, Value>);

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Value::Object(self.0.clone()))
    }
}

impl Rule {
    /// All requests to a service.
    pub(crate) fn of(service: &str) -> Self {
        Self(Map::new()).with("service", service)
    }

    /// Requests for one operation.
    pub(crate) fn on(service: &str, operation: &str) -> Self {
        Self::of(service).with("operation", operation)
    }

    /// Of S3: only if the object's path has this part.
    pub(crate) fn at(self, part: &str) -> Self {
        self.with("resource", part)
    }

    /// Of the other services: only if this text occurs in the request.
    pub(crate) fn about(self, text: &str) -> Self {
        self.with("body", format!("contains(to_string(@), '{text}')"))
    }

    /// Only this many times.
    pub(crate) fn times(self, limit: u64) -> Self {
        self.with("times", limit)
    }

    /// How often it may apply.
    pub(crate) fn limit(&self) -> Option<u64> {
        self.0.get("times").and_then(Value::as_u64)
    }

    /// Refused with this error and the status that goes with it.
    pub(crate) fn refused(self, code: &str) -> Self {
        self.with("error", json!({ "code": code }))
    }

    /// Refused with this error and status.
    pub(crate) fn refused_as(self, code: &str, status: u16) -> Self {
        self.with("error", json!({ "code": code, "status": status }))
    }

    /// Refused because the service has too much to do.
    pub(crate) fn throttled(self) -> Self {
        let code = match self.service() {
            "s3" => "SlowDown",
            "dynamodb" => "ProvisionedThroughputExceededException",
            "sns" => "ThrottledException",
            _ => "ThrottlingException",
        };
        self.refused(code)
    }

    /// Refused because of a fault of the service's own, before it did anything.
    pub(crate) fn broken(self) -> Self {
        let code = self.own_fault();
        self.refused_as(code, 500)
    }

    /// Done, and answered as if a fault of the service's own had come between.
    pub(crate) fn lost(self) -> Self {
        let code = self.own_fault();
        self.answer("set_headers", json!({ "lost": code }))
    }

    /// Done, and the connection reset in place of an answer.
    pub(crate) fn reset_after(self) -> Self {
        self.answer("set_headers", json!({ "lost": "reset" }))
    }

    /// Not done, and the connection reset.
    pub(crate) fn reset(self) -> Self {
        self.with("reset", true)
    }

    /// Not done: the connection is reset after so many bytes of the body came.
    pub(crate) fn cut_after(self, bytes: u64) -> Self {
        self.with("request", json!({ "cut_upload": { "after_bytes": bytes } }))
    }

    /// The body comes this slowly.
    pub(crate) fn trickling(self, kibibytes_per_second: u64) -> Self {
        self.with("request", json!({ "slow_upload": { "rate_kbps": kibibytes_per_second } }))
    }

    /// The answer's body ends after so many bytes, as if that were all.
    pub(crate) fn truncated(self, bytes: u64) -> Self {
        self.answer("truncate_bytes", json!(bytes))
    }

    /// The connection is reset after so many bytes of the answer's body.
    pub(crate) fn broken_off(self, bytes: u64) -> Self {
        self.answer("abort_bytes", json!(bytes))
    }

    /// The last byte of the answer's body is another one.
    pub(crate) fn damaged(self) -> Self {
        self.answer("corrupt_bytes", json!(1))
    }

    /// The answer's body does not come: a byte a second is too much for it.
    pub(crate) fn stalled(self) -> Self {
        self.answer("bandwidth_kbps", json!(0.0001))
    }

    /// The answer has no checksum, so that the SDK has nothing to find damage by.
    pub(crate) fn unchecked(self) -> Self {
        self.answer("strip_headers", json!(["x-amz-checksum-crc32", "x-amz-checksum-type"]))
    }

    fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.insert(field.to_owned(), value.into());
        self
    }

    fn answer(mut self, field: &str, value: Value) -> Self {
        self.0.entry("response").or_insert_with(|| json!({}))[field] = value;
        self
    }

    fn service(&self) -> &str {
        self.0["service"].as_str().unwrap()
    }

    fn own_fault(&self) -> &'static str {
        match self.service() {
            "dynamodb" => "InternalServerError",
            "kms" => "KMSInternalException",
            _ => "InternalError",
        }
    }
}
