//! Records: what the catalog is rebuilt from. Each is a row of the catalog, or a break of the timeline, sealed in the
//! bucket.
//!
//! The row is written first, its record after it. A process that dies between the two leaves an older record or none:
//! the manifest, and not the record, says whether a backup exists.

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::format::{
    BackupPlace, DrillPlace, ObjectContext, ObjectKey, ObjectKind, Opened, Place, PrunePlace, RestorePlace,
    open_json, seal_json,
};
use crate::id::{OperationId, SourceName};
use crate::operation::{BackupNote, Detail, Operation, OperationKind};
use crate::ports::{Catalog, DataKeys, ObjectStore};
use crate::settings::MIB;
use crate::timeline::Break;

/// How often a record is written again because its row was written meanwhile.
const TRIES: u32 = 10;
/// A row has less than the table's 400 KB; what is larger is hostile.
const RECORD_BYTES_MAX: u64 = MIB;

/// Keeps the row of an operation in the bucket as it is now. Two at once: the newer row stays.
pub async fn keep(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    catalog: &dyn Catalog,
    kind: OperationKind,
    id: OperationId,
) -> Result<()> {
    let mut row = catalog.operation(kind, id).await?;
    for _ in 0..TRIES {
        let context = ObjectContext::of_operation(ObjectKind::Record, row.source, id);
        let sealed = seal_json(keys, context, &row).await?;
        store.put(ObjectKey::Record(place_of(&row)), sealed.into()).await?;
        // Whoever stored a row that is older by now sees it here, and stores the newer one.
        let now = catalog.operation(kind, id).await?;
        if now == row {
            return Ok(());
        }
        row = now;
    }
    Err(Error::new(ErrorKind::Transient, format!("keep the record of {id}: its row kept changing")))
}

/// The same where nothing may fail for want of a record.
pub(super) async fn keep_or_warn(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    catalog: &dyn Catalog,
    kind: OperationKind,
    id: OperationId,
) {
    if let Err(why) = keep(store, keys, catalog, kind, id).await {
        tracing::warn!(operation = %id, error = %why, "the record of an operation could not be kept");
    }
}

/// Writes a note to a backup's row, and keeps the row in the bucket. Gives the row as it is then.
pub async fn note(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    catalog: &dyn Catalog,
    id: OperationId,
    note: &BackupNote,
) -> Result<Operation> {
    let row = catalog.note(id, note).await?;
    keep(store, keys, catalog, OperationKind::Backup, id).await?;
    Ok(row)
}

/// Opens the record at `place`; `Corrupt` if it is not that of this operation of this source.
pub(super) async fn open(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    source: SourceName,
    place: Place,
) -> Result<Operation> {
    let (_, id) = named(place);
    let key = ObjectKey::Record(place);
    let context = ObjectContext::of_operation(ObjectKind::Record, source, id);
    let row: Operation = open_value(store, keys, key, &context).await?;
    if row.source != source || place_of(&row) != place {
        return Err(corrupt(format!("open {}: it is another operation's", super::path(key))));
    }
    Ok(row)
}

/// Keeps breaks in the bucket. What is there already stays as it is.
pub(super) async fn keep_breaks(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    source: SourceName,
    breaks: &[Break],
) -> Result<()> {
    for it in breaks {
        let sealed = seal_json(keys, break_context(source, it), it).await?;
        store.put_if_absent(break_key(source, it), sealed.into()).await?;
    }
    Ok(())
}

/// Opens the break at `key`; `Corrupt` if it is another one.
pub(super) async fn open_break(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    source: SourceName,
    key: ObjectKey,
) -> Result<Break> {
    let ObjectKey::Break(_, from, to, whom) = key else {
        return Err(Error::new(ErrorKind::Internal, format!("open {}: it is no break", super::path(key))));
    };
    let context =
        ObjectContext::of_operation(ObjectKind::Record, source, break_id(from.to_u64(), to.to_u64(), whom));
    let it: Break = open_value(store, keys, key, &context).await?;
    if break_key(source, &it) != key {
        return Err(corrupt(format!("open {}: it is another break", super::path(key))));
    }
    Ok(it)
}

