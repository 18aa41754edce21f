//! Carrying out the steps of a swap, forward or back.
//!
//! Between the two renames of a collection its name is free for a moment, and a writer that inserts then creates a
//! new collection under it. Such an intruder is moved aside too; only if writers win that race several times is it
//! replaced in one atomic step, so that a swap always ends in one of its two states.

use bson::rawdoc;

use crate::error::{Error, ErrorKind, Result};
use crate::id::OperationId;
use crate::namespace::{Namespace, NamespaceKind, OwnName};
use crate::plan::metadata::without;
use crate::plan::restore::{Filling, RestorePlan, SwapStep, swap_back_steps, swap_steps};
use crate::ports::{ChunkRead, InsertRules, Target};

use super::validate_chunk::count_and_hash;

/// How often an intruder is moved aside before it is replaced.
const INTRUDERS_MOVED_MAX: u32 = 3;
const EXPIRY: &str = "expireAfterSeconds";

/// Makes the restored state live.
pub(super) async fn swap_in(target: &dyn Target, restore: OperationId, plan: &RestorePlan) -> Result<()> {
    let now = target.namespaces(&plan.database).await?;
    for step in swap_steps(restore, plan, &now)? {
        carry_out(target, restore, &plan.database, &step).await?;
    }
    // Whatever the server did with the steps: nothing may be left to do.
    let now = target.namespaces(&plan.database).await?;
    if swap_steps(restore, plan, &now)?.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Transient, format!("swap in {:?}: it is not all live yet", plan.database)))
}

/// Brings back what was live before a swap that did not end.
pub(super) async fn swap_back(target: &dyn Target, restore: OperationId, plan: &RestorePlan) -> Result<()> {
    let now = target.namespaces(&plan.database).await?;
    for step in swap_back_steps(restore, plan, &now) {
        carry_out(target, restore, &plan.database, &step).await?;
    }
    Ok(())
}

async fn carry_out(target: &dyn Target, restore: OperationId, database: &str, step: &SwapStep) -> Result<()> {
    match step {
        SwapStep::Rename { from, to } => rename(target, restore, database, from, to).await,
        SwapStep::DropView(name) => target.drop_namespace(database, name).await,
        SwapStep::CreateView(name, options) => target.create(database, name, options).await,
        SwapStep::FillTimeseries(filling) => fill(target, database, filling).await,
        SwapStep::EmptyTimeseries(filling) => {
            target.drop_namespace(database, &filling.name).await?;
            target.drop_namespace(database, &filling.mark).await
        }
    }
}

async fn rename(
    target: &dyn Target,
    restore: OperationId,
    database: &str,
    from: &str,
    to: &str,
) -> Result<()> {
    for _ in 0..INTRUDERS_MOVED_MAX {
        match target.rename(database, from, to).await {
            Err(why) if why.kind() == ErrorKind::Conflict => {
                let aside = unused_aside(restore, &target.namespaces(database).await?);
                match target.rename(database, to, &aside).await {
                    Err(why) if why.kind() != ErrorKind::SnapshotLost => return Err(why),
                    _ => {} // moved, or gone by itself
                }
            }
            other => return other,
        }
    }
    target.replace(database, from, to).await
}

/// A name that none of the plan's items uses: the highest number in use, and one more.
fn unused_aside(restore: OperationId, now: &[Namespace]) -> String {
    const BEYOND_ANY_PLAN: u32 = 1_000_000;
    let used = now.iter().filter_map(|it| match OwnName::parse(&it.name) {
        Some(OwnName::Aside(of, number)) if of == restore => Some(number),
        _ => None,
    });
    let next = used.max().unwrap_or(0).max(BEYOND_ANY_PLAN) + 1;
    OwnName::Aside(restore, next).to_string()
}

/// Fills a time-series collection with the validated buckets, proves that they arrived, and drops the staging. Its
/// expiry comes last, so that nothing expires before it is compared.
async fn fill(target: &dyn Target, database: &str, filling: &Filling) -> Result<()> {
    let Filling { name, options, staging, mark } = filling;
    target.create(database, mark, &rawdoc! {}).await?;
    target.create(database, name, &without(options, &[EXPIRY])?).await?;
    let now = target.namespaces(database).await?;
    let find = |wanted: &str| now.iter().find(|it| it.name == wanted);
    let (from, to) = (find(staging), find(name).filter(|it| it.kind == NamespaceKind::Timeseries));
    let (Some(from), Some(to)) = (from, to) else {
        return Err(Error::new(
            ErrorKind::Internal,
            format!("fill time series {name:?}: it or its staging vanished"),
        ));
    };
    let mut buckets = target.read(&all_of(database, from)?).await?;
    while let Some(batch) = buckets.next_batch().await? {
        target.insert(database, &to.documents_name(), batch, InsertRules { ordered: true }).await?;
    }
    let staged = count_and_hash(target.read(&all_of(database, from)?).await?).await?;
    if count_and_hash(target.read(&all_of(database, to)?).await?).await? != staged {
        return Err(Error::new(
            ErrorKind::ValidationFailed,
            format!("fill time series {name:?}: its buckets are not the ones in staging"),
        ));
    }
    if let Ok(Some(seconds)) = options.get(EXPIRY) {
        let expiry = rawdoc! { "expireAfterSeconds": bson::RawBson::from(seconds) };
        target.modify(database, name, &expiry).await?;
    }
    target.drop_namespace(database, staging).await?;
    target.drop_namespace(database, mark).await
}

fn all_of(database: &str, namespace: &Namespace) -> Result<ChunkRead> {
    let uuid =
        namespace.uuid.ok_or_else(|| Error::new(ErrorKind::Internal, "read a collection without a UUID"))?;
    Ok(ChunkRead {
        database: database.to_owned(),
        name: namespace.documents_name(),
        uuid,
        range: crate::bson::IdRange::ALL,
        at: None,
        document_bytes_hint: 0,
    })
}
