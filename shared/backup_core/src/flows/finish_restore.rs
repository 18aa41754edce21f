//! `finish-restore`: wants evidence that every chunk was validated, brings back expiries, compares options and
//! indexes field by field, and swaps staging in by rename. If anything fails, what was live is brought back.

use std::collections::HashSet;

use crate::audit::{AuditRecord, AuditStatus};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ManifestNamespace, ObjectKey, VerifiedChunks};
use crate::id::OperationId;
use crate::namespace::{Namespace, NamespaceKind, OwnName, same_fields, same_set};
use crate::operation::{KeptAside, Operation, OperationKind, OperationState};
use crate::plan::metadata::{creation_options, last_options, without};
use crate::plan::restore::RestorePlan;
use crate::ports::{Catalog, Clock, DataKeys, ObjectStore, Target};

use super::restore_chunk::Restoring;
use super::swap::{swap_back, swap_in, tidy_up};

/// How many replaced collections a catalog row names.
const KEPT_ASIDE_MAX: usize = 100;

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The target.
    pub target: &'a dyn Target,
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service.
    pub keys: &'a dyn DataKeys,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for restore `id`.
pub async fn run(ports: Ports<'_>, id: OperationId) -> Result<()> {
    let mut operation = ports.catalog.operation(OperationKind::Restore, id).await?;
    // A repeat finds it restored, and perhaps its lease free again.
    if operation.state != OperationState::Restored {
        let restoring = Restoring::open(ports.catalog, ports.store, ports.keys, id).await?;
        operation = validate_and_swap(ports, &restoring).await?;
    }
    let finished = operation.finished_millis.unwrap_or_else(|| ports.clock.now_millis());
    tidy_up(ports.target, id, &operation.database).await?;
    super::record::keep(ports.store, ports.keys, ports.catalog, OperationKind::Restore, id).await?;
    ports.catalog.append_audit(id, &AuditRecord::of(&operation, AuditStatus::Success, finished)).await?;
    ports.catalog.release_lease(&operation.resource(), id).await
}

async fn validate_and_swap(ports: Ports<'_>, restoring: &Restoring) -> Result<Operation> {
    let mut operation = restoring.operation.clone();
    let documents = every_chunk_was_validated(ports.store, restoring).await?;
    check_and_complete_metadata(ports.target, restoring).await?;
    ports.catalog.check_lease(&operation).await?;
    // Claims the swap: should another run of this step overtake this one, its last write below is refused.
    ports.catalog.update_operation(&mut operation).await?;
    let swapped = swap_in(ports.target, operation.id, &restoring.plan).await;
    let swapped = match swapped {
        Ok(()) => index_timeseries(ports.target, restoring).await,
        Err(why) => Err(why),
    };
    if let Err(why) = swapped {
        // If another run of this step has claimed the swap since, what is there is its to bring to an end.
        ports.catalog.update_operation(&mut operation).await?;
        let back = swap_back(ports.target, operation.id, &restoring.plan).await;
        back.map_err(|worse| worse.while_doing(format!("take back a swap that failed ({why})")))?;
        return Err(why);
    }
    operation.state = OperationState::Restored;
    operation.failure = None;
    operation.totals.documents = documents; // of what is folded, it was a guess so far
    operation.finished_millis = Some(ports.clock.now_millis());
    operation.restore_mut()?.kept_aside = kept_aside(operation.id, &restoring.plan);
    ports.catalog.update_operation(&mut operation).await?;
    Ok(operation)
}

/// How many documents there are in all.
async fn every_chunk_was_validated(store: &dyn ObjectStore, restoring: &Restoring) -> Result<u64> {
    let place = restoring.operation.restore_place();
    let keys = restoring.plan.work.iter().map(|item| ObjectKey::Validated(place, item.first));
    let found: Vec<VerifiedChunks> = super::read_all_evidence(store, &restoring.evidence, keys).await?;
    let documents = found.iter().map(|it| it.documents).sum();
    let validated: HashSet<u32> = found.into_iter().flat_map(|it| it.ordinals).collect();
    for entry in
        restoring.manifest.namespaces.iter().filter(|it| restoring.plan.item(&it.namespace.name).is_ok())
    {
        if let Some(chunk) = entry.chunks.iter().find(|chunk| !validated.contains(&chunk.ordinal)) {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("finish restore: nothing shows that chunk {} was validated", chunk.ordinal),
            ));
        }
    }
    Ok(documents)
}

