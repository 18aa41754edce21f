//! `validate-chunk`: see [`backup_core::flows::validate_chunk`].

use backup_core::flows::validate_chunk::{Ports, run};
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_item(OperationKind::Restore, event, async |operation, item| {
            let environment = invocation.environment;
            let (target, store) = (environment.target().await?, environment.store()?);
            let (keys, catalog) = (environment.keys()?, environment.catalog()?);
            let ports = Ports {
                target: &target,
                store: &store,
                keys: &keys,
                catalog: &catalog,
                clock: &invocation.clock,
            };
            run(ports, operation, item).await
        })
        .await
}
