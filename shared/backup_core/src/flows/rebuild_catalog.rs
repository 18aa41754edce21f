//! `catalog rebuild`: writes the catalog again from what is in the bucket of one region, after its tables were lost.
//! The command line runs it, with the operator's rights.
//!
//! Rows come from records, as they were. A verified backup is brought back only if its manifest is there; a backup that
//! has a manifest, but no record of its end, gets a row made from both (see `unrecorded.rs`). What is in the catalog
//! already stays as it is, so this may be killed anywhere and run again, and may be run while the catalog is in use.
//! Objects that cannot be read, or that belong to others, are skipped and told; whatever else fails ends the run,
//! because a catalog that lacks what is there must not look whole.
//!
//! The audit trail is not made again: what is made from records today is no evidence of what was written then. Leases,
//! and what people were told last, are not missed.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::at_once::at_once;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ObjectKey, Place, Prefix};
use crate::id::{ClusterTime, OperationId, SourceName};
use crate::operation::{BackupNote, Failure, Operation, OperationState};
use crate::ports::{Catalog, Clock, DataKeys, Listing, ObjectStore, Timeline};

use super::{path, record, unrecorded};

/// What stands for the step in the failures that this writes.
pub(super) const STEP: &str = "rebuild-catalog";
/// Operations brought back at the same time: each takes some round trips.
const AT_ONCE: usize = 16;
/// Skipped objects that are named; the others are counted.
const NAMED_MAX: usize = 100;
/// A path that is longer is cut where it is told.
const PATH_CHARACTERS_MAX: usize = 200;

/// The ports of this flow.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The bucket of the region.
    pub store: &'a dyn ObjectStore,
    /// What is in it.
    pub listing: &'a dyn Listing,
    /// The key service of the region.
    pub keys: &'a dyn DataKeys,
    /// The catalog that is rebuilt.
    pub catalog: &'a dyn Catalog,
    /// The timeline that is rebuilt.
    pub timeline: &'a dyn Timeline,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// An object that was not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its path, as far as it can be shown.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// Operations that were brought back.
    pub operations: u64,
    /// Operations that are in the bucket, and were in the catalog already.
    pub there_already: u64,
    /// Of those, backups that are held again: the catalog was older than their records.
    pub held: u64,
    /// Of those brought back, backups whose row was made from their manifest.
    pub without_record: u64,
    /// Of those brought back, operations that had not ended.
    pub cut_off: u64,
    /// Verified backups whose manifest is gone: they are not brought back.
    pub without_manifest: u64,
    /// Slices that were brought back.
    pub slices: u64,
    /// Breaks of the timeline that were brought back, or found.
    pub breaks: u64,
    /// How far the timeline is now; none if there is none.
    pub timeline_to: Option<ClusterTime>,
    /// Objects that were skipped.
    pub skipped: u64,
    /// The first of them.
    pub named: Vec<Skipped>,
}

impl Rebuilt {
    /// Tells of an object that was skipped.
    pub(super) fn skip(&mut self, path: &str, reason: String) {
        self.skipped += 1;
        if self.named.len() < NAMED_MAX {
            let path = path.chars().take(PATH_CHARACTERS_MAX).flat_map(char::escape_debug).collect();
            self.named.push(Skipped { path, reason });
        }
    }

    fn add(&mut self, one: Self) {
        self.operations += one.operations;
        self.there_already += one.there_already;
        self.held += one.held;
        self.without_record += one.without_record;
        self.cut_off += one.cut_off;
        self.without_manifest += one.without_manifest;
        self.skipped += one.skipped;
        let room = NAMED_MAX.saturating_sub(self.named.len());
        self.named.extend(one.named.into_iter().take(room));
    }
}