/// Compares staging with the backup, brings the expiries back, and compares the whole.
async fn check_and_complete_metadata(target: &dyn Target, restoring: &Restoring) -> Result<()> {
    let database = &restoring.operation.database;
    let mut staged = Vec::new();
    for item in restoring.plan.items.iter().filter(|item| item.kind == NamespaceKind::Collection) {
        let entry = restoring.manifest.namespaces.iter().find(|it| it.namespace.name == item.name);
        let entry =
            entry.ok_or_else(|| Error::new(ErrorKind::Internal, "find a restored collection's metadata"))?;
        staged.push((item, entry, restoring.staging(entry)?));
    }
    let now = target.namespaces(database).await?;
    for (item, entry, staging) in &staged {
        let Some(found) = now.iter().find(|it| it.name == *staging && it.uuid == item.staging) else {
            continue; // swapped in already by an earlier run of this step
        };
        let wanted = creation_options(&entry.namespace)?;
        if !same_fields(&without(&found.options, &["expireAfterSeconds"])?, &wanted) {
            return Err(differs(&item.name, "options"));
        }
        for fields in last_options(&entry.namespace)? {
            target.modify(database, staging, &fields).await?;
        }
    }
    let now = target.namespaces(database).await?;
    for (item, entry, staging) in &staged {
        if let Some(found) = now.iter().find(|it| it.name == *staging && it.uuid == item.staging) {
            compare_whole(entry, found)?;
        }
    }
    Ok(())
}

pub(super) fn compare_whole(entry: &ManifestNamespace, found: &Namespace) -> Result<()> {
    let wanted = without(&entry.namespace.options, &["autoIndexId"])?;
    if !same_fields(&found.options, &wanted) {
        return Err(differs(&entry.namespace.name, "options"));
    }
    if !same_set(&found.indexes, &entry.namespace.indexes) {
        return Err(differs(&entry.namespace.name, "indexes"));
    }
    Ok(())
}

fn differs(name: &str, what: &str) -> Error {
    Error::new(ErrorKind::ValidationFailed, format!("validate {name:?}: its {what} are not the backup's"))
        .hint("the target may be of another version; nothing was swapped in")
}

/// The indexes of time series are built on the filled collection, because their staging is not a time series. Then the
/// whole is compared, as it was for the others before the swap.
async fn index_timeseries(target: &dyn Target, restoring: &Restoring) -> Result<()> {
    for item in restoring.plan.items.iter().filter(|item| item.kind == NamespaceKind::Timeseries) {
        let entry = restoring.manifest.namespaces.iter().find(|it| it.namespace.name == item.name);
        let indexes = entry.map(|entry| entry.namespace.indexes.as_slice()).unwrap_or_default();
        if !indexes.is_empty() {
            target.create_indexes(&restoring.plan.database, &item.name, indexes).await?;
        }
    }
    let now = target.namespaces(&restoring.plan.database).await?;
    for entry in
        restoring.manifest.namespaces.iter().filter(|it| it.namespace.kind == NamespaceKind::Timeseries)
    {
        let name = &entry.namespace.name;
        let found = now.iter().find(|it| it.name == *name).filter(|_| restoring.plan.item(name).is_ok());
        found.map_or(Ok(()), |found| compare_whole(entry, found))?;
    }
    Ok(())
}

fn kept_aside(id: OperationId, plan: &RestorePlan) -> Vec<KeptAside> {
    let replaced = plan.items.iter().filter_map(|item| Some((item.number, &item.name, item.live.as_ref()?)));
    let moved = plan.extras.iter().map(|extra| (extra.number, &extra.name, &extra.live));
    replaced
        .chain(moved)
        .filter(|(_, _, live)| live.kind == NamespaceKind::Collection)
        .take(KEPT_ASIDE_MAX)
        .map(|(number, name, _)| KeptAside {
            name: name.clone(),
            aside: OwnName::Aside(id, number).to_string(),
        })
        .collect()
}
