//! Transactions over collections of several databases: committed, aborted, and refused.

use backup_core::id::ClusterTime;
use bson::{Document, doc};

use super::DATABASES;
use super::documents::one;
use super::workload::{Workload, word};

const NAMES: [&str; 6] = ["whole", "texts", "objects", "composed", "mixed", "put together"];
/// Created in transactions, if they are not there.
const MADE: [&str; 2] = ["made 0", "made 1"];

impl Workload<'_> {
    /// Begins in `database`; gives the time of the commit, if there was one.
    pub(super) async fn transaction(&mut self, database: &str) -> Option<ClusterTime> {
        let mut session = self.client.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        for number in 0..=self.draw.int(4) {
            let database = if number == 0 { database } else { self.draw.of(&DATABASES) };
            let part = self.part();
            let what = format!("{} in a transaction", word(&part));
            let reply = self.client.database(database).run_command(part).session(&mut session).await;
            if self.look_at(&what, reply).is_none() {
                let _ = session.abort_transaction().await; // the server has done it already
                return None;
            }
        }
        if self.draw.chance(20) {
            session.abort_transaction().await.unwrap();
            return None;
        }
        let committed = session.commit_transaction().await.map(|()| Document::new());
        self.look_at("commit", committed)?;
        let time = session.operation_time()?;
        Some(ClusterTime { seconds: time.time, ordinal: time.increment })
    }

    /// Nothing that is often refused: that would end the transaction.
    fn part(&self) -> Document {
        let (draw, name) = (&self.draw, self.draw.of(&NAMES));
        let query = one("_id", draw.id(name));
        match draw.int(12) {
            0 => one("create", draw.of(&MADE)),
            1 => {
                let document = draw.document(draw.id(name));
                doc! { "insert": name, "documents": [document] }
            }
            2..4 => self.replace(name),
            4..6 => self.delete(name),
            6..8 => {
                let change = doc! { "$inc": { "counted": 1 }, "$set": { "touched.by": draw.int(20) } };
                doc! { "update": name, "updates": [{ "q": query, "u": change, "upsert": true }] }
            }
            8 => self.update(name),
            _ => doc! { "update": name, "updates": [{ "q": query, "u": draw.pipeline() }] },
        }
    }
}
