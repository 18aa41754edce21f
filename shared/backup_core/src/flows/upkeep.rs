//! What a capture starts by itself: a backup of a database whose window was closed.

use crate::error::Result;
use crate::id::{OperationId, SourceName};
use crate::operation::{BackupDetail, Detail, Failure, Operation, OperationKind, Trigger};
use crate::plan::windows::{Base, bases_wanted};
use crate::ports::Resource;

use super::capture_log::Ports;

/// Backups that are looked at: those of a hundred databases for some months, as the retention rules leave them.
pub(super) const BACKUPS_LOOKED_AT_MAX: u32 = 10_000;
/// A database whose backup was just started is not looked at again before this.
const PAUSE_MILLIS: u64 = 1_800_000;
/// Who asks for such a backup.
const USER: &str = "nightsafe: capture-log";

/// Starts what is wanted, unless the source is busy: it takes one backup at a time, and this is asked again with each
/// capture.
pub(super) async fn start_wanted(ports: Ports<'_>, source: SourceName) -> Result<()> {
    let now = ports.clock.now_millis();
    let breaks = ports.timeline.breaks().await?;
    let backups = ports.catalog.operations(OperationKind::Backup, BACKUPS_LOOKED_AT_MAX).await?;
    let bases: Vec<Base> = backups.iter().filter_map(Base::of).collect();
    let was_just_started = |database: &String| {
        let is_such = |it: &&Operation| it.database == *database && it.user == USER;
        let millis = backups.iter().find(is_such).map(|newest| newest.id.requested_millis());
        millis.is_some_and(|millis| now.saturating_sub(millis) < PAUSE_MILLIS)
    };
    let mut to_read = bases_wanted(&bases, &breaks);
    to_read.retain(|database| !was_just_started(database));
    if to_read.is_empty() || ports.catalog.lease(&Resource::Source, now).await?.is_some() {
        return Ok(());
    }
    // One that was dropped for good needs no backup any more.
    let there = ports.source.databases().await?;
    match to_read.into_iter().find(|database| there.contains(database)) {
        Some(database) => start(ports, source, database).await,
        None => Ok(()),
    }
}

/// Notes the request of a backup and starts its execution.
async fn start(ports: Ports<'_>, source: SourceName, database: String) -> Result<()> {
    let now = ports.clock.now_millis();
    let detail = BackupDetail::requested(Trigger::Automated, false);
    let id = OperationId::generate(now)?;
    let operation =
        Operation::requested(id, source, database, Vec::new(), USER.to_owned(), Detail::Backup(detail));
    ports.catalog.create_operation(&operation).await?;
    let started = ports.machines.start(operation.pipeline(), &operation).await;
    if let Err(why) = &started {
        let failed = Operation { failure: Some(Failure::of("start", why)), ..operation };
        ports.catalog.fail_operation(&failed, now).await?;
        super::record::keep_or_warn(ports.store, ports.keys, ports.catalog, OperationKind::Backup, id).await;
    }
    started
}
