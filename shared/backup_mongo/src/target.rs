//! The [`Target`] port: staging collections, their documents and indexes, and the renames of a swap.

use async_trait::async_trait;
use backup_core::bson::{IdValue, has_top_level_zero_timestamp, split_documents};
use backup_core::ports::{InsertRules, Target};
use backup_core::{Error, ErrorKind, Result};
use bson::{Bson, Document, RawArrayBuf, RawDocument, RawDocumentBuf, cstr, rawdoc};
use bytes::Bytes;

use crate::connection::Cluster;
use crate::error::{code, code_of, told, write_refused};
use crate::metadata::array;

/// A command's own document may have 16 MiB and a little; a document of the largest size still fits alone.
const INSERT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The server gives up counting before we give up waiting for it.
const COUNT_MILLIS_MAX: i32 = 100_000;

#[async_trait]
impl Target for Cluster {
    async fn create(&self, database: &str, name: &str, options: &RawDocumentBuf) -> Result<()> {
        let mut command = rawdoc! { "create": name };
        append_all(&mut command, options)?;
        let attempted = format!("create {name:?}");
        match self.try_change(database, command, &attempted).await? {
            Err(why) if code_of(&why) != Some(code::NAMESPACE_EXISTS) => Err(told(attempted, &why)),
            _ => Ok(()),
        }
    }

    async fn insert(&self, database: &str, name: &str, documents: Bytes, rules: InsertRules) -> Result<()> {
        let mut batch = Batch::default();
        for document in split_documents(&documents) {
            let document = RawDocument::from_bytes(document?).map_err(|why| {
                Error::new(ErrorKind::Corrupt, format!("insert into {name:?}")).because(why)
            })?;
            // The server would replace this one's timestamp by its own time; it goes another way.
            let is_special = has_top_level_zero_timestamp(document.as_bytes())?;
            if batch.bytes + document.as_bytes().len() > INSERT_BYTES_MAX || (is_special && rules.ordered) {
                self.insert_batch(database, name, std::mem::take(&mut batch), rules).await?;
            }
            if is_special {
                self.insert_literally(database, name, document).await?;
            } else {
                batch.push(document);
            }
        }
        self.insert_batch(database, name, batch, rules).await
    }

    async fn create_indexes(&self, database: &str, name: &str, indexes: &[RawDocumentBuf]) -> Result<()> {
        let command =
            rawdoc! { "createIndexes": name, "indexes": array(indexes), "writeConcern": { "w": "majority" } };
        self.long_command(database, command, &format!("build indexes on {name:?}")).await.map(|_| ())
    }

    async fn modify(&self, database: &str, name: &str, fields: &RawDocumentBuf) -> Result<()> {
        let mut command = rawdoc! { "collMod": name };
        append_all(&mut command, fields)?;
        self.change(database, command, &format!("modify {name:?}")).await.map(|_| ())
    }

    async fn rename(&self, database: &str, from: &str, to: &str) -> Result<()> {
        self.database(database)?;
        let command =
            rawdoc! { "renameCollection": format!("{database}.{from}"), "to": format!("{database}.{to}") };
        self.change("admin", command, &format!("rename {from:?} to {to:?}")).await.map(|_| ())
    }

    async fn replace(&self, database: &str, from: &str, to: &str) -> Result<()> {
        self.database(database)?;
        let (old, new) = (format!("{database}.{from}"), format!("{database}.{to}"));
        let command = rawdoc! { "renameCollection": old, "to": new, "dropTarget": true };
        self.change("admin", command, &format!("replace {to:?} by {from:?}")).await.map(|_| ())
    }

    async fn drop_namespace(&self, database: &str, name: &str) -> Result<()> {
        let attempted = format!("drop {name:?}");
        match self.try_change(database, rawdoc! { "drop": name }, &attempted).await? {
            Err(why) if code_of(&why) != Some(code::NAMESPACE_NOT_FOUND) => Err(told(attempted, &why)),
            _ => Ok(()),
        }
    }

    async fn count(&self, database: &str, name: &str, filter: &RawDocumentBuf) -> Result<u64> {
        let attempted = format!("count documents of {name:?}");
        let command = rawdoc! {
            "aggregate": name,
            "pipeline": [{ "$match": filter.clone() }, { "$count": "documents" }],
            "cursor": {},
            "readConcern": { "level": "majority" },
            "maxTimeMS": COUNT_MILLIS_MAX,
        };
        let reply = self.command(database, command, &attempted).await?;
        counted(&reply).ok_or_else(|| {
            Error::new(ErrorKind::Internal, attempted).because("the server's answer is not understood")
        })
    }
}

/// What `$count` says: nothing at all where nothing matches.
fn counted(reply: &Document) -> Option<u64> {
    let batch = reply.get_document("cursor").ok()?.get_array("firstBatch").ok()?;
    let Some(first) = batch.first() else { return Some(0) };
    match first.as_document()?.get("documents")? {
        Bson::Int32(count) => u64::try_from(*count).ok(),
        Bson::Int64(count) => u64::try_from(*count).ok(),
        _ => None,
    }
}

/// Documents of one command.
#[derive(Default)]
struct Batch<'a> {
    documents: Vec<&'a RawDocument>,
    bytes: usize,
}

