//! What the proof of the chain comes to, once all chunks were compared: noted on both backups, told to people, and, if
//! chunks differ, the stretch between the two is in no window any more.

use crate::alert::Alert;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Manifest, ObjectKey, Opened, ProvedChunks};
use crate::id::{ClusterTime, OperationId};
use crate::operation::{BackupNote, ChainProof, Operation, OperationKind};
use crate::plan::windows::Base;
use crate::ports::Timeline;
use crate::timeline::{Break, BreakReason};

use super::close::{Ports, tell, work_items};
use super::upkeep::BACKUPS_LOOKED_AT_MAX;

/// How often the timeline is moved by others before this gives up.
const TRIES: u32 = 10;
/// Steps without which there is no comparison.
const PLANNING: [&str; 2] = ["capture-log", "plan-proof"];
/// Chunks that an alert names.
const NAMED_MAX: usize = 20;

/// What was found for a backup that has been compared with an earlier one; none if there was none to compare it with.
pub(super) async fn conclude(
    ports: Ports<'_>,
    operation: &Operation,
    opened: &Opened<Manifest>,
) -> Result<Option<ChainProof>> {
    let Some(base) = operation.backup()?.proof_base else {
        // Without an earlier one there is nothing to compare; but it may also be that nobody could look for it.
        let failed = operation.failure.as_ref().filter(|it| PLANNING.contains(&it.step.as_str()));
        if let Some(failure) = failed {
            tell(ports.alerts, &Alert::chain_not_compared(operation, failure)).await?;
        }
        return Ok(None);
    };
    let found = collect(ports, operation, opened).await?;
    let count = |all: &[u32]| u64::try_from(all.len()).unwrap_or(u64::MAX);
    let told = count(&found.equal) + count(&found.different) + count(&found.skipped);
    let proof = ChainProof {
        with: base,
        equal: count(&found.equal),
        different: count(&found.different),
        skipped: count(&found.skipped),
        unproved: opened.value.totals().chunks.saturating_sub(told),
    };
    if proof.different > 0 || proof.unproved > 0 {
        let names = opened.value.chunks().filter(|(_, chunk)| found.different.contains(&chunk.ordinal));
        let names = names.map(|(entry, chunk)| (entry.namespace.name.clone(), chunk.ordinal));
        let named: Vec<_> = names.take(NAMED_MAX).collect();
        tell(ports.alerts, &Alert::chain_not_proved(operation, &proof, &named)).await?;
    }
    if proof.different > 0 {
        interrupt(ports, operation, base).await?;
    }
    let note = BackupNote::ProvedBy(ChainProof { with: operation.id, ..proof });
    match super::record::note(ports.store, ports.keys, ports.catalog, base, &note).await {
        Err(why) if why.kind() == ErrorKind::NotFound => {} // it was removed since
        noted => drop(noted?),
    }
    Ok(Some(proof))
}

async fn collect(ports: Ports<'_>, operation: &Operation, opened: &Opened<Manifest>) -> Result<ProvedChunks> {
    let place = operation.backup_place()?;
    let items = work_items(ports.store, ObjectKey::BackupWork(place)).await?;
    let keys = items.iter().map(|item| ObjectKey::Proved(place, item.first));
    // Where nothing is, it was not compared, and its chunks are missing.
    let found: Vec<ProvedChunks> =
        super::read_what_evidence_there_is(ports.store, &opened.evidence, keys).await?;
    let mut all = ProvedChunks::default();
    for it in found {
        all.equal.extend(it.equal);
        all.different.extend(it.different);
        all.skipped.extend(it.skipped);
    }
    all.different.sort_unstable(); // people are told the first ones
    Ok(all)
}

/// No instant is restorable any more that may rest on what is wrong. The earlier backup may be folded, and have it in it:
/// all that is known to be right was read from the source.
async fn interrupt(ports: Ports<'_>, operation: &Operation, base: OperationId) -> Result<()> {
    let base = ports.catalog.operation(OperationKind::Backup, base).await?;
    let backups = ports.catalog.operations(OperationKind::Backup, BACKUPS_LOOKED_AT_MAX).await?;
    let (from, to) = (behind_what_was_read(&backups, &base)?, time_of(operation)?);
    let stretch = Break {
        from,
        to,
        database: Some(operation.database.clone()),
        reason: BreakReason::NotProved,
        noticed_millis: ports.clock.now_millis(),
    };
    let (store, keys) = (ports.store, ports.keys);
    super::record::keep_breaks(store, keys, operation.source, std::slice::from_ref(&stretch)).await?;
    add(ports.timeline, stretch).await
}

/// The first instant behind the newest base of its database that was read from the source, at `base` or before it;
/// without any, the first instant that there is a base of.
fn behind_what_was_read(backups: &[Operation], base: &Operation) -> Result<ClusterTime> {
    let time = time_of(base)?;
    let own = backups.iter().filter(|it| it.database == base.database).filter_map(Base::marked_or_not);
    let own: Vec<Base> = own.filter(|it| it.oldest <= time).collect();
    let read = own.iter().filter(|it| !it.folded).map(|it| it.oldest).max();
    let first = || own.iter().map(|it| it.oldest).min().unwrap_or(time);
    Ok(read.map_or_else(first, ClusterTime::next))
}

fn time_of(backup: &Operation) -> Result<ClusterTime> {
    let time = backup.backup()?.cluster_time;
    time.ok_or_else(|| Error::new(ErrorKind::Internal, format!("use backup {}: it has no T", backup.id)))
}

async fn add(timeline: &dyn Timeline, it: Break) -> Result<()> {
    let mut moved = Err(Error::new(ErrorKind::Internal, "interrupt the timeline: it has not begun"));
    for _ in 0..TRIES {
        let Some(head) = timeline.head().await? else { return moved };
        moved = timeline.advance(&head, None, std::slice::from_ref(&it)).await;
        if !matches!(&moved, Err(why) if why.kind() == ErrorKind::Transient) {
            break;
        }
    }
    moved
}
