//! A random workload, one operation after another. Only the server itself writes beside it: what has expired is
//! deleted.

use std::collections::BTreeMap;

use backup_core::id::ClusterTime;
use bson::{Document, doc};
use mongodb::Client;

use super::definitions::first;
use super::documents::one;
use super::draw::Draw;
use super::truth::Truth;
use super::{DATABASES, Kind, refusals};

const OPERATIONS: u32 = 1000;
/// Collections that are written to. Some may not be there.
const NAMES: [&str; 8] =
    ["whole", "texts", "objects", "composed", "mixed", "made 0", "put together", "collated"];

/// The workload of one seed.
pub(super) struct Workload<'a> {
    pub(super) client: &'a Client,
    pub(super) draw: Draw,
    seed: u64,
    /// The newest `_id` of capped collections: they are in the order of insertion, and none comes twice.
    newest_capped: i32,
    /// Operations so far.
    pub(super) counts: BTreeMap<Kind, u32>,
    /// Commands of which something was refused.
    pub(super) refused: u32,
}

impl<'a> Workload<'a> {
    pub(super) fn new(client: &'a Client, seed: u64) -> Self {
        let counts = BTreeMap::new();
        Self { client, draw: Draw::new(seed), seed, newest_capped: 0, counts, refused: 0 }
    }

    /// Fills the databases.
    pub(super) async fn begin(&mut self) {
        for database in DATABASES {
            for (database, command) in first(database) {
                self.run_command(&database, command).await;
            }
            for name in NAMES {
                let documents: Vec<_> = (0..12).map(|_| self.draw.document(self.draw.id(name))).collect();
                let insert = doc! { "insert": name, "documents": documents, "ordered": false };
                self.run_command(database, insert).await;
            }
        }
    }

    /// Runs all operations, and takes the truth after some of them.
    pub(super) async fn run(&mut self, truth: &mut Truth) {
        for _ in 0..OPERATIONS {
            let (kind, database) = (self.kind(), self.draw.of(&DATABASES));
            let taken_percent = match kind {
                Kind::Write => 6,
                Kind::Transaction => 40,
                Kind::Definition => 35,
            };
            *self.counts.entry(kind).or_default() += 1;
            if self.draw.chance(taken_percent) {
                let (before, began) = (truth.list(database).await, self.now().await);
                let time = self.operate(kind, database).await;
                truth.take(kind, database, (began, time), &before).await;
            } else {
                self.operate(kind, database).await;
            }
        }
    }

    fn kind(&self) -> Kind {
        match self.draw.int(100) {
            0..74 => Kind::Write,
            74..86 => Kind::Transaction,
            _ => Kind::Definition,
        }
    }

    /// Runs one operation; gives the time of its last change.
    async fn operate(&mut self, kind: Kind, database: &str) -> ClusterTime {
        let told = match kind {
            Kind::Write => {
                let write = self.write();
                self.run_command(database, write).await
            }
            Kind::Transaction => self.transaction(database).await,
            Kind::Definition => {
                for (database, command) in self.draw.definition(database) {
                    self.run_command(&database, command).await;
                }
                None // other threads of the server build indexes; a reply need not tell of their last change
            }
        };
        match told {
            Some(time) => time,
            None => self.now().await,
        }
    }

    /// The time of the newest change there is.
    pub(super) async fn now(&self) -> ClusterTime {
        let reply = self.client.database("admin").run_command(doc! { "ping": 1 }).await;
        operation_time(&reply.unwrap_or_else(|why| panic!("seed {}: {why}", self.seed)))
    }

    /// Runs a command; gives the time of its last change, unless some of it was refused.
    async fn run_command(&mut self, database: &str, command: Document) -> Option<ClusterTime> {
        let what = word(&command);
        let reply = self.client.database(database).run_command(command).await;
        self.look_at(&what, reply).map(|reply| operation_time(&reply))
    }

