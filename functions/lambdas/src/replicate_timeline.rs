//! `replicate-timeline`: see [`backup_core::flows::replicate_timeline`]. A schedule calls it.

use backup_core::flows::replicate_timeline::{Ports, run};
use serde_json::Value;

use crate::environment::Environment;
use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_schedule(event, async |_| {
            let environment = invocation.environment;
            let (store, timeline) = (environment.store()?, environment.timeline()?);
            let (regions, alerts) = (environment.regions()?, environment.alerts()?);
            let ports = Ports {
                store: &store,
                timeline: &timeline,
                regions: &regions.each(),
                alerts: &alerts,
                clock: &invocation.clock,
            };
            run(ports, Environment::source_name()?).await
        })
        .await
}
