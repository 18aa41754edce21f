//! A lead-and-SMS database as an agency would have it, and an application that keeps writing to it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Result;
use bson::{Document, doc, oid::ObjectId};
use mongodb::{Client, Database};
use tokio::task::JoinHandle;

/// Documents in all collections together.
pub const DOCUMENTS: u64 = 50_000;
const LEADS: u64 = 20_000;
const MESSAGES: u64 = 29_000;
const CAMPAIGNS: u64 = 900;
const USERS: u64 = 100;
const BATCH: u64 = 1000;
/// Numbers of what comes after the backup begin here: the [`Writer`] stays far below.
const LATER: u64 = 1_000_000;
/// Numbers of what comes after the accident begin here.
const AFTERWARDS: u64 = 2_000_000;

/// The collection that the accident drops.
pub const DROPPED: &str = "leads";
/// The collection that the accident overwrites.
pub const OVERWRITTEN: &str = "campaigns";
/// The collection that the application goes on writing to.
pub const WRITTEN_ON: &str = "messages";
/// 2026-11-01, in milliseconds since 1970 UTC.
const BEGINNING_MILLIS: i64 = 1_793_491_200_000;

/// Numbers that look random and are the same in every run.
#[derive(Clone)]
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        // SplitMix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below.max(1)
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        let place = self.next(u64::try_from(list.len()).unwrap_or(1));
        usize::try_from(place).ok().and_then(|place| list.get(place)).copied().unwrap_or_default()
    }
}

const FIRST: [&str; 12] =
    ["Ana", "Ben", "Chloé", "Dmitri", "Elif", "Fatima", "Gō", "Hanna", "Ines", "Jamal", "Kwame", "Lía"];
const LAST: [&str; 10] =
    ["Adeyemi", "Brandt", "Costa", "Dubois", "Eriksen", "Fischer", "García", "Haddad", "Ito", "Jansen"];
const SOURCES: [&str; 5] = ["web form", "referral", "trade fair", "phone", "import"];
const WORDS: [&str; 24] = [
    "thanks",
    "call",
    "tomorrow",
    "interested",
    "price",
    "offer",
    "please",
    "stop",
    "yes",
    "later",
    "meeting",
    "quote",
    "family",
    "house",
    "insurance",
    "monday",
    "confirmed",
    "address",
    "new",
    "number",
    "again",
    "question",
    "morning",
    "documents",
];

fn sentence(numbers: &mut Numbers, words: u64) -> String {
    (0..words).map(|_| numbers.pick(&WORDS)).collect::<Vec<_>>().join(" ")
}

fn lead(numbers: &mut Numbers, n: u64) -> Document {
    let (first, last) = (numbers.pick(&FIRST), numbers.pick(&LAST));
    let created = BEGINNING_MILLIS + i64::try_from(numbers.next(1_800_000_000)).unwrap_or(0);
    doc! {
        "_id": ObjectId::new(),
        "number": i64::try_from(n).unwrap_or(0),
        "name": { "first": first, "last": last },
        "email": format!("{}.{n}@example.com", last.to_lowercase()),
        "phone": format!("+1555{n:07}"),
        "source": numbers.pick(&SOURCES),
        "score": i32::try_from(numbers.next(100)).unwrap_or(0),
        "budget": f64::from(u32::try_from(numbers.next(1_000_000)).unwrap_or(0)) / 100.0,
        "tags": [numbers.pick(&WORDS), numbers.pick(&WORDS)],
        "consent": numbers.next(10) > 0,
        "created": bson::DateTime::from_millis(created),
        "notes": sentence(numbers, 90),
        "history": [{ "state": "new", "by": "form" }, { "state": "contacted", "by": numbers.pick(&FIRST) }],
    }
}

fn message(numbers: &mut Numbers, n: u64) -> Document {
    doc! {
        "_id": i64::try_from(n).unwrap_or(0),
        "lead": i64::try_from(numbers.next(LEADS)).unwrap_or(0),
        "direction": if numbers.next(2) == 0 { "in" } else { "out" },
        "text": sentence(numbers, 12),
        "parts": 1,
        "sent": bson::DateTime::from_millis(BEGINNING_MILLIS + i64::try_from(n * 1000).unwrap_or(0)),
        "delivery": { "state": "delivered", "carrier": numbers.pick(&["alpha", "beta", "gamma"]) },
    }
}

fn small(numbers: &mut Numbers, n: u64) -> Document {
    doc! { "_id": format!("c-{n:04}"), "name": sentence(numbers, 4), "active": numbers.next(2) == 0 }
}

/// Makes the document with a number.
type Make = fn(&mut Numbers, u64) -> Document;

/// Fills `database`; `progress` is told how many documents are in.
pub async fn seed(database: &Database, progress: impl Fn(u64)) -> Result<()> {
    database.drop().await?;
    let mut numbers = Numbers(20_261_122);
    define(database).await?;
    let mut done = 0;
    let sets: [(&str, u64, Make); 4] = [
        ("leads", LEADS, lead),
        ("messages", MESSAGES, message),
        ("campaigns", CAMPAIGNS, small),
        ("users", USERS, small),
    ];
    for (name, count, make) in sets {
        for first in (0..count).step_by(usize::try_from(BATCH)?) {
            let batch = first..count.min(first + BATCH);
            done += insert(database, name, &mut numbers, batch, make).await?;
            progress(done);
        }
    }
    Ok(())
}

