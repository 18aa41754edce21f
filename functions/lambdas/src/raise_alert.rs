//! `raise-alert`: see [`backup_core::flows::raise_alert`]. Called by a state machine that caught an error, and by a
//! rule on executions that ended without being able to catch one (timed out, aborted, or failed by the service).

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use backup_core::flows::raise_alert::{Ports, run};
use backup_core::operation::OperationKind;
use backup_core::ports::{DataKeys, ObjectStore};
use backup_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::events::{Caught, CaughtEvent, OperationEvent, parse};
use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    let by_rule = event.get("detail-type").is_some();
    let event = if by_rule { from_event_bridge(event)? } else { Some(parse::<CaughtEvent>(event)?) };
    let Some(CaughtEvent { kind, operation, caught }) = event else { return Ok(Value::Null) };
    let (catalog, alerts) = (invocation.environment.catalog()?, invocation.environment.alerts()?);
    let (store, keys) = (invocation.environment.store()?, invocation.environment.keys()?);
    let bucket: Option<(&dyn ObjectStore, &dyn DataKeys)> = Some((&store, &keys));
    let ports = Ports { catalog: &catalog, alerts: &alerts, bucket, clock: &invocation.clock };
    run(ports, kind, operation, &caught.error, &caught.cause).await?;
    Ok(Value::Null)
}

/// How an execution ended, as Step Functions tells `EventBridge`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecutionEnded {
    name: String,
    status: String,
    #[serde(default)]
    input: String,
}

/// `None` for an execution that is not one of ours (somebody started the machine by hand without an operation).
pub(crate) fn from_event_bridge(event: Value) -> Result<Option<CaughtEvent>> {
    let event: EventBridgeEvent<ExecutionEnded> = serde_json::from_value(event)
        .map_err(|_| Error::new(ErrorKind::Invalid, "read the event of a rule: it is not one"))?;
    let ended = event.detail;
    let kind = match ended.name.split_once('-').map(|(kind, _)| kind) {
        Some("backup") => OperationKind::Backup,
        Some("restore") => OperationKind::Restore,
        Some("drill") => OperationKind::Drill,
        Some("prune") => OperationKind::Prune,
        _ => return Ok(None),
    };
    let input = serde_json::from_str(&ended.input).unwrap_or_default();
    let Ok(OperationEvent { operation }) = parse(input) else { return Ok(None) };
    let caught = Caught {
        error: ended.status,
        cause: "the execution ended outside its own error handling".to_owned(),
    };
    Ok(Some(CaughtEvent { kind, operation, caught }))
}
