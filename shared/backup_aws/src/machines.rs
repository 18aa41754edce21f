//! Starting executions of the state machines, and following them.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_sfn::Client;
use backup_core::format::ObjectKey;
use backup_core::id::OperationId;
use backup_core::operation::{Operation, OperationKind, Pipeline};
use backup_core::ports::Clock;
use backup_core::{Error, ErrorKind, Result, ports};
use serde_json::{Value, json};

use crate::error::{code, told};
use crate::sdk::{Sdk, SystemClock};

/// The state machines' service.
#[derive(Clone, Debug)]
pub struct Machines {
    client: Client,
}

/// How far an execution is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// `None` while it runs; then whether it succeeded.
    pub succeeded: Option<bool>,
    /// The states it entered, in order, each with the time in milliseconds since 1970 UTC.
    pub entered: Vec<(String, i64)>,
    /// The error it ended with.
    pub error: Option<String>,
}

/// How far a Distributed Map is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapProgress {
    /// Work items that are done.
    pub succeeded: u64,
    /// Work items in all.
    pub total: u64,
}

impl Machines {
    /// The service in the SDK's region.
    #[must_use]
    pub fn new(sdk: &Sdk) -> Self {
        Self { client: Client::new(&sdk.config) }
    }

    /// Starts the execution of an operation, which is told the id only; gives its ARN. `Conflict` if it was started
    /// before.
    pub async fn start(&self, machine: &str, kind: OperationKind, id: OperationId) -> Result<String> {
        self.start_named(machine, &format!("{kind}-{id}"), &json!({ "operation": id })).await
    }

    async fn start_named(&self, machine: &str, name: &str, input: &Value) -> Result<String> {
        let start =
            self.client.start_execution().state_machine_arn(machine).name(name).input(input.to_string());
        let started = start.send().await;
        started.map(|started| started.execution_arn).map_err(|why| match code(&why) {
            Some("ExecutionAlreadyExists") => {
                Error::new(ErrorKind::Conflict, format!("start {name}: it was started before"))
            }
            _ => told(format!("start {name}"), why),
        })
    }

    /// Whether an execution of this name runs.
    async fn runs(&self, machine: &str, name: &str) -> Result<bool> {
        let execution = format!("{}:{name}", machine.replace(":stateMachine:", ":execution:"));
        match self.client.describe_execution().execution_arn(execution).send().await {
            Ok(described) => Ok(described.status().as_str() == "RUNNING"),
            Err(why) if code(&why) == Some("ExecutionDoesNotExist") => Ok(false),
            Err(why) => Err(told(format!("look whether {name} runs"), why)),
        }
    }

    /// Looks at an execution.
    pub async fn look(&self, execution: &str) -> Result<Execution> {
        let attempted = "look at an execution";
        let described = self.client.describe_execution().execution_arn(execution).send().await;
        let described = described.map_err(|why| told(attempted, why))?;
        let mut pages = self.client.get_execution_history().execution_arn(execution).into_paginator().send();
        let mut entered = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|why| told(attempted, why))?;
            for event in page.events() {
                if let Some(details) = event.state_entered_event_details() {
                    entered.push((details.name().to_owned(), event.timestamp().to_millis().unwrap_or(0)));
                }
            }
        }
        let succeeded = match described.status().as_str() {
            "RUNNING" | "PENDING_REDRIVE" => None,
            status => Some(status == "SUCCEEDED"),
        };
        let error = match described.error() {
            Some(error) => {
                let cause: String = described.cause().unwrap_or_default().chars().take(300).collect();
                format!("{error}: {cause}")
            }
            None => format!("the execution ended as {}", described.status().as_str()),
        };
        let error = (succeeded == Some(false)).then_some(error);
        Ok(Execution { succeeded, entered, error })
    }

    /// How far the newest Distributed Map of an execution is; `None` before the first.
    pub async fn newest_map(&self, execution: &str) -> Result<Option<MapProgress>> {
        let attempted = "look at a map";
        let runs = self.client.list_map_runs().execution_arn(execution).send().await;
        let runs = runs.map_err(|why| told(attempted, why))?;
        let Some(newest) = runs.map_runs().iter().max_by_key(|run| run.start_date().as_nanos()) else {
            return Ok(None);
        };
        let run = self.client.describe_map_run().map_run_arn(newest.map_run_arn()).send().await;
        let run = run.map_err(|why| told(attempted, why))?;
        let number = |count: i64| u64::try_from(count).unwrap_or(0);
        Ok(run.item_counts().map(|counts| MapProgress {
            succeeded: number(counts.succeeded()),
            total: number(counts.total()),
        }))
    }
}

