//! `nightsafe status`: the verdict first.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::Result;
use backup_core::id::{OperationId, RegionName};
use backup_core::operation::{Operation, OperationKind, OperationState};
use backup_core::ports::{Catalog, Lease, Resource};

use crate::output;
use crate::session::Session;
use crate::windows::Restorable;

/// Operations looked at.
const LOOKED_AT_MAX: u32 = 10_000;
/// The procedures promise a backup every 24 hours.
const BACKUP_AGE_MILLIS_MAX: u64 = 24 * 3600 * 1000;

pub(crate) async fn run(session: &Session) -> Result<()> {
    let now = Session::now_millis();
    let backups = session.catalog.operations(OperationKind::Backup, LOOKED_AT_MAX).await?;
    let restores = session.catalog.operations(OperationKind::Restore, LOOKED_AT_MAX).await?;
    let lease = session.catalog.lease(&Resource::Source, now).await?;
    let restorable = Restorable::look(session, &backups).await?;
    let newest = newest_verified(&backups);
    let oldest_of_newest = newest.values().map(|backup| backup.id.requested_millis()).min();
    let last_failed = newest_try_failed(&backups);
    let verdict = match oldest_of_newest {
        None => "NO BACKUP – there is no verified backup yet".to_owned(),
        Some(at) if now.saturating_sub(at) > BACKUP_AGE_MILLIS_MAX => {
            format!("LATE – a database was last backed up {} ago", output::duration(now.saturating_sub(at)))
        }
        Some(_) if last_failed => {
            "WARNING – the newest backup of a database failed; older ones are good".to_owned()
        }
        Some(at) => {
            format!(
                "OK – every database that is backed up was within {}",
                output::duration(now.saturating_sub(at))
            )
        }
    };
    if session.json {
        let value = serde_json::json!({
            "message_type": "status",
            "verdict": verdict,
            "source": session.source,
            "newest_verified": newest.values().map(|backup| backup.id).collect::<Vec<_>>(),
            "running": running(&backups, &restores).map(|operation| operation.id).collect::<Vec<_>>(),
            "lease_holder": lease.as_ref().map(|lease| lease.holder),
            "captured": restorable.captured(),
            "windows": restorable.windows.len(),
            "stored_bytes": stored(session, &backups)?,
            "quota_bytes": session.quota_bytes()?,
            "replicas": session.replica_regions()?.iter().map(|region| (region.to_string(), newest_in(*region, &backups))).collect::<BTreeMap<_, _>>(),
            "newest_drills": newest_drills(session).await?,
        });
        println!("{value}");
        return Ok(());
    }
    println!("{verdict}\n\nsource {}", session.source);
    for (database, backup) in &newest {
        let age = output::duration(now.saturating_sub(backup.id.requested_millis()));
        println!("  {database}: {} {age} ago, {}", backup.id, output::totals(&backup.totals));
    }
    println!("{}", timeline(&restorable, now));
    print!("{}", shelves(session, &backups)?);
    for (level, at) in newest_drills(session).await? {
        println!("drill: {level} proved {} ago", output::duration(now.saturating_sub(at)));
    }
    print!("{}", activity(&backups, &restores, lease.as_ref()));
    Ok(())
}

fn timeline(restorable: &Restorable, now_millis: u64) -> String {
    let growing = restorable.windows.iter().filter(|window| window.ended.is_none()).count();
    let windows = format!("{} windows, {growing} of them growing", restorable.windows.len());
    format!("timeline: {}; {windows}", restorable.reach(now_millis))
}

/// Bytes of backups in each region.
fn stored(session: &Session, backups: &[Operation]) -> Result<BTreeMap<String, u64>> {
    let mut bytes = BTreeMap::from([(session.region()?.to_string(), 0)]);
    for backup in backups {
        let Ok(detail) = backup.backup() else { continue };
        if detail.manifest_sha256.is_some() {
            *bytes.entry(session.region()?.to_string()).or_default() += backup.totals.stored_bytes;
        }
        for (region, copy) in &detail.replicas {
            *bytes.entry(region.to_string()).or_default() += copy.stored_bytes;
        }
    }
    Ok(bytes)
}

