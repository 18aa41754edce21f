//! `prove-chunk`: see [`backup_core::flows::prove_chunk`].

use backup_core::flows::prove_chunk::{Ports, run};
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_item(OperationKind::Backup, event, async |operation, item| {
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
            run(ports, operation, item).await
        })
        .await
}