impl fmt::Display for Rebuilt {
    /// A line for each thing that there is to tell.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} operations brought back, {} were there already",
            self.operations, self.there_already
        )?;
        for (count, what) in [
            (self.held, "of those are held again: their records were newer than the catalog"),
            (self.without_record, "of them are backups without a record: made from their manifests"),
            (self.cut_off, "of them had not ended when the catalog was lost"),
            (self.without_manifest, "verified backups are gone: they have a record, and no manifest"),
        ] {
            if count > 0 {
                writeln!(f, "{count} {what}")?;
            }
        }
        writeln!(f, "{} slices and {} breaks of the timeline brought back", self.slices, self.breaks)?;
        match self.timeline_to {
            Some(to) => writeln!(f, "the timeline is at {} UTC ({to})", to.utc())?,
            None => writeln!(f, "there is no timeline")?,
        }
        for Skipped { path, reason } in &self.named {
            writeln!(f, "skipped {path}: {reason}")?;
        }
        let others = self.skipped.saturating_sub(u64::try_from(self.named.len()).unwrap_or(u64::MAX));
        if others > 0 { writeln!(f, "skipped {others} more objects") } else { Ok(()) }
    }
}

/// Rebuilds the catalog of `source`.
pub async fn run(ports: Ports<'_>, source: SourceName) -> Result<Rebuilt> {
    let mut rebuilt = Rebuilt::default();
    for prefix in [Prefix::Automated, Prefix::Manual, Prefix::Restores, Prefix::Drills, Prefix::Prunes] {
        let found = find(ports.listing, prefix).await?;
        let each = found.into_values().map(|it| bring_back(ports, source, it));
        for one in at_once(AT_ONCE, each).await? {
            rebuilt.add(one);
        }
    }
    // Last: the pruner removes slices that no backup in the catalog needs.
    super::rebuild_timeline::bring_back(ports, source, &mut rebuilt).await?;
    Ok(rebuilt)
}

/// What there is of an operation.
struct Found {
    place: Place,
    has_record: bool,
    has_manifest: bool,
}

async fn find(listing: &dyn Listing, prefix: Prefix) -> Result<BTreeMap<OperationId, Found>> {
    let mut found = BTreeMap::new();
    let note = |path: &str, _: u64| {
        let (place, is_record) = match ObjectKey::from_path(path) {
            Some(ObjectKey::Record(place)) => (place, true),
            Some(ObjectKey::Manifest(place)) => (Place::Backup(place), false),
            _ => return,
        };
        let blank = Found { place, has_record: false, has_manifest: false };
        let it = found.entry(record::named(place).1).or_insert(blank);
        it.has_record |= is_record;
        it.has_manifest |= !is_record;
    };
    each_path(listing, prefix, note).await?;
    Ok(found)
}

/// Gives every path under a prefix, and its length, in order.
pub(super) async fn each_path(
    listing: &dyn Listing,
    prefix: Prefix,
    mut give: impl FnMut(&str, u64) + Send,
) -> Result<()> {
    let mut after: Option<String> = None;
    loop {
        let page = listing.list(prefix, after.as_deref()).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        for (path, bytes) in &page {
            give(path, *bytes);
        }
    }
}

async fn bring_back(ports: Ports<'_>, source: SourceName, found: Found) -> Result<Rebuilt> {
    let there = Rebuilt { there_already: 1, ..Rebuilt::default() };
    let (kind, id) = record::named(found.place);
    match ports.catalog.operation(kind, id).await {
        Err(why) if why.kind() == ErrorKind::NotFound => {}
        looked_up => return catch_up(ports, source, &found, looked_up?, there).await,
    }
    let mut rebuilt = Rebuilt::default();
    let Some(row) = row_of(ports, source, &found, &mut rebuilt).await? else { return Ok(rebuilt) };
    match ports.catalog.create_operation(&row).await {
        Err(why) if why.kind() == ErrorKind::Conflict => Ok(there), // somebody else was faster
        created => created.map(|()| Rebuilt { operations: 1, ..rebuilt }),
    }
}

