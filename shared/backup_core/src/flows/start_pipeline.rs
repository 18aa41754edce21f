//! `start-pipeline`: starts what a schedule asks for, for each database, once for each slot.
//!
//! Ids follow from the slot, and an execution is named after its operation. A trigger that comes twice, or again after
//! this step died, finds the rows and executions of the first one, and adds only what is missing.

use std::collections::BTreeSet;

use crate::error::{Error, ErrorKind, Result};
use crate::id::{OperationId, RegionName, SourceName};
use crate::operation::{Failure, Operation, OperationKind, OperationState};
use crate::plan::windows::{Base, foldings_wanted};
use crate::ports::{Catalog, Clock, Machines, Source, Timeline};
use crate::schedule::{Choice, Scheduled, choose, is_good};

use super::upkeep::BACKUPS_LOOKED_AT_MAX;

/// The step's name in a row that could not be started.
const STEP: &str = "start-pipeline";
/// Who asks.
const USER: &str = "nightsafe: schedule";
/// Nothing more is started with less time than this: the same trigger comes again, and goes on.
const START_MILLIS_MIN: u64 = 10_000;
/// A database that was backed up later than so long ago is most likely still there, in milliseconds.
const LATELY_MILLIS: u64 = 48 * 3_600_000;
/// How many names are told.
const NAMES_MAX: usize = 20;

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The source, for the names of its databases; none where only what is stored is asked.
    pub source: Option<&'a dyn Source>,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The timeline: only what grows is folded.
    pub timeline: &'a dyn Timeline,
    /// The state machines.
    pub machines: &'a dyn Machines,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for the slot at `slot_millis` (milliseconds since 1970 UTC) and the named `databases`; for all there
/// are, if none is named. `drill_region` is where a drill of another region reads. Gives the operations that are under
/// way or were.
///
/// What cannot be started does not keep the rest from it: the first error is given at the end, and so is `NotFound` for
/// a database that was named and is not there.
pub async fn run(
    ports: Ports<'_>,
    source: SourceName,
    what: Scheduled,
    slot_millis: u64,
    databases: &[String],
    drill_region: Option<RegionName>,
) -> Result<Vec<OperationId>> {
    let detail = what.detail(drill_region)?;
    let Choice { databases, missing } = chosen(ports, what, databases).await?;
    let (mut begun, mut first_error) = (Vec::with_capacity(databases.len()), None);
    for database in databases {
        if ports.clock.left_millis() < START_MILLIS_MIN {
            let why =
                Error::new(ErrorKind::OutOfTime, format!("{what}: start one more: too little time is left"));
            first_error.get_or_insert(why);
            break;
        }
        let id = OperationId::of_slot(slot_millis, &[source.as_str(), &database, what.word()]);
        let told = format!("{what} {database:?}");
        let operation =
            Operation::requested(id, source, database, Vec::new(), USER.to_owned(), detail.clone());
        match start(ports, operation).await {
            Ok(()) => begun.push(id),
            Err(why) => {
                first_error.get_or_insert(why.while_doing(told));
            }
        }
    }
    let error = first_error.or_else(|| (!missing.is_empty()).then(|| not_there(what, &missing)));
    error.map_or(Ok(begun), Err)
}

async fn chosen(ports: Ports<'_>, what: Scheduled, named: &[String]) -> Result<Choice> {
    match what {
        Scheduled::Protect => Ok(choose(named, &there(ports, named).await?)),
        Scheduled::Synthesize => {
            let mut choice = choose(named, &there(ports, named).await?);
            let wanted = foldable(ports).await?;
            choice.databases.retain(|database| wanted.contains(database));
            Ok(choice)
        }
        // One run, over all of them.
        Scheduled::Prune => Ok(Choice { databases: vec![String::new()], missing: Vec::new() }),
        Scheduled::SampleDrill | Scheduled::FullDrill | Scheduled::RegionDrill => {
            Ok(choose(named, &restorable(ports).await?))
        }
    }
}

