//! `plan-restore`: see [`backup_core::flows::plan_restore`].

use backup_core::flows::plan_restore::{Ports, run};
use backup_core::id::OperationId;
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::environment::Environment;
use crate::events::{OperationEvent, parse};
use crate::invocation::{Invocation, StepError, of};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    let OperationEvent { operation } = parse(event)?;
    step(invocation, operation).await.map_err(of(OperationKind::Restore, operation))
}

async fn step(invocation: &Invocation<'_>, operation: OperationId) -> backup_core::Result<Value> {
    let environment = invocation.environment;
    let (target, store) = (environment.target().await?, environment.store()?);
    let (keys, catalog, alerts) = (environment.keys()?, environment.catalog()?, environment.alerts()?);
    let clock = &invocation.clock;
    let ports =
        Ports { target: &target, store: &store, keys: &keys, catalog: &catalog, alerts: &alerts, clock };
    let planned = run(ports, &Environment::settings()?, operation).await?;
    Ok(serde_json::json!(planned))
}