    /// The reply, unless some of the command was refused; the refusal must be one that is expected.
    pub(super) fn look_at(
        &mut self,
        what: &str,
        reply: mongodb::error::Result<Document>,
    ) -> Option<Document> {
        let refusals = match &reply {
            Ok(reply) => refusals::of_reply(reply),
            Err(why) => match refusals::of_error(why) {
                Some(code) => vec![(code, why.to_string())],
                None => panic!("seed {}: {what}: {why}", self.seed),
            },
        };
        for (code, told) in &refusals {
            if !refusals::is_expected(*code) {
                eprintln!("UNEXPECTED {code} {what} {}", &told[..told.len().min(160)]);
            }
        }
        self.refused += u32::from(!refusals.is_empty());
        reply.ok().filter(|_| refusals.is_empty())
    }

    fn write(&mut self) -> Document {
        let name = self.draw.of(&NAMES);
        match self.draw.int(22) {
            0..3 => self.insert(name, 1),
            3 | 4 => self.insert(name, 2 + self.draw.int(6)),
            5..12 => self.update(name),
            12 | 13 => self.replace(name),
            14 => self.upsert(name),
            15 => self.delete(name),
            16 | 17 => self.find_and_modify(name),
            18 | 19 => self.write_capped(),
            _ => self.insert("expiring", 1 + self.draw.int(3)),
        }
    }

    fn insert(&self, name: &str, count: i32) -> Document {
        let documents: Vec<Document> = (0..count).map(|_| self.document(name)).collect();
        doc! { "insert": name, "documents": documents, "ordered": self.draw.chance(50) }
    }

    fn document(&self, name: &str) -> Document {
        let mut document = self.draw.document(self.draw.id(name));
        if name == "expiring" {
            document.insert("at", self.draw.date());
        }
        document
    }

    /// One document by its `_id`, or all of some.
    fn query(&self, name: &str) -> (Document, bool) {
        match self.draw.int(10) {
            0 => (doc! { "n": { "$gte": self.draw.int(20) } }, true),
            1 => (one("tags", self.draw.word()), true),
            _ => (one("_id", self.draw.id(name)), false),
        }
    }

    pub(super) fn update(&self, name: &str) -> Document {
        let (query, many) = self.query(name);
        doc! { "update": name, "updates": [self.draw.update().statement(query, many, false)] }
    }

    /// The `_id` may stand anywhere in a replacement; the server stores it first.
    pub(super) fn replace(&self, name: &str) -> Document {
        let mut document = self.document(name);
        document.remove("$cash"); // would be taken for an operator
        let id = document.remove("_id").unwrap();
        let query = one("_id", id.clone());
        if self.draw.chance(50) {
            document.insert("_id", id);
        }
        doc! { "update": name, "updates": [{ "q": query, "u": document, "upsert": self.draw.chance(50) }] }
    }

    fn upsert(&self, name: &str) -> Document {
        let query = one("_id", self.draw.id(name));
        doc! { "update": name, "updates": [self.draw.upsert().statement(query, false, true)] }
    }

    pub(super) fn delete(&self, name: &str) -> Document {
        let (query, many) = self.query(name);
        doc! { "delete": name, "deletes": [{ "q": query, "limit": i32::from(!many) }] }
    }

    fn find_and_modify(&self, name: &str) -> Document {
        let query = one("_id", self.draw.id(name));
        match self.draw.int(4) {
            0 => doc! { "findAndModify": name, "query": query, "remove": true },
            1 => self.draw.upsert().find_and_modify(name, query, true),
            _ => self.draw.update().find_and_modify(name, self.query(name).0, false),
        }
    }

    /// A new document, or a change of one that does not change its size.
    fn write_capped(&mut self) -> Document {
        if self.draw.chance(80) {
            self.newest_capped += 1;
            let document =
                doc! { "_id": self.newest_capped, "n": self.draw.int(20), "name": self.draw.word() };
            return doc! { "insert": "capped", "documents": [document] };
        }
        let query = one("_id", self.newest_capped - self.draw.int(5));
        doc! { "update": "capped", "updates": [{ "q": query, "u": { "$inc": { "n": 1 } } }] }
    }
}

/// Which command it is, and of what.
pub(super) fn word(command: &Document) -> String {
    command.iter().next().map(|(name, of)| format!("{name} {of}")).unwrap_or_default()
}

fn operation_time(reply: &Document) -> ClusterTime {
    let time = reply.get_timestamp("operationTime").unwrap();
    ClusterTime { seconds: time.time, ordinal: time.increment }
}
