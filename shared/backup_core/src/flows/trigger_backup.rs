//! `trigger-backup`: takes the lease, looks at the server, picks T, plans the chunks.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    BackupPlan, ObjectContext, ObjectKey, ObjectKind, PlannedChunk, PlannedNamespace, seal_json,
    write_work_items,
};
use crate::id::{ClusterTime, OperationId};
use crate::namespace::{Label, Namespace};
use crate::operation::{Operation, OperationKind, OperationState};
use crate::plan::capture::{capture, major_version};
use crate::plan::ranges::{pack, parts, ranges, samples};
use crate::ports::{Catalog, Clock, DataKeys, ObjectStore, PutOutcome, Source, Timeline};
use crate::settings::Settings;

/// How often metadata is read again until it keeps still around T.
const METADATA_TRIES: u32 = 5;

/// What the state machine needs next: where the work items are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Triggered {
    /// The key of the work items.
    pub work_key: String,
}

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The source.
    pub source: &'a dyn Source,
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service (to seal and, on a repeat, to open the plan).
    pub keys: &'a dyn DataKeys,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The timeline: it begins before the first backup's T.
    pub timeline: &'a dyn Timeline,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for backup `id`.
pub async fn run(ports: Ports<'_>, settings: &Settings, id: OperationId) -> Result<Triggered> {
    let mut operation = ports.catalog.operation(OperationKind::Backup, id).await?;
    let place = operation.backup_place()?;
    let triggered = Triggered { work_key: ObjectKey::BackupWork(place).to_path()? };
    if operation.state != OperationState::Requested {
        ports.catalog.check_lease(&operation).await?;
        return Ok(triggered); // a repeat: the plan is there
    }
    let facts = ports.source.preflight().await?;
    let force = operation.backup()?.force;
    let fence = super::lease_to_begin(ports.catalog, ports.clock, &operation, force).await?;
    let Some(fence) = fence else { return Ok(triggered) }; // another run was faster
    operation.fence = Some(fence);
    super::capture_log::begin_at_now(ports.source, ports.timeline, ports.clock).await?;
    let plan = make_plan(ports.source, settings, &operation, facts.version).await?;
    let context = ObjectContext::of_operation(ObjectKind::Plan, operation.source, id);
    let sealed = seal_json(ports.keys, context, &plan).await?;
    let stored = ports.store.put_if_absent(ObjectKey::BackupPlan(place), sealed.into()).await?;
    // A killed or doubled run may have put its plan first; everybody goes by that one.
    let plan = match stored {
        PutOutcome::Stored => plan,
        PutOutcome::AlreadyThere => super::open_plan(ports.store, ports.keys, &operation).await?.value,
    };
    let items = pack(&expected_bytes(&plan), settings.chunk_target_bytes);
    ports.store.put(ObjectKey::BackupWork(place), write_work_items(&items)?.into()).await?;
    operation.state = OperationState::Running;
    operation.backup_mut()?.cluster_time = Some(plan.cluster_time);
    operation.totals.chunks = u64::try_from(plan.chunks()).unwrap_or(u64::MAX);
    operation.totals.namespaces = u64::try_from(plan.namespaces.len()).unwrap_or(u64::MAX);
    ports.catalog.update_operation(&mut operation).await?;
    Ok(triggered)
}

async fn make_plan(
    source: &dyn Source,
    settings: &Settings,
    operation: &Operation,
    server_version: String,
) -> Result<BackupPlan> {
    let major = major_version(&server_version);
    let (all, cluster_time, metadata_is_exact) = still_metadata(source, &operation.database).await?;
    let chosen = choose(source, operation, all).await?;
    let mut next_ordinal = 0_u32..;
    let mut namespaces = Vec::with_capacity(chosen.len());
    for namespace in chosen {
        namespaces
            .push(plan_namespace(source, settings, operation, namespace, major, &mut next_ordinal).await?);
    }
    let (database, collections) = (operation.database.clone(), operation.collections.clone());
    Ok(BackupPlan { database, collections, server_version, cluster_time, metadata_is_exact, namespaces })
}

/// Metadata cannot be read at an instant. Read before and after T and equal, it is what it was at T.
async fn still_metadata(source: &dyn Source, database: &str) -> Result<(Vec<Namespace>, ClusterTime, bool)> {
    let mut before = source.namespaces(database).await?;
    let mut tries = 0;
    loop {
        let time = source.cluster_time().await?;
        let after = source.namespaces(database).await?;
        let still = before.len() == after.len()
            && before.iter().zip(&after).all(|(left, right)| left.is_same_state(right));
        tries += 1;
        if still || tries == METADATA_TRIES {
            return Ok((after, time, still));
        }
        before = after;
    }
}

async fn choose(source: &dyn Source, operation: &Operation, all: Vec<Namespace>) -> Result<Vec<Namespace>> {
    let database = &operation.database;
    if all.is_empty() {
        let others = source.databases().await?;
        let exists = others.contains(database);
        let what = if exists { "it has no collections" } else { "there is no such database" };
        return Err(Error::new(ErrorKind::NotFound, format!("back up database {database:?}: {what}"))
            .hint(format!("databases on this source: {}", list(&others))));
    }
    for name in &operation.collections {
        if !all.iter().any(|namespace| namespace.name == *name) {
            let known: Vec<String> = all.iter().map(|namespace| namespace.name.clone()).collect();
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("back up {name:?}: database {database:?} has no such collection"),
            )
            .hint(format!("collections: {}", list(&known))));
        }
    }
    let wanted = |namespace: &Namespace| {
        operation.collections.is_empty() || operation.collections.contains(&namespace.name)
    };
    Ok(all.into_iter().filter(wanted).collect())
}

fn list(names: &[String]) -> String {
    const NAMES_MAX: usize = 20;
    let shown: Vec<&str> = names.iter().take(NAMES_MAX).map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMES_MAX);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

async fn plan_namespace(
    source: &dyn Source,
    settings: &Settings,
    operation: &Operation,
    namespace: Namespace,
    major: u32,
    next_ordinal: &mut impl Iterator<Item = u32>,
) -> Result<PlannedNamespace> {
    let capture = capture(&namespace, major);
    let mut planned = PlannedNamespace {
        label: capture.label,
        reason: capture.reason.map(str::to_owned),
        document_bytes_hint: 0,
        expected_bytes: 0,
        chunks: Vec::new(),
        namespace,
    };
    let Some(uuid) = planned.namespace.uuid.filter(|_| capture.documents) else { return Ok(planned) };
    let name = planned.namespace.documents_name();
    let size = source.size_hint(&operation.database, &name).await?;
    planned.document_bytes_hint = size.bytes / size.documents.max(1);
    planned.expected_bytes = size.bytes;
    let parts = if capture.label == Label::Fuzzy { 1 } else { parts(size, settings.chunk_target_bytes) };
    let sampled = match parts {
        1 => Vec::new(),
        _ => source.sample(&operation.database, &name, uuid, samples(parts, size)).await?,
    };
    let chunks = ranges(&sampled, parts).into_iter().zip(next_ordinal);
    planned.chunks = chunks.map(|(range, ordinal)| PlannedChunk { ordinal, range }).collect();
    Ok(planned)
}

/// What each chunk is expected to hold, in the order of ordinals.
fn expected_bytes(plan: &BackupPlan) -> Vec<u64> {
    let mut all = Vec::with_capacity(plan.chunks());
    for namespace in &plan.namespaces {
        let count = u64::try_from(namespace.chunks.len()).unwrap_or(u64::MAX).max(1);
        all.extend(namespace.chunks.iter().map(|_| namespace.expected_bytes / count));
    }
    all
}
