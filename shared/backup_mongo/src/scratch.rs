//! The [`Scratch`] port: a `mongod` of our own that lives for one rehearsal, or a database of a cluster that is there
//! for nothing else.
//!
//! A server of our own is a standalone: it takes writes with `w: majority` and reads with `readConcern: majority` as a
//! replica set does, for it is all the members there are, and it is ready sooner. Snapshot reads it refuses; a
//! rehearsal makes none.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use async_trait::async_trait;
use backup_core::ports::{Scratch, ScratchDatabase, Source, Target};
use backup_core::{Error, ErrorKind, Result};
use bson::oid::ObjectId;
use bson::rawdoc;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::connection::{Cluster, within};

/// Everything but where its files are. Documents of the backup may not run code in it, and nothing may delete them.
const ARGUMENTS: [&str; 8] = [
    "--nounixsocket", // but the one it is bound to
    "--noscripting",
    "--wiredTigerCacheSizeGB",
    "0.25",
    "--setParameter",
    "diagnosticDataCollectionEnabled=false",
    "--setParameter",
    "ttlMonitorEnabled=false",
];
/// How often a server that is starting is waited for, each time as long as a server may take to be found.
const WAITS_MAX: u32 = 3;
const ROOM: &str = "nightsafe-scratch-";
const LOCK: &str = "lock";
const FILES: &str = "db";
const SOCKET: &str = "mongod.sock";
/// The system's limit for the path of a socket, without its closing zero.
const SOCKET_BYTES_MAX: usize = 107;
const OWN_DATABASE: &str = "rehearsal";
const CLOSING: &str = "throw away the server that was restored to";
const SCRATCH: &str = "nightsafe_scratch_";
/// No step lives this long: a scratch database that is older was left behind.
const LEFT_BEHIND_MILLIS: i64 = 24 * 3600 * 1000;

/// Stands where no server to restore to is configured.
#[derive(Clone, Copy, Debug)]
pub struct NoScratch;

#[async_trait]
impl Scratch for NoScratch {
    async fn open(&self) -> Result<Box<dyn ScratchDatabase>> {
        Err(Error::new(ErrorKind::NotFound, "open a server to restore to: none is configured"))
    }
}

/// Starts a `mongod` for each rehearsal, reachable by a socket in a directory that only we may enter, and by no port.
#[derive(Clone, Debug)]
pub struct OwnServer {
    mongod: PathBuf,
    base: PathBuf,
}

impl OwnServer {
    /// Will start the `mongod` at this path (in full; libraries that come with it are in `../lib`), with its files in a
    /// directory of its own under `base`. What earlier ones left there that were killed is removed, too.
    #[must_use]
    pub fn new(mongod: impl Into<PathBuf>, base: impl Into<PathBuf>) -> Self {
        Self { mongod: mongod.into(), base: base.into() }
    }

    fn command(&self, room: &Path) -> Command {
        let mut command = Command::new(&self.mongod);
        command.arg("--dbpath").arg(room.join(FILES)).arg("--bind_ip").arg(room.join(SOCKET));
        // Our credentials are in the environment; its log may quote documents.
        command.args(ARGUMENTS).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        if let Some(prefix) = self.mongod.parent().and_then(Path::parent) {
            command.env("LD_LIBRARY_PATH", prefix.join("lib"));
        }
        command
    }
}

#[async_trait]
impl Scratch for OwnServer {
    async fn open(&self) -> Result<Box<dyn ScratchDatabase>> {
        let failed = |kind, why: io::Error| {
            Error::new(kind, "start a server to restore to").because(why).hint(
                "is the layer with mongod the right one for this function, and is there room for its files?",
            )
        };
        let room = Room::take(&self.base).map_err(|why| failed(ErrorKind::Internal, why))?;
        let socket = room.path().join(SOCKET);
        if socket.as_os_str().len() > SOCKET_BYTES_MAX {
            let what = "start a server to restore to: the path of its socket would be too long";
            return Err(Error::new(ErrorKind::Invalid, what).hint("give it a directory with a shorter path"));
        }
        let spawned = self.command(room.path()).spawn();
        let mut process = spawned.map_err(|why| failed(ErrorKind::Gone, why))?;
        let cluster = Cluster::at_socket(&socket)?;
        let version = tokio::select! {
            version = first_answer(&cluster) => version?,
            ended = process.wait() => {
                let status = ended.map_err(|why| failed(ErrorKind::Internal, why))?;
                let why = io::Error::other(format!("it ended at once ({status})"));
                return Err(failed(ErrorKind::Internal, why));
            }
        };
        let description = format!("MongoDB {version}, a server of its own");
        Ok(Box::new(OwnDatabase { cluster, process, room, description }))
    }
}

