//! `nightsafe get` and `nightsafe history`: one document as it was, straight from the bucket.

use backup_core::bson::IdValue;
use backup_core::flows::lookup::{Found, Ports, Version, Wanted, document_at, history};
use backup_core::namespace::Label;
use backup_core::operation::RestoreTime;
use backup_core::{Error, ErrorKind, Result};
use bson::{Bson, Document, RawDocumentBuf, oid::ObjectId};
use serde_json::{Value, json};

use crate::arguments::{GetArguments, HistoryArguments};
use crate::session::Session;

pub(crate) async fn get(session: &Session, arguments: &GetArguments) -> Result<()> {
    let wanted = wanted(session, &arguments.namespace, &arguments.id, arguments.at)?;
    let found = document_at(ports(session), &wanted).await?;
    let document = found.versions.last().and_then(|version| version.document.as_deref());
    if session.json {
        println!("{}", as_json("document", &found)?);
    } else {
        told_exactly(&found);
    }
    let what = format!("look up the document in {:?} at {}", arguments.namespace, found.time);
    let document =
        document.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{what}: there was none")))?;
    if !session.json {
        println!("{:#}", relaxed(document)?);
    }
    Ok(())
}

pub(crate) async fn versions(session: &Session, arguments: &HistoryArguments) -> Result<()> {
    let wanted = wanted(session, &arguments.namespace, &arguments.id, arguments.until)?;
    let found = history(ports(session), &wanted).await?;
    if session.json {
        println!("{}", as_json("history", &found)?);
        return Ok(());
    }
    told_exactly(&found);
    for Version { since, document } in &found.versions {
        let what = document.as_deref().map(relaxed).transpose()?;
        let what = what.map_or_else(|| "was not there".to_owned(), |it| it.to_string());
        println!("{} ({since})  {what}", since.utc());
    }
    Ok(())
}

const fn ports(session: &Session) -> Ports<'_> {
    Ports {
        store: &session.store,
        keys: &session.keys,
        catalog: &session.catalog,
        timeline: &session.timeline,
    }
}

/// What is less than exact goes to standard error.
fn told_exactly(found: &Found) {
    if found.label != Label::Exact {
        let reason = found.reason.as_deref().unwrap_or_default();
        eprintln!("the collection is {}: {reason}", found.label);
    }
}

fn wanted(session: &Session, namespace: &str, id: &str, at: RestoreTime) -> Result<Wanted> {
    let (database, collection) = namespace.split_once('.').ok_or_else(|| {
        Error::new(ErrorKind::Invalid, format!("read {namespace:?}")).hint("write DATABASE.COLLECTION")
    })?;
    Ok(Wanted {
        source: session.source,
        database: database.to_owned(),
        collection: collection.to_owned(),
        id: parse_id(id)?,
        at,
    })
}

/// Extended JSON; 24 hexadecimal digits are an `ObjectId`, and what is no JSON is text.
fn parse_id(text: &str) -> Result<IdValue> {
    let invalid = || {
        Error::new(ErrorKind::Invalid, "read the _id").hint(
            "write Extended JSON ({\"$oid\": …}, \"text\", 42), 24 hexadecimal digits for an ObjectId, or plain text",
        )
    };
    let value = match (ObjectId::parse_str(text), serde_json::from_str::<Value>(text)) {
        (Ok(id), _) => Bson::ObjectId(id),
        (_, Ok(json)) => Bson::try_from(json).map_err(|_| invalid())?,
        (_, Err(_)) => Bson::String(text.to_owned()),
    };
    let mut document = Document::new();
    document.insert("_id", value);
    let raw = RawDocumentBuf::try_from(&document).map_err(|_| invalid())?;
    IdValue::of_document(raw.as_bytes())?.ok_or_else(invalid)
}

fn relaxed(document: &[u8]) -> Result<Value> {
    Ok(Bson::Document(decoded(document)?).into_relaxed_extjson())
}

fn decoded(document: &[u8]) -> Result<Document> {
    let why = "a value in it cannot be shown as JSON; restore its collection to look at it";
    let raw = RawDocumentBuf::from_bytes(document.to_vec());
    let decoded = raw.ok().and_then(|raw| Document::try_from(raw).ok());
    decoded.ok_or_else(|| Error::new(ErrorKind::Unsupported, "show the document").hint(why))
}

fn as_json(message_type: &str, found: &Found) -> Result<Value> {
    let version = |version: &Version| -> Result<Value> {
        let document = version.document.as_deref().map(decoded).transpose()?;
        let document = document.map(|it| Bson::Document(it).into_canonical_extjson());
        Ok(json!({ "since": version.since, "document": document }))
    };
    let versions = found.versions.iter().map(version).collect::<Result<Vec<Value>>>()?;
    Ok(json!({
        "message_type": message_type,
        "time": found.time,
        "backup": found.base,
        "label": found.label,
        "reason": found.reason,
        "versions": versions,
    }))
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn ids_are_read_as_an_operator_writes_them() {
        let check = |text: &str, expected: Document| {
            let id = parse_id(text).unwrap();
            assert_eq!(Document::try_from(id.as_document()).unwrap(), expected, "{text}");
        };
        let oid = ObjectId::parse_str("65f0c0ffee65f0c0ffee65f0").unwrap();
        check("65f0c0ffee65f0c0ffee65f0", doc! { "_id": oid });
        check("{\"$oid\": \"65f0c0ffee65f0c0ffee65f0\"}", doc! { "_id": oid });
        check("42", doc! { "_id": 42 });
        check("5000000000", doc! { "_id": 5_000_000_000_i64 });
        check("\"42\"", doc! { "_id": "42" });
        check("lead-7", doc! { "_id": "lead-7" });
        check("{\"a\": 1, \"b\": \"x\"}", doc! { "_id": { "a": 1, "b": "x" } });
        check("null", doc! { "_id": null });
    }
}
