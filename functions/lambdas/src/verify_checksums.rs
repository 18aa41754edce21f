//! `verify-checksums`: see [`backup_core::flows::verify_checksums`].

use backup_core::flows::verify_checksums::{Ports, run};
use backup_core::format::WorkItem;
use backup_core::id::OperationId;
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::events::{ItemEvent, parse};
use crate::invocation::{Invocation, StepError, of};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    let ItemEvent { operation, item } = parse(event)?;
    step(invocation, operation, item).await.map_err(of(OperationKind::Backup, operation))
}

async fn step(
    invocation: &Invocation<'_>,
    operation: OperationId,
    item: WorkItem,
) -> backup_core::Result<Value> {
    let environment = invocation.environment;
    let (store, keys, catalog) = (environment.store()?, environment.keys()?, environment.catalog()?);
    run(Ports { store: &store, keys: &keys, catalog: &catalog, clock: &invocation.clock }, operation, item)
        .await?;
    Ok(Value::Null)
}
