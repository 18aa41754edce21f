//! `plan-proof`: see [`backup_core::flows::plan_proof`].

use backup_core::flows::plan_proof::{Ports, run};
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_operation(OperationKind::Backup, event, async |operation| {
            let environment = invocation.environment;
            let (store, keys) = (environment.store()?, environment.keys()?);
            let (catalog, timeline) = (environment.catalog()?, environment.timeline()?);
            let ports = Ports { store: &store, keys: &keys, catalog: &catalog, timeline: &timeline };
            let planned = run(ports, operation).await?;
            Ok(serde_json::json!(planned))
        })
        .await
}
