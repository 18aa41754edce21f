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
            let (keys, catalog) = (environment.keys()?, environment.catalog()?);
            let ports = Ports {
                source: &source,
                store: &store,
                keys: &keys,
                catalog: &catalog,
                clock: &invocation.clock,
            };
            let triggered = run(ports, &Environment::settings()?, operation).await?;
            Ok(serde_json::json!(triggered))
        })
        .await
}
