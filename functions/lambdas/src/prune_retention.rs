//! `prune-retention`: see [`backup_core::flows::prune_retention`].

use backup_core::flows::prune_retention::{Ports, run};
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::environment::Environment;
use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_operation(OperationKind::Prune, event, async |operation| {
            let environment = invocation.environment;
            let (store, keys, catalog) = (environment.store()?, environment.keys()?, environment.catalog()?);
            let (timeline, alerts) = (environment.timeline()?, environment.alerts()?);
            let (locks, regions) = (environment.locks()?, environment.regions()?);
            let ports = Ports {
                store: &store,
                keys: &keys,
                locks: &locks,
                shelves: &store,
                cold: &store,
                catalog: &catalog,
                timeline: &timeline,
                regions: &regions.each(),
                alerts: &alerts,
                clock: &invocation.clock,
            };
            run(ports, &Environment::policy()?, operation).await?;
            Ok(Value::Null)
        })
        .await
}
