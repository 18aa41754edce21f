//! `plan-restore`: see [`backup_core::flows::plan_restore`].

use backup_core::flows::plan_restore::{Ports, run};
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::environment::Environment;
use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_operation(OperationKind::Restore, event, async |operation| {
            let environment = invocation.environment;
            let (target, store) = (environment.target().await?, environment.store()?);
            let (keys, catalog) = (environment.keys()?, environment.catalog()?);
            let (timeline, alerts) = (environment.timeline()?, environment.alerts()?);
            let clock = &invocation.clock;
            let ports = Ports {
                target: &target,
                store: &store,
                keys: &keys,
                catalog: &catalog,
                timeline: &timeline,
                alerts: &alerts,
                clock,
            };
            let planned = run(ports, &Environment::settings()?, operation).await?;
            Ok(serde_json::json!(planned))
        })
        .await
}
