//! A MongoDB server that is too old, as far as a driver and our preflight can see: it shakes hands, tells its version,
//! and knows no other command. (A real one is not to be had from a package registry.)

use std::io;

use bson::{Document, doc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Length, number, number of the message it answers, kind.
const HEADER_BYTES: usize = 16;
/// The kind `OP_MSG`, the only one that drivers of today send.
const OP_MSG: i32 = 2013;
/// Flags, and one byte that says that a document follows.
const BEFORE_DOCUMENT_BYTES: usize = 5;
const COMMAND_NOT_FOUND: i32 = 59;

/// The server. It ends when this is dropped.
pub(crate) struct OldServer {
    facts: Facts,
    accepting: JoinHandle<()>,
}

/// What it tells of itself.
#[derive(Clone, Copy)]
struct Facts {
    version: &'static str,
    wire_version: i32,
    port: u16,
}

impl OldServer {
    /// A replica set of one that says it is of `version` and speaks the wire protocol up to `wire_version`.
    pub(crate) async fn start(version: &'static str, wire_version: i32) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let facts = Facts { version, wire_version, port: listener.local_addr().unwrap().port() };
        Self { facts, accepting: tokio::spawn(accept(listener, facts)) }
    }

    pub(crate) fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.facts.port)
    }
}

impl Drop for OldServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, facts: Facts) {
    let mut connections = JoinSet::new(); // end with this
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(async move {
            let _ = converse(stream, facts).await; // the client went away
        });
    }
}

async fn converse(mut stream: TcpStream, facts: Facts) -> io::Result<()> {
    loop {
        let mut header = [0; HEADER_BYTES];
        stream.read_exact(&mut header).await?;
        let number = |at: usize| i32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        if number(12) != OP_MSG {
            return Ok(());
        }
        let mut body = vec![0; usize::try_from(number(0)).unwrap() - HEADER_BYTES];
        stream.read_exact(&mut body).await?;
        let command = Document::from_reader(&body[BEFORE_DOCUMENT_BYTES..]).map_err(io::Error::other)?;
        stream.write_all(&message(number(4), &facts.answer(&command))).await?;
    }
}

fn message(answered: i32, document: &Document) -> Vec<u8> {
    let document = document.to_vec().unwrap();
    let length = i32::try_from(HEADER_BYTES + BEFORE_DOCUMENT_BYTES + document.len()).unwrap();
    let numbers = [length, 1, answered, OP_MSG, 0]; // the last are the flags
    let mut message: Vec<u8> = numbers.into_iter().flat_map(i32::to_le_bytes).collect();
    message.push(0); // a document follows
    message.extend(document);
    message
}

impl Facts {
    fn answer(&self, command: &Document) -> Document {
        let name = command.keys().next().map(|name| name.to_lowercase()).unwrap_or_default();
        match name.as_str() {
            "hello" | "ismaster" => self.hello(),
            "buildinfo" => doc! { "version": self.version, "ok": 1.0 },
            _ => doc! {
                "ok": 0.0,
                "errmsg": format!("no such command: '{name}'"),
                "code": COMMAND_NOT_FOUND,
                "codeName": "CommandNotFound",
            },
        }
    }

    fn hello(&self) -> Document {
        let host = format!("127.0.0.1:{}", self.port);
        doc! {
            "helloOk": true,
            "ismaster": true,
            "isWritablePrimary": true,
            "secondary": false,
            "setName": "old",
            "setVersion": 1,
            "hosts": [&host],
            "primary": &host,
            "me": &host,
            "maxBsonObjectSize": 16_777_216,
            "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000,
            "minWireVersion": 0,
            "maxWireVersion": self.wire_version,
            "readOnly": false,
            "ok": 1.0,
        }
    }
}
