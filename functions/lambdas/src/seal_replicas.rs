//! `seal-replicas`: see [`backup_core::flows::seal_replicas`].

use backup_core::flows::seal_replicas::{Ports, run};
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_operation(OperationKind::Backup, event, async |operation| {
            let environment = invocation.environment;
            let (store, keys, catalog) = (environment.store()?, environment.keys()?, environment.catalog()?);
            let (regions, alerts) = (environment.regions()?, environment.alerts()?);
            let ports = Ports {
                store: &store,
                keys: &keys,
                catalog: &catalog,
                regions: &regions.each(),
                alerts: &alerts,
                clock: &invocation.clock,
            };
            run(ports, operation).await?;
            Ok(Value::Null)
        })
        .await
}
