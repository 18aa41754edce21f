//! Servers as processes: started in a group of their own, known by pid *and* start time (a pid may be used again),
//! stopped by that pid only.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, waitpid};
use serde::{Deserialize, Serialize};

/// How long a server may take to end by itself.
const STOP_SECONDS: u64 = 10;

/// A server that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Server {
    pid: i32,
    /// Start time in clock ticks since boot, as the kernel tells it.
    started: u64,
}

impl Server {
    /// Starts `command` in a group of its own, with its output in `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        let pid = i32::try_from(child.id())?;
        Ok(Self { pid, started: start_time(pid).context("the server ended at once")? })
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Asks it to end, makes it end if it does not, and waits until it has. What it started ends with it.
    pub(crate) fn stop(&self) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let pid = Pid::from_raw(self.pid).context("an impossible pid")?;
        let _ = kill_process(pid, Signal::TERM); // it may have ended in between
        let asked = Instant::now();
        while self.is_alive() && asked.elapsed() < Duration::from_secs(STOP_SECONDS) {
            self.reap();
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = kill_process_group(pid, Signal::KILL); // nobody may be left in it
        let killed = Instant::now();
        while self.is_alive() {
            self.reap();
            if killed.elapsed() > Duration::from_secs(STOP_SECONDS) {
                bail!("process {} does not end", self.pid);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// A child of ours stays listed until it is waited for; another process's child is not ours to wait for.
    fn reap(&self) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// Stops a server when dropped, unless it was kept: an error or an interruption on the way leaves none running.
pub(crate) struct Starting(Option<Server>);

impl Starting {
    pub(crate) fn new(server: Server) -> Self {
        Self(Some(server))
    }

    /// The server, which now outlives this.
    pub(crate) fn keep(mut self) -> Option<Server> {
        self.0.take()
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.0.as_ref().is_some_and(Server::is_alive)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(server) = &self.0 {
            let _ = server.stop(); // what went wrong before is the better error
        }
    }
}

/// The 22nd field of `/proc/PID/stat`, counted behind the command's name; `None` if there is no such live process.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (state != "Z").then_some(())?;
    fields.nth(18)?.parse().ok()
}

/// A port that was free just now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The end of a log, for an error.
pub(crate) fn log_tail(log: &Path) -> String {
    const LINES: usize = 15;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
}

/// Runs `command` to its end; an error with its output if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {name}"))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = told.lines().rev().take(15).collect();
        bail!(
            "{name} failed ({}):\n{}",
            output.status,
            tail.into_iter().rev().collect::<Vec<_>>().join("\n")
        );
    }
    Ok(())
}
