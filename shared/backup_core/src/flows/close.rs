//! `close`: ends a backup well, if there is evidence that every chunk was read back and found good.

use std::collections::HashSet;

use crate::alert::Alert;
use crate::audit::{AuditRecord, AuditStatus};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    BackupPlace, Manifest, ObjectKey, Opened, Sampled, VerifiedChunks, WorkItem, read_work_items,
};
use crate::id::OperationId;
use crate::operation::{BackupNote, Operation, OperationKind, OperationState, Pipeline};
use crate::ports::{Alerts, Catalog, Clock, DataKeys, Locks, Machines, ObjectStore, Timeline};
use crate::report::IntegrityReport;
use crate::retention::Period;

/// Work items are short lines; 32,768 of them are below 2 MiB.
const WORK_BYTES_MAX: u64 = 16 * crate::settings::MIB;

pub(super) async fn work_items(store: &dyn ObjectStore, key: ObjectKey) -> Result<Vec<WorkItem>> {
    let mut reads = 1;
    loop {
        let told = |why: Error| why.while_doing(format!("read {}", super::path(key)));
        match read_work_items(&store.get(key, WORK_BYTES_MAX).await?).map_err(told) {
            Err(_) if reads < super::READS_MAX => reads += 1,
            other => return other,
        }
    }
}

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service (to open the manifest).
    pub keys: &'a dyn DataKeys,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The timeline.
    pub timeline: &'a dyn Timeline,
    /// The bucket's locks.
    pub locks: &'a dyn Locks,
    /// The state machines, to start the copies in other regions.
    pub machines: &'a dyn Machines,
    /// The channels to people.
    pub alerts: &'a dyn Alerts,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// What a backup that ends well is given.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// How long its objects are locked at least.
    pub lock: Period,
    /// Whether it is copied to other regions.
    pub replicate: bool,
}

/// Runs the step for backup `id`.
pub async fn run(ports: Ports<'_>, commit: Commit, id: OperationId) -> Result<()> {
    let mut operation = ports.catalog.operation(OperationKind::Backup, id).await?;
    if operation.state == OperationState::Sealed {
        end_well(ports, commit, &mut operation).await?;
    }
    if operation.state != OperationState::Verified {
        return Err(Error::new(ErrorKind::Internal, format!("close backup {id}: it is {}", operation.state)));
    }
    super::record::keep(ports.store, ports.keys, ports.catalog, OperationKind::Backup, id).await?;
    let finished = operation.finished_millis.unwrap_or_else(|| ports.clock.now_millis());
    ports.catalog.append_audit(id, &AuditRecord::of(&operation, AuditStatus::Success, finished)).await?;
    ports.catalog.release_lease(&operation.resource(), id).await?;
    if commit.replicate {
        ports.machines.start(Pipeline::Replicate, &operation).await?;
    }
    Ok(())
}

async fn end_well(ports: Ports<'_>, commit: Commit, operation: &mut Operation) -> Result<()> {
    let (id, place, now) = (operation.id, operation.backup_place()?, ports.clock.now_millis());
    let opened = super::open_manifest_and_key(ports.store, ports.keys, operation).await?;
    let manifest = &opened.value;
    let items = work_items(ports.store, ObjectKey::BackupWork(place)).await?;
    let keys = items.iter().map(|item| ObjectKey::Verified(place, item.first));
    let found: Vec<VerifiedChunks> = super::read_all_evidence(ports.store, &opened.evidence, keys).await?;
    let verified: HashSet<u32> = found.into_iter().flat_map(|it| it.ordinals).collect();
    if let Some((_, chunk)) = manifest.chunks().find(|(_, chunk)| !verified.contains(&chunk.ordinal)) {
        return Err(Error::new(
            ErrorKind::Internal,
            format!("close backup {id}: nothing shows that chunk {} was verified", chunk.ordinal),
        ));
    }
    let proof = super::chain_proof::conclude(ports, operation, &opened).await?;
    let sample = sampled(ports.store, &opened, place).await?;
    match &sample {
        None => tell(ports.alerts, &Alert::sample_not_taken(operation)).await?,
        Some(Sampled { checks_failed: Some(why), .. }) => {
            tell(ports.alerts, &Alert::checks_not_passed(operation, why)).await?;
        }
        Some(_) => {}
    }
    let report = IntegrityReport::of(operation, manifest, verified.len(), proof, sample, now)?;
    ports.store.put(ObjectKey::BackupReport(place), report.to_json()?).await?;
    ports.store.put(ObjectKey::BackupPage(place), report.to_html()).await?;
    let locked_until = lock_end(commit.lock, id, now);
    if locked_until > now {
        for key in [ObjectKey::Manifest, ObjectKey::BackupReport, ObjectKey::BackupPage] {
            ports.locks.lock(key(place), locked_until).await?;
        }
    }
    // Those of the manifest that is stored: a doubled `seal-backup` may have had another one in mind.
    operation.totals = manifest.totals();
    operation.state = OperationState::Verified;
    operation.finished_millis = Some(now);
    operation.failure = None;
    let detail = operation.backup_mut()?;
    detail.consistency = Some(manifest.consistency);
    detail.lost = manifest.lost();
    detail.proof = proof;
    BackupNote::Proved(report.levels, now).apply(detail);
    BackupNote::Locked(locked_until).apply(detail);
    ports.catalog.update_operation(operation).await
}

/// Tells people something about a backup that is good all the same: a channel that is broken for good does not make it
/// a bad one. The report beside the backup says it, too.
pub(super) async fn tell(alerts: &dyn Alerts, alert: &Alert) -> Result<()> {
    match alerts.publish(alert).await {
        Err(why) if !why.kind().is_retryable() => {
            tracing::error!(subject = %alert.subject, why = %why, "an alert could not be published");
            Ok(())
        }
        told => told,
    }
}

/// Until when a backup's objects are locked at once. Whoever asked for it may have had a clock that is ahead, and a lock
/// cannot be taken back.
pub(super) fn lock_end(lock: Period, backup: OperationId, now_millis: u64) -> u64 {
    lock.end(backup.requested_millis().min(now_millis))
}

/// What became of the sample; none if nobody took one.
async fn sampled(
    store: &dyn ObjectStore,
    opened: &Opened<Manifest>,
    place: BackupPlace,
) -> Result<Option<Sampled>> {
    match super::read_evidence(store, &opened.evidence, ObjectKey::Sampled(place)).await {
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}
