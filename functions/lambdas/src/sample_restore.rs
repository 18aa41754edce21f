//! `sample-restore`: see [`backup_core::flows::sample_restore`].

use backup_core::flows::sample_restore::{Ports, run};
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_operation(OperationKind::Backup, event, async |operation| {
            let environment = invocation.environment;
            let (store, keys, catalog) = (environment.store()?, environment.keys()?, environment.catalog()?);
            let scratch = environment.scratch().await?;
            let ports = Ports {
                store: &store,
                keys: &keys,
                catalog: &catalog,
                scratch: &*scratch,
                clock: &invocation.clock,
            };
            run(ports, operation).await?;
            Ok(Value::Null)
        })
        .await
}
