//! `build-indexes`: builds every index on the staging collections, once all documents are in. Expiry comes later.

use crate::error::Result;
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

/// Runs the step for restore `id`.
pub async fn run(ports: Ports<'_>, id: OperationId) -> Result<()> {
    let restoring = Restoring::open(ports.catalog, ports.store, ports.keys, id).await?;
    for item in restoring.plan.items.iter().filter(|item| item.kind == NamespaceKind::Collection) {
        let Some(entry) = restoring.manifest.namespaces.iter().find(|it| it.namespace.name == item.name)
        else {
            continue;
        };
        let indexes = index_specs(&entry.namespace)?;
        if !indexes.is_empty() {
            ports
                .target
                .create_indexes(&restoring.operation.database, &restoring.staging(entry)?, &indexes)
                .await
                .map_err(|why| why.while_doing(format!("build the indexes of {:?}", item.name)))?;
        }
    }
    Ok(())
}
