//! `replicate-regions`: see [`backup_core::flows::replicate_regions`].

use backup_core::flows::replicate_regions::{Ports, run};
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_item(OperationKind::Backup, event, async |operation, item| {
            let environment = invocation.environment;
            let (store, keys, catalog) = (environment.store()?, environment.keys()?, environment.catalog()?);
            let regions = environment.regions()?;
            let ports = Ports {
                store: &store,
                keys: &keys,
                catalog: &catalog,
                regions: &regions.each(),
                clock: &invocation.clock,
            };
            run(ports, operation, item).await
        })
        .await
}
