//! Leads as an agency would have them, of about the size that is wanted.

use std::ops::Range;

use bson::{Document, RawDocumentBuf, doc};
use futures_util::StreamExt;
use mongodb::{Client, Database};

use crate::Options;

pub(crate) const DATABASE: &str = "nightsafe-bench";
pub(crate) const COLLECTION: &str = "leads";
const BATCH_BYTES: usize = 8 * 1024 * 1024;
const WRITERS: usize = 2;

const SYLLABLES: [&str; 20] = [
    "ba", "con", "de", "er", "fo", "gra", "hi", "in", "ka", "lo", "mer", "na", "or", "pre", "qui", "ra",
    "sta", "ti", "un", "ver",
];
/// So many different words are used; the first ones more often.
const WORDS: u64 = 700;

/// `SplitMix64`.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn word(&mut self) -> String {
        let mut word = self.next() % (1 + self.next() % WORDS);
        let mut text = String::new();
        loop {
            text.push_str(SYLLABLES[usize::try_from(word % 20).unwrap()]);
            word /= 20;
            if word == 0 {
                return text;
            }
        }
    }

    fn sentence(&mut self, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 16);
        while text.len() < bytes {
            text.push_str(&self.word());
            text.push(' ');
        }
        text
    }
}

/// The lead number `n`.
pub(crate) fn lead(n: i64, document_bytes: usize) -> Document {
    let mut numbers = Numbers(u64::try_from(n).unwrap());
    let (token, score) = (format!("{:016x}", numbers.next()), i32::try_from(numbers.next() % 100).unwrap());
    doc! {
        "_id": n, "email": format!("{}.{n}@example.com", numbers.word()), "phone": format!("+1555{n:07}"),
        "score": score, "token": token, "budget": score * 1000, "consent": n % 10 != 0,
        "created": bson::DateTime::from_millis(1_793_491_200_000 + n * 977),
        "tags": [numbers.word(), numbers.word()], "address": { "city": numbers.word(), "zip": n % 100_000 },
        "history": [{ "state": "new", "by": numbers.word() }, { "state": "contacted", "at": n * 31 }],
        "notes": numbers.sentence(document_bytes.saturating_sub(340)),
    }
}

/// How many documents of this size go into one command.
pub(crate) fn batch_documents(document_bytes: usize) -> usize {
    (BATCH_BYTES / document_bytes).clamp(1, 5000)
}

/// Inserts what `make` gives for these numbers.
pub(crate) async fn insert(
    database: &Database,
    numbers: Range<i64>,
    document_bytes: usize,
    make: impl Fn(i64) -> Document + Copy,
) {
    let step = batch_documents(document_bytes);
    let (length, end) = (i64::try_from(step).unwrap(), numbers.end);
    let raw = move |n| RawDocumentBuf::try_from(&make(n)).unwrap();
    let insert = |from: i64| {
        let leads = database.collection::<RawDocumentBuf>(COLLECTION);
        async move {
            leads.insert_many((from..end.min(from + length)).map(raw)).await.unwrap();
        }
    };
    futures_util::stream::iter(numbers.step_by(step)).for_each_concurrent(WRITERS, insert).await;
}

/// Fills the bench's collection.
pub(crate) async fn seed(uri: &str, options: &Options) {
    let database = Client::with_uri_str(uri).await.unwrap().database(DATABASE);
    database.drop().await.unwrap();
    let (count, document_bytes) = (options.documents(), options.document_bytes);
    insert(&database, 0..count, document_bytes, |n| lead(n, document_bytes)).await;
    println!("{count} documents of about {document_bytes} bytes");
}

pub(crate) async fn drop(uri: &str) {
    let database: Database = Client::with_uri_str(uri).await.unwrap().database(DATABASE);
    database.run_command(Document::from_iter([("dropDatabase".to_owned(), 1.into())])).await.unwrap();
}
