//! `capture-log`: see [`backup_core::flows::capture_log`]. A schedule calls it, and the state machine of backups.

use backup_core::flows::capture_log::{Ports, run};
use serde_json::Value;

use crate::environment::Environment;
use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_schedule(event, async |caller| {
            let environment = invocation.environment;
            let (source, store) = (environment.source().await?, environment.store()?);
            let (keys, timeline) = (environment.keys()?, environment.timeline()?);
            let (catalog, machines) = (environment.catalog()?, environment.machines());
            let alerts = environment.alerts()?;
            let ports = Ports {
                changes: &source,
                source: &source,
                store: &store,
                keys: &keys,
                timeline: &timeline,
                catalog: &catalog,
                machines: &machines,
                alerts: &alerts,
                clock: &invocation.clock,
            };
            run(ports, &Environment::settings_without_chunks(), Environment::source_name()?, caller).await
        })
        .await
}
