//! `trigger-backup`: see [`backup_core::flows::trigger_backup`].

use backup_core::flows::trigger_backup::{Ports, run};
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::environment::Environment;
use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_operation(OperationKind::Backup, event, async |operation| {
            let environment = invocation.environment;
            let (source, store) = (environment.source().await?, environment.store()?);
            let (keys, catalog, timeline) =
                (environment.keys()?, environment.catalog()?, environment.timeline()?);
            let ports = Ports {
                source: &source,
                store: &store,
                keys: &keys,
                catalog: &catalog,
                timeline: &timeline,
                clock: &invocation.clock,
            };
            let triggered = run(ports, &Environment::settings()?, operation).await?;
            Ok(serde_json::json!(triggered))
        })
        .await
}
