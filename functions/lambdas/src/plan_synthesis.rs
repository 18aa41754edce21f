//! `plan-synthesis`: see [`backup_core::flows::plan_synthesis`].

use backup_core::flows::plan_synthesis::{Ports, run};
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::environment::Environment;
use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_operation(OperationKind::Backup, event, async |operation| {
            let environment = invocation.environment;
            let (store, keys) = (environment.store()?, environment.keys()?);
            let (catalog, timeline) = (environment.catalog()?, environment.timeline()?);
            let ports = Ports {
                store: &store,
                keys: &keys,
                catalog: &catalog,
                timeline: &timeline,
                clock: &invocation.clock,
            };
            let planned = run(ports, &Environment::settings()?, operation).await?;
            Ok(serde_json::json!(planned))
        })
        .await
}
