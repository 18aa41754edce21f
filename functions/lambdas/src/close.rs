//! `close`: see [`backup_core::flows::close`].

use backup_core::flows::close::{Commit, Ports, run};
use backup_core::operation::{OperationKind, Pipeline};
use serde_json::Value;

use crate::environment::Environment;
use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_operation(OperationKind::Backup, event, async |operation| {
            let environment = invocation.environment;
            let (store, keys, catalog) = (environment.store()?, environment.keys()?, environment.catalog()?);
            let (timeline, alerts) = (environment.timeline()?, environment.alerts()?);
            let (locks, machines) = (environment.locks()?, environment.machines());
            let ports = Ports {
                store: &store,
                keys: &keys,
                catalog: &catalog,
                timeline: &timeline,
                locks: &locks,
                machines: &machines,
                alerts: &alerts,
                clock: &invocation.clock,
            };
            let commit =
                Commit { lock: Environment::recent()?, replicate: machines.has(Pipeline::Replicate) };
            run(ports, commit, operation).await?;
            Ok(Value::Null)
        })
        .await
}
