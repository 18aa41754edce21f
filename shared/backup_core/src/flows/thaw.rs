//! `thaw`: asks cold storage for the chunks that a restore needs, and says whether they have come. The state machine
//! asks again until they have; then `plan-restore` takes the backup that was chosen here. A restore that waits holds no
//! lease, and has changed nothing.

use serde::{Deserialize, Serialize};

use crate::alert::Alert;
use crate::at_once::at_once;
use crate::error::{Error, ErrorKind, Result};
use crate::format::ObjectKey;
use crate::id::OperationId;
use crate::operation::{OperationKind, OperationState};
use crate::plan::restore::plan;
use crate::ports::{Alerts, Catalog, Clock, ColdStorage, DataKeys, ObjectStore, Temperature, Timeline};

use super::DAMAGED;
use super::chosen_backup::choose;

/// Chunks that are looked at and asked for at the same time.
const AT_ONCE: usize = 32;
/// Chunks that are looked at before it is asked whether the others matter.
const CHUNKS_LOOKED_AT: usize = 1000;
/// No chunk is looked at with less time than this: two short requests, and what is written in the end.
const MILLIS_MIN: u64 = 60_000;

/// What the state machine needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thawed {
    /// Whether every chunk that the restore needs can be read; else it is to be asked again later.
    pub ready: bool,
}

/// Nothing is given to cold storage on its first day. Of what is older its row may not tell: the pruner freezes chunks
/// before it notes that, and a row may have been made from a manifest alone.
const WARM_MILLIS: u64 = 24 * 3_600_000;

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service.
    pub keys: &'a dyn DataKeys,
    /// Cold storage.
    pub cold: &'a dyn ColdStorage,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The timeline.
    pub timeline: &'a dyn Timeline,
    /// The channels to people.
    pub alerts: &'a dyn Alerts,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for restore `id`.
pub async fn run(ports: Ports<'_>, id: OperationId) -> Result<Thawed> {
    let Ports { store, keys, catalog, timeline, alerts, clock, .. } = ports;
    let mut operation = catalog.operation(OperationKind::Restore, id).await?;
    if operation.state != OperationState::Requested || operation.restore()?.dry_run {
        return Ok(Thawed { ready: true }); // a repeat; and a plan reads no chunks
    }
    let chosen = choose(catalog, timeline, &mut operation).await?;
    let age = clock.now_millis().saturating_sub(chosen.backup.id.requested_millis());
    if !chosen.backup.backup()?.is_cold && age < WARM_MILLIS {
        return Ok(Thawed { ready: true });
    }
    let contents = chosen.open(store, keys, timeline).await?;
    // What names a collection that is not there is refused now, not after hours.
    plan(contents.manifest(), &operation.collections, operation.restore()?.full, &[], Vec::new())?;
    let all_were_asked_for = operation.restore()?.thawing_since_millis.is_some();
    let needed = contents.chunks_needed(&operation.collections);
    let asked = ask(ports, &needed, all_were_asked_for).await;
    let ready = asked.map_err(|why| match why.kind() {
        ErrorKind::NotFound => why.while_doing(format!("thaw backup {}", chosen.backup.id)).hint(DAMAGED),
        _ => why,
    })?;
    if !ready && !all_were_asked_for {
        alerts.publish(&Alert::restore_waits(&operation, chosen.backup.id)).await?;
        operation.restore_mut()?.thawing_since_millis = Some(clock.now_millis());
        catalog.update_operation(&mut operation).await?;
    }
    Ok(Thawed { ready })
}

/// Asks for those that are frozen; whether all can be read. Where all were asked for before, it ends with the first
/// ones that have not come: the others are looked at once these are there.
async fn ask(ports: Ports<'_>, needed: &[ObjectKey], all_were_asked_for: bool) -> Result<bool> {
    let mut are_warm = true;
    for some in needed.chunks(CHUNKS_LOOKED_AT) {
        let looked = at_once(AT_ONCE, some.iter().copied().map(|chunk| ask_for(ports, chunk))).await?;
        are_warm &= looked.into_iter().all(|is_warm| is_warm);
        if !are_warm && all_were_asked_for {
            break;
        }
    }
    Ok(are_warm)
}

/// Whether the chunk can be read; if it is frozen, it is asked for.
async fn ask_for(ports: Ports<'_>, chunk: ObjectKey) -> Result<bool> {
    if ports.clock.left_millis() < MILLIS_MIN {
        let what = "ask cold storage for more chunks: too little time is left in this invocation";
        return Err(Error::new(ErrorKind::OutOfTime, what));
    }
    let temperature = ports.cold.temperature(chunk).await?;
    if temperature == Temperature::Frozen {
        ports.cold.thaw(chunk).await?;
    }
    Ok(temperature == Temperature::Warm)
}
