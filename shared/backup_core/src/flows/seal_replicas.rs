//! `seal-replicas`: makes the copies of a backup in other regions complete, each with its manifest, which comes last.
//!
//! A region gets the manifest only if there is evidence that every chunk is there and good, if every one is still
//! there, and if the region's own key opens the manifest. So a half-copied backup never looks complete. A region that
//! does not get it is told to people; the others do not wait for it, and neither does the backup.

use std::collections::HashSet;

use crate::alert::Alert;
use crate::at_once::at_once;
use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::format::{BackupPlace, Manifest, ObjectKey, Opened, Place, ReplicatedChunks, WorkItem};
use crate::id::{OperationId, RegionName};
use crate::operation::{BackupNote, Operation, OperationKind, Replica};
use crate::ports::{Alerts, Catalog, Clock, DataKeys, ObjectStore, Region};

use super::close::work_items;
use super::copied::{LOOKS_AT_ONCE, Wanted, bring, in_each, is_to_be_copied};
use super::{path, record};

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service (to open the manifest and to seal the record).
    pub keys: &'a dyn DataKeys,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The other regions.
    pub regions: &'a [Region<'a>],
    /// The channels to people.
    pub alerts: &'a dyn Alerts,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for backup `id`. It succeeds even if a region has no complete copy; people are told. Does nothing if
/// the backup is to be removed; `Refused` unless it was verified.
pub async fn run(ports: Ports<'_>, id: OperationId) -> Result<()> {
    let Ports { store, keys, catalog, .. } = ports;
    let operation = catalog.operation(OperationKind::Backup, id).await?;
    if !is_to_be_copied(&operation)? {
        return Ok(());
    }
    let opened = super::open_manifest_and_key(store, keys, &operation).await?;
    let place = operation.backup_place()?;
    if store.size(ObjectKey::Record(Place::Backup(place))).await?.is_none() {
        record::keep(store, keys, catalog, OperationKind::Backup, id).await?;
    }
    let items = work_items(store, ObjectKey::BackupWork(place)).await?;
    let sealing = Sealing::new(ports, &operation, &opened, &items)?;
    let sealed = in_each(ports.regions, |region| sealing.seal_or_tell(region)).await?;
    let (mut row, mut complete) = (operation.clone(), Vec::new());
    for (region, replica) in sealed.into_iter().flatten() {
        if !row.backup()?.replicas.contains_key(&region.name) {
            let note = BackupNote::Replica(region.name, Some(replica));
            row = record::note(store, keys, catalog, id, &note).await?;
        }
        complete.push(region);
    }
    // The record names all of them only now.
    in_each(&complete, |region| sealing.finish_or_tell(region, &row)).await.map(|_| ())
}

struct Sealing<'a> {
    ports: Ports<'a>,
    operation: &'a Operation,
    place: BackupPlace,
    opened: &'a Opened<Manifest>,
    items: &'a [WorkItem],
    /// Every chunk's object, and its length.
    chunks: Vec<(ObjectKey, u64)>,
}

impl<'a> Sealing<'a> {
    fn new(
        ports: Ports<'a>,
        operation: &'a Operation,
        opened: &'a Opened<Manifest>,
        items: &'a [WorkItem],
    ) -> Result<Self> {
        let place = operation.backup_place()?;
        let chunks = opened.value.chunks().map(|(_, chunk)| {
            let key = ObjectKey::Chunk(place, chunk.ordinal, chunk.stored.attempt);
            (key, chunk.stored.stored_bytes)
        });
        Ok(Self { ports, operation, place, opened, items, chunks: chunks.collect() })
    }