/// The newest backup that a region has a complete copy of.
fn newest_in(region: RegionName, backups: &[Operation]) -> Option<OperationId> {
    let has_copy = |it: &&Operation| it.backup().is_ok_and(|detail| detail.replicas.contains_key(&region));
    backups.iter().find(has_copy).map(|backup| backup.id) // they come newest first
}

fn shelves(session: &Session, backups: &[Operation]) -> Result<String> {
    let stored = stored(session, backups)?;
    let mut text = String::new();
    for (region, bytes) in &stored {
        text.push_str(&format!("stored: {} in {region}\n", output::bytes(*bytes)));
    }
    if let Some(quota) = session.quota_bytes()? {
        let total: u64 = stored.values().sum();
        text.push_str(&format!(
            "quota: {} of {} ({} %)\n",
            output::bytes(total),
            output::bytes(quota),
            total.saturating_mul(100) / quota
        ));
    }
    for region in session.replica_regions()? {
        match newest_in(region, backups) {
            Some(newest) => text.push_str(&format!("copies: {region} has {newest}\n")),
            None => text.push_str(&format!("copies: {region} has NONE\n")),
        }
    }
    Ok(text)
}

/// When each level was last proved by a drill, in milliseconds since 1970 UTC.
async fn newest_drills(session: &Session) -> Result<BTreeMap<String, u64>> {
    let drills = session.catalog.operations(OperationKind::Drill, LOOKED_AT_MAX).await?;
    let mut newest = BTreeMap::new();
    for drill in drills.iter().filter(|it| it.state == OperationState::Done) {
        if let (Some(reached), Some(at)) = (drill.drill()?.reached, drill.finished_millis) {
            newest.entry(reached.to_string()).or_insert(at); // they come newest first
        }
    }
    Ok(newest)
}

fn newest_verified(backups: &[Operation]) -> BTreeMap<&str, &Operation> {
    let mut newest: BTreeMap<&str, &Operation> = BTreeMap::new();
    let whole = |it: &&Operation| it.state == OperationState::Verified && it.collections.is_empty();
    for backup in backups.iter().filter(whole) {
        newest.entry(&backup.database).or_insert(backup); // they come newest first
    }
    newest
}

/// Whether the newest try at a whole database that really began ended in failure.
fn newest_try_failed(backups: &[Operation]) -> bool {
    let mut seen = BTreeSet::new();
    let tries =
        backups.iter().filter(|it| it.state.is_final() && it.fence.is_some() && it.collections.is_empty());
    tries.filter(|it| seen.insert(it.database.as_str())).any(|it| it.state == OperationState::Failed)
}

fn running<'a>(backups: &'a [Operation], restores: &'a [Operation]) -> impl Iterator<Item = &'a Operation> {
    let goes_on = |it: &&Operation| matches!(it.state, OperationState::Running | OperationState::Sealed);
    backups.iter().chain(restores).filter(goes_on)
}

fn activity(backups: &[Operation], restores: &[Operation], lease: Option<&Lease>) -> String {
    let mut text = String::new();
    for operation in running(backups, restores) {
        text.push_str(&format!("running: {} {} of {}\n", operation.kind(), operation.id, operation.database));
    }
    if let Some(lease) = lease {
        let since = output::time(lease.since_millis);
        text.push_str(&format!("lease: {} since {since} UTC, asked for by {}\n", lease.holder, lease.user));
    }
    for failed in backups.iter().chain(restores).filter(|it| it.state == OperationState::Failed).take(3) {
        let why = failed.failure.as_ref().map(|failure| failure.message.as_str()).unwrap_or_default();
        text.push_str(&format!("failed: {} {} of {}: {why}\n", failed.kind(), failed.id, failed.database));
    }
    text
}
