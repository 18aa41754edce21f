//! Changes of the bench's collection, of every kind that there is of documents.

use bson::{Document, doc};
use mongodb::{Client, Collection, Database};

use crate::Options;
use crate::documents::{COLLECTION, DATABASE, batch_documents, insert, lead};

/// Of a hundred documents in turn: six are updated, one is replaced, one deleted, and two new ones come.
const TURN: i64 = 100;
const REPLACED: i64 = 65;
const DELETED: i64 = 75;
const NEW: i64 = 2;

/// Makes one change for every ten documents.
pub(crate) async fn change_a_tenth(uri: &str, options: &Options) {
    let (database, leads) = connect(uri).await;
    let (count, document_bytes) = (options.documents(), options.document_bytes);
    for (rests, update) in [
        ([5, 15], doc! { "$set": { "address.city": "moved", "score": 7 } }),
        ([25, 35], doc! { "$set": { "history.1.state": "won", "address.zip": 1 } }),
        ([45, 55], doc! { "$push": { "tags": "late" }, "$inc": { "budget": 5 } }),
    ] {
        for rest in rests {
            leads.update_many(in_turn(rest), update.clone()).await.unwrap();
        }
    }
    let step = usize::try_from(TURN).unwrap();
    let replaced: Vec<i64> = (REPLACED..count).step_by(step).collect();
    for numbers in replaced.chunks(batch_documents(document_bytes)) {
        // Other contents, of about the same size.
        replace(&database, numbers, |n| lead(n + count, document_bytes)).await;
    }
    leads.delete_many(in_turn(DELETED)).await.unwrap();
    let new = count..count + count / TURN * NEW;
    insert(&database, new, document_bytes, |n| lead(n, document_bytes)).await;
}

/// Makes as many changes as there are documents, each a small one, and each of another document: what a fold has to
/// remember of a number of changes cannot be more.
pub(crate) async fn change_each(uri: &str, options: &Options) {
    const SMALL_BYTES: usize = 100;
    let (database, leads) = connect(uri).await;
    let count = options.documents();
    let (updated, deleted) = (count / 10 * 4, count / 10 * 7);
    let update = doc! { "$set": { "address.city": "moved" }, "$inc": { "score": 1 } };
    leads.update_many(doc! { "_id": { "$lt": updated } }, update).await.unwrap();
    leads.delete_many(doc! { "_id": { "$gte": updated, "$lt": deleted } }).await.unwrap();
    let new = count..count + (count - deleted);
    insert(&database, new, SMALL_BYTES, |n| doc! { "_id": n, "score": n % 100, "state": "new" }).await;
}

async fn connect(uri: &str) -> (Database, Collection<Document>) {
    let database = Client::with_uri_str(uri).await.unwrap().database(DATABASE);
    let leads = database.collection(COLLECTION);
    (database, leads)
}

fn in_turn(rest: i64) -> Document {
    doc! { "_id": { "$mod": [TURN, rest] } }
}

/// Replaces the documents of these numbers in one command.
async fn replace(database: &Database, numbers: &[i64], make: impl Fn(i64) -> Document) {
    let one = |n: &i64| {
        let mut document = make(*n);
        document.insert("_id", *n);
        doc! { "q": { "_id": *n }, "u": document }
    };
    let updates: Vec<Document> = numbers.iter().map(one).collect();
    let reply = database.run_command(doc! { "update": COLLECTION, "updates": updates }).await.unwrap();
    assert_eq!(reply.get_i32("nModified").unwrap(), i32::try_from(numbers.len()).unwrap());
}
