//! `nightsafe list`.

use backup_core::Result;
use backup_core::operation::{Detail, Operation, OperationKind};
use backup_core::ports::Catalog;

use crate::arguments::LimitArguments;
use crate::output;
use crate::session::Session;

pub(crate) async fn run(session: &Session, wanted: &LimitArguments) -> Result<()> {
    let mut all = session.catalog.operations(OperationKind::Backup, wanted.limit).await?;
    all.extend(
        session.catalog.operations(OperationKind::Restore, wanted.limit).await?.into_iter().filter(is_shown),
    );
    all.sort_by_key(|operation| std::cmp::Reverse(operation.id));
    if session.json {
        println!("{}", serde_json::json!({ "message_type": "list", "operations": all }));
        return Ok(());
    }
    let header =
        ["id", "kind", "database", "state", "requested (UTC)", "documents", "BSON", "stored", "remarks"];
    let mut table = output::table(&header, &[5, 6, 7]);
    for operation in &all {
        table.add_row(row(operation));
    }
    println!("{table}");
    Ok(())
}

/// Plans that were only looked at are not restores.
fn is_shown(operation: &Operation) -> bool {
    operation.restore().is_ok_and(|detail| !detail.dry_run)
}

fn row(operation: &Operation) -> [String; 9] {
    let totals = &operation.totals;
    let remarks = match &operation.detail {
        Detail::Backup(detail) => detail.consistency.map(|it| it.to_string()).unwrap_or_default(),
        Detail::Restore(detail) => {
            let to = detail.at.map(|at| format!("to {}", output::restore_time(at)));
            let from = detail.backup.map(|backup| format!("from {backup}"));
            to.into_iter().chain(from).collect::<Vec<_>>().join(", ")
        }
    };
    let remarks = match &operation.failure {
        Some(failure) if operation.state.is_final() => format!("{}: {}", failure.step, failure.kind.name()),
        _ => remarks,
    };
    let collections = if operation.collections.is_empty() { "" } else { " (some)" };
    [
        operation.id.to_string(),
        operation.kind().to_string(),
        format!("{}{collections}", operation.database),
        operation.state.to_string(),
        output::time(operation.id.requested_millis()),
        output::count(totals.documents),
        output::bytes(totals.bson_bytes),
        output::bytes(totals.stored_bytes),
        remarks,
    ]
}