async fn first_answer(cluster: &Cluster) -> Result<String> {
    let mut waits = 1;
    loop {
        match version(cluster).await {
            Err(why) if why.kind() == ErrorKind::Transient && waits < WAITS_MAX => waits += 1,
            other => return other,
        }
    }
}

async fn version(cluster: &Cluster) -> Result<String> {
    let command = rawdoc! { "buildInfo": 1 };
    let build = cluster.command("admin", command, "ask a server to restore to for its version").await?;
    Ok(build.get_str("version").unwrap_or("unknown").to_owned())
}

/// A server that ends when this is dropped, and its files after it.
struct OwnDatabase {
    cluster: Cluster,
    process: Child,
    room: Room,
    description: String,
}

#[async_trait]
impl ScratchDatabase for OwnDatabase {
    fn target(&self) -> &dyn Target {
        &self.cluster
    }

    fn database(&self) -> &str {
        OWN_DATABASE
    }

    fn description(&self) -> &str {
        &self.description
    }

    async fn close(self: Box<Self>) -> Result<()> {
        let Self { cluster, mut process, room, .. } = *self;
        drop(cluster);
        let told = |why: io::Error| Error::new(ErrorKind::Internal, CLOSING).because(why);
        within(CLOSING, async { process.kill().await.map_err(told) }).await?;
        room.leave().map_err(told)
    }
}

/// A directory of our own. While its owner is alive, the file [`LOCK`] in it is locked.
struct Room {
    directory: TempDir,
    _lock: File,
}

impl Room {
    fn take(base: &Path) -> io::Result<Self> {
        sweep(base);
        let ours = Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new().prefix(ROOM).permissions(ours).tempdir_in(base)?;
        let (unlocked, locked) = (directory.path().join("unlocked"), directory.path().join(LOCK));
        let lock = File::create(&unlocked)?;
        lock.lock()?;
        fs::rename(unlocked, locked)?; // nobody ever finds the one without the other
        fs::create_dir(directory.path().join(FILES))?;
        Ok(Self { directory, _lock: lock })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn leave(self) -> io::Result<()> {
        self.directory.close()
    }
}

/// Removes the rooms whose owners were killed: the system has freed their locks. What cannot be removed now is left to
/// the next one.
fn sweep(base: &Path) {
    let is_room =
        |path: &PathBuf| path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(ROOM));
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    for room in entries.map(|entry| entry.path()).filter(is_room) {
        let lock = File::open(room.join(LOCK));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(room);
        }
    }
}

/// A cluster that is there to restore samples to: each rehearsal has a database of its own, which is dropped
/// afterwards.
#[derive(Clone, Debug)]
pub struct VerificationCluster(Cluster);

impl VerificationCluster {
    /// Prepares to connect to `uri`; the first call connects.
    pub async fn connect(uri: &str) -> Result<Self> {
        Cluster::connect(uri).await.map(Self)
    }

