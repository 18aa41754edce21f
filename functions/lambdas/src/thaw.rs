//! `thaw`: see [`backup_core::flows::thaw`].

use backup_core::flows::thaw::{Ports, run};
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_operation(OperationKind::Restore, event, async |operation| {
            let environment = invocation.environment;
            let (store, keys, catalog) = (environment.store()?, environment.keys()?, environment.catalog()?);
            let (timeline, alerts) = (environment.timeline()?, environment.alerts()?);
            let ports = Ports {
                store: &store,
                keys: &keys,
                cold: &store,
                catalog: &catalog,
                timeline: &timeline,
                alerts: &alerts,
                clock: &invocation.clock,
            };
            let thawed = run(ports, operation).await?;
            Ok(serde_json::json!(thawed))
        })
        .await
}
