//! `plan-proof`: chooses the earlier backup that a new one is compared with, once the timeline has passed the new one's
//! chunks. Without one that is connected to it by the timeline there is nothing to prove.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::format::ObjectKey;
use crate::id::{ClusterTime, OperationId};
use crate::operation::{OperationKind, OperationState};
use crate::plan::windows::{Base, base_for};
use crate::ports::{Catalog, DataKeys, ObjectStore, Timeline};

use super::upkeep::BACKUPS_LOOKED_AT_MAX;

/// What the state machine needs next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Whether there is something to prove.
    pub proceed: bool,
    /// The key of the work items.
    pub work_key: String,
}

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service (to open the manifest).
    pub keys: &'a dyn DataKeys,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The timeline.
    pub timeline: &'a dyn Timeline,
}

/// Runs the step for backup `id`.
pub async fn run(ports: Ports<'_>, id: OperationId) -> Result<Planned> {
    let mut operation = ports.catalog.operation(OperationKind::Backup, id).await?;
    let work_key = ObjectKey::BackupWork(operation.backup_place()?).to_path()?;
    if operation.state != OperationState::Sealed {
        return Ok(Planned { proceed: false, work_key }); // a repeat, after it was closed
    }
    if operation.backup()?.proof_base.is_none() {
        let manifest = super::open_manifest(ports.store, ports.keys, &operation).await?;
        let newest = manifest.chunks().filter_map(|(_, chunk)| chunk.stored.cluster_time).max();
        let oldest = manifest.chunks().filter_map(|(_, chunk)| chunk.stored.cluster_time).min();
        let base = match oldest.zip(newest) {
            Some(times) if operation.collections.is_empty() => {
                find(ports, &operation.database, times).await?
            }
            _ => None,
        };
        // What failed on the way here was ridden out; without a base, `close` would take it for the reason.
        let was_ridden_out = operation.failure.take().is_some();
        let claimed = match base {
            Some(base) => {
                super::uses::claim(ports.catalog, &mut operation, base).await?;
                true
            }
            None => false,
        };
        if !claimed && was_ridden_out {
            ports.catalog.update_operation(&mut operation).await?;
        }
    }
    Ok(Planned { proceed: operation.backup()?.proof_base.is_some(), work_key })
}

/// A base that can be folded to every instant of the new backup's chunks.
async fn find(
    ports: Ports<'_>,
    database: &str,
    (oldest, newest): (ClusterTime, ClusterTime),
) -> Result<Option<OperationId>> {
    let backups = ports.catalog.operations(OperationKind::Backup, BACKUPS_LOOKED_AT_MAX).await?;
    let bases: Vec<Base> = backups.iter().filter_map(Base::of).collect();
    let Some(head) = ports.timeline.head().await? else { return Ok(None) };
    let breaks = ports.timeline.breaks().await?;
    if !bases.iter().any(|base| base.database == database && base.oldest <= oldest) {
        return Ok(None); // there is nothing to compare with, however far the timeline gets
    }
    if head.to <= newest {
        let what = format!("prove the chain: the timeline is at {}, not yet behind {newest}", head.to);
        return Err(Error::new(ErrorKind::Transient, what));
    }
    let reaches = |time| base_for(&bases, Some(&head), &breaks, database, time).ok().map(|base| base.backup);
    // A break between the chunks' instants separates them.
    Ok(reaches(oldest).filter(|base| {
        let own: Vec<Base> = bases.iter().filter(|it| it.backup == *base).cloned().collect();
        base_for(&own, Some(&head), &breaks, database, newest).is_ok()
    }))
}
