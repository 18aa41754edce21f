//! A loopback relay in front of one server, with a fuse: where a process is killed between two of its messages, a
//! connection is cut, or a message is slowed down.
//!
//! A *message* is what a client sends until the server answers: a request of HTTP/1.1, a command of MongoDB, in
//! however many pieces it comes. So the boundaries of a step's I/O are just before a message is passed on, and just
//! after its answer came. Relays that share a fuse count together, because a step speaks with more than one server.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

/// What is passed on at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// What is to happen, and at which message (counted from 1).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Script {
    /// Nothing.
    Pass,
    /// The process is killed when it has sent this message, which is not passed on.
    KillBefore(u64),
    /// The process is killed when the answer to this message has come, which is not given to it. Should this one
    /// never be answered (a server's news that nobody waits for), the next answer counts.
    KillAfter(u64),
    /// Once, all connections are reset in place of passing this message on.
    Cut(u64),
    /// Every message is passed on this much later.
    Slow(Duration),
    /// Once, all connections are reset when servers have sent this many bytes: in the middle of an answer.
    CutInAnswer(u64),
    /// When servers have sent this many bytes, nothing is passed on any more, either way, and nothing is cut.
    StallInAnswer(u64),
}

/// How to kill a process that somebody else started and waits for: pids are used again, so none is held here.
pub(crate) struct Killable {
    /// Asks its owner to kill it.
    pub(crate) kill: oneshot::Sender<()>,
    /// Ends when it is dead.
    pub(crate) dead: oneshot::Receiver<()>,
}

/// The script of one or more relays, and how far it is.
pub(crate) struct Fuse {
    state: Mutex<State>,
    /// Counts up whenever all connections have to end.
    cuts: watch::Sender<u64>,
    /// Whether all connections are silent.
    stalls: watch::Sender<bool>,
}

struct State {
    script: Script,
    process: Option<Killable>,
    is_blown: bool,
    messages: u64,
    answers: u64,
    answered_bytes: u64,
}

impl State {
    fn new(script: Script, process: Option<Killable>) -> Self {
        Self { script, process, is_blown: false, messages: 0, answers: 0, answered_bytes: 0 }
    }
}

impl Fuse {
    pub(crate) fn new() -> Arc<Self> {
        let state = Mutex::new(State::new(Script::Pass, None));
        Arc::new(Self { state, cuts: watch::Sender::new(0), stalls: watch::Sender::new(false) })
    }

    /// Begins another script for another process, counting from 0. What is left of earlier connections is cut.
    pub(crate) fn load(&self, script: Script, process: Killable) {
        *self.state() = State::new(script, Some(process));
        self.stalls.send_replace(false);
        self.cut();
    }

    /// Begins another script, for connections of no particular process, counting from 0. They go on; those that were
    /// silent are cut.
    pub(crate) fn play(&self, script: Script) {
        *self.state() = State::new(script, None);
        if self.stalls.send_replace(false) {
            self.cut();
        }
    }

    /// How many messages came so far.
    pub(crate) fn messages(&self) -> u64 {
        self.state().messages
    }

    /// How many of them were answered.
    pub(crate) fn answers(&self) -> u64 {
        self.state().answers
    }

    /// Whether it killed the process, or tried to.
    pub(crate) fn is_blown(&self) -> bool {
        self.state().is_blown
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }

    /// Counts a message; gives its number, or `None` if it must not be passed on.
    async fn on_message(&self) -> Option<u64> {
        let (number, script, is_blown) = {
            let mut state = self.state();
            state.messages += 1;
            (state.messages, state.script, state.is_blown)
        };
        match script {
            _ if is_blown => None,
            Script::KillBefore(at) if number >= at => {
                self.kill().await;
                None
            }
            Script::Cut(at) if number == at => {
                self.cut();
                None
            }
            Script::Slow(delay) => {
                tokio::time::sleep(delay).await; // the fault itself: nothing is waited for
                Some(number)
            }
            _ => Some(number),
        }
    }