/// Inserts the documents with these numbers; gives how many they are.
async fn insert(
    database: &Database,
    name: &str,
    numbers: &mut Numbers,
    wanted: Range<u64>,
    make: Make,
) -> Result<u64> {
    let batch: Vec<Document> = wanted.map(|n| make(numbers, n)).collect();
    let count = u64::try_from(batch.len())?;
    database.collection::<Document>(name).insert_many(batch).await?;
    Ok(count)
}

async fn define(database: &Database) -> Result<()> {
    let commands = [
        doc! { "create": "leads", "validator": { "phone": { "$type": "string" } }, "validationLevel": "moderate" },
        doc! { "create": "messages" },
        doc! { "create": "campaigns", "collation": { "locale": "en", "strength": 2 } },
        doc! { "create": "users" },
        doc! { "create": "archive" },
        doc! { "create": "hot_leads", "viewOn": "leads", "pipeline": [{ "$match": { "score": { "$gte": 90 } } }] },
        doc! { "createIndexes": "leads", "indexes": [
            { "key": { "phone": 1 }, "name": "phone_1", "unique": true },
            { "key": { "score": -1, "created": 1 }, "name": "hot", "partialFilterExpression": { "score": { "$gte": 80 } } },
            { "key": { "name.last": "text", "notes": "text" }, "name": "search", "weights": { "name.last": 10 } },
        ] },
        doc! { "createIndexes": "messages", "indexes": [
            { "key": { "lead": 1, "sent": -1 }, "name": "conversation" },
            { "key": { "sent": 1 }, "name": "forget", "expireAfterSeconds": 63_072_000 },
            { "key": { "delivery.$**": 1 }, "name": "delivery" },
        ] },
    ];
    for command in commands {
        database.run_command(command).await?;
    }
    Ok(())
}

/// An application that writes until it is stopped.
pub struct Writer {
    stop: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    task: JoinHandle<Result<()>>,
}

impl Writer {
    /// Starts inserting, updating and deleting in `database`.
    #[must_use]
    pub fn start(client: &Client, database: &str) -> Self {
        let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let task = tokio::spawn(write(client.database(database), Arc::clone(&stop), Arc::clone(&writes)));
        Self { stop, writes, task }
    }

    /// Ends it; gives how many writes it made.
    pub async fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await??;
        Ok(self.writes.load(Ordering::SeqCst))
    }
}

async fn write(database: Database, stop: Arc<AtomicBool>, writes: Arc<AtomicU64>) -> Result<()> {
    let mut numbers = Numbers(7);
    let (leads, messages) =
        (database.collection::<Document>("leads"), database.collection::<Document>("messages"));
    for n in 0_u64.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let number = i64::try_from(numbers.next(LEADS))?;
        let change =
            doc! { "$set": { "score": 101 }, "$push": { "history": { "state": "called", "by": "demo" } } };
        leads.update_one(doc! { "phone": format!("+1555{number:07}") }, change).await?;
        messages.insert_one(message(&mut numbers, MESSAGES + n)).await?;
        messages.delete_one(doc! { "_id": i64::try_from(n * 3)? }).await?;
        writes.fetch_add(3, Ordering::SeqCst);
    }
    Ok(())
}

/// What no operator wants to see: documents deleted and changed, a collection and an index dropped, junk added.
pub async fn damage(database: &Database) -> Result<()> {
    let leads = database.collection::<Document>("leads");
    leads.delete_many(doc! { "score": { "$lt": 40 } }).await?;
    leads
        .update_many(
            doc! { "score": { "$gt": 60 } },
            doc! { "$set": { "email": "oops" }, "$unset": { "notes": "" } },
        )
        .await?;
    leads.drop_index("hot").await?;
    database.collection::<Document>("messages").drop().await?;
    database.collection::<Document>("hot_leads").drop().await?;
    database.collection::<Document>("junk").insert_one(doc! { "by": "mistake" }).await?;
    Ok(())
}

/// Ordinary work in all collections; gives how many documents were written, changed or deleted.
pub async fn go_on(database: &Database) -> Result<u64> {
    let mut numbers = Numbers(11);
    let mut touched = 0;
    let sets: [(&str, u64, Make); 5] = [
        ("leads", 200, lead),
        ("messages", 300, message),
        ("campaigns", 20, small),
        ("users", 5, small),
        ("archive", 50, small),
    ];
    for (name, count, make) in sets {
        touched += insert(database, name, &mut numbers, LATER..LATER + count, make).await?;
    }
    let (leads, campaigns) =
        (database.collection::<Document>("leads"), database.collection::<Document>("campaigns"));
    let called = doc! { "$inc": { "score": 7 }, "$push": { "history": { "state": "called", "by": "demo" } } };
    touched += leads.update_many(doc! { "score": { "$lt": 2 } }, called).await?.modified_count;
    touched += leads.delete_many(doc! { "consent": false, "score": 50 }).await?.deleted_count;
    let switched = doc! { "$set": { "active": true } };
    touched += campaigns.update_many(doc! { "active": false }, switched).await?.modified_count;
    Ok(touched)
}

/// The wrong terminal: a collection dropped, and an update without a filter; gives how many documents that was.
pub async fn accident(database: &Database) -> Result<u64> {
    database.collection::<Document>(DROPPED).drop().await?;
    let test = doc! { "$set": { "name": "test", "active": false } };
    Ok(database.collection::<Document>(OVERWRITTEN).update_many(doc! {}, test).await?.modified_count)
}

/// The application does not know, and writes on; gives how many documents came.
pub async fn write_on(database: &Database) -> Result<u64> {
    insert(database, WRITTEN_ON, &mut Numbers(13), AFTERWARDS..AFTERWARDS + 200, message).await
}
