//! `build-indexes`: builds every index on the staging collections, once all documents are in. Expiry comes later.

use crate::at_once::at_once;
use crate::error::Result;
use crate::format::ManifestNamespace;
use crate::id::OperationId;
use crate::namespace::NamespaceKind;
use crate::plan::metadata::index_specs;
use crate::ports::{Catalog, DataKeys, ObjectStore, Target};

use super::restore_chunk::Restoring;

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
}

/// Collections whose indexes are built at once: a server builds three at a time, the fourth waits at its door.
const COLLECTIONS_AT_ONCE: usize = 4;

/// Runs the step for restore `id`.
pub async fn run(ports: Ports<'_>, id: OperationId) -> Result<()> {
    let restoring = &Restoring::open(ports.catalog, ports.store, ports.keys, id).await?;
    let ordinary = restoring.plan.items.iter().filter(|item| item.kind == NamespaceKind::Collection);
    let entries = ordinary
        .filter_map(|item| restoring.manifest.namespaces.iter().find(|it| it.namespace.name == item.name));
    at_once(COLLECTIONS_AT_ONCE, entries.map(|entry| build(ports.target, restoring, entry))).await.map(|_| ())
}

/// Builds the indexes of one staging collection; those that exist are left as they are.
pub(super) async fn build(
    target: &dyn Target,
    restoring: &Restoring,
    entry: &ManifestNamespace,
) -> Result<()> {
    let indexes = index_specs(&entry.namespace)?;
    if indexes.is_empty() {
        return Ok(());
    }
    let (database, staging) = (&restoring.operation.database, restoring.staging(entry)?);
    let built = target.create_indexes(database, &staging, &indexes).await;
    built.map_err(|why| why.while_doing(format!("build the indexes of {:?}", entry.namespace.name)))
}
