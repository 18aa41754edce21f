//! `finish-drill`: see [`backup_core::flows::finish_drill`].

use backup_core::flows::finish_drill::{Ports, run};
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_operation(OperationKind::Drill, event, async |operation| {
            let environment = invocation.environment;
            let (store, keys, catalog) = (environment.store()?, environment.keys()?, environment.catalog()?);
            let clock = &invocation.clock;
            run(Ports { store: &store, keys: &keys, catalog: &catalog, clock }, operation).await?;
            Ok(Value::Null)
        })
        .await
}
