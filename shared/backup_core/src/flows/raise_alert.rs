//! `raise-alert`: ends an operation that failed: tells people, marks the row, writes the audit record, frees the
//! lease. Alert first: one that is sent twice is better than one that is lost.

use crate::alert::Alert;
use crate::audit::{AuditRecord, AuditStatus};
use crate::error::{ErrorKind, Result};
use crate::format::ObjectKey;
use crate::id::OperationId;
use crate::operation::{Failure, Operation, OperationKind, OperationState, Trigger};
use crate::ports::{Alerts, Catalog, Clock, DataKeys, ObjectStore};

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The channels to people.
    pub alerts: &'a dyn Alerts,
    /// The bucket and the key service, to keep the record of what failed.
    pub bucket: Option<(&'a dyn ObjectStore, &'a dyn DataKeys)>,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for operation `id`. `error` and `cause` are what the state machine caught; the failing step's own
/// words in the catalog are better, where it could still write them.
pub async fn run(
    ports: Ports<'_>,
    kind: OperationKind,
    id: OperationId,
    error: &str,
    cause: &str,
) -> Result<()> {
    let mut operation = ports.catalog.operation(kind, id).await?;
    let now = ports.clock.now_millis();
    let had_ended = operation.state.is_final();
    if !had_ended {
        let told = operation.failure.take().filter(|told| is_the_one_that_ended_it(told, error));
        let failure = told.unwrap_or_else(|| from_state_machine(error, cause));
        operation.failure = Some(failure.clone());
        if is_worth_waking_people(&operation, &failure) {
            let told = ports.alerts.publish(&Alert::operation_failed(&operation, &failure)).await;
            if told.is_err() {
                // It is tried again; but whoever waits for the lease need not wait for that.
                ports.catalog.release_lease(&operation.resource(), id).await?;
                return told;
            }
        }
        ports.catalog.fail_operation(&operation, now).await?;
        operation = ports.catalog.operation(kind, id).await?;
    }
    let finished = operation.finished_millis.unwrap_or(now);
    // It may also have succeeded, and only its last words failed.
    let failed = operation.state == OperationState::Failed;
    let status = if failed { AuditStatus::Failure } else { AuditStatus::Success };
    if !(kind == OperationKind::Prune && operation.is_dry_run()) {
        ports.catalog.append_audit(id, &AuditRecord::of(&operation, status, finished)).await?;
    }
    ports.catalog.release_lease(&operation.resource(), id).await?;
    if let Some((store, keys)) = ports.bucket {
        let is_kept = had_ended && store.size(ObjectKey::Record(operation.place()?)).await?.is_some();
        if !is_kept {
            super::record::keep(store, keys, ports.catalog, kind, id).await?;
        }
    }
    Ok(())
}

/// A step's own words count if the machine ended with that step's error, or with a Map's, which hides it; a recovered
/// trouble of an earlier step does not.
fn is_the_one_that_ended_it(told: &Failure, error: &str) -> bool {
    told.kind.name() == error || error == "States.ExceedToleratedFailureThreshold"
}

/// A person who was told "another backup is running" has read it already, and one who takes over knows that the old
/// backup ends; a schedule has nobody who reads.
fn is_worth_waking_people(operation: &Operation, failure: &Failure) -> bool {
    if operation.is_dry_run() {
        return false;
    }
    let manual = operation.trigger() == Trigger::Manual;
    // What a machine says (a time limit, a function that died) is no answer to what was asked for.
    let before_it_began = operation.fence.is_none() && failure.step != Failure::STATE_MACHINE;
    let told_at_once = match failure.kind {
        ErrorKind::Fenced => true,
        ErrorKind::Conflict
        | ErrorKind::Invalid
        | ErrorKind::NotFound
        | ErrorKind::Refused
        | ErrorKind::Unsupported => before_it_began,
        _ => false,
    };
    !(manual && told_at_once)
}

fn from_state_machine(error: &str, cause: &str) -> Failure {
    let (kind, hint) = match error {
        "States.Timeout" | "TIMED_OUT" => (ErrorKind::Transient, "it ran longer than its time limit"),
        "ABORTED" => (ErrorKind::Refused, "the execution was stopped by hand"),
        other => (ErrorKind::from_name(other).unwrap_or(ErrorKind::Internal), "the function's log says more"),
    };
    let message: String = format!("{error}: {cause}").chars().take(500).collect();
    Failure { step: Failure::STATE_MACHINE.to_owned(), kind, message, hint: Some(hint.to_owned()) }
}
