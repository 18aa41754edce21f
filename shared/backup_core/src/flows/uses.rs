//! Who reads which backup. Whoever is going to read one notes that in its own row first, and looks at the backup's row
//! then; the pruner marks the backup first, and looks at the rows then. So one of the two sees the other.

use std::collections::BTreeSet;

use crate::error::{Error, ErrorKind, Result};
use crate::id::OperationId;
use crate::operation::{Detail, Operation, OperationKind};
use crate::ports::Catalog;

/// No machine runs longer: cold storage gives an object back within two days, and everything else takes hours. What
/// was asked for earlier and has not ended died without a word.
const UNDER_WAY_MILLIS_MAX: u64 = 3 * 86_400_000;
/// Operations of a kind that are looked at: far more than are asked for in that time.
const OPERATIONS_LOOKED_AT_MAX: u32 = 10_000;

/// Notes in the operation's row that it reads `backup`, and makes sure that nobody is removing it; gives the backup's
/// row. `Transient` if it was marked to be removed just now, and the operation's row is then as it was; or if somebody
/// else wrote that row meanwhile. `Conflict` if its removal has begun although the operation has used it before.
pub(super) async fn claim(
    catalog: &dyn Catalog,
    operation: &mut Operation,
    backup: OperationId,
) -> Result<Operation> {
    let before = operation.used_backup();
    let is_new = before != Some(backup);
    if is_new {
        write_use(catalog, operation, Some(backup)).await?;
    }
    let row = catalog.operation(OperationKind::Backup, backup).await;
    if !is_new {
        let row = row?;
        // The use was written before: a pruner that has only marked it looks at uses again, and spares it.
        let has_begun = row.backup()?.removal.as_ref().is_some_and(|removal| removal.begun);
        return if has_begun { still_there(row) } else { Ok(row) };
    }
    let found = row.and_then(still_there);
    if found.is_err() {
        write_use(catalog, operation, before).await?;
    }
    found.map_err(|why| match why.kind() {
        // Whoever chose it a moment ago can choose another one now.
        ErrorKind::Conflict => {
            Error::new(ErrorKind::Transient, format!("begin to use {backup}")).because(why)
        }
        _ => why,
    })
}

/// `Conflict` if the backup is marked to be removed.
pub(super) fn still_there(backup: Operation) -> Result<Operation> {
    let detail = backup.backup()?;
    if !detail.is_leaving() {
        return Ok(backup);
    }
    let (id, has_begun) = (backup.id, detail.removal.as_ref().is_some_and(|it| it.begun));
    Err(if has_begun {
        Error::new(ErrorKind::Conflict, format!("use backup {id}: it is being removed"))
            .hint("choose another one: `nightsafe list` shows them")
    } else {
        Error::new(ErrorKind::Conflict, format!("use backup {id}: it is marked to be removed"))
            .hint(format!("hold it first: nightsafe hold {id} --reason TEXT"))
    })
}

/// Every backup that an operation under way reads, beside the one it makes. `Refused` if there are too many operations
/// to tell.
pub(super) async fn in_use(catalog: &dyn Catalog, now_millis: u64) -> Result<BTreeSet<OperationId>> {
    let mut used = BTreeSet::new();
    for kind in [OperationKind::Backup, OperationKind::Restore, OperationKind::Drill] {
        let newest = catalog.operations(kind, OPERATIONS_LOOKED_AT_MAX).await?;
        let is_recent =
            |it: &Operation| now_millis.saturating_sub(it.id.requested_millis()) <= UNDER_WAY_MILLIS_MAX;
        let is_full = u32::try_from(newest.len()).is_ok_and(|count| count >= OPERATIONS_LOOKED_AT_MAX);
        if is_full && newest.last().is_some_and(is_recent) {
            let what = format!("look for what is in use: more than {OPERATIONS_LOOKED_AT_MAX} operations");
            return Err(Error::new(
                ErrorKind::Refused,
                format!("{what} of kind {kind} were asked for within three days"),
            ));
        }
        let under_way = newest.iter().filter(|it| is_recent(it) && is_under_way(it));
        used.extend(under_way.filter_map(Operation::used_backup));
    }
    Ok(used)
}

/// A restore of which only a plan was asked for reads no documents, and never ends.
fn is_under_way(operation: &Operation) -> bool {
    !operation.state.is_final() && !operation.is_dry_run()
}

async fn write_use(
    catalog: &dyn Catalog,
    operation: &mut Operation,
    backup: Option<OperationId>,
) -> Result<()> {
    match &mut operation.detail {
        Detail::Backup(detail) if detail.folds => detail.folded_from = backup,
        Detail::Backup(detail) => detail.proof_base = backup,
        Detail::Restore(detail) => detail.backup = backup,
        Detail::Drill(detail) => detail.backup = backup,
        Detail::Prune(_) => {
            return Err(Error::new(ErrorKind::Internal, "use a backup: the pruner reads none"));
        }
    }
    catalog.update_operation(operation).await
}
