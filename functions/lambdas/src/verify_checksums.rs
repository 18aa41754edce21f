//! `verify-checksums`: see [`backup_core::flows::verify_checksums`].

use backup_core::flows::verify_checksums::{Ports, run};
use backup_core::operation::OperationKind;
use serde_json::Value;

use crate::environment::Environment;
use crate::invocation::{Invocation, StepError};

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    invocation
        .on_item(OperationKind::Backup, event, async |operation, item| {
            let environment = invocation.environment;
            let (store, keys, catalog) = (environment.store()?, environment.keys()?, environment.catalog()?);
            let locks = environment.locks()?;
            let ports = Ports {
                store: &store,
                keys: &keys,
                locks: &locks,
                catalog: &catalog,
                clock: &invocation.clock,
            };
            run(ports, Environment::recent()?, operation, item).await
        })
        .await
}