/// What a source that cannot be asked for the moment would say is what was named; or else what was backed up lately.
/// So each of these databases has an operation that waits for the source, and people are told of those that fail.
async fn there(ports: Ports<'_>, named: &[String]) -> Result<BTreeSet<String>> {
    let source =
        ports.source.ok_or_else(|| Error::new(ErrorKind::Internal, "list databases: no source was given"))?;
    let why = match source.databases().await {
        Ok(there) => return Ok(there.into_iter().collect()),
        Err(why) if why.kind().is_retryable() => why,
        Err(why) => return Err(why),
    };
    let mut known: BTreeSet<String> = named.iter().cloned().collect();
    if known.is_empty() {
        known = backed_up_since(ports, ports.clock.now_millis().saturating_sub(LATELY_MILLIS)).await?;
    }
    if known.is_empty() {
        return Err(why);
    }
    tracing::warn!(why = %why, databases = known.len(), "the source cannot be asked: it goes by what is known");
    Ok(known)
}

/// The databases that have changes behind their newest base. Whoever reads the head and the breaks reads the head
/// first.
async fn foldable(ports: Ports<'_>) -> Result<Vec<String>> {
    let (head, breaks) = (ports.timeline.head().await?, ports.timeline.breaks().await?);
    let backups = ports.catalog.operations(OperationKind::Backup, BACKUPS_LOOKED_AT_MAX).await?;
    let bases: Vec<Base> = backups.iter().filter_map(Base::of).collect();
    Ok(foldings_wanted(&bases, head.as_ref(), &breaks))
}

/// The databases that there is a good backup of. The source is not asked: what is no longer there is what a restore is
/// wanted of.
async fn restorable(ports: Ports<'_>) -> Result<BTreeSet<String>> {
    backed_up_since(ports, 0).await
}

/// The databases that there is a good backup of which was asked for later than `since_millis`.
async fn backed_up_since(ports: Ports<'_>, since_millis: u64) -> Result<BTreeSet<String>> {
    let now = ports.clock.now_millis();
    let backups = ports.catalog.operations(OperationKind::Backup, BACKUPS_LOOKED_AT_MAX).await?;
    let good = backups.into_iter().filter(|it| is_good(it, now) && it.id.requested_millis() >= since_millis);
    Ok(good.map(|backup| backup.database).collect())
}

/// Makes the row unless it is there, and starts its execution.
async fn start(ports: Ports<'_>, operation: Operation) -> Result<()> {
    let row = match ports.catalog.create_operation(&operation).await {
        Ok(()) => operation,
        Err(why) if why.kind() == ErrorKind::Conflict => {
            ports.catalog.operation(operation.kind(), operation.id).await?
        }
        Err(why) => return Err(why),
    };
    if row.state.is_final() {
        return ended_before(&row);
    }
    let started = ports.machines.start(row.pipeline(), &row).await;
    // A hiccup leaves the row as it is: the trigger comes again, and then its execution is started.
    if let Err(why) = &started
        && !why.kind().is_retryable()
    {
        let failed = Operation { failure: Some(Failure::of(STEP, why)), ..row };
        ports.catalog.fail_operation(&failed, ports.clock.now_millis()).await?;
    }
    started
}

/// A trigger that comes again is told what became of it, if nothing was begun: it must not look as if all was well.
fn ended_before(row: &Operation) -> Result<()> {
    match &row.failure {
        Some(failure) if row.state == OperationState::Failed && failure.step == STEP => {
            let mut why = Error::new(failure.kind, failure.message.clone());
            if let Some(hint) = &failure.hint {
                why = why.hint(hint);
            }
            Err(why)
        }
        _ => Ok(()),
    }
}

fn not_there(what: Scheduled, missing: &[String]) -> Error {
    let reason = match what {
        Scheduled::Protect | Scheduled::Synthesize | Scheduled::Prune => "the source has no such database",
        Scheduled::SampleDrill | Scheduled::FullDrill | Scheduled::RegionDrill => {
            "there is no good backup of it"
        }
    };
    let shown: Vec<String> = missing.iter().take(NAMES_MAX).map(|name| format!("{name:?}")).collect();
    let more = missing.len().saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Error::new(ErrorKind::NotFound, format!("{what} {}{more}: {reason}", shown.join(", ")))
        .hint("the stack's parameter Databases names it; empty stands for all there are")
}
