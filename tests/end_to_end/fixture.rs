//! The cloud the tests share, and what they do with it.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::Result;
use aws_config::SdkConfig;
use backup_aws::{Sdk, Stack};
use bson::{Document, doc};
use local::demo::proof;
use local::{Cloud, CloudOptions};
use mongodb::{Client, Database};
use serde_json::Value;
use tokio::runtime::Runtime;

pub(crate) struct Fixture {
    runtime: Runtime,
    directory: tempfile::TempDir,
    cloud: Cloud,
    pub(crate) client: Client,
    pub(crate) config: SdkConfig,
}

impl Fixture {
    pub(crate) fn start() -> Result<Self> {
        // Small chunks, so that a modest collection has many.
        let options =
            CloudOptions { history_seconds: 3600, chunk_target_bytes: 256 * 1024, ..CloudOptions::default() };
        Self::with(&options)
    }

    /// With a cloud of these options.
    pub(crate) fn with(options: &CloudOptions) -> Result<Self> {
        let runtime = Runtime::new()?;
        let directory = tempfile::tempdir()?;
        let cloud = runtime.block_on(Cloud::start(directory.path(), options, |_| {}))?;
        let client = runtime.block_on(Client::with_uri_str(cloud.users().administrator))?;
        let config = runtime.block_on(cloud.sdk_config());
        Ok(Self { runtime, directory, cloud, client, config })
    }

    /// Where the cloud has its files.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn stop(&self) -> Result<()> {
        self.cloud.stop()
    }

    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// A database of this name, empty.
    pub(crate) fn database(&self, name: &str) -> Database {
        let database = self.client.database(name);
        self.run(async { database.drop().await }).unwrap();
        database
    }

    pub(crate) fn command(&self, database: &Database, command: Document) -> Document {
        self.run(async { database.run_command(command).await }).unwrap()
    }

    /// Inserts documents `{_id: n, text}` numbered `from..to`, of about 1 KiB each.
    pub(crate) fn fill(&self, database: &Database, name: &str, from: i32, to: i32) {
        let documents = (from..to).map(|n| doc! { "_id": n, "key": format!("k{n:08}"), "text": noise(n) });
        for batch in documents.collect::<Vec<_>>().chunks(1000) {
            self.run(async { database.collection::<Document>(name).insert_many(batch).await }).unwrap();
        }
    }

    pub(crate) fn hashes(&self, database: &Database) -> BTreeMap<String, String> {
        self.run(proof::db_hash(database)).unwrap()
    }

    pub(crate) fn metadata(&self, database: &Database) -> BTreeMap<String, (Document, Vec<Document>)> {
        self.run(proof::metadata(database)).unwrap()
    }

    /// A command of the checkout with this cloud's environment, as an operator's shell has it.
    pub(crate) fn shell(&self, program: &str, arguments: &[&str]) -> Command {
        let binaries = self.cloud.nightsafe().parent().unwrap().to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path =
            std::env::join_paths(std::iter::once(binaries).chain(std::env::split_paths(&path))).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).envs(self.cloud.environment()).env("PATH", path).stdin(Stdio::null());
        command.current_dir(self.cloud.workspace());
        command
    }

    pub(crate) fn output(&self, program: &str, arguments: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.shell(program, arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    /// Runs a command with `--json` that must succeed; gives what it printed.
    pub(crate) fn json(&self, program: &str, arguments: &[&str]) -> Value {
        let (code, stdout, stderr) = self.output(program, &[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{program} {arguments:?}: {stderr}");
        serde_json::from_str(&stdout).unwrap_or_else(|why| panic!("{program} {arguments:?}: {why}: {stdout}"))
    }

    /// Backs up a database; gives its row.
    pub(crate) fn back_up(&self, database: &str) -> Value {
        let backup = self.json("./backup.sh", &["-d", database]);
        assert_eq!(backup["state"], "verified");
        backup
    }

    pub(crate) fn lease_holder(&self) -> Value {
        self.json("nightsafe", &["status"])["lease_holder"].clone()
    }

    pub(crate) fn stack(&self, output: &str) -> String {
        let stack = self.run(async { Stack::find(&self.sdk(), self.cloud.stack()).await }).unwrap();
        stack.output(output).unwrap().to_owned()
    }

    /// The Lambda binary, built.
    pub(crate) fn bootstrap(&self) -> PathBuf {
        self.cloud.nightsafe().with_file_name("bootstrap")
    }

    pub(crate) fn sdk(&self) -> Sdk {
        Sdk::from_config(self.config.clone())
    }

    pub(crate) fn users(&self) -> local::mongod::Users {
        self.cloud.users()
    }

    /// How many alerts went out by email so far (the local AWS logs them and sends nothing).
    pub(crate) fn alerts(&self) -> usize {
        let log = std::fs::read_to_string(self.directory.path().join("aws/log")).unwrap();
        log.lines()
            .filter(|line| line.contains("SNS fanout") && line.contains("operator@example.com"))
            .count()
    }
}

/// Text that does not compress to nothing, the same for the same number.
fn noise(n: i32) -> String {
    let mut state = u64::try_from(n).unwrap_or(0).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::with_capacity(1000);
    while text.len() < 1000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!("{:06x} ", state & 0x00ff_ffff));
    }
    text
}
