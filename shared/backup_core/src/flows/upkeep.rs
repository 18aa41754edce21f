//! What a capture starts by itself: a backup of a database whose window was closed, and every few hours a folded
//! backup of each database, so that no restore has many changes to fold.

use crate::error::Result;
use crate::id::{OperationId, SourceName};
use crate::operation::{BackupDetail, Detail, Failure, Operation, OperationKind, Trigger};
use crate::plan::windows::{Base, bases_wanted, foldings_wanted};
use crate::ports::Resource;
use crate::settings::Settings;

use super::capture_log::Ports;

/// Backups that are looked at.
pub(super) const BACKUPS_LOOKED_AT_MAX: u32 = 1000;
/// A database whose backup was just started is not looked at again before this.
const PAUSE_MILLIS: u64 = 1_800_000;
/// Who asks for such a backup.
const USER: &str = "nightsafe: capture-log";

/// Starts what is wanted, unless the source (or the folding) is busy: it takes one backup at a time, and this is asked
/// again with each capture.
pub(super) async fn start_wanted(ports: Ports<'_>, settings: &Settings, source: SourceName) -> Result<()> {
    let now = ports.clock.now_millis();
    let (head, breaks) = (ports.timeline.head().await?, ports.timeline.breaks().await?);
    let backups = ports.catalog.operations(OperationKind::Backup, BACKUPS_LOOKED_AT_MAX).await?;
    let bases: Vec<Base> = backups.iter().filter_map(Base::of).collect();
    let was_just_started = |database: &String, folds: bool| {
        let is_such = |it: &&Operation| {
            let detail = it.backup().ok();
            it.database == *database && it.user == USER && detail.is_some_and(|detail| detail.folds == folds)
        };
        let millis = backups.iter().find(is_such).map(|newest| newest.id.requested_millis());
        millis.is_some_and(|millis| now.saturating_sub(millis) < PAUSE_MILLIS)
    };
    let mut to_read = bases_wanted(&bases, &breaks);
    to_read.retain(|database| !was_just_started(database, false));
    if !to_read.is_empty() && ports.catalog.lease(&Resource::Source, now).await?.is_none() {
        // One that was dropped for good needs no backup any more.
        let there = ports.source.databases().await?;
        if let Some(database) = to_read.into_iter().find(|database| there.contains(database)) {
            start(ports, source, database, false).await?;
        }
    }
    let mut to_fold = foldings_wanted(&bases, head.as_ref(), &breaks, settings.folding_seconds);
    to_fold.retain(|database| !was_just_started(database, true));
    if let Some(database) = to_fold.into_iter().next()
        && ports.catalog.lease(&Resource::Folding, now).await?.is_none()
    {
        start(ports, source, database, true).await?;
    }
    Ok(())
}

/// Notes the request of a backup and starts its execution.
async fn start(ports: Ports<'_>, source: SourceName, database: String, folds: bool) -> Result<()> {
    let now = ports.clock.now_millis();
    let detail = BackupDetail { folds, ..BackupDetail::requested(Trigger::Automated, false) };
    let id = OperationId::generate(now)?;
    let operation =
        Operation::requested(id, source, database, Vec::new(), USER.to_owned(), Detail::Backup(detail));
    ports.catalog.create_operation(&operation).await?;
    let started =
        if folds { ports.machines.start_synthesis(id).await } else { ports.machines.start_backup(id).await };
    if let Err(why) = &started {
        let failed = Operation { failure: Some(Failure::of("start", why)), ..operation };
        ports.catalog.fail_operation(&failed, now).await?;
    }
    started
}
