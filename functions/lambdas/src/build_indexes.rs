//! `build-indexes`: see [`backup_core::flows::build_indexes`].

use backup_core::flows::build_indexes::{Ports, run};
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_operation(OperationKind::Restore, event, async |operation| {
            let environment = invocation.environment;
            let (target, store) = (environment.target().await?, environment.store()?);
            let (keys, catalog) = (environment.keys()?, environment.catalog()?);
            run(Ports { target: &target, store: &store, keys: &keys, catalog: &catalog }, operation).await?;
            Ok(Value::Null)
        })
        .await
}