    /// The region and what it holds; none if its copy is not complete.
    async fn seal_or_tell<'r>(&self, region: Region<'r>) -> Result<Option<(Region<'r>, Replica)>> {
        match self.seal(region).await {
            Ok(replica) => Ok(Some((region, replica))),
            Err(why) => self.tell(region.name, &why).await.map(|()| None),
        }
    }

    async fn finish_or_tell(&self, region: Region<'_>, row: &Operation) -> Result<()> {
        match self.finish(region, row).await {
            Ok(()) => Ok(()),
            Err(why) => self.tell(region.name, &why).await,
        }
    }

    async fn tell(&self, region: RegionName, why: &Error) -> Result<()> {
        self.ports.alerts.publish(&Alert::copy_incomplete(self.operation, region, why)).await
    }

    async fn seal(&self, region: Region<'_>) -> Result<Replica> {
        self.expect_evidence(region.name).await?;
        let looks = self.chunks.iter().copied().map(|(key, bytes)| expect_size(region, key, bytes));
        at_once(LOOKS_AT_ONCE, looks).await?;
        // Should the region's key not open it, it is better not there.
        let home = self.ports.store;
        self.open_manifest(home, region).await?;
        for key in self.beside().await? {
            bring(region, key, Wanted::AsAtHome(home)).await?;
        }
        let manifest = bring(region, ObjectKey::Manifest(self.place), Wanted::AsAtHome(home)).await?;
        self.open_manifest(region.store, region).await?;
        let totals = self.opened.value.totals();
        Ok(Replica {
            completed_millis: self.ports.clock.now_millis(),
            objects: totals.chunks + 1,
            stored_bytes: totals.stored_bytes.saturating_add(manifest.bytes),
        })
    }

    /// Opens the manifest in `store` with the region's key, and compares it with the row's SHA-256.
    async fn open_manifest(&self, store: &dyn ObjectStore, region: Region<'_>) -> Result<()> {
        if self.operation.backup()?.manifest_sha256.is_none() {
            return Err(corrupt("seal a copy: the catalog tells no SHA-256 of the manifest"));
        }
        let opened = super::open_manifest_and_key(store, region.keys, self.operation).await;
        opened.map(|_| ()).map_err(|why| {
            let told = why.while_doing(format!("open the manifest with the key of {}", region.name));
            match told.kind() {
                // The home region's key has just opened it.
                ErrorKind::Corrupt => told.hint("the backup itself is sound: replicate it again"),
                _ => told,
            }
        })
    }

    /// Fails unless a step has proved every chunk in the region.
    async fn expect_evidence(&self, region: RegionName) -> Result<()> {
        let keys = self.items.iter().map(|item| ObjectKey::Replicated(self.place, region, item.first));
        let (store, evidence) = (self.ports.store, &self.opened.evidence);
        let proved: Vec<ReplicatedChunks> = super::read_what_evidence_there_is(store, evidence, keys).await?;
        let proved: HashSet<u32> = proved.into_iter().flat_map(|it| it.ordinals).collect();
        let all = self.opened.value.chunks().map(|(_, chunk)| chunk.ordinal);
        let missing: Vec<u32> = all.filter(|ordinal| !proved.contains(ordinal)).collect();
        let Some(first) = missing.iter().min() else { return Ok(()) };
        let (missing, all) = (missing.len(), self.chunks.len());
        let what = format!("nothing shows that {missing} of {all} chunks are there (the first is {first})");
        Err(Error::new(ErrorKind::Partial, format!("seal the copy in {region}: {what}"))
            .hint("the log of replicate-regions says why they could not be copied"))
    }

    /// What stands beside the manifest and the chunks.
    async fn beside(&self) -> Result<Vec<ObjectKey>> {
        let mut keys = vec![ObjectKey::BackupWork(self.place)];
        keys.extend(self.reports().await?);
        keys.push(self.record());
        Ok(keys)
    }

    /// Those there are: a backup of which only the bucket knew has none.
    async fn reports(&self) -> Result<Vec<ObjectKey>> {
        let mut keys = Vec::new();
        for key in [ObjectKey::BackupReport(self.place), ObjectKey::BackupPage(self.place)] {
            if self.ports.store.size(key).await?.is_some() {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    const fn record(&self) -> ObjectKey {
        ObjectKey::Record(Place::Backup(self.place))
    }

    /// Brings the record as it is now, and locks everything as it is at home. Whoever extends the locks after `row` was
    /// read finds the region in it.
    async fn finish(&self, region: Region<'_>, row: &Operation) -> Result<()> {
        bring(region, self.record(), Wanted::AsAtHome(self.ports.store)).await?;
        let until_millis = row.backup()?.locked_until_millis;
        if until_millis <= self.ports.clock.now_millis() {
            return Ok(());
        }
        let beside = [ObjectKey::Manifest(self.place), self.record()];
        let reports = self.reports().await?;
        let keys = self.chunks.iter().map(|(key, _)| *key).chain(beside).chain(reports);
        at_once(LOOKS_AT_ONCE, keys.map(|key| region.locks.lock(key, until_millis))).await.map(|_| ())
    }
}

/// Evidence is of some time ago; so near before the manifest comes, every object has to be there.
async fn expect_size(region: Region<'_>, key: ObjectKey, bytes: u64) -> Result<()> {
    let found = region.store.size(key).await?;
    if found == Some(bytes) {
        return Ok(());
    }
    let what = format!("check {} in {}: it is missing or has another length", path(key), region.name);
    Err(corrupt(what).hint("replicate the backup again: what is missing is copied again"))
}
