//! `plan-drill`: see [`backup_core::flows::plan_drill`].

use backup_core::flows::plan_drill::{Ports, run};
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::environment::Environment;
use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_operation(OperationKind::Drill, event, async |operation| {
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
            let planned = run(ports, &Environment::settings()?, operation).await?;
            Ok(serde_json::json!(planned))
        })
        .await
}