    /// Counts the answer to a message; whether it may be given to the client.
    async fn on_answer(&self, number: u64) -> bool {
        let (script, is_blown) = {
            let mut state = self.state();
            state.answers += 1;
            (state.script, state.is_blown)
        };
        match script {
            _ if is_blown => false,
            Script::KillAfter(at) if number >= at => {
                self.kill().await;
                false
            }
            _ => true,
        }
    }

    /// Counts what a server sent; whether it may be given to the client.
    async fn on_answered(&self, length: usize) -> bool {
        let (script, before, now) = {
            let mut state = self.state();
            let before = state.answered_bytes;
            state.answered_bytes += u64::try_from(length).unwrap();
            (state.script, before, state.answered_bytes)
        };
        match script {
            Script::CutInAnswer(at) if before < at && at <= now => {
                self.cut();
                false
            }
            Script::StallInAnswer(at) if at <= now => {
                self.stalls.send_replace(true);
                std::future::pending().await // its connection is silent too, until the next script
            }
            _ => true,
        }
    }

    /// Returns once all connections have to be silent.
    async fn stalled(&self) {
        let mut stalls = self.stalls.subscribe();
        let _ = stalls.wait_for(|stalled| *stalled).await; // it has a sender for as long as we are here
    }

    /// Returns when the process is dead, so that nothing it could still do comes after this.
    async fn kill(&self) {
        let process = {
            let mut state = self.state();
            state.is_blown = true;
            state.process.take()
        };
        if let Some(Killable { kill, dead }) = process {
            let _ = kill.send(()); // its owner may be gone, because the process ended by itself
            let _ = dead.await; // nothing is ever sent: the other end is dropped
            self.cut();
        }
    }
}

/// A relay on a free port. Dropping it cuts its connections.
pub(crate) struct Relay {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Passes on to `upstream` what comes, as `fuse` says.
    pub(crate) async fn start(upstream: SocketAddr, fuse: &Arc<Fuse>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, accepting: tokio::spawn(accept(listener, upstream, fuse.clone())) }
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, fuse: Arc<Fuse>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {} // forgets those that have ended
        connections.spawn(connect(client, upstream, fuse.clone()));
    }
}

async fn connect(mut client: TcpStream, upstream: SocketAddr, fuse: Arc<Fuse>) {
    let mut cuts = fuse.cuts.subscribe();
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    for side in [&client, &server] {
        let _ = side.set_nodelay(true); // else every small message waits for the delayed acknowledgement of another
    }
    let is_cut = tokio::select! {
        carried = carry(&mut client, &mut server, &fuse) => carried.unwrap_or(false),
        _ = cuts.changed() => true,
        () = fuse.stalled() => {
            let _ = cuts.changed().await; // both sides stay open until then
            true
        }
    };
    if is_cut {
        let _ = client.set_zero_linger(); // a reset, as a firewall gives one, in place of a polite end
    }
}

/// Passes bytes both ways until one side ends (`false`) or the fuse wants the connection cut (`true`).
async fn carry(client: &mut TcpStream, server: &mut TcpStream, fuse: &Fuse) -> io::Result<bool> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let (mut asked, mut answered) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut waiting = None; // the number of the message that has no answer yet
    loop {
        tokio::select! {
            length = from_client.read(&mut asked) => {
                let length = length?;
                if length == 0 {
                    return Ok(false);
                }
                if waiting.is_none() {
                    waiting = fuse.on_message().await;
                    if waiting.is_none() {
                        return Ok(true);
                    }
                }
                to_server.write_all(&asked[..length]).await?;
            }
            length = from_server.read(&mut answered) => {
                let length = length?;
                if length == 0 {
                    return Ok(false);
                }
                if let Some(number) = waiting.take()
                    && !fuse.on_answer(number).await
                {
                    return Ok(true);
                }
                if !fuse.on_answered(length).await {
                    return Ok(true);
                }
                to_client.write_all(&answered[..length]).await?;
            }
        }
    }
}
