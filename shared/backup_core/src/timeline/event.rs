//! One change as the server told it.
//!
//! An event is read in one pass, without copying: most of a slice is events, and every fold reads them all.

#[cfg(test)]
mod tests;

use bson::raw::RawElement;
use bson::spec::BinarySubtype;
use bson::{RawBsonRef, RawDocument};

use crate::bson::{IdKey, IdValue};
use crate::error::{Error, Result, corrupt};
use crate::id::{ClusterTime, CollectionUuid};

/// A change event, read from its raw BSON.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// When it happened. Changes of one transaction have the same time.
    pub time: ClusterTime,
    /// The database.
    pub database: &'a str,
    /// The collection's or view's name within it; empty if it concerns the whole database.
    pub collection: &'a str,
    /// The collection's identity; none for views and whole databases.
    pub uuid: Option<CollectionUuid>,
    /// What happened.
    pub change: Change<'a>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Change<'a> {
    /// A document came to be.
    Insert {
        /// Its `_id`.
        id: IdKey,
        /// The document as the event has it.
        document: &'a RawDocument,
    },
    /// A document was replaced as a whole.
    Replace {
        /// Its `_id`.
        id: IdKey,
        /// The new document as the event has it: `_id` may stand anywhere.
        document: &'a RawDocument,
    },
    /// Parts of a document changed.
    Update {
        /// Its `_id`.
        id: IdKey,
        /// The event's `rawUpdateDescription`: the diff that the server logged.
        update: &'a RawDocument,
    },
    /// A document was deleted.
    Delete {
        /// Its `_id`.
        id: IdKey,
    },
    /// A collection or view came to be; the event's `operationDescription`.
    Create(&'a RawDocument),
    /// A collection or view was dropped.
    Drop,
    /// The database was dropped, with what was left in it.
    DropDatabase,
    /// A collection got another name.
    Rename {
        /// The database of the new name.
        to_database: &'a str,
        /// The new name.
        to: &'a str,
        /// The collection that had that name and was dropped.
        dropped: Option<CollectionUuid>,
    },
    /// Indexes came to be: the event's `operationDescription`, with `indexes`.
    CreateIndexes(&'a RawDocument),
    /// Indexes were dropped: the event's `operationDescription`, with `indexes`.
    DropIndexes(&'a RawDocument),
    /// Options of a collection, an index or a view changed; the event's `operationDescription`.
    Modify(&'a RawDocument),
    /// Nothing that a database would show: the server tells only how far it is.
    Nothing,
    /// Something else, by the server's word for it.
    Unknown(&'a str),
}

impl<'a> Event<'a> {
    /// Reads a raw event; `Corrupt` where something that its kind must have is missing or malformed.
    ///
    /// Of an event of an unknown kind only the time is needed: without a namespace, both its names are empty.
    pub fn parse(event: &'a RawDocument) -> Result<Self> {
        let parts = Parts::of(event)?;
        let time = part(parts.cluster_time.as_ref(), "clusterTime", RawBsonRef::as_timestamp)?;
        let word = part(parts.operation_type.as_ref(), "operationType", RawBsonRef::as_str)?;
        // Half a change is none.
        let change = if parts.split.is_some() {
            Change::Unknown("a fragment of a change")
        } else {
            parts.change(word)?
        };
        let (database, collection) = parts.names(&change)?;
        let uuid = parts.collection_uuid.as_ref();
        let uuid = uuid.map(|uuid| part(Some(uuid), "collectionUUID", read_uuid)).transpose()?;
        if uuid.is_none() && change.is_of_a_document() {
            return Err(unreadable("collectionUUID"));
        }
        let time = ClusterTime { seconds: time.time, ordinal: time.increment };
        Ok(Self { time, database, collection, uuid, change })
    }
}

impl<'a> Event<'a> {
    /// As [`Event::parse`]; what cannot be read, but tells its time, is a change of an unknown kind: the timeline goes on
    /// behind it, and nobody takes it for none.
    pub fn read(event: &'a RawDocument) -> Result<Self> {
        Self::parse(event).or_else(|why| {
            let parts = Parts::of(event)?;
            let time = part(parts.cluster_time.as_ref(), "clusterTime", RawBsonRef::as_timestamp);
            let time = time.map_err(|_| why)?;
            let namespace = part(parts.namespace.as_ref(), "ns", RawBsonRef::as_document).ok();
            let (database, collection) = namespace.map_or(Ok((None, None)), names_in).unwrap_or_default();
            Ok(Self {
                time: ClusterTime { seconds: time.time, ordinal: time.increment },
                database: database.unwrap_or_default(),
                collection: collection.unwrap_or_default(),
                uuid: None,
                change: Change::Unknown("a change that cannot be read"),
            })
        })
    }
}

impl Change<'_> {
    const fn is_of_a_document(&self) -> bool {
        matches!(self, Self::Insert { .. } | Self::Replace { .. } | Self::Update { .. } | Self::Delete { .. })
    }
}

/// The fields of an event that are looked at. They are read when its kind is known: only what it needs must be sound.
#[derive(Default)]
struct Parts<'a> {
    operation_type: Option<RawElement<'a>>,
    cluster_time: Option<RawElement<'a>>,
    namespace: Option<RawElement<'a>>,
    collection_uuid: Option<RawElement<'a>>,
    document_key: Option<RawElement<'a>>,
    full_document: Option<RawElement<'a>>,
    raw_update_description: Option<RawElement<'a>>,
    operation_description: Option<RawElement<'a>>,
    to: Option<RawElement<'a>>,
    split: Option<RawElement<'a>>,
}

impl<'a> Parts<'a> {
    fn of(event: &'a RawDocument) -> Result<Self> {
        let mut parts = Self::default();
        for element in event.iter_elements() {
            let element = element.map_err(|_| unreadable("a field"))?;
            let place = match element.key().as_str() {
                "operationType" => &mut parts.operation_type,
                "clusterTime" => &mut parts.cluster_time,
                "ns" => &mut parts.namespace,
                "collectionUUID" => &mut parts.collection_uuid,
                "documentKey" => &mut parts.document_key,
                "fullDocument" => &mut parts.full_document,
                "rawUpdateDescription" => &mut parts.raw_update_description,
                "operationDescription" => &mut parts.operation_description,
                "to" => &mut parts.to,
                "splitEvent" => &mut parts.split,
                _ => continue,
            };
            *place = Some(element);
        }
        Ok(parts)
    }

    fn change(&self, word: &'a str) -> Result<Change<'a>> {
        Ok(match word {
            "insert" => Change::Insert { id: self.id()?, document: self.document()? },
            "replace" => Change::Replace { id: self.id()?, document: self.document()? },
            "update" => Change::Update { id: self.id()?, update: self.update()? },
            "delete" => Change::Delete { id: self.id()? },
            "create" => Change::Create(self.description()?),
            "drop" => Change::Drop,
            "dropDatabase" => Change::DropDatabase,
            "rename" => self.rename()?,
            "createIndexes" => Change::CreateIndexes(self.description()?),
            "dropIndexes" => Change::DropIndexes(self.description()?),
            "modify" => Change::Modify(self.description()?),
            "endOfTransaction" => Change::Nothing,
            unknown => Change::Unknown(unknown),
        })
    }

    fn id(&self) -> Result<IdKey> {
        let key = part(self.document_key.as_ref(), "documentKey", RawBsonRef::as_document)?;
        let id = IdValue::of_document(key.as_bytes())?.ok_or_else(|| unreadable("documentKey"))?;
        IdKey::new(id)
    }

    fn document(&self) -> Result<&'a RawDocument> {
        part(self.full_document.as_ref(), "fullDocument", RawBsonRef::as_document)
    }

    fn update(&self) -> Result<&'a RawDocument> {
        part(self.raw_update_description.as_ref(), "rawUpdateDescription", RawBsonRef::as_document)
    }

    fn description(&self) -> Result<&'a RawDocument> {
        part(self.operation_description.as_ref(), "operationDescription", RawBsonRef::as_document)
    }

    /// The description is there since events are expanded; `to` was there before.
    fn rename(&self) -> Result<Change<'a>> {
        let (mut to, mut dropped) = (None, None);
        if self.operation_description.is_some() {
            let description = self.description()?;
            to = field(description, "to")?.and_then(RawBsonRef::as_document);
            dropped = field(description, "dropTarget")?;
        }
        let to = match to {
            Some(to) => to,
            None => part(self.to.as_ref(), "to", RawBsonRef::as_document)?,
        };
        let (Some(to_database), Some(to)) = names_in(to)? else { return Err(unreadable("to")) };
        let dropped = dropped.map(|uuid| read_uuid(uuid).ok_or_else(|| unreadable("dropTarget")));
        Ok(Change::Rename { to_database, to, dropped: dropped.transpose()? })
    }

    /// The names of database and collection.
    fn names(&self, change: &Change<'_>) -> Result<(&'a str, &'a str)> {
        if self.namespace.is_none() && matches!(change, Change::Unknown(_) | Change::Nothing) {
            return Ok(("", ""));
        }
        let namespace = part(self.namespace.as_ref(), "ns", RawBsonRef::as_document)?;
        match (names_in(namespace)?, change) {
            ((Some(database), Some(collection)), _) => Ok((database, collection)),
            ((Some(database), None), Change::DropDatabase) => Ok((database, "")),
            ((database, collection), Change::Unknown(_) | Change::Nothing) => {
                Ok((database.unwrap_or_default(), collection.unwrap_or_default()))
            }
            _ => Err(unreadable("ns")),
        }
    }
}

/// What `read` makes of a field that has to be there.
fn part<'a, T>(
    element: Option<&RawElement<'a>>,
    name: &str,
    read: impl FnOnce(RawBsonRef<'a>) -> Option<T>,
) -> Result<T> {
    element.and_then(|element| element.value().ok()).and_then(read).ok_or_else(|| unreadable(name))
}

fn field<'a>(document: &'a RawDocument, name: &str) -> Result<Option<RawBsonRef<'a>>> {
    document.get(name).map_err(|_| unreadable(name))
}

fn names_in(namespace: &RawDocument) -> Result<(Option<&str>, Option<&str>)> {
    let name = |key| field(namespace, key).map(|value| value.and_then(RawBsonRef::as_str));
    Ok((name("db")?, name("coll")?))
}

fn read_uuid(value: RawBsonRef<'_>) -> Option<CollectionUuid> {
    let binary = value.as_binary().filter(|binary| binary.subtype == BinarySubtype::Uuid)?;
    binary.bytes.try_into().ok().map(CollectionUuid)
}

/// Names the field, never its content.
fn unreadable(field: &str) -> Error {
    corrupt(format!("read a change: {field} is missing or malformed"))
}
