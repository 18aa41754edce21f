//! Carrying out the steps of a swap, forward or back.

use crate::error::{Error, ErrorKind, Result};
use crate::format::Manifest;
use crate::id::OperationId;
use crate::namespace::{Namespace, NamespaceKind};
use crate::plan::restore::{RestorePlan, SwapStep, swap_back_steps};
use crate::ports::{ChunkRead, InsertRules, Target};

use super::validate_chunk::count_and_hash;

/// Brings back what was live before a swap that did not end.
pub(super) async fn swap_back(target: &dyn Target, restore: OperationId, plan: &RestorePlan) -> Result<()> {
    let now = target.namespaces(&plan.database).await?;
    for step in swap_back_steps(restore, plan, &now) {
        carry_out(target, &plan.database, None, &step).await?;
    }
    Ok(())
}

/// Carries out one step. Only forward steps need the manifest.
pub(super) async fn carry_out(
    target: &dyn Target,
    database: &str,
    manifest: Option<&Manifest>,
    step: &SwapStep,
) -> Result<()> {
    match step {
        SwapStep::Rename { from, to } => target.rename(database, from, to).await,
        SwapStep::DropView(name) | SwapStep::DropTimeseries(name) => {
            target.drop_namespace(database, name).await
        }
        SwapStep::CreateView(name, options) => target.create(database, name, options).await,
        SwapStep::FillTimeseries { name, options, staging } => {
            target.create(database, name, options).await?;
            fill_timeseries(target, database, manifest, name, staging).await
        }
    }
}

/// Copies the validated buckets into the time-series collection, proves that they arrived, and drops the staging.
async fn fill_timeseries(
    target: &dyn Target,
    database: &str,
    manifest: Option<&Manifest>,
    name: &str,
    staging: &str,
) -> Result<()> {
    let internal = |what: &str| Error::new(ErrorKind::Internal, format!("fill time series {name:?}: {what}"));
    let now = target.namespaces(database).await?;
    let find = |wanted: &str| now.iter().find(|it| it.name == wanted);
    let (from, to) = (find(staging), find(name).filter(|it| it.kind == NamespaceKind::Timeseries));
    let (Some(from), Some(to)) = (from, to) else { return Err(internal("it or its staging vanished")) };
    let mut buckets = target.read(&all_of(database, from)?).await?;
    while let Some(batch) = buckets.next_batch().await? {
        target.insert(database, &to.documents_name(), batch, InsertRules { ordered: true }).await?;
    }
    let staged = count_and_hash(target.read(&all_of(database, from)?).await?).await?;
    if count_and_hash(target.read(&all_of(database, to)?).await?).await? != staged {
        return Err(Error::new(
            ErrorKind::ValidationFailed,
            format!("fill time series {name:?}: its buckets are not the ones in staging"),
        ));
    }
    let entry = manifest.and_then(|it| it.namespaces.iter().find(|entry| entry.namespace.name == name));
    let indexes = entry.map(|entry| entry.namespace.indexes.clone()).unwrap_or_default();
    if !indexes.is_empty() {
        target.create_indexes(database, name, &indexes).await?;
    }
    target.drop_namespace(database, staging).await
}

fn all_of(database: &str, namespace: &Namespace) -> Result<ChunkRead> {
    let uuid =
        namespace.uuid.ok_or_else(|| Error::new(ErrorKind::Internal, "read a collection without a UUID"))?;
    Ok(ChunkRead {
        database: database.to_owned(),
        name: namespace.documents_name(),
        uuid,
        range: crate::bson::IdRange::ALL,
        at: None,
        document_bytes_hint: 0,
    })
}
