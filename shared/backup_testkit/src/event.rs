//! A change of the cluster in memory: what it makes of documents, and the event that tells of it.
//!
//! Events have the shape of a real server's, and are as awkward: a document that was replaced is told as its writer
//! wrote it, with `_id` anywhere.

use backup_core::id::{ClusterTime, CollectionUuid};
use backup_core::namespace::Namespace;
use bson::raw::CStr;
use bson::spec::BinarySubtype;
use bson::{
    Binary, DateTime, RawArrayBuf, RawBson, RawBsonRef, RawDocument, RawDocumentBuf, Timestamp, cstr, rawdoc,
};

use crate::fixture::DATABASE;

/// What happened to a collection or view.
#[derive(Clone, Copy)]
pub(crate) enum What<'a> {
    /// A document came to be.
    Insert(&'a RawDocument),
    /// A document was replaced by this one.
    Replace(&'a RawDocument),
    /// A top-level field of a document was set.
    Update {
        /// The document's `_id`.
        id: i32,
        /// The field.
        field: &'a str,
        /// Its new value.
        value: &'a RawBson,
        /// Whether there was no such field.
        is_new: bool,
    },
    /// The document with this `_id` was deleted.
    Delete(i32),
    /// It came to be.
    Create,
    /// It was dropped.
    Drop,
    /// It got another name.
    Rename {
        /// The new name.
        to: &'a str,
        /// The collection that had the new name and was dropped.
        dropped: Option<CollectionUuid>,
    },
    /// Indexes came to be.
    CreateIndexes(&'a [RawDocumentBuf]),
    /// `collMod` was run with these fields.
    Modify(&'a RawDocument),
}

impl What<'_> {
    const fn kind(self) -> &'static str {
        match self {
            Self::Insert(_) => "insert",
            Self::Replace(_) => "replace",
            Self::Update { .. } => "update",
            Self::Delete(_) => "delete",
            Self::Create => "create",
            Self::Drop => "drop",
            Self::Rename { .. } => "rename",
            Self::CreateIndexes(_) => "createIndexes",
            Self::Modify(_) => "modify",
        }
    }

    /// The `_id` of the document it concerns.
    fn id(self) -> Option<i32> {
        match self {
            Self::Insert(document) | Self::Replace(document) => Some(id_of(document)),
            Self::Update { id, .. } | Self::Delete(id) => Some(id),
            _ => None,
        }
    }

    /// The event's description of it, and the field it stands in.
    fn description(self, of: &Namespace) -> Option<(&'static CStr, RawDocumentBuf)> {
        let operation = cstr!("operationDescription");
        match self {
            Self::Insert(_) | Self::Replace(_) | Self::Delete(_) | Self::Drop => None,
            Self::Update { field, value, is_new, .. } => {
                let mut fields = RawDocumentBuf::new();
                fields.append(<&CStr>::try_from(field).unwrap(), value);
                let diff = if is_new {
                    rawdoc! { "i": fields }
                } else {
                    rawdoc! { "u": fields }
                };
                Some((cstr!("rawUpdateDescription"), rawdoc! { "$v": 2, "diff": diff }))
            }
            Self::Create => Some((operation, creation(of))),
            Self::Rename { to, dropped } => {
                let mut rename = rawdoc! { "to": full_name(to) };
                if let Some(uuid) = dropped {
                    rename.append(cstr!("dropTarget"), binary(uuid));
                }
                Some((operation, rename))
            }
            Self::CreateIndexes(indexes) => {
                let indexes: RawArrayBuf = indexes.iter().collect();
                Some((operation, rawdoc! { "indexes": indexes }))
            }
            Self::Modify(fields) => Some((operation, fields.to_owned())),
        }
    }
}

/// The options of a collection or view as its `create` event has them.
fn creation(of: &Namespace) -> RawDocumentBuf {
    let mut options = of.options.clone();
    if !of.is_clustered()
        && let Some(index) = of.indexes.first()
    {
        options.append(cstr!("idIndex"), index);
    }
    options
}

fn full_name(name: &str) -> RawDocumentBuf {
    rawdoc! { "db": DATABASE, "coll": name }
}

fn binary(uuid: CollectionUuid) -> Binary {
    Binary { subtype: BinarySubtype::Uuid, bytes: uuid.0.to_vec() }
}

/// The session of every transaction.
fn session() -> RawDocumentBuf {
    let user = Binary { subtype: BinarySubtype::Generic, bytes: vec![7; 32] };
    rawdoc! { "id": binary(CollectionUuid([7; 16])), "uid": user }
}

/// The event of a change, with its fields in the order of a real server's.
pub(crate) fn event(
    token: RawDocumentBuf,
    time: ClusterTime,
    transaction: Option<i64>,
    of: &Namespace,
    what: What<'_>,
) -> RawDocumentBuf {
    let mut event = rawdoc! { "_id": token };
    if let Some(number) = transaction {
        event.append(cstr!("txnNumber"), number);
        event.append(cstr!("lsid"), session());
    }
    if let What::Rename { to, .. } = what {
        event.append(cstr!("to"), full_name(to));
    }
    event.append(cstr!("operationType"), what.kind());
    event.append(cstr!("clusterTime"), Timestamp { time: time.seconds, increment: time.ordinal });
    if let Some(uuid) = of.uuid {
        event.append(cstr!("collectionUUID"), binary(uuid));
    }
    event.append(cstr!("wallTime"), DateTime::from_millis(i64::from(time.seconds) * 1000));
    if let What::Insert(document) | What::Replace(document) = what {
        event.append(cstr!("fullDocument"), document);
    }
    event.append(cstr!("ns"), full_name(&of.name));
    if let Some(id) = what.id() {
        event.append(cstr!("documentKey"), rawdoc! { "_id": id });
    }
    if let Some((field, description)) = what.description(of) {
        event.append(field, description);
    }
    if let (What::Modify(_), Some(uuid)) = (what, of.uuid) {
        let before = rawdoc! { "collectionOptions": { "uuid": binary(uuid) } };
        event.append(cstr!("stateBeforeChange"), before);
    }
    event
}

/// The `_id` of a document, which has to be a 32-bit integer.
pub(crate) fn id_of(document: &RawDocument) -> i32 {
    match document.get("_id") {
        Ok(Some(RawBsonRef::Int32(id))) => id,
        other => panic!("the cluster in memory needs a 32-bit _id, not {other:?}"),
    }
}

/// The document as a server stores it: `_id` stands first.
pub(crate) fn with_id_first(document: &RawDocument) -> RawDocumentBuf {
    if matches!(document.iter().next(), Some(Ok((name, _))) if name.as_str() == "_id") {
        return document.to_owned();
    }
    let (id, rest): (Vec<_>, Vec<_>) =
        document.iter().map(Result::unwrap).partition(|(name, _)| name.as_str() == "_id");
    id.into_iter().chain(rest).collect()
}

/// The document with a top-level field set: where it was, or at the end.
pub(crate) fn with_field(document: &RawDocument, name: &str, value: RawBsonRef<'_>) -> RawDocumentBuf {
    let name = <&CStr>::try_from(name).unwrap();
    let mut fields: Vec<_> = document.iter().map(Result::unwrap).collect();
    match fields.iter_mut().find(|(it, _)| *it == name) {
        Some((_, old)) => *old = value,
        None => fields.push((name, value)),
    }
    fields.into_iter().collect()
}

/// Changes the index that `change` names.
pub(crate) fn modify_index(indexes: &mut [RawDocumentBuf], change: &RawDocument) {
    let wanted = change.get_str("name").unwrap();
    let index = indexes.iter_mut().find(|it| it.get_str("name").unwrap() == wanted).unwrap();
    for (field, value) in change.iter().map(Result::unwrap) {
        *index = with_field(index, field.as_str(), value);
    }
}
