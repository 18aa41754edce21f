//! `start-pipeline`: see [`backup_core::flows::start_pipeline`]. Schedules call it, and tell what they ask for and for
//! which slot.

use backup_core::flows::start_pipeline::{Ports, run};
use backup_core::ports::{Clock, Source};
use backup_core::schedule::{Scheduled, read_slot, region_in_turn};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::environment::Environment;
use crate::events::parse;
use crate::invocation::{Invocation, StepError};

/// What a schedule tells.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlotEvent {
    pub(crate) start: Scheduled,
    /// When it was to begin, as `EventBridge` Scheduler writes it.
    pub(crate) slot: String,
}

pub(crate) async fn handle(invocation: &Invocation<'_>, event: Value) -> Result<Value, StepError> {
    let SlotEvent { start, slot } = parse(event)?;
    let slot_millis = read_slot(&slot, invocation.clock.now_millis())?;
    let environment = invocation.environment;
    // What only needs what is stored goes on while the source cannot be reached.
    let source = if start.asks_the_source() { Some(environment.source().await?) } else { None };
    let catalog = environment.catalog()?;
    let (timeline, machines) = (environment.timeline()?, environment.machines());
    let ports = Ports {
        source: source.as_ref().map(|cluster| cluster as &dyn Source),
        catalog: &catalog,
        timeline: &timeline,
        machines: &machines,
        clock: &invocation.clock,
    };
    let (databases, regions) = (Environment::databases()?, Environment::replica_regions()?);
    let drill_region = region_in_turn(&regions, slot_millis);
    let name = Environment::source_name()?;
    let begun = run(ports, name, start, slot_millis, &databases, drill_region).await?;
    tracing::info!(
        step = "start-pipeline",
        what = start.word(),
        operations = begun.len(),
        "the step succeeded"
    );
    Ok(json!({ "operations": begun }))
}
