//! `rehearse-chunk`: see [`backup_core::flows::rehearse_chunk`].

use backup_core::flows::rehearse_chunk::{Ports, run};
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_item(OperationKind::Drill, event, async |operation, item| {
            let environment = invocation.environment;
            let (store, keys, catalog) = (environment.store()?, environment.keys()?, environment.catalog()?);
            let (scratch, regions) = (environment.scratch().await?, environment.regions()?);
            let ports = Ports {
                store: &store,
                keys: &keys,
                catalog: &catalog,
                scratch: &*scratch,
                regions: &regions.each(),
                clock: &invocation.clock,
            };
            run(ports, operation, item).await
        })
        .await
}