impl<'a> Batch<'a> {
    fn push(&mut self, document: &'a RawDocument) {
        self.bytes += document.as_bytes().len();
        self.documents.push(document);
    }
}

impl Cluster {
    async fn insert_batch(
        &self,
        database: &str,
        name: &str,
        batch: Batch<'_>,
        rules: InsertRules,
    ) -> Result<()> {
        let mut left = batch.documents.as_slice();
        while !left.is_empty() {
            let mut command =
                rawdoc! { "insert": name, "ordered": rules.ordered, "writeConcern": { "w": "majority" } };
            // The server refuses to bypass what it does not have: validation of buckets.
            if !name.starts_with("system.buckets.") {
                command.append(cstr!("bypassDocumentValidation"), true);
            }
            let command = with_documents(&command, left)?;
            let reply = self.command(database, command, &format!("insert into {name:?}")).await?;
            let Some(last_failed) = check_write_errors(&reply, name)? else { return Ok(()) };
            // Ordered, the server stopped at the one that was there already; go on behind it.
            left = if rules.ordered { left.get(last_failed + 1..).unwrap_or_default() } else { &[] };
        }
        Ok(())
    }

    /// One document as it is, `Timestamp(0, 0)` included, by an upsert with a pipeline.
    async fn insert_literally(&self, database: &str, name: &str, document: &RawDocument) -> Result<()> {
        let id = IdValue::of_document(document.as_bytes())?;
        let id = id.as_ref().and_then(|id| id.as_document().get("_id").ok().flatten()).ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!("insert into {name:?}: a document without _id has a zero timestamp"),
            )
        })?;
        let mut equal = RawDocumentBuf::new();
        equal.append(cstr!("$eq"), id);
        let mut literal = RawDocumentBuf::new();
        literal.append(cstr!("$literal"), document.to_owned());
        let mut pipeline = RawArrayBuf::new();
        pipeline.push(rawdoc! { "$replaceWith": literal });
        let command = rawdoc! {
            "update": name,
            "updates": [{ "q": { "_id": equal }, "u": pipeline, "upsert": true }],
            "bypassDocumentValidation": true,
            "writeConcern": { "w": "majority" },
        };
        let reply = self.command(database, command, &format!("insert into {name:?}")).await?;
        check_write_errors(&reply, name).map(|_| ())
    }
}

/// `command` with its array of documents, copied once: they are most of what a restore moves.
fn with_documents(command: &RawDocument, documents: &[&RawDocument]) -> Result<RawDocumentBuf> {
    const FIELD: &[u8] = b"\x04documents\0";
    const ELEMENT_BYTES_MAX: usize = 12; // type, index, zero
    let too_long = |_| Error::new(ErrorKind::Internal, "write an insert: it is too long");
    let (_, command) = command.as_bytes().split_last().unwrap_or((&0, &[]));
    let bytes: usize = documents.iter().map(|it| it.as_bytes().len() + ELEMENT_BYTES_MAX).sum();
    let mut out = Vec::with_capacity(command.len() + FIELD.len() + bytes + 16);
    out.extend_from_slice(command);
    out.extend_from_slice(FIELD);
    let array = out.len();
    out.extend_from_slice(&[0; 4]);
    for (index, document) in documents.iter().enumerate() {
        out.push(0x03);
        out.extend_from_slice(index.to_string().as_bytes());
        out.push(0);
        out.extend_from_slice(document.as_bytes());
    }
    out.push(0);
    let array_bytes = i32::try_from(out.len() - array).map_err(too_long)?.to_le_bytes();
    out.push(0);
    let command_bytes = i32::try_from(out.len()).map_err(too_long)?.to_le_bytes();
    for (at, length) in [(array, array_bytes), (0, command_bytes)] {
        if let Some(place) = out.get_mut(at..at + 4) {
            place.copy_from_slice(&length);
        }
    }
    RawDocumentBuf::from_bytes(out)
        .map_err(|why| Error::new(ErrorKind::Internal, "write an insert").because(why))
}

/// The index of the last document that was there already; an error for any other write error.
fn check_write_errors(reply: &Document, name: &str) -> Result<Option<usize>> {
    let mut last = None;
    for error in reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default() {
        let number = |field| {
            error.as_document().and_then(|error| match error.get(field) {
                Some(Bson::Int32(number)) => Some(*number),
                _ => None,
            })
        };
        let code = number("code").unwrap_or(0);
        if code != code::DUPLICATE_KEY {
            return Err(write_refused(format!("insert into {name:?}"), code));
        }
        last = last.max(number("index").and_then(|index| usize::try_from(index).ok()));
    }
    if reply.contains_key("writeConcernError") {
        return Err(Error::new(
            ErrorKind::Transient,
            format!("insert into {name:?}: a majority did not confirm in time"),
        ));
    }
    Ok(last)
}

pub(crate) fn append_all(command: &mut RawDocumentBuf, fields: &RawDocument) -> Result<()> {
    for field in fields {
        let (name, value) =
            field.map_err(|why| Error::new(ErrorKind::Corrupt, "read metadata").because(why))?;
        command.append(name, value);
    }
    Ok(())
}
