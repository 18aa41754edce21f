//! `trigger-backup`: see [`backup_core::flows::trigger_backup`].

use backup_core::flows::trigger_backup::{Ports, run};
use backup_core::id::OperationId;
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::environment::Environment;
use crate::events::{OperationEvent, parse};
use crate::invocation::{Invocation, StepError, of};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    let OperationEvent { operation } = parse(event)?;
    step(invocation, operation).await.map_err(of(OperationKind::Backup, operation))
}

async fn step(invocation: &Invocation<'_>, operation: OperationId) -> backup_core::Result<Value> {
    let environment = invocation.environment;
    let (source, store) = (environment.source().await?, environment.store()?);
    let (keys, catalog) = (environment.keys()?, environment.catalog()?);
    let ports =
        Ports { source: &source, store: &store, keys: &keys, catalog: &catalog, clock: &invocation.clock };
    let triggered = run(ports, &Environment::settings()?, operation).await?;
    Ok(serde_json::json!(triggered))
}
