//! The hard corpus: databases that hold everything MongoDB 6.0 takes and a careless backup loses. Data only, as
//! commands for a server; what survives is compared by whoever runs them.

mod collections;
mod documents;
mod raw;

use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, cstr, rawdoc};

pub use documents::every_id;

/// A command stays below this, but for a document that is larger alone.
const COMMAND_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Names that are something else to a shell, a file system, an object store, a URL or a terminal. MongoDB 6.0 itself
/// refuses `$` in them, and a dot in front.
const NAMES: [&str; 27] = [
    "with space",
    " lead and trail ",
    "new\nline",
    "tab\tand\u{1}control",
    "sla/sh/../../etc/passwd",
    "back\\slash",
    "dots..and.more.",
    "q\"uote'",
    "%2F%00",
    "*?<>|:;&`!",
    "-d",
    "--force",
    "com,ma",
    "sys.tem",
    "systemx",
    "Ünïcödé",
    "世界",
    "emoji 😀",
    "\u{202e}right to left",
    "zero\u{200b}width",
    "e\u{301}",
    "\u{e9}",
    "CASE",
    "case",
    "nightsafe.staging.x",
    "manifest.json.sealed",
    "null",
];

/// A database of the corpus.
pub struct CorpusDatabase {
    /// Its name.
    pub name: String,
    /// What makes it, in order; the database is empty before.
    pub commands: Vec<RawDocumentBuf>,
}

/// Every database of the corpus but the crowded one.
#[must_use]
pub fn hard_databases() -> Vec<CorpusDatabase> {
    let everything = CorpusDatabase { name: "hard".into(), commands: everything() };
    let named = |name: &str| CorpusDatabase { name: name.into(), commands: hostile_names() };
    vec![everything, named("Ünï-世界,'*?<|>&\n%2F"), named(&"d".repeat(63))]
}

/// A database of many tiny collections, each with an index of its own.
#[must_use]
pub fn crowded_database(collections: u32) -> CorpusDatabase {
    let mut commands = Vec::new();
    for n in 0..collections {
        let name = format!("tenant-{n:04}.settings");
        commands.push(rawdoc! { "createIndexes": &*name, "indexes": [{ "key": { "k": 1 }, "name": "k" }] });
        let documents = (0..i64::from(n % 3)).map(|id| rawdoc! { "_id": id, "k": i64::from(n) });
        commands.extend(inserts(&name, &documents.collect::<Vec<_>>()));
    }
    CorpusDatabase { name: "crowded".into(), commands }
}

fn everything() -> Vec<RawDocumentBuf> {
    let mut commands = Vec::new();
    commands.extend(inserts("types", &documents::every_type()));
    commands.extend(inserts("shapes", &documents::every_shape()));
    commands.extend(inserts("ids", &every_id()));
    for document in documents::zero_timestamps() {
        commands.push(insert_literally("timestamps", &document));
    }
    let [largest, with_timestamp] = documents::largest();
    commands.extend(inserts("largest", &[largest]));
    commands.push(insert_literally("largest", &with_timestamp));
    commands.extend(collections::all());
    commands
}

fn hostile_names() -> Vec<RawDocumentBuf> {
    let long = ["x".repeat(180), "系".repeat(60)]; // the server takes 255 bytes with the database's name
    let names = NAMES.into_iter().chain(long.iter().map(String::as_str));
    let fill = |(n, name)| inserts(name, &[rawdoc! { "_id": n, "name": name }]);
    (0_i32..).zip(names).flat_map(fill).collect()
}

/// Commands that insert the documents as they are, past validators, in their order.
fn inserts(name: &str, documents: &[RawDocumentBuf]) -> Vec<RawDocumentBuf> {
    let command = |documents: &[RawDocumentBuf]| rawdoc! { "insert": name, "bypassDocumentValidation": true, "documents": array(documents) };
    let (mut commands, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (at, document) in documents.iter().enumerate() {
        if at > from && bytes + document.as_bytes().len() > COMMAND_BYTES_MAX {
            commands.push(command(&documents[from..at]));
            (from, bytes) = (at, 0);
        }
        bytes += document.as_bytes().len();
    }
    if from < documents.len() {
        commands.push(command(&documents[from..]));
    }
    commands
}

fn array(documents: &[RawDocumentBuf]) -> RawArrayBuf {
    let mut array = RawArrayBuf::new();
    for document in documents {
        array.push(document.clone());
    }
    array
}

/// A command that inserts the document with its zero timestamps, which an insert would replace.
fn insert_literally(name: &str, document: &RawDocument) -> RawDocumentBuf {
    let (mut equal, mut literal, mut pipeline) =
        (RawDocumentBuf::new(), RawDocumentBuf::new(), RawArrayBuf::new());
    equal.append(cstr!("$eq"), document.get("_id").unwrap().unwrap());
    literal.append(cstr!("$literal"), document.to_owned());
    pipeline.push(rawdoc! { "$replaceWith": literal });
    rawdoc! { "update": name, "updates": [{ "q": { "_id": equal }, "u": pipeline, "upsert": true }] }
}
