//! One invocation: its clock, and what is told of it (one log line, and the row in the catalog that says why an
//! operation failed). Events are not logged.

use std::fmt;

use backup_aws::{DynamoCatalog, SystemClock};
use backup_core::flows::capture_log::Caller;
use backup_core::format::WorkItem;
use backup_core::id::OperationId;
use backup_core::operation::{Failure, OperationKind};
use backup_core::ports::Catalog;
use backup_core::{Error, ErrorKind};
use lambda_runtime::{Context, Diagnostic};
use serde_json::Value;
use tracing_subscriber::EnvFilter;

use crate::environment::Environment;
use crate::events::{ItemEvent, OperationEvent, ScheduleEvent, parse};

/// One invocation of a step.
pub(crate) struct Invocation<'a> {
    step: &'a str,
    pub(crate) environment: &'a Environment,
    pub(crate) clock: SystemClock,
}

/// A step's failure, with the operation it belongs to once the event was read.
#[derive(Debug)]
pub(crate) struct StepError {
    error: Error,
    operation: Option<(OperationKind, OperationId)>,
}

impl<'a> Invocation<'a> {
    pub(crate) fn new(step: &'a str, environment: &'a Environment, context: &Context) -> Self {
        Self { step, environment, clock: SystemClock::until(context.deadline) }
    }

    /// Parses the event of a step that works on a whole operation, and does the work.
    pub(crate) async fn on_operation(
        &self,
        kind: OperationKind,
        event: Value,
        work: impl AsyncFnOnce(OperationId) -> Result<Value, Error>,
    ) -> Result<Value, StepError> {
        let OperationEvent { operation } = parse(event)?;
        self.ended(kind, operation, work(operation).await)
    }

    /// Parses the event of a step that works on one item of a Map, and does the work.
    pub(crate) async fn on_item(
        &self,
        kind: OperationKind,
        event: Value,
        work: impl AsyncFnOnce(OperationId, WorkItem) -> Result<(), Error>,
    ) -> Result<Value, StepError> {
        let ItemEvent { operation, item } = parse(event)?;
        self.ended(kind, operation, work(operation, item).await.map(|()| Value::Null))
    }

    /// Parses the event of a step that a schedule calls, and does the work. It belongs to no operation, so that its
    /// failure is noted in no row.
    pub(crate) async fn on_schedule(
        &self,
        event: Value,
        work: impl AsyncFnOnce(Caller) -> Result<(), Error>,
    ) -> Result<Value, StepError> {
        let ScheduleEvent { operation } = parse(event)?;
        if let Some(id) = operation {
            let done = work(Caller::Backup).await.map(|()| Value::Null);
            return self.ended(OperationKind::Backup, id, done);
        }
        let done = work(Caller::Schedule).await.map(|()| Value::Null)?;
        tracing::info!(step = self.step, "the step succeeded");
        Ok(done)
    }

    fn ended(
        &self,
        kind: OperationKind,
        id: OperationId,
        outcome: Result<Value, Error>,
    ) -> Result<Value, StepError> {
        if outcome.is_ok() {
            tracing::info!(step = self.step, operation = %id, "the step succeeded");
        }
        outcome.map_err(|error| StepError { error, operation: Some((kind, id)) })
    }

    /// Logs a failure, and notes it in the catalog, where the state machine's own words would hide it. Failing to
    /// note it is logged and does not replace the failure itself.
    pub(crate) async fn told(&self, outcome: Result<Value, StepError>) -> Result<Value, StepError> {
        let step = self.step;
        if let Err(StepError { error, operation }) = &outcome {
            let kind = error.kind().name();
            let hint = error.hint_text().unwrap_or_default();
            let id = operation.map(|(_, id)| id.to_string()).unwrap_or_default();
            tracing::error!(step, kind, operation = id, why = %error, hint, "the step failed");
            if let Some((kind, id)) = operation {
                let noted = match self.environment.catalog() {
                    Ok(catalog) => note(&catalog, (*kind, *id), &Failure::of(step, error)).await,
                    Err(why) => Err(why),
                };
                if let Err(why) = noted {
                    tracing::error!(step, why = %why, "could not note the failure in the catalog");
                }
            }
        }
        outcome
    }
}

/// Why an operation was given up is not replaced by what went wrong while that was tidied up.
async fn note(
    catalog: &DynamoCatalog,
    (kind, id): (OperationKind, OperationId),
    failure: &Failure,
) -> Result<(), Error> {
    if failure.step == "abandon-restore" && catalog.operation(kind, id).await?.failure.is_some() {
        return Ok(());
    }
    catalog.record_failure(kind, id, failure).await
}

impl StepError {
    pub(crate) fn unknown_step(step: &str) -> Self {
        let error = Error::new(ErrorKind::Internal, format!("run step {step:?}: there is none of this name"));
        error.hint("the template's Handler must name a step of this release").into()
    }
}

impl From<Error> for StepError {
    fn from(error: Error) -> Self {
        Self { error, operation: None }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for StepError {}

/// The name the state machines match in `Retry` and `Catch`.
impl From<StepError> for Diagnostic {
    fn from(failed: StepError) -> Self {
        Self { error_type: failed.error.kind().name().to_owned(), error_message: failed.error.to_string() }
    }
}

/// JSON lines, at level info unless `NIGHTSAFE_LOG` says otherwise.
pub(crate) fn log_as_json() {
    let filter = EnvFilter::try_from_env("NIGHTSAFE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_current_span(false).init();
}