/// A catalog that was brought back from an earlier time has forgotten who holds what. A mark that is newer takes nothing
/// away yet; that a backup is held cannot wait.
async fn catch_up(
    ports: Ports<'_>,
    source: SourceName,
    found: &Found,
    row: Operation,
    mut rebuilt: Rebuilt,
) -> Result<Rebuilt> {
    let Ok(detail) = row.backup() else { return Ok(rebuilt) };
    rebuilt.without_manifest +=
        u64::from(row.state == OperationState::Verified && !found.has_manifest && !detail.is_leaving());
    if detail.hold.is_some() || !found.has_record {
        return Ok(rebuilt);
    }
    let opened = record::open(ports.store, ports.keys, source, found.place).await;
    let recorded = or_skip(opened, ObjectKey::Record(found.place), &mut rebuilt)?;
    let newer = recorded.filter(|it| it.revision > row.revision);
    let hold = newer.and_then(|it| it.backup().ok().and_then(|detail| detail.hold.clone()));
    if let Some(hold) = hold {
        ports.catalog.note(row.id, &BackupNote::Hold(Some(hold))).await?;
        rebuilt.held += 1;
    }
    Ok(rebuilt)
}

/// The row as it is to be; none if there is nothing to be brought back.
async fn row_of(
    ports: Ports<'_>,
    source: SourceName,
    found: &Found,
    rebuilt: &mut Rebuilt,
) -> Result<Option<Operation>> {
    let recorded = if found.has_record {
        let opened = record::open(ports.store, ports.keys, source, found.place).await;
        or_skip(opened, ObjectKey::Record(found.place), rebuilt)?
    } else {
        None
    };
    match (recorded, found.place) {
        (Some(row), _) if row.state.is_final() => {
            let stands = stands(ports.store, &row).await?;
            rebuilt.without_manifest += u64::from(!stands);
            Ok(stands.then_some(row))
        }
        (recorded, Place::Backup(place)) if found.has_manifest => {
            let was_recorded = recorded.is_some();
            let made = unrecorded::row(ports, source, place, recorded).await;
            let row = or_skip(made, ObjectKey::Manifest(place), rebuilt)?;
            rebuilt.without_record += u64::from(row.is_some() && !was_recorded);
            rebuilt.cut_off += u64::from(row.is_some() && was_recorded);
            Ok(row)
        }
        (Some(row), _) => {
            rebuilt.cut_off += 1;
            Ok(Some(cut_off(row, ports.clock.now_millis())))
        }
        (None, _) => Ok(None),
    }
}

/// Whether a row that is final is not belied by the bucket. One whose removal had begun is the pruner's to end.
async fn stands(store: &dyn ObjectStore, row: &Operation) -> Result<bool> {
    let Ok(detail) = row.backup() else { return Ok(true) };
    let is_being_removed = detail.removal.as_ref().is_some_and(|it| it.begun);
    if row.state != OperationState::Verified || is_being_removed {
        return Ok(true);
    }
    Ok(store.size(ObjectKey::Manifest(row.backup_place()?)).await?.is_some())
}

/// Nothing goes on with an operation whose row was lost.
fn cut_off(row: Operation, now_millis: u64) -> Operation {
    let failure = lost("the catalog was lost while it ran", "begin it again");
    let (state, finished_millis) = (OperationState::Failed, Some(now_millis));
    Operation { state, finished_millis, failure: Some(failure), ..row }
}

/// Why an operation failed that was cut off by the loss of the catalog.
pub(super) fn lost(message: &str, hint: &str) -> Failure {
    Failure {
        step: STEP.to_owned(),
        kind: ErrorKind::Gone,
        message: message.to_owned(),
        hint: Some(hint.to_owned()),
    }
}

/// What was read; none if the object is at fault, which is told.
fn or_skip<T>(read: Result<T>, key: ObjectKey, rebuilt: &mut Rebuilt) -> Result<Option<T>> {
    match read {
        Err(why) if is_of_the_object(&why) => {
            rebuilt.skip(&path(key), why.to_string());
            Ok(None)
        }
        read => read.map(Some),
    }
}

/// Whether an object itself is at fault, and reading it again, or with more rights, would not help.
pub(super) fn is_of_the_object(why: &Error) -> bool {
    matches!(
        why.kind(),
        ErrorKind::Corrupt | ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Unsupported
    )
}
