//! `close`: see [`backup_core::flows::close`].

use backup_core::flows::close::{Ports, run};
use backup_core::id::OperationId;
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::events::{OperationEvent, parse};
use crate::invocation::{Invocation, StepError, of};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    let OperationEvent { operation } = parse(event)?;
    step(invocation, operation).await.map_err(of(OperationKind::Backup, operation))
}

async fn step(invocation: &Invocation<'_>, operation: OperationId) -> backup_core::Result<Value> {
    let environment = invocation.environment;
    let (store, keys, catalog) = (environment.store()?, environment.keys()?, environment.catalog()?);
    run(Ports { store: &store, keys: &keys, catalog: &catalog, clock: &invocation.clock }, operation).await?;
    Ok(Value::Null)
}
