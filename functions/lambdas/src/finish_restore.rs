//! `finish-restore`: see [`backup_core::flows::finish_restore`].

use backup_core::flows::finish_restore::{Ports, run};
use backup_core::id::OperationId;
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::events::{OperationEvent, parse};
use crate::invocation::{Invocation, StepError, of};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    let OperationEvent { operation } = parse(event)?;
    step(invocation, operation).await.map_err(of(OperationKind::Restore, operation))
}

async fn step(invocation: &Invocation<'_>, operation: OperationId) -> backup_core::Result<Value> {
    let environment = invocation.environment;
    let (target, store) = (environment.target().await?, environment.store()?);
    let (keys, catalog) = (environment.keys()?, environment.catalog()?);
    let ports =
        Ports { target: &target, store: &store, keys: &keys, catalog: &catalog, clock: &invocation.clock };
    run(ports, operation).await?;
    Ok(Value::Null)
}
