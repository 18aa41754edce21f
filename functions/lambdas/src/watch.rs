//! `watch`: see [`backup_core::flows::watch`]. A schedule calls it.

use backup_core::flows::watch::{Ports, run};
use serde_json::Value;

use crate::environment::Environment;
use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_schedule(event, async |_| {
            let environment = invocation.environment;
            let (store, keys, catalog) = (environment.store()?, environment.keys()?, environment.catalog()?);
            let (timeline, machines) = (environment.timeline()?, environment.machines());
            let (regions, alerts) = (environment.regions()?, environment.alerts()?);
            let ports = Ports {
                store: &store,
                keys: &keys,
                regions: &regions.each(),
                catalog: &catalog,
                timeline: &timeline,
                machines: &machines,
                alerts: &alerts,
                clock: &invocation.clock,
            };
            let (settings, policy) = (Environment::watch_settings()?, Environment::policy()?);
            run(ports, Environment::source_name()?, &settings, &policy).await
        })
        .await
}
