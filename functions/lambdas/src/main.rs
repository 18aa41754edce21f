//! One bootstrap for every step: the template's `Handler` names the step, the step's file parses its event and calls
//! its flow. What each function may do is in its own role.

mod abandon_restore;
mod build_indexes;
mod capture_log;
mod close;
mod dump_chunk;
mod environment;
mod events;
mod finish_drill;
mod finish_restore;
mod fold_chunk;
mod invocation;
mod plan_drill;
mod plan_proof;
mod plan_restore;
mod plan_synthesis;
mod prove_chunk;
mod prune_retention;
mod raise_alert;
mod rehearse_chunk;
mod replicate_regions;
mod replicate_timeline;
mod restore_chunk;
mod sample_restore;
mod seal_backup;
mod seal_replicas;
mod seal_synthesis;
mod start_pipeline;
mod thaw;
mod trigger_backup;
mod validate_chunk;
mod verify_checksums;
mod watch;

use lambda_runtime::{Error as RuntimeError, LambdaEvent, service_fn};
use serde_json::Value;

use crate::environment::Environment;
use crate::invocation::{Invocation, StepError};

#[tokio::main]
async fn main() -> Result<(), RuntimeError> {
    invocation::log_as_json();
    let step = std::env::var("_HANDLER").unwrap_or_default();
    let environment = Environment::load().await;
    let (step, environment) = (step.as_str(), &environment);
    lambda_runtime::run(service_fn(async move |event: LambdaEvent<Value>| {
        let invocation = Invocation::new(step, environment, &event.context);
        invocation.told(run(step, &invocation, event.payload).await).await
    }))
    .await
}

async fn run(step: &str, invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    match step {
        "trigger-backup" => trigger_backup::handle(invocation, event).await,
        "dump-chunk" => dump_chunk::handle(invocation, event).await,
        "seal-backup" => seal_backup::handle(invocation, event).await,
        "verify-checksums" => verify_checksums::handle(invocation, event).await,
        "close" => close::handle(invocation, event).await,
        "plan-restore" => plan_restore::handle(invocation, event).await,
        "restore-chunk" => restore_chunk::handle(invocation, event).await,
        "build-indexes" => build_indexes::handle(invocation, event).await,
        "validate-chunk" => validate_chunk::handle(invocation, event).await,
        "finish-restore" => finish_restore::handle(invocation, event).await,
        "abandon-restore" => abandon_restore::handle(invocation, event).await,
        "plan-proof" => plan_proof::handle(invocation, event).await,
        "prove-chunk" => prove_chunk::handle(invocation, event).await,
        "plan-synthesis" => plan_synthesis::handle(invocation, event).await,
        "fold-chunk" => fold_chunk::handle(invocation, event).await,
        "seal-synthesis" => seal_synthesis::handle(invocation, event).await,
        "raise-alert" => raise_alert::handle(invocation, event).await,
        "capture-log" => capture_log::handle(invocation, event).await,
        "finish-drill" => finish_drill::handle(invocation, event).await,
        "plan-drill" => plan_drill::handle(invocation, event).await,
        "prune-retention" => prune_retention::handle(invocation, event).await,
        "rehearse-chunk" => rehearse_chunk::handle(invocation, event).await,
        "replicate-regions" => replicate_regions::handle(invocation, event).await,
        "replicate-timeline" => replicate_timeline::handle(invocation, event).await,
        "sample-restore" => sample_restore::handle(invocation, event).await,
        "seal-replicas" => seal_replicas::handle(invocation, event).await,
        "start-pipeline" => start_pipeline::handle(invocation, event).await,
        "thaw" => thaw::handle(invocation, event).await,
        "watch" => watch::handle(invocation, event).await,
        other => Err(StepError::unknown_step(other)),
    }
}
