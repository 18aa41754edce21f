//! `prune-retention`: keeps what the policy keeps, and removes what it does not, in two phases: a backup is marked
//! first, and goes once a grace period is over, if nothing reads it then.
//!
//! A manifest goes before its objects, and the row last. A run that is killed anywhere leaves rows of which the next
//! one sees what is still to be done; every run decides anew, and goes on from what it finds.

mod keeping;
mod removal;
mod survey;
mod unneeded_slices;

use std::collections::BTreeSet;

use crate::at_once::at_once;
use crate::audit::{AuditRecord, AuditStatus};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ObjectContext, ObjectKey, ObjectKind, seal_json};
use crate::id::OperationId;
use crate::operation::{BackupNote, Operation, OperationKind, OperationState, Removal};
use crate::ports::{
    Alerts, Catalog, Clock, ColdStorage, DataKeys, Locks, ObjectStore, Region, Shelves, StoredVersion,
    Timeline,
};
use crate::retention::{Decision, Policy, RetentionPlan};

use super::{DAMAGED, record};
use removal::Leaving;
use survey::Survey;

/// Nothing more is begun with less time than this: each call takes a second at most, with its retries a few.
const MILLIS_MIN: u64 = 60_000;
/// Calls of the store that are on their way at once.
const AT_ONCE: usize = 16;

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service.
    pub keys: &'a dyn DataKeys,
    /// How objects are made immutable.
    pub locks: &'a dyn Locks,
    /// How objects are removed.
    pub shelves: &'a dyn Shelves,
    /// Cold storage.
    pub cold: &'a dyn ColdStorage,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The timeline.
    pub timeline: &'a dyn Timeline,
    /// The other regions.
    pub regions: &'a [Region<'a>],
    /// The channels to people.
    pub alerts: &'a dyn Alerts,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for operation `id`. `OutOfTime` if there is more to do than this invocation has time for: the next
/// one goes on. `Refused`, and nothing is removed, if clocks or keys look wrong.
pub async fn run(ports: Ports<'_>, policy: &Policy, id: OperationId) -> Result<()> {
    let mut operation = begin(ports, id).await?;
    if !operation.state.is_final() {
        let survey = survey::look(ports, policy, &operation).await?;
        store_plan(ports, &operation, &survey.plan).await?;
        if !operation.is_dry_run() {
            carry_out(ports, policy, &mut operation, &survey).await?;
        }
        operation.prune_mut()?.kept = count(survey.plan.decisions.iter().filter(|it| it.keep));
        operation.state = OperationState::Done;
        operation.finished_millis = Some(ports.clock.now_millis());
        operation.failure = None;
        ports.catalog.update_operation(&mut operation).await?;
    }
    end(ports, &operation).await
}

/// Takes the lease, and writes the row. A run of the same operation that is still alive somewhere can then write it no
/// more, and removes nothing more: it writes it before each removal. A dry run changes nothing, and needs no lease.
async fn begin(ports: Ports<'_>, id: OperationId) -> Result<Operation> {
    let Ports { catalog, clock, .. } = ports;
    let mut operation = catalog.operation(OperationKind::Prune, id).await?;
    if operation.state.is_final() || operation.is_dry_run() {
        return Ok(operation);
    }
    if operation.state == OperationState::Requested {
        if let Some(fence) = super::lease_to_begin(catalog, clock, &operation, false).await? {
            operation.fence = Some(fence);
            operation.state = OperationState::Running;
        } else {
            operation = catalog.operation(OperationKind::Prune, id).await?; // another run was faster
        }
    }
    if !operation.state.is_final() {
        catalog.update_operation(&mut operation).await?;
    }
    Ok(operation)
}

async fn store_plan(ports: Ports<'_>, operation: &Operation, plan: &RetentionPlan) -> Result<()> {
    let context = ObjectContext::of_operation(ObjectKind::Plan, operation.source, operation.id);
    let sealed = seal_json(ports.keys, context, plan).await?;
    ports.store.put(ObjectKey::PrunePlan(operation.prune_place()), sealed.into()).await
}

async fn carry_out(
    ports: Ports<'_>,
    policy: &Policy,
    operation: &mut Operation,
    survey: &Survey,
) -> Result<()> {
    if let Some(why) = &survey.plan.refused {
        return Err(Error::new(ErrorKind::Refused, format!("remove backups: {why}"))
            .hint("nothing is removed until that is mended; `nightsafe prune --dry-run` shows the plan"));
    }
    let mut trouble = Trouble::of(&survey.damaged);
    let mut answering = Vec::with_capacity(ports.regions.len());
    for region in ports.regions {
        let answered = region.store.store_millis().await;
        if trouble
            .unless(answered.map_err(|why| why.while_doing(format!("reach {}", region.name))))?
            .is_some()
        {
            answering.push(*region);
        }
    }
    let all_answer = answering.len() == ports.regions.len();
    let (mut leaving, mut kept, mut marked) = (Vec::new(), Vec::new(), 0);
    for decision in &survey.plan.decisions {
        let Some(backup) = survey.backups.get(&decision.backup) else { continue };
        time_for_more(ports.clock)?;
        if survey.damaged.contains(&decision.database) {
            // Older ones may be all that is left of it.
            if backup.backup()?.removal.as_ref().is_some_and(|removal| removal.begun) {
                ports.catalog.update_operation(operation).await?;
                trouble.unless(removal::take_back(ports, backup).await)?;
            }
            continue;
        }
        match next(ports, policy, survey, decision, backup).await? {
            Next::Keep => kept.push((decision, backup)),
            Next::Mark => {
                ports.catalog.update_operation(operation).await?; // refused, if another run has taken over
                mark(ports, decision).await?;
                marked += 1;
            }
            Next::Wait => marked += 1,
            Next::Remove { manifest_is_gone } => leaving.push(Leaving { backup, manifest_is_gone }),
        }
    }
    operation.prune_mut()?.marked = marked;
    // What is kept is made safe before anything goes.
    let here = Ports { regions: &answering, ..ports };
    for (decision, backup) in &kept {
        time_for_more(ports.clock)?;
        let kept = keeping::keep((here, policy), operation, survey, decision, backup).await;
        if trouble.unless(kept)?.is_none() {
            ports.catalog.update_operation(operation).await?; // it may be that another run has taken over
        }
    }
    if all_answer {
        removal::remove(ports, operation, &leaving, &mut trouble).await?;
    }
    if all_answer {
        trouble.unless(unneeded_slices::remove(ports, policy, operation).await)?;
    }
    let records = kept.iter().map(|(decision, backup)| keeping::bring_record(here, decision, backup));
    match at_once(AT_ONCE, records).await {
        Err(why) if why.kind() == ErrorKind::OutOfTime => {
            tracing::warn!("there was no time to look at every copy: the next run does");
        }
        brought => drop(brought?),
    }
    trouble.told()
}