/// Where a break of this source is kept.
pub(crate) fn break_key(source: SourceName, it: &Break) -> ObjectKey {
    ObjectKey::Break(source, it.from, it.to, whom(it))
}

fn break_context(source: SourceName, it: &Break) -> ObjectContext {
    let id = break_id(it.from.to_u64(), it.to.to_u64(), whom(it));
    ObjectContext::of_operation(ObjectKind::Record, source, id)
}

/// A number for the database that a break concerns, whose name may be hostile; 0 for every database.
fn whom(it: &Break) -> u64 {
    it.database.as_ref().map_or(0, |database| u64::from_be_bytes(first_bytes(database.as_bytes())))
}

/// What stands for the operation in a break's context: it belongs to none.
fn break_id(from: u64, to: u64, whom: u64) -> OperationId {
    OperationId::from_bytes(first_bytes(&[from, to, whom].map(u64::to_be_bytes).concat()))
}

/// The first bytes of the SHA-256.
fn first_bytes<const N: usize>(of: &[u8]) -> [u8; N] {
    let mut first = [0; N];
    first.iter_mut().zip(Sha256::digest(of)).for_each(|(to, from)| *to = from);
    first
}

/// Where the objects of an operation are.
const fn place_of(row: &Operation) -> Place {
    match &row.detail {
        Detail::Backup(detail) => Place::Backup(BackupPlace { trigger: detail.trigger, backup: row.id }),
        Detail::Restore(_) => Place::Restore(RestorePlace(row.id)),
        Detail::Drill(_) => Place::Drill(DrillPlace(row.id)),
        Detail::Prune(_) => Place::Prune(PrunePlace(row.id)),
    }
}

/// The operation whose objects are at `place`.
pub(super) const fn named(place: Place) -> (OperationKind, OperationId) {
    match place {
        Place::Backup(place) => (OperationKind::Backup, place.backup),
        Place::Restore(RestorePlace(id)) => (OperationKind::Restore, id),
        Place::Drill(DrillPlace(id)) => (OperationKind::Drill, id),
        Place::Prune(PrunePlace(id)) => (OperationKind::Prune, id),
    }
}

async fn open_value<T: DeserializeOwned>(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    key: ObjectKey,
    context: &ObjectContext,
) -> Result<T> {
    let mut reads = 1;
    loop {
        let object = store.get(key, RECORD_BYTES_MAX).await?;
        let opened: Result<Opened<T>> = open_json(keys, context, &object).await;
        match opened {
            Err(why) if why.kind() == ErrorKind::Corrupt && reads < super::READS_MAX => reads += 1,
            Err(why) => return Err(why.while_doing(format!("open {}", super::path(key)))),
            Ok(opened) => return Ok(opened.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ClusterTime;
    use crate::timeline::BreakReason;

    #[test]
    fn a_break_has_its_own_place_and_context() {
        let at = |ordinal| ClusterTime { seconds: 7, ordinal };
        let lost = |from, to, database: Option<&str>| Break {
            from: at(from),
            to: at(to),
            database: database.map(str::to_owned),
            reason: BreakReason::HistoryLost,
            noticed_millis: 0,
        };
        let source = "main".parse().unwrap();
        let all = [
            lost(1, 2, None),
            lost(1, 2, Some("crm")),
            lost(1, 2, Some("")),
            lost(1, 2, Some("../\u{0}")),
            lost(1, 3, None),
            lost(2, 2, None),
        ];
        for (number, it) in all.iter().enumerate() {
            let path = break_key(source, it).to_path().unwrap();
            assert_eq!(ObjectKey::from_path(&path), Some(break_key(source, it)));
            for other in &all[..number] {
                assert_ne!(break_key(source, other), break_key(source, it));
                assert_ne!(break_context(source, other), break_context(source, it));
            }
        }
        assert!(break_key(source, &all[0]).to_path().unwrap().ends_with("-0000000000000000.sealed"));
        let again = Break { reason: BreakReason::NotProved, noticed_millis: 9, ..all[1].clone() };
        assert_eq!(break_key(source, &again), break_key(source, &all[1]), "whatever is told of it");
    }
}
