//! `restore-chunk`: see [`backup_core::flows::restore_chunk`].

use backup_core::flows::restore_chunk::{Ports, run};
use backup_core::format::WorkItem;
use backup_core::id::OperationId;
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::environment::Environment;
use crate::events::{ItemEvent, parse};
use crate::invocation::{Invocation, StepError, of};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    let ItemEvent { operation, item } = parse(event)?;
    step(invocation, operation, item).await.map_err(of(OperationKind::Restore, operation))
}

async fn step(
    invocation: &Invocation<'_>,
    operation: OperationId,
    item: WorkItem,
) -> backup_core::Result<Value> {
    let environment = invocation.environment;
    let (target, store) = (environment.target().await?, environment.store()?);
    let (keys, catalog) = (environment.keys()?, environment.catalog()?);
    let ports =
        Ports { target: &target, store: &store, keys: &keys, catalog: &catalog, clock: &invocation.clock };
    run(ports, &Environment::settings()?, operation, item).await?;
    Ok(Value::Null)
}