/// What went wrong with single backups, or in single regions. It must not keep the others from what they need, and is
/// told at the end: the worst of it, which is what does not pass by itself.
struct Trouble {
    worst: Option<Error>,
    others: u32,
}

impl Trouble {
    /// Databases of which nothing is removed.
    fn of(damaged: &BTreeSet<String>) -> Self {
        let names: Vec<String> = damaged.iter().map(|name| format!("{name:?}")).collect();
        let what = format!("remove backups of {}: the newest good one is damaged", names.join(", "));
        let why = Error::new(ErrorKind::Corrupt, what).hint(DAMAGED);
        Self { worst: (!names.is_empty()).then_some(why), others: 0 }
    }

    /// Notes a failure; gives it only if nothing more can be done in this run.
    fn unless<T>(&mut self, done: Result<T>) -> Result<Option<T>> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(why) if matches!(why.kind(), ErrorKind::OutOfTime | ErrorKind::Fenced) => Err(why),
            Err(why) => {
                tracing::error!(why = %why, "the pruner goes on without this");
                self.others += u32::from(self.worst.is_some());
                if self.worst.as_ref().is_none_or(|it| it.kind().is_retryable() && !why.kind().is_retryable())
                {
                    self.worst = Some(why);
                }
                Ok(None)
            }
        }
    }

    fn told(self) -> Result<()> {
        let Self { worst, others } = self;
        let Some(worst) = worst else { return Ok(()) };
        Err(if others == 0 {
            worst
        } else {
            worst.while_doing(format!("{others} more troubles are in the log"))
        })
    }
}

/// What is done with a backup in this run.
enum Next {
    Keep,
    Mark,
    Wait,
    Remove { manifest_is_gone: bool },
}

async fn next(
    ports: Ports<'_>,
    policy: &Policy,
    survey: &Survey,
    decision: &Decision,
    backup: &Operation,
) -> Result<Next> {
    let Some(removal) = &backup.backup()?.removal else {
        return Ok(if decision.keep { Next::Keep } else { Next::Mark });
    };
    if removal.begun && ports.store.size(ObjectKey::Manifest(backup.backup_place()?)).await?.is_none() {
        return Ok(Next::Remove { manifest_is_gone: true }); // there is nothing left to be kept
    }
    let grace_is_over = policy.grace.end(removal.marked_millis) <= survey.now_millis;
    Ok(match (decision.keep, grace_is_over) {
        (true, _) => Next::Keep,
        (false, true) => Next::Remove { manifest_is_gone: false },
        (false, false) => Next::Wait,
    })
}

/// The first phase: from now on nothing begins to use it.
async fn mark(ports: Ports<'_>, decision: &Decision) -> Result<()> {
    let removal = Removal {
        reason: decision.reason.to_string(),
        marked_millis: ports.clock.now_millis(),
        begun: false,
    };
    note(ports, decision.backup, &BackupNote::Removal(Some(removal))).await.map(|_| ())
}

async fn end(ports: Ports<'_>, operation: &Operation) -> Result<()> {
    let Ports { store, keys, catalog, clock, .. } = ports;
    if operation.state != OperationState::Done {
        let what = format!("end the run {} of the pruner: it is {}", operation.id, operation.state);
        return Err(Error::new(ErrorKind::Internal, what));
    }
    if !operation.is_dry_run() {
        let finished = operation.finished_millis.unwrap_or_else(|| clock.now_millis());
        let audited = AuditRecord::of(operation, AuditStatus::Success, finished);
        catalog.append_audit(operation.id, &audited).await?;
    }
    record::keep(store, keys, catalog, OperationKind::Prune, operation.id).await?;
    catalog.release_lease(&operation.resource(), operation.id).await
}

/// Writes a note to a backup's row, and keeps its record; gives the row as it is then, none if there is none any more.
async fn note(ports: Ports<'_>, backup: OperationId, note: &BackupNote) -> Result<Option<Operation>> {
    match record::note(ports.store, ports.keys, ports.catalog, backup, note).await {
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
        noted => noted.map(Some),
    }
}

/// An error unless there is time for another call.
fn time_for_more(clock: &dyn Clock) -> Result<()> {
    if clock.left_millis() >= MILLIS_MIN {
        return Ok(());
    }
    Err(Error::new(ErrorKind::OutOfTime, "go on removing: too little time is left in this invocation"))
}

fn bytes(versions: &[StoredVersion]) -> u64 {
    versions.iter().fold(0, |sum, it| sum.saturating_add(it.bytes))
}

fn count<T>(all: impl Iterator<Item = T>) -> u64 {
    u64::try_from(all.count()).unwrap_or(u64::MAX)
}
