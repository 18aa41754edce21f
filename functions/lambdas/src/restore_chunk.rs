//! `restore-chunk`: see [`backup_core::flows::restore_chunk`].

use backup_core::flows::restore_chunk::{Ports, run};
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::environment::Environment;
use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_item(OperationKind::Restore, event, async |operation, item| {
            let environment = invocation.environment;
            let (target, store) = (environment.target().await?, environment.store()?);
            let (keys, catalog, timeline) =
                (environment.keys()?, environment.catalog()?, environment.timeline()?);
            let ports = Ports {
                target: &target,
                store: &store,
                keys: &keys,
                catalog: &catalog,
                timeline: &timeline,
                clock: &invocation.clock,
            };
            run(ports, &Environment::settings()?, operation, item).await
        })
        .await
}
