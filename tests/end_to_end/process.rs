//! The real Lambda binary as one invocation of one function: a process of its own, in the environment of the deployed
//! function, that speaks with a Lambda Runtime API of ours.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::SdkConfig;
use backup_aws::SystemClock;
use backup_core::ports::Clock;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::relay::{Fuse, Killable, Script};

/// A step of a small database takes a second. A process that takes this long hangs, and so would the test.
const HANGS_AFTER: Duration = Duration::from_mins(3);
const REQUEST_ID: &str = "00000000-0000-4000-8000-000000000000";

/// How an invocation ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// With an answer.
    Answered(Value),
    /// With an error, as a state machine sees it.
    Failed { error_type: String, message: String },
    /// Without a word.
    Died,
}

impl Outcome {
    /// The answer; anything else fails the test.
    pub(crate) fn answer(self, step: &impl Debug) -> Value {
        match self {
            Self::Answered(answer) => answer,
            other => panic!("{step:?}: {other:?}"),
        }
    }

    /// The name and the message it failed with; anything else fails the test.
    pub(crate) fn failure(self, step: &impl Debug) -> (String, String) {
        match self {
            Self::Failed { error_type, message } => (error_type, message),
            other => panic!("{step:?}: {other:?}"),
        }
    }
}

/// A deployed function, as its processes know it.
#[derive(Clone)]
pub(crate) struct Function {
    arn: String,
    timeout_millis: u64,
    variables: HashMap<String, String>,
}

impl Function {
    /// The function of this step.
    pub(crate) async fn find(config: &SdkConfig, step: &str) -> Self {
        let client = aws_sdk_lambda::Client::new(config);
        let name = format!("nightsafe-{step}");
        let found = client.get_function_configuration().function_name(&name).send().await.unwrap();
        let mut variables = found.environment().unwrap().variables().unwrap().clone();
        let given = [
            ("_HANDLER", found.handler().unwrap().to_owned()),
            ("AWS_LAMBDA_FUNCTION_NAME", name),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", found.memory_size().unwrap().to_string()),
            ("AWS_REGION", config.region().unwrap().to_string()),
            ("AWS_ENDPOINT_URL", config.endpoint_url().unwrap().to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("RUST_BACKTRACE", "0".to_owned()),
        ];
        variables.extend(given.map(|(name, value)| (name.to_owned(), value)));
        let timeout_seconds = u64::try_from(found.timeout().unwrap()).unwrap();
        Self {
            arn: found.function_arn().unwrap().to_owned(),
            timeout_millis: timeout_seconds * 1000,
            variables,
        }
    }

    /// The same function reaching the outside by other ways: those of its variables that are named have these values.
    pub(crate) fn with(&self, ways: &[(&str, String)]) -> Self {
        let mut changed = self.clone();
        for (name, value) in ways {
            if let Some(variable) = changed.variables.get_mut(*name) {
                variable.clone_from(value);
            }
        }
        changed
    }
}

/// One invocation.
pub(crate) struct Invocation<'a> {
    pub(crate) bootstrap: &'a Path,
    pub(crate) function: &'a Function,
    pub(crate) event: &'a Value,
}

impl Invocation<'_> {
    /// Runs it in a process that is gone when this returns. A fuse may kill it meanwhile, by its script.
    pub(crate) async fn run(&self, fuse: Option<(&Fuse, Script)>) -> Outcome {
        let mut api = RuntimeApi::start().await;
        let (kill, mut killed) = oneshot::channel();
        let (alive, dead) = oneshot::channel();
        if let Some((fuse, script)) = fuse {
            fuse.load(script, Killable { kill, dead });
        }
        let mut child = self.start(api.address());
        let outcome = tokio::select! {
            outcome = api.outcome(self.next_event()) => outcome,
            ended = child.wait() => {
                ended.unwrap();
                Outcome::Died
            }
            Ok(()) = &mut killed => Outcome::Died,
            () = tokio::time::sleep(HANGS_AFTER) => panic!("{}: it hangs: {}", self.function.arn, self.event),
        };
        child.start_kill().unwrap(); // no error if it has ended
        child.wait().await.unwrap();
        drop(alive); // the fuse waits for this
        outcome
    }

    fn start(&self, runtime_api: SocketAddr) -> Child {
        Command::new(self.bootstrap)
            .env_clear() // nothing of this machine may leak in
            .envs(&self.function.variables)
            .env("AWS_LAMBDA_RUNTIME_API", runtime_api.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null()) // the log; what it fails with is told to the Runtime API too
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|why| panic!("start {}: {why}", self.bootstrap.display()))
    }

    /// The answer to the request for the next event.
    fn next_event(&self) -> String {
        let body = self.event.to_string();
        let now = SystemClock::without_deadline().now_millis();
        let head = [
            "HTTP/1.1 200 OK".to_owned(),
            "Content-Type: application/json".to_owned(),
            format!("Content-Length: {}", body.len()),
            format!("Lambda-Runtime-Aws-Request-Id: {REQUEST_ID}"),
            format!("Lambda-Runtime-Deadline-Ms: {}", now + self.function.timeout_millis),
            format!("Lambda-Runtime-Invoked-Function-Arn: {}", self.function.arn),
        ];
        format!("{}\r\n\r\n{body}", head.join("\r\n"))
    }
}

/// The Lambda Runtime API for one process: gives it one event, takes what becomes of it, and lets it wait from then
/// on, as a frozen environment does. Connections end with this, so after the process.
struct RuntimeApi {
    listener: TcpListener,
    connections: JoinSet<()>,
}

impl RuntimeApi {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        Self { listener, connections: JoinSet::new() }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Serves until there is an outcome.
    async fn outcome(&mut self, event: String) -> Outcome {
        let event = Arc::new(Mutex::new(Some(event)));
        let (tell, mut told) = mpsc::channel(1);
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let (stream, _) = accepted.unwrap();
                    self.connections.spawn(converse(stream, event.clone(), tell.clone()));
                }
                Some(outcome) = told.recv() => return outcome,
            }
        }
    }
}

async fn converse(stream: TcpStream, event: Arc<Mutex<Option<String>>>, tell: mpsc::Sender<Outcome>) {
    let mut stream = BufReader::new(stream);
    while let Ok(request) = Request::read(&mut stream).await {
        if !request.path.ends_with("/invocation/next") {
            let _ = tell.send(request.outcome()).await; // only the first counts
            return std::future::pending().await;
        }
        let next = event.lock().unwrap().take();
        let Some(next) = next else { return std::future::pending().await };
        if stream.write_all(next.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A request of the process.
struct Request {
    path: String,
    body: Vec<u8>,
}

impl Request {
    /// Small HTTP/1.1, as the runtime sends it: every body has its length.
    async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Self> {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut length = 0;
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse::<usize>().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        Ok(Self { path, body })
    }

    /// What it tells: an answer, or an error of the invocation or of the start.
    fn outcome(&self) -> Outcome {
        let text = |told: &Value, field: &str| told[field].as_str().unwrap_or_default().to_owned();
        match serde_json::from_slice::<Value>(&self.body) {
            Ok(answer) if self.path.ends_with("/response") => Outcome::Answered(answer),
            Ok(told) => {
                Outcome::Failed { error_type: text(&told, "errorType"), message: text(&told, "errorMessage") }
            }
            Err(why) => Outcome::Failed { error_type: "not JSON".to_owned(), message: why.to_string() },
        }
    }
}
