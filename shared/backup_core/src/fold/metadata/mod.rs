//! The fold of what a database has: collections, views, and their options and indexes.
//!
//! Collections are known by their UUID, which survives renames; views and time series by their name, because changes
//! of them name no UUID. A change may be applied to a state that already has it: the listing a fold begins with may be
//! newer than the first changes, and the end is the same. So no collection gives way to another one because of its
//! name, but only because its UUID is told; and what is to be changed but is not there was dropped since.

mod foldable;
mod modify;

use std::collections::BTreeMap;

use bson::{RawBsonRef, RawDocument, RawDocumentBuf, cstr};

pub use foldable::why_not_foldable;

use self::modify::{set, settings};
use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::id::CollectionUuid;
use crate::namespace::{Namespace, NamespaceKind};
use crate::plan::metadata::without;
use crate::timeline::{Change, Event};

const BUCKETS: &str = "system.buckets.";
const LATER_TIMESERIES: &str =
    "a time series that came after the backup: the changes tell nothing of its options";
const MODIFIED_TIMESERIES: &str = "a time series whose options changed: the changes do not tell how";
const FROM_ELSEWHERE: &str =
    "it came from another database after the backup: the changes tell nothing of its options";
const TEMPORARY: &str = "a temporary collection";

/// A collection or view, and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Folded {
    /// What it is, as the server would list it.
    pub namespace: Namespace,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a collection or view comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was in the listing the fold began with.
    Base,
    /// It came later: all that is in it came by changes.
    Created,
    /// It is not known well enough to be restored; says why.
    Unknown(&'static str),
}

/// What one database has, change by change.
#[derive(Clone, Debug)]
pub struct DatabaseState {
    database: String,
    collections: BTreeMap<CollectionUuid, Folded>,
    /// Views and time series.
    named: BTreeMap<String, Folded>,
}

impl DatabaseState {
    /// The state of `database` that has what was listed.
    #[must_use]
    pub fn new(database: &str, at_base: impl IntoIterator<Item = Namespace>) -> Self {
        let mut state =
            Self { database: database.to_owned(), collections: BTreeMap::new(), named: BTreeMap::new() };
        for namespace in at_base {
            match (namespace.kind, namespace.uuid) {
                (NamespaceKind::Collection, Some(uuid)) => {
                    state.collections.insert(uuid, Folded { namespace, origin: Origin::Base });
                }
                _ => state.put_named(namespace, Origin::Base),
            }
        }
        state
    }

    /// Applies a change. Those of documents and of other databases change nothing.
    ///
    /// Refuses what [`why_not_foldable`] tells of as `Unsupported`.
    pub fn apply(&mut self, event: &Event<'_>) -> Result<()> {
        let is_of_documents = matches!(
            event.change,
            Change::Insert { .. } | Change::Replace { .. } | Change::Update { .. } | Change::Delete { .. }
        );
        if is_of_documents || !self.is_concerned(event) {
            return Ok(());
        }
        if let Some(reason) = why_not_foldable(event) {
            return Err(unsupported(event).because(reason.to_string()));
        }
        match &event.change {
            Change::Create(description) => self.create(event, description)?,
            Change::Drop => self.drop_one(event),
            Change::DropDatabase => {
                self.collections.clear();
                self.named.clear();
            }
            Change::Rename { to_database, to, dropped } => self.rename(event, to_database, to, *dropped)?,
            Change::CreateIndexes(description) => self.create_indexes(event, description)?,
            Change::DropIndexes(description) => self.drop_indexes(event, description)?,
            Change::Modify(description) => self.modify(event, description)?,
            _ => return Err(unsupported(event)), // seen to above
        }
        Ok(())
    }

    /// Everything there is, sorted by name.
    #[must_use]
    pub fn into_namespaces(self) -> Vec<Folded> {
        let mut all: Vec<Folded> = self.collections.into_values().chain(self.named.into_values()).collect();
        all.sort_by(|left, right| left.namespace.name.cmp(&right.namespace.name));
        all
    }

    fn is_concerned(&self, event: &Event<'_>) -> bool {
        let comes_here =
            matches!(event.change, Change::Rename { to_database, .. } if to_database == self.database);
        comes_here || event.database == self.database
    }

    fn put_named(&mut self, namespace: Namespace, origin: Origin) {
        self.named.insert(namespace.name.clone(), Folded { namespace, origin });
    }

    fn create(&mut self, event: &Event<'_>, description: &RawDocument) -> Result<()> {
        let options = without(description, &["idIndex"])?;
        if let Ok(Some(RawBsonRef::String(source))) = description.get("viewOn") {
            self.create_view(event.collection, source, options);
            return Ok(());
        }
        let uuid = uuid_of(event)?;
        if matches!(description.get("timeseries"), Ok(Some(_))) {
            let series = bare(event.collection, NamespaceKind::Timeseries, Some(uuid));
            self.collections
                .insert(uuid, Folded { namespace: series, origin: Origin::Unknown(LATER_TIMESERIES) });
            return Ok(());
        }
        let indexes = first_index(description);
        let namespace =
            Namespace { options, indexes, ..bare(event.collection, NamespaceKind::Collection, Some(uuid)) };
        // One that was listed already is as it was created again, until the changes that follow.
        let origin = self.collections.get(&uuid).map_or(Origin::Created, |it| it.origin);
        self.collections.insert(uuid, Folded { namespace, origin });
        Ok(())
    }

    /// A time series shows as the view of its buckets; only its drop would have made place for another one.
    fn create_view(&mut self, name: &str, source: &str, options: RawDocumentBuf) {
        if source.starts_with(BUCKETS) {
            if self.named.get(name).is_none_or(|it| it.namespace.kind != NamespaceKind::Timeseries) {
                let series = bare(name, NamespaceKind::Timeseries, None);
                self.put_named(series, Origin::Unknown(LATER_TIMESERIES));
            }
        } else {
            let view = Namespace { options, ..bare(name, NamespaceKind::View, None) };
            self.put_named(view, Origin::Created);
        }
    }

