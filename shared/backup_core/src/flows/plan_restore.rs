//! `plan-restore`: finds the backup, says what will happen, and, unless only a plan was asked for, takes the lease
//! on the target's database and creates the staging collections.

use serde::{Deserialize, Serialize};

use crate::alert::Alert;
use crate::at_once::at_once;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Manifest, ObjectContext, ObjectKey, ObjectKind, WorkItem, seal_json, write_work_items};
use crate::id::OperationId;
use crate::namespace::{Namespace, NamespaceKind, OwnName};
use crate::operation::{Operation, OperationKind, OperationState};
use crate::plan::metadata::creation_options;
use crate::plan::ranges::{pack, pack_some};
use crate::plan::restore::{RestoreItem, RestorePlan, plan};
use crate::ports::{Alerts, Catalog, Clock, DataKeys, ObjectStore, Target, Timeline};
use crate::settings::Settings;

use super::chosen_backup::choose;

/// Staging collections that are created at once: a server waits for its journal and its majority at each of them.
const CREATED_AT_ONCE: usize = 8;

/// What the state machine needs next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Whether to go on: false if only a plan was asked for.
    pub proceed: bool,
    /// The key of the work items.
    pub work_key: String,
}

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
    /// The timeline.
    pub timeline: &'a dyn Timeline,
    /// The channels to people.
    pub alerts: &'a dyn Alerts,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for restore `id`.
pub async fn run(ports: Ports<'_>, settings: &Settings, id: OperationId) -> Result<Planned> {
    let mut operation = ports.catalog.operation(OperationKind::Restore, id).await?;
    let dry_run = operation.restore()?.dry_run;
    let place = operation.restore_place();
    let planned = Planned { proceed: !dry_run, work_key: ObjectKey::RestoreWork(place).to_path()? };
    if operation.state != OperationState::Requested {
        return Ok(planned); // a repeat: the plan is there
    }
    ports.target.preflight().await?;
    let chosen = choose(ports.catalog, ports.timeline, &mut operation).await?;
    let contents = chosen.open(ports.store, ports.keys, ports.timeline).await?;
    let manifest = contents.manifest();
    if !dry_run {
        let fence = super::lease_to_begin(ports.catalog, ports.clock, &operation, false).await?;
        let Some(fence) = fence else { return Ok(planned) }; // another run was faster
        operation.fence = Some(fence);
    }
    let live = ports.target.namespaces(&operation.database).await?;
    let work = work_items(manifest, &operation, settings);
    let mut plan = plan(manifest, &operation.collections, operation.restore()?.full, &live, work)?;
    plan.at.clone_from(&contents.at);
    if !dry_run {
        agreed(&operation, &plan)?;
        stage(ports.target, &operation, manifest, &mut plan, &live).await?;
        ports.alerts.publish(&Alert::restore_initiated(&operation, plan.replaces())).await?;
    }
    let context = ObjectContext::of_operation(ObjectKind::Plan, operation.source, id);
    let sealed = seal_json(ports.keys, context, &plan).await?;
    ports.store.put(ObjectKey::RestorePlan(place), sealed.into()).await?;
    ports.store.put(ObjectKey::RestoreWork(place), write_work_items(&plan.work)?.into()).await?;
    operation.state = if dry_run { OperationState::Planned } else { OperationState::Running };
    operation.restore_mut()?.backup = Some(chosen.backup.id);
    operation.totals.namespaces = u64::try_from(plan.items.len()).unwrap_or(u64::MAX);
    operation.totals.documents = plan.items.iter().map(|item| item.documents).sum();
    operation.totals.bson_bytes = plan.items.iter().map(|item| item.bson_bytes).sum();
    ports.catalog.update_operation(&mut operation).await?;
    Ok(planned)
}

fn agreed(operation: &Operation, plan: &RestorePlan) -> Result<()> {
    if plan.replaces() == 0 || operation.restore()?.may_replace {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Refused,
        format!(
            "restore {:?}: it would replace {} live collections or views",
            operation.database,
            plan.replaces()
        ),
    )
    .hint("look at it with --dry-run, then agree with --yes"))
}

/// Chunks of the wanted collections, packed by their true sizes.
fn work_items(manifest: &Manifest, operation: &Operation, settings: &Settings) -> Vec<WorkItem> {
    let wanted = |name: &String| operation.collections.is_empty() || operation.collections.contains(name);
    let chunks = manifest.chunks().filter(|(namespace, _)| wanted(&namespace.namespace.name));
    let mut items =
        pack_some(chunks.map(|(_, it)| (it.ordinal, it.stored.bson_bytes)), settings.chunk_target_bytes);
    if items.is_empty() {
        items = pack(&[], settings.chunk_target_bytes); // a restore of views: there has to be something to do
    }
    items
}

/// Creates the staging collections and notes which they are; drops what dead restores left of theirs.
async fn stage(
    target: &dyn Target,
    operation: &Operation,
    manifest: &Manifest,
    plan: &mut RestorePlan,
    live: &[Namespace],
) -> Result<()> {
    let database = &operation.database;
    for orphan in live {
        // We hold the lease on this database, so no other restore is alive in it.
        let own = OwnName::parse(&orphan.name).and_then(OwnName::passing);
        if own.is_some_and(|id| id != operation.id) {
            target.drop_namespace(database, &orphan.name).await?;
        }
    }
    let staging = |number| OwnName::Staging(operation.id, number).to_string();
    let create = async |item: &RestoreItem| {
        let entry = manifest.namespaces.iter().find(|entry| entry.namespace.name == item.name);
        let entry = entry
            .ok_or_else(|| Error::new(ErrorKind::Internal, "stage a collection the manifest has not"))?;
        target.create(database, &staging(item.number), &creation_options(&entry.namespace)?).await
    };
    let staged = plan.items.iter().filter(|item| item.kind != NamespaceKind::View);
    at_once(CREATED_AT_ONCE, staged.map(create)).await?;
    // A view is defined when it is swapped in. Whether the server takes it, and we may, is asked while what is live is
    // still there.
    for item in plan.items.iter().filter(|item| item.kind == NamespaceKind::View) {
        target.create(database, &staging(item.number), &item.options).await?;
        target.drop_namespace(database, &staging(item.number)).await?;
    }
    let now = target.namespaces(database).await?;
    for item in plan.items.iter_mut().filter(|item| item.kind != NamespaceKind::View) {
        let name = staging(item.number);
        item.staging = now.iter().find(|it| it.name == name).and_then(|it| it.uuid);
        if item.staging.is_none() {
            return Err(Error::new(
                ErrorKind::Transient,
                format!("create staging for {:?}: it vanished", item.name),
            ));
        }
    }
    Ok(())
}
