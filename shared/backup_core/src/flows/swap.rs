//! Carrying out the steps of a swap, forward or back.
//!
//! Between the two renames of a collection its name is free for a moment, and a writer that inserts then creates a
//! new collection under it. Such an intruder is moved aside too; only if writers win that race several times is it
//! replaced in one atomic step, so that a swap always ends in one of its two states.

use bson::{RawDocumentBuf, rawdoc};

use crate::at_once::at_once;
use crate::error::{Error, ErrorKind, Result};
use crate::id::OperationId;
use crate::namespace::{Namespace, NamespaceKind, OwnName};
use crate::plan::metadata::without;
use crate::plan::restore::{Filling, NameSteps, RestorePlan, SwapStep, swap_back_steps, swap_steps};
use crate::ports::{ChunkRead, InsertRules, Target};

use super::validate_chunk::count_and_hash;

/// How often the steps are worked out anew.
const ROUNDS_MAX: u32 = 5;
/// Names that are swapped at once: a server waits for its journal and its majority at each of them.
const NAMES_AT_ONCE: usize = 4;
/// How often an intruder is moved aside before it is replaced.
const INTRUDERS_MOVED_MAX: u32 = 3;
const EXPIRY: &str = "expireAfterSeconds";

/// Makes the restored state live. Another run of the same step may be at it too: where a step finds that the other
/// one was faster, the rest is worked out anew from what is there.
pub(super) async fn swap_in(target: &dyn Target, restore: OperationId, plan: &RestorePlan) -> Result<()> {
    for _ in 0..ROUNDS_MAX {
        let now = target.namespaces(&plan.database).await?;
        let steps = swap_steps(restore, plan, &now)?;
        if steps.is_empty() {
            return Ok(());
        }
        carry_out_all(target, restore, &plan.database, steps).await?;
    }
    Err(Error::new(ErrorKind::Transient, format!("swap in {:?}: it is not all live yet", plan.database)))
}

/// Brings back what was live before a swap that did not end. One collection that cannot be brought back does not
/// keep the others from it; the first error is told.
pub(super) async fn swap_back(target: &dyn Target, restore: OperationId, plan: &RestorePlan) -> Result<()> {
    let now = target.namespaces(&plan.database).await?;
    let bring_back = async |steps: NameSteps| {
        let mut told = Ok(());
        for step in steps {
            told = told.and(carry_out(target, restore, &plan.database, &step).await);
        }
        told
    };
    let all =
        swap_back_steps(restore, plan, &now).into_iter().map(|steps| async { Ok(bring_back(steps).await) });
    at_once(NAMES_AT_ONCE, all).await?.into_iter().collect()
}

/// Carries the steps out until one fails. What has begun is waited for: a rename that is still on its way must not
/// meet the way back. That another run was faster with a name is no failure.
async fn carry_out_all(
    target: &dyn Target,
    restore: OperationId,
    database: &str,
    all: Vec<NameSteps>,
) -> Result<()> {
    let swap = async |steps: NameSteps| {
        for step in steps {
            match carry_out(target, restore, database, &step).await {
                Err(why) if matches!(why.kind(), ErrorKind::Conflict | ErrorKind::SnapshotLost) => {
                    return Ok(());
                }
                done => done?,
            }
        }
        Ok(())
    };
    at_once(NAMES_AT_ONCE, all.into_iter().map(swap)).await.map(|_| ())
}

/// Drops what a restore keeps beside the collections it made, but not what was live before. Without their marks, time
/// series it filled are not its to drop any more.
pub(super) async fn tidy_up(target: &dyn Target, restore: OperationId, database: &str) -> Result<()> {
    for namespace in target.namespaces(database).await? {
        if OwnName::parse(&namespace.name).and_then(OwnName::passing) == Some(restore) {
            target.drop_namespace(database, &namespace.name).await?;
        }
    }
    Ok(())
}

