//! `finish-drill`: wants evidence for every chunk of the plan, judges the owner's checks on what was counted in all of
//! them, reports, and notes on the backup what was proved. A drill that fails leaves no note.

use std::collections::BTreeSet;

use crate::audit::{AuditRecord, AuditStatus, iso_8601};
use crate::checks::{Extent, judge, sum};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{DrillPlan, ObjectKey, Opened, RehearsedChunks};
use crate::id::OperationId;
use crate::operation::{BackupNote, Level, Operation, OperationKind, OperationState};
use crate::ports::{Catalog, Clock, DataKeys, ObjectStore};
use crate::report::drill::DrillReport;

use super::plan_drill::open_drill_plan;

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service (to open the plan and to seal records).
    pub keys: &'a dyn DataKeys,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for drill `id`.
pub async fn run(ports: Ports<'_>, id: OperationId) -> Result<()> {
    let Ports { store, keys, catalog, clock } = ports;
    let mut operation = catalog.operation(OperationKind::Drill, id).await?;
    if operation.state == OperationState::Running {
        operation = conclude(ports, operation).await?;
    }
    // A repeat finds it done, and perhaps its lease free again.
    if operation.state != OperationState::Done {
        return Err(Error::new(ErrorKind::Internal, format!("finish drill {id}: it is {}", operation.state)));
    }
    let finished = operation.finished_millis.unwrap_or_else(|| clock.now_millis());
    catalog.append_audit(id, &AuditRecord::of(&operation, AuditStatus::Success, finished)).await?;
    super::record::keep(store, keys, catalog, OperationKind::Drill, id).await?;
    catalog.release_lease(&operation.resource(), id).await
}

async fn conclude(ports: Ports<'_>, mut operation: Operation) -> Result<Operation> {
    let Ports { store, keys, catalog, clock } = ports;
    catalog.check_lease(&operation).await?;
    let opened = open_drill_plan(store, keys, &operation).await?;
    let plan = &opened.value;
    let (found, servers) = every_chunk_was_rehearsed(store, &operation, &opened).await?;
    let checks = judge_checks(plan, &found)
        .map_err(|why| why.while_doing(format!("drill with backup {}", plan.backup)))?;
    let (reached, ended) = (reached(plan, checks), clock.now_millis());
    let report = DrillReport {
        id: operation.id,
        backup: plan.backup,
        level: plan.level,
        reached,
        region: plan.region,
        seed: plan.seed,
        chunks: u64::try_from(found.ordinals.len()).unwrap_or(u64::MAX),
        chunks_of_backup: plan.chunks_of_backup,
        documents: found.documents,
        bytes: found.bson_bytes,
        indexes: found.indexes,
        checks,
        servers,
        began: iso_8601(plan.began_millis),
        ended: iso_8601(ended),
        seconds: ended.saturating_sub(plan.began_millis) / 1000,
    };
    store.put(ObjectKey::DrillReport(operation.drill_place()), report.to_json()?).await?;
    store.put(ObjectKey::DrillPage(operation.drill_place()), report.to_html()).await?;
    // Before the drill is done, because nothing repeats what comes after that; and it is true by now in any case.
    let note = BackupNote::Proved(proved(reached), ended);
    if plan.region.is_none() {
        // What was proved of a copy says nothing of the backup at home: the drill's own row and report tell it.
        super::record::note(store, keys, catalog, plan.backup, &note).await?;
    }
    operation.totals.chunks = report.chunks;
    operation.totals.documents = found.documents;
    operation.totals.bson_bytes = found.bson_bytes;
    operation.totals.stored_bytes = found.stored_bytes;
    operation.drill_mut()?.reached = Some(reached);
    operation.drill_mut()?.chunks = report.chunks;
    operation.state = OperationState::Done;
    operation.failure = None;
    operation.finished_millis = Some(ended);
    catalog.update_operation(&mut operation).await?;
    Ok(operation)
}

/// What was found in all chunks together, and the servers that they were restored to.
async fn every_chunk_was_rehearsed(
    store: &dyn ObjectStore,
    operation: &Operation,
    opened: &Opened<DrillPlan>,
) -> Result<(RehearsedChunks, Vec<String>)> {
    let keys = opened.value.work.iter().map(|item| ObjectKey::Rehearsed(operation.drill_place(), item.first));
    let found: Vec<RehearsedChunks> = super::read_all_evidence(store, &opened.evidence, keys).await?;
    let (mut all, mut servers) = (RehearsedChunks::default(), BTreeSet::new());
    for it in found {
        all.ordinals.extend(it.ordinals);
        all.documents += it.documents;
        all.bson_bytes += it.bson_bytes;
        all.stored_bytes += it.stored_bytes;
        all.indexes += it.indexes;
        all.counts.extend(it.counts);
        all.millis += it.millis;
        servers.extend(it.server);
    }
    let (there, wanted): (BTreeSet<u32>, _) =
        (all.ordinals.iter().copied().collect(), opened.value.ordinals());
    if there != wanted {
        let missing = wanted.difference(&there).count();
        let what =
            format!("finish drill: nothing shows that every chunk was rehearsed: {missing} are missing");
        return Err(Error::new(ErrorKind::Internal, what));
    }
    all.ordinals.sort_unstable();
    Ok((all, servers.into_iter().collect()))
}