    /// Drops what was left behind. A cluster that holds anything else than scratch databases is refused: it may be the
    /// source, whatever name it goes by.
    async fn tidy_up(&self) -> Result<()> {
        const ATTEMPTED: &str = "use the verification cluster";
        let hello = self.0.command("admin", rawdoc! { "hello": 1 }, ATTEMPTED).await?;
        let now = hello.get_datetime("localTime").map(|time| time.timestamp_millis());
        let now = now.map_err(|why| Error::new(ErrorKind::Unsupported, ATTEMPTED).because(why))?;
        for name in self.0.databases().await? {
            let Some(made) = made_millis(&name) else {
                return Err(Error::new(ErrorKind::Refused, format!("{ATTEMPTED}: it holds other databases"))
                    .hint("it may be the source: give samples a cluster that holds nothing else"));
            };
            if made < now.saturating_sub(LEFT_BEHIND_MILLIS) {
                drop_database(&self.0, &name).await?;
            }
        }
        Ok(())
    }
}

/// When a scratch database was made, in milliseconds since 1970 UTC; `None` if the name is not one of theirs.
fn made_millis(name: &str) -> Option<i64> {
    let id = ObjectId::parse_str(name.strip_prefix(SCRATCH)?).ok()?;
    Some(id.timestamp().timestamp_millis())
}

async fn drop_database(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.change(name, rawdoc! { "dropDatabase": 1 }, "drop a scratch database").await.map(|_| ())
}

#[async_trait]
impl Scratch for VerificationCluster {
    async fn open(&self) -> Result<Box<dyn ScratchDatabase>> {
        self.tidy_up().await?;
        let version = version(&self.0).await?;
        let description = format!("MongoDB {version}, a database of the verification cluster");
        let name = format!("{SCRATCH}{}", ObjectId::new().to_hex());
        Ok(Box::new(SharedDatabase { cluster: self.0.clone(), name, description }))
    }
}

/// A database of a cluster that others use as well.
struct SharedDatabase {
    cluster: Cluster,
    name: String,
    description: String,
}

#[async_trait]
impl ScratchDatabase for SharedDatabase {
    fn target(&self) -> &dyn Target {
        &self.cluster
    }

    fn database(&self) -> &str {
        &self.name
    }

    fn description(&self) -> &str {
        &self.description
    }

    async fn close(self: Box<Self>) -> Result<()> {
        drop_database(&self.cluster, &self.name).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_of_the_dead_are_swept_and_those_of_the_living_are_not() {
        let base = tempfile::tempdir().unwrap();
        let rooms = || fs::read_dir(base.path()).unwrap().count();
        let alive = Room::take(base.path()).unwrap();
        assert_eq!(fs::metadata(alive.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let killed = base.path().join(format!("{ROOM}killed"));
        fs::create_dir_all(killed.join(FILES)).unwrap();
        fs::write(killed.join(LOCK), "").unwrap();
        fs::create_dir(base.path().join("somebody's")).unwrap();
        let next = Room::take(base.path()).unwrap();
        assert!(alive.path().exists() && next.path().exists() && !killed.exists());
        assert_eq!(rooms(), 3);
        alive.leave().unwrap();
        drop(next);
        assert_eq!(rooms(), 1, "rooms are left without a trace");
    }

    #[test]
    fn only_names_of_scratch_databases_are_taken_for_one() {
        let check = |name: &str, made: Option<i64>| assert_eq!(made_millis(name), made, "{name}");
        check("nightsafe_scratch_000000010000000000000000", Some(1000));
        check("nightsafe_scratch_", None);
        check("nightsafe_scratch_leads", None);
        check("crm", None);
    }

    #[tokio::test]
    async fn a_server_that_does_not_start_is_told_at_once_and_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        for (mongod, kind) in [("/bin/false", ErrorKind::Internal), ("/no/such/mongod", ErrorKind::Gone)] {
            let opened = OwnServer::new(mongod, base.path()).open().await;
            let Err(why) = opened else { panic!("{mongod} is no server") };
            assert_eq!(why.kind(), kind, "{mongod}: {why}");
            assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0, "{mongod}");
        }
        let long = base.path().join("x".repeat(100));
        fs::create_dir(&long).unwrap();
        let Err(why) = OwnServer::new("/bin/false", &long).open().await else { panic!("it opened") };
        assert_eq!(why.kind(), ErrorKind::Invalid, "{why}");
        assert_eq!(fs::read_dir(&long).unwrap().count(), 0);
    }
}