async fn carry_out(target: &dyn Target, restore: OperationId, database: &str, step: &SwapStep) -> Result<()> {
    match step {
        SwapStep::Rename { from, to } => rename(target, restore, database, from, to).await,
        SwapStep::DropView(name) => target.drop_namespace(database, name).await,
        SwapStep::CreateView(name, options) => {
            create(target, restore, database, (name, options, NamespaceKind::View)).await
        }
        SwapStep::FillTimeseries(filling) => fill(target, restore, database, filling).await,
        SwapStep::EmptyTimeseries(Filling { name, staging, filled, mark, .. }) => {
            let now = target.namespaces(database).await?;
            if now.iter().any(|it| it.name == *name && it.kind == NamespaceKind::Timeseries) {
                target.drop_namespace(database, name).await?;
            }
            if now.iter().any(|it| it.name == *filled) {
                target.rename(database, filled, staging).await?;
            }
            target.drop_namespace(database, mark).await
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
                let now = target.namespaces(database).await?;
                // Our own names have no intruders, and without `from` another run has done this already.
                if OwnName::parse(to).is_some() || !now.iter().any(|it| it.name == from) {
                    return Err(why);
                }
                move_aside(target, restore, database, to).await?;
            }
            other => return other,
        }
    }
    target.replace(database, from, to).await
}

async fn move_aside(target: &dyn Target, restore: OperationId, database: &str, intruder: &str) -> Result<()> {
    let mut taken = Ok(());
    for _ in 0..NAMES_AT_ONCE {
        let now = target.namespaces(database).await?;
        match target.rename(database, intruder, &unused_aside(restore, &now)).await {
            Err(why) if why.kind() == ErrorKind::SnapshotLost => return Ok(()), // gone by itself
            // Another intruder, moved at the same time, took that name.
            Err(why) if why.kind() == ErrorKind::Conflict => taken = Err(why),
            other => return other,
        }
    }
    taken
}

/// Creates a view or time series; a collection that a writer created under its name is moved aside.
async fn create(
    target: &dyn Target,
    restore: OperationId,
    database: &str,
    (name, options, kind): (&str, &RawDocumentBuf, NamespaceKind),
) -> Result<()> {
    for _ in 0..INTRUDERS_MOVED_MAX {
        target.create(database, name, options).await?;
        let now = target.namespaces(database).await?;
        match now.iter().find(|it| it.name == name) {
            Some(there) if there.kind == NamespaceKind::Collection && kind != NamespaceKind::Collection => {
                move_aside(target, restore, database, name).await?;
            }
            _ => return Ok(()),
        }
    }
    Err(Error::new(
        ErrorKind::Conflict,
        format!("create {name:?}: applications keep creating a collection there"),
    )
    .hint("stop the applications that write to it, and start the restore again"))
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

/// Fills a time-series collection with the validated buckets and proves that they arrived. Its expiry comes last, so
/// that nothing expires before it is compared.
async fn fill(target: &dyn Target, restore: OperationId, database: &str, filling: &Filling) -> Result<()> {
    let Filling { name, options, staging, filled, mark } = filling;
    target.create(database, mark, &rawdoc! {}).await?;
    let without_expiry = without(options, &[EXPIRY])?;
    create(target, restore, database, (name, &without_expiry, NamespaceKind::Timeseries)).await?;
    let now = target.namespaces(database).await?;
    let find = |wanted: &str| now.iter().find(|it| it.name == wanted);
    let (from, to) =
        (find(staging).or(find(filled)), find(name).filter(|it| it.kind == NamespaceKind::Timeseries));
    let (Some(from), Some(to)) = (from, to) else {
        return Err(Error::new(
            ErrorKind::Internal,
            format!("fill time series {name:?}: it or its staging vanished"),
        ));
    };
    let mut buckets = target.read(&all_of(database, from)?).await?;
    while let Some(batch) = buckets.next_batch().await? {
        target.insert(database, &to.documents_name(), batch, InsertRules { ordered: false }).await?;
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
    if from.name == *staging { target.rename(database, staging, filled).await } else { Ok(()) }
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
