//! Which backup a restore reads, and what of it. Two steps ask: `thaw` chooses the backup, notes it in the restore's
//! row and asks cold storage for its chunks; `plan-restore`, perhaps a day later, comes to the same one.

use std::collections::BTreeSet;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Manifest, ObjectKey};
use crate::id::{ClusterTime, OperationId};
use crate::operation::{Operation, OperationKind, OperationState, RestoreTime};
use crate::plan::point_in_time::PointInTime;
use crate::ports::{Catalog, DataKeys, ObjectStore, Timeline};

use super::point_in_time::{Purpose, database_at, find_base_again};
use super::upkeep::BACKUPS_LOOKED_AT_MAX;

/// What a restore reads.
pub(super) struct Chosen {
    /// The backup's row.
    pub(super) backup: Operation,
    /// The instant it is folded to; none restores what it holds.
    pub(super) time: Option<ClusterTime>,
}

/// Chooses the backup that was named, the newest good one that has what is wanted, or the base of the instant that was
/// asked for; the one that was chosen before, if it will still do. Unless only a plan was asked for, it is noted in the
/// restore's row with the exact instant, and nobody removes it before the restore has ended.
pub(super) async fn choose(
    catalog: &dyn Catalog,
    timeline: &dyn Timeline,
    operation: &mut Operation,
) -> Result<Chosen> {
    let detail = operation.restore()?;
    let Some(wanted) = detail.at else {
        let backup = find_backup(catalog, operation).await?.id;
        return Ok(Chosen { backup: claim(catalog, operation, backup).await?, time: None });
    };
    let database = &operation.database;
    let (base, time) = find_base_again(catalog, timeline, database, wanted, detail.backup).await?;
    // Written together with the backup: the newest instant will soon be another one.
    operation.restore_mut()?.at = Some(RestoreTime::At(time));
    Ok(Chosen { backup: claim(catalog, operation, base).await?, time: Some(time) })
}

impl Chosen {
    /// Opens its manifest, and folds collections, views and indexes to its instant.
    pub(super) async fn open(
        &self,
        store: &dyn ObjectStore,
        keys: &dyn DataKeys,
        timeline: &dyn Timeline,
    ) -> Result<Contents> {
        let base = super::open_manifest(store, keys, &self.backup).await?;
        let at = match self.time {
            Some(time) => Some(database_at(store, keys, timeline, &base, time, Purpose::Restore).await?),
            None => None,
        };
        Ok(Contents { base, at })
    }
}

/// What the chosen backup holds.
pub(super) struct Contents {
    base: Manifest,
    /// The database as of the instant, where one was asked for.
    pub(super) at: Option<PointInTime>,
}

impl Contents {
    /// What is restored: the backup's manifest as it is, or folded to the instant.
    pub(super) fn manifest(&self) -> &Manifest {
        self.at.as_ref().map_or(&self.base, |at| &at.manifest)
    }

    /// The stored chunks that these collections are restored from; all of them if none are named. A collection may have
    /// had another name when the backup was taken.
    pub(super) fn chunks_needed(&self, collections: &[String]) -> Vec<ObjectKey> {
        let wanted = |name: &String| collections.is_empty() || collections.contains(name);
        let chunks = self.manifest().chunks().filter(|(entry, _)| wanted(&entry.namespace.name));
        let restored: BTreeSet<u32> = chunks.map(|(_, chunk)| chunk.ordinal).collect();
        let read: BTreeSet<u32> = match &self.at {
            Some(at) => {
                let units = at.units.iter().filter(|unit| restored.contains(&unit.ordinal));
                units.flat_map(|unit| unit.bases.iter().copied()).collect()
            }
            None => restored,
        };
        let place = self.base.place();
        let stored = self.base.chunks().filter(|(_, chunk)| read.contains(&chunk.ordinal));
        stored.map(|(_, chunk)| ObjectKey::Chunk(place, chunk.ordinal, chunk.stored.attempt)).collect()
    }
}

/// The backup's row, once it is sure that nobody removes it before the restore has ended; a plan alone needs no such
/// promise.
async fn claim(catalog: &dyn Catalog, operation: &mut Operation, backup: OperationId) -> Result<Operation> {
    if operation.restore()?.dry_run {
        return catalog.operation(OperationKind::Backup, backup).await;
    }
    super::uses::claim(catalog, operation, backup).await
}

/// The backup that was named, or the newest good one that has what is wanted.
async fn find_backup(catalog: &dyn Catalog, operation: &Operation) -> Result<Operation> {
    if let Some(id) = operation.restore()?.backup {
        return find_named(catalog, operation, id).await;
    }
    let has_wanted = |backup: &Operation| {
        backup.collections.is_empty()
            || (!operation.collections.is_empty()
                && operation.collections.iter().all(|it| backup.collections.contains(it)))
    };
    let is_good = |it: &Operation| {
        it.state == OperationState::Verified && it.backup().is_ok_and(|detail| !detail.is_leaving())
    };
    let all = catalog.operations(OperationKind::Backup, BACKUPS_LOOKED_AT_MAX).await?;
    all.into_iter()
        .find(|it| is_good(it) && it.database == operation.database && has_wanted(it))
        .ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("restore {:?}: there is no verified backup of it", operation.database))
                .hint("`nightsafe list` shows the backups; a backup of single collections does not make a database whole")
        })
}

async fn find_named(catalog: &dyn Catalog, operation: &Operation, id: OperationId) -> Result<Operation> {
    let good = |backup: &Operation| matches!(backup.state, OperationState::Verified | OperationState::Sealed);
    let backup = catalog.operation(OperationKind::Backup, id).await?;
    if backup.database != operation.database {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("restore {:?} from {id}: that is a backup of {:?}", operation.database, backup.database),
        )
        .hint(format!("name that database: -d {}", backup.database)));
    }
    // Sealed but damaged backups may be asked for by name: the read-back decides.
    if !good(&backup) && backup.backup()?.manifest_sha256.is_none() {
        let what = format!("restore {id}: that backup is {} and has no manifest", backup.state);
        return Err(
            Error::new(ErrorKind::NotFound, what).hint("`nightsafe list` shows the backups there are")
        );
    }
    if operation.restore()?.full && !backup.collections.is_empty() {
        return Err(Error::new(
            ErrorKind::Refused,
            format!(
                "restore {:?} as a whole from {id}: that backup holds only some collections",
                operation.database
            ),
        )
        .hint("everything else would be moved aside; name its collections with -c"));
    }
    super::uses::still_there(backup)
}