/// Judges the owner's checks on all that was restored; gives how many were judged on the whole.
fn judge_checks(plan: &DrillPlan, found: &RehearsedChunks) -> Result<u64> {
    // A collection that is not in the backup has no chunk to be counted with.
    let none: Vec<_> = plan.checks.iter().map(|check| check.counted(0)).collect();
    let counts = sum(none.iter().chain(&found.counts));
    let extent = if plan.level >= Level::FullyRestored { Extent::Whole } else { Extent::Part };
    judge(&counts, extent)?;
    let judged = if extent == Extent::Whole { counts.len() } else { 0 };
    Ok(u64::try_from(judged).unwrap_or(u64::MAX))
}

/// How far the backup was verified, which is not always as far as was asked for.
fn reached(plan: &DrillPlan, checks: u64) -> Level {
    match plan.level {
        // Nothing was restored: its manifest was opened, and it has no documents.
        level if plan.work.is_empty() => level.min(Level::Decoded),
        Level::FullyRestored | Level::ApplicationChecked if checks > 0 => Level::ApplicationChecked,
        Level::FullyRestored | Level::ApplicationChecked => Level::FullyRestored,
        level => level,
    }
}

/// The levels that hold of the whole backup since then. A sample says nothing new of the chunks that are not in it.
fn proved(reached: Level) -> Vec<Level> {
    if reached == Level::SampleRestored {
        return vec![reached];
    }
    Level::ALL.into_iter().filter(|level| *level <= reached).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::{Check, CheckCount};
    use crate::format::WorkItem;

    fn plan(level: Level, chunks: u32, checks: Vec<Check>) -> DrillPlan {
        let work = (0..chunks).map(|first| WorkItem { first, count: 1 }).collect();
        DrillPlan {
            backup: OperationId::from_bytes([1; 16]),
            level,
            region: None,
            work,
            chunks_of_backup: u64::from(chunks),
            began_millis: 0,
            seed: None,
            checks,
        }
    }

    #[test]
    fn a_level_is_reached_by_what_was_proved() {
        use Level::{ApplicationChecked, Checksums, Decoded, FullyRestored, Present, SampleRestored};
        for (level, chunks, checks, expected) in [
            (Present, 2, 0, Present),
            (Checksums, 2, 0, Checksums),
            (Decoded, 2, 0, Decoded),
            (SampleRestored, 2, 0, SampleRestored),
            (FullyRestored, 2, 0, FullyRestored),
            (FullyRestored, 2, 1, ApplicationChecked),
            (ApplicationChecked, 2, 0, FullyRestored),
            (ApplicationChecked, 2, 3, ApplicationChecked),
            (ApplicationChecked, 0, 0, Decoded),
            (SampleRestored, 0, 0, Decoded),
            (Present, 0, 0, Present),
        ] {
            let found = reached(&plan(level, chunks, vec![]), checks);
            assert_eq!(found, expected, "{level} of {chunks} chunks with {checks} checks");
        }
        assert_eq!(proved(SampleRestored), [SampleRestored]);
        assert_eq!(proved(Decoded), [Present, Checksums, Decoded]);
        assert_eq!(proved(ApplicationChecked), Level::ALL);
    }

    #[test]
    fn a_check_is_judged_on_the_sum_of_all_parts() {
        let check = Check {
            name: "phones".into(),
            database: "crm".into(),
            collection: "leads".into(),
            filter: bson::RawDocumentBuf::new(),
            at_least: 5,
            at_most: Some(9),
        };
        let judged = |level, counts: &[u64]| {
            let counts: Vec<CheckCount> = counts.iter().map(|count| check.counted(*count)).collect();
            let found = RehearsedChunks { counts, ..RehearsedChunks::default() };
            judge_checks(&plan(level, 2, vec![check.clone()]), &found).map_err(|why| why.kind())
        };
        let failed = Err(ErrorKind::ValidationFailed);
        for (level, counts, expected) in [
            (Level::FullyRestored, vec![2, 3], Ok(1)),
            (Level::FullyRestored, vec![2, 2], failed),
            (Level::FullyRestored, vec![], failed),
            (Level::FullyRestored, vec![5, 5], failed),
            (Level::SampleRestored, vec![2], Ok(0)),
            (Level::SampleRestored, vec![5, 5], failed),
        ] {
            assert_eq!(judged(level, &counts), expected, "{level} {counts:?}");
        }
    }
}