    fn drop_one(&mut self, event: &Event<'_>) {
        match event.uuid {
            Some(uuid) => self.collections.remove(&uuid),
            None => self.named.remove(event.collection),
        };
    }

    fn rename(
        &mut self,
        event: &Event<'_>,
        to_database: &str,
        to: &str,
        dropped: Option<CollectionUuid>,
    ) -> Result<()> {
        let uuid = uuid_of(event)?;
        if to_database != self.database {
            self.collections.remove(&uuid);
            return Ok(());
        }
        if let Some(dropped) = dropped {
            self.collections.remove(&dropped);
        }
        if event.database == self.database {
            if let Some(folded) = self.collections.get_mut(&uuid) {
                to.clone_into(&mut folded.namespace.name);
                folded.namespace.options = without(&folded.namespace.options, &["temp"])?;
            }
        } else {
            let namespace = bare(to, NamespaceKind::Collection, Some(uuid));
            self.collections.insert(uuid, Folded { namespace, origin: Origin::Unknown(FROM_ELSEWHERE) });
        }
        Ok(())
    }

    fn create_indexes(&mut self, event: &Event<'_>, description: &RawDocument) -> Result<()> {
        let Some(folded) = self.collections.get_mut(&uuid_of(event)?) else { return Ok(()) };
        let Namespace { indexes, unfinished_indexes, .. } = &mut folded.namespace;
        for index in indexes_of(description)? {
            let name = name_of(index)?;
            unfinished_indexes.retain(|it| it != name);
            match indexes.iter_mut().find(|it| is_named(it, name)) {
                Some(place) => *place = index.to_owned(),
                None => indexes.push(index.to_owned()),
            }
        }
        Ok(())
    }

    fn drop_indexes(&mut self, event: &Event<'_>, description: &RawDocument) -> Result<()> {
        let Some(folded) = self.collections.get_mut(&uuid_of(event)?) else { return Ok(()) };
        for index in indexes_of(description)? {
            let name = name_of(index)?;
            folded.namespace.indexes.retain(|it| !is_named(it, name));
        }
        Ok(())
    }

    fn modify(&mut self, event: &Event<'_>, description: &RawDocument) -> Result<()> {
        let Some(uuid) = event.uuid else { return self.modify_view(event.collection, description) };
        let settings = settings(description).map_err(|field| unsupported(event).because(field))?;
        match self.collections.get_mut(&uuid) {
            Some(folded) => set(&mut folded.namespace, &settings),
            None => Ok(()),
        }
    }

    /// The change of a view has its whole new definition; that of a time series has only how its buckets are read.
    fn modify_view(&mut self, name: &str, definition: &RawDocument) -> Result<()> {
        match self.named.get_mut(name) {
            Some(it) if it.namespace.kind == NamespaceKind::Timeseries => {
                it.origin = Origin::Unknown(MODIFIED_TIMESERIES);
            }
            Some(it) => it.namespace.options = without(definition, &[])?,
            None => {}
        }
        Ok(())
    }
}

/// Leaves out what the server has only while one of its commands runs, such as `$out`. A restore does without it; a backup
/// that others are folded from has to keep it: it gets another name, and is what the command has made.
pub fn leave_out_temporary(all: &mut [Folded]) {
    for folded in all {
        if matches!(folded.namespace.options.get("temp"), Ok(Some(RawBsonRef::Boolean(true)))) {
            folded.origin = Origin::Unknown(TEMPORARY);
        }
    }
}

fn unsupported(event: &Event<'_>) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("fold a change of {:?} in {:?}", event.collection, event.database),
    )
}

fn uuid_of(event: &Event<'_>) -> Result<CollectionUuid> {
    event.uuid.ok_or_else(|| corrupt(format!("read a change of {:?}: it names no UUID", event.collection)))
}

fn bare(name: &str, kind: NamespaceKind, uuid: Option<CollectionUuid>) -> Namespace {
    Namespace {
        name: name.to_owned(),
        kind,
        uuid,
        options: RawDocumentBuf::new(),
        indexes: Vec::new(),
        unfinished_indexes: Vec::new(),
    }
}

/// The index that comes with a new collection, as it is listed: the one on `_id`, or the key of a clustered one.
fn first_index(description: &RawDocument) -> Vec<RawDocumentBuf> {
    if let Ok(Some(RawBsonRef::Document(index))) = description.get("idIndex") {
        return vec![index.to_owned()];
    }
    let Ok(Some(RawBsonRef::Document(key))) = description.get("clusteredIndex") else { return Vec::new() };
    let mut index = key.to_owned();
    if let Ok(Some(collation)) = description.get("collation") {
        index.append(cstr!("collation"), collation);
    }
    index.append(cstr!("clustered"), true);
    vec![index]
}

fn indexes_of(description: &RawDocument) -> Result<Vec<&RawDocument>> {
    let malformed = || corrupt("read a change of indexes");
    let indexes = description.get_array("indexes").map_err(|why| malformed().because(why))?;
    indexes.into_iter().map(|it| it.ok().and_then(RawBsonRef::as_document).ok_or_else(malformed)).collect()
}

fn name_of(index: &RawDocument) -> Result<&str> {
    index.get_str("name").map_err(|why| corrupt("read an index's name").because(why))
}

fn is_named(index: &RawDocument, name: &str) -> bool {
    matches!(index.get("name"), Ok(Some(RawBsonRef::String(it))) if it == name)
}

#[cfg(test)]
mod tests;
