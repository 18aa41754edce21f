//! What the database was at an instant: the base to fold from, and the metadata folded from it.

use crate::error::{Error, ErrorKind, Result};
use crate::fold::metadata::{DatabaseState, leave_out_temporary};
use crate::format::{Manifest, ManifestNamespace};
use crate::id::{ClusterTime, OperationId};
use crate::operation::{OperationKind, RestoreTime};
use crate::plan::point_in_time::{PointInTime, point_in_time};
use crate::plan::windows::{Base, NotRestorable, base_for, windows};
use crate::ports::{Catalog, DataKeys, ObjectStore, Timeline};

use super::slices::Slices;
use super::upkeep::BACKUPS_LOOKED_AT_MAX;

/// The backup to fold from, and the exact instant that was asked for; `NotFound` if it is in no window.
pub(super) async fn find_base(
    catalog: &dyn Catalog,
    timeline: &dyn Timeline,
    database: &str,
    wanted: RestoreTime,
) -> Result<(OperationId, ClusterTime)> {
    find_base_again(catalog, timeline, database, wanted, None).await
}

/// As [`find_base`], but the backup that was chosen `before`, if it still reaches the instant.
pub(super) async fn find_base_again(
    catalog: &dyn Catalog,
    timeline: &dyn Timeline,
    database: &str,
    wanted: RestoreTime,
    before: Option<OperationId>,
) -> Result<(OperationId, ClusterTime)> {
    let backups = catalog.operations(OperationKind::Backup, BACKUPS_LOOKED_AT_MAX).await?;
    let bases: Vec<Base> = backups.iter().filter_map(Base::of).collect();
    let (head, breaks) = (timeline.head().await?, timeline.breaks().await?);
    let time = match (wanted, &head) {
        (RestoreTime::At(time), _) => time,
        (RestoreTime::Latest, Some(head)) => head.to.previous(),
        (RestoreTime::Latest, None) => ClusterTime::from_u64(0),
    };
    let chosen: Vec<Base> = bases.iter().filter(|base| Some(base.backup) == before).cloned().collect();
    let again = base_for(&chosen, head.as_ref(), &breaks, database, time);
    match again.or_else(|_| base_for(&bases, head.as_ref(), &breaks, database, time)) {
        Ok(base) => Ok((base.backup, time)),
        Err(nearest) => Err(not_restorable(database, time, &nearest)),
    }
}

/// The oldest backup of a window, and an instant of that window.
pub(super) struct Oldest {
    pub(super) base: OperationId,
    pub(super) time: ClusterTime,
}

/// The backup that opened the window of the instant that was asked for; `NotFound` if it is in none.
pub(super) async fn find_oldest_base(
    catalog: &dyn Catalog,
    timeline: &dyn Timeline,
    database: &str,
    wanted: RestoreTime,
) -> Result<Oldest> {
    let (newest, time) = find_base(catalog, timeline, database, wanted).await?;
    let backups = catalog.operations(OperationKind::Backup, BACKUPS_LOOKED_AT_MAX).await?;
    let bases: Vec<Base> = backups.iter().filter_map(Base::of).collect();
    let (head, breaks) = (timeline.head().await?, timeline.breaks().await?);
    let all = windows(&bases, head.as_ref(), &breaks);
    let window = all.into_iter().find(|it| it.bases.contains(&newest));
    let base = window.and_then(|it| it.bases.first().copied()).unwrap_or(newest);
    Ok(Oldest { base, time })
}

fn not_restorable(database: &str, time: ClusterTime, nearest: &NotRestorable) -> Error {
    let told = |time: ClusterTime| format!("{} (-t {time})", time.utc());
    let hint = match (nearest.before, nearest.after) {
        (Some(before), Some(after)) => format!(
            "the nearest restorable times are {} before it, and {} after it",
            told(before),
            told(after)
        ),
        (Some(before), None) => format!("the newest restorable time before it is {}", told(before)),
        (None, Some(after)) => format!("the first restorable time is {}", told(after)),
        (None, None) => "no time is restorable yet: a backup of the whole database opens a window".to_owned(),
    };
    let what = format!("restore {database:?} to {}: that time is in no window", time.utc());
    Error::new(ErrorKind::NotFound, what).hint(format!("{hint}; `nightsafe windows` shows all"))
}

/// What the database is folded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be restored, or looked into.
    Restore,
    /// To be a backup, from which later instants are folded.
    Backup,
}

/// The database as of `time`, folded from the backup with manifest `base`: collections, views and indexes; the
/// documents are folded unit by unit.
pub(super) async fn database_at(
    store: &dyn ObjectStore,
    keys: &dyn DataKeys,
    timeline: &dyn Timeline,
    base: &Manifest,
    time: ClusterTime,
    purpose: Purpose,
) -> Result<PointInTime> {
    let slices = Slices::open(store, keys, timeline, base.source, base.cluster_time, time).await?;
    // What came to be after T is told by the changes.
    let at_base = base.namespaces.iter().filter(|it| it.reason.as_deref() != Some(ManifestNamespace::LATER));
    let mut state = DatabaseState::new(&base.database, at_base.map(|entry| entry.namespace.clone()));
    slices
        .each_of_metadata(store, &base.database, |event| {
            if event.time > base.cluster_time { state.apply(event) } else { Ok(()) }
        })
        .await?;
    let mut all = state.into_namespaces();
    if purpose == Purpose::Restore {
        leave_out_temporary(&mut all);
    }
    let at = point_in_time(base, all, time);
    at.manifest.check().map_err(|why| why.while_doing(format!("fold the database to {time}")))?;
    Ok(at)
}
