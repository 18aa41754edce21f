//! `seal-synthesis`: see [`backup_core::flows::seal_synthesis`].

use backup_core::flows::seal_synthesis::{Ports, run};
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_operation(OperationKind::Backup, event, async |operation| {
            let environment = invocation.environment;
            let (store, keys) = (environment.store()?, environment.keys()?);
            let catalog = environment.catalog()?;
            let ports = Ports { store: &store, keys: &keys, catalog: &catalog, clock: &invocation.clock };
            run(ports, operation).await?;
            Ok(Value::Null)
        })
        .await
}