/// Copies of a backup may be started again after this time: those of a region that could not be reached are missing.
const COPY_AGAIN_MILLIS: u64 = 2 * 3_600_000;

/// The state machines of the stack, for whoever starts one by itself.
#[derive(Clone, Debug)]
pub struct Pipelines {
    machines: Machines,
    arns: HashMap<Pipeline, String>,
}

impl Pipelines {
    /// State machines by their ARNs. Those that are not needed may be missing, or empty.
    #[must_use]
    pub fn new(sdk: &Sdk, arns: impl IntoIterator<Item = (Pipeline, String)>) -> Self {
        let arns = arns.into_iter().filter(|(_, arn)| !arn.is_empty()).collect();
        Self { machines: Machines::new(sdk), arns }
    }

    /// Whether there is a state machine for this pipeline.
    #[must_use]
    pub fn has(&self, pipeline: Pipeline) -> bool {
        self.arns.contains_key(&pipeline)
    }

    fn arn(&self, pipeline: Pipeline, operation: &Operation) -> Result<&str> {
        self.arns.get(&pipeline).map(String::as_str).ok_or_else(|| {
            let what = format!("start {pipeline:?} for {}: its state machine was not named", operation.id);
            Error::new(ErrorKind::Internal, what)
                .hint("the function was not deployed by this release's template")
        })
    }

    /// Starts the execution of a pipeline for an operation; gives its ARN. `Conflict` if it was started before.
    pub async fn begin(&self, pipeline: Pipeline, operation: &Operation) -> Result<String> {
        let arn = self.arn(pipeline, operation)?;
        if pipeline == Pipeline::Replicate {
            return self.begin_copies(operation, &format!("replication-{}", operation.id)).await;
        }
        self.machines.start(arn, operation.kind(), operation.id).await
    }

    async fn begin_copies(&self, operation: &Operation, name: &str) -> Result<String> {
        let arn = self.arn(Pipeline::Replicate, operation)?;
        let work = ObjectKey::BackupWork(operation.backup_place()?).to_path()?;
        self.machines.start_named(arn, name, &json!({ "operation": operation.id, "work_key": work })).await
    }
}

#[async_trait]
impl ports::Machines for Pipelines {
    async fn start(&self, pipeline: Pipeline, operation: &Operation) -> Result<()> {
        match self.begin(pipeline, operation).await {
            Err(why) if why.kind() != ErrorKind::Conflict => Err(why),
            _ => Ok(()), // an operation has one execution, whoever started it
        }
    }

    async fn copy_again(&self, backup: &Operation) -> Result<bool> {
        // The name of an execution is taken for months, so that of a later try has to differ.
        let slot = SystemClock::without_deadline().now_millis() / COPY_AGAIN_MILLIS;
        let first = format!("replication-{}", backup.id);
        // One runs for four hours at most.
        let later = [0, 1, 2].map(|ago| format!("{first}-{}", slot.saturating_sub(ago)));
        let machine = self.arn(Pipeline::Replicate, backup)?;
        for name in later.into_iter().chain([first.clone()]) {
            if self.machines.runs(machine, &name).await? {
                return Ok(false);
            }
        }
        match self.begin_copies(backup, &format!("{first}-{slot}")).await {
            Err(why) if why.kind() == ErrorKind::Conflict => Ok(false),
            begun => begun.map(|_| true),
        }
    }
}
