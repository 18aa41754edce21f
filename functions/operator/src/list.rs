//! `nightsafe list`.

use backup_core::Result;
use backup_core::operation::{BackupDetail, Detail, Operation, OperationKind, OperationState};
use backup_core::ports::Catalog;

use crate::arguments::LimitArguments;
use crate::follow::waits_for_cold_storage;
use crate::output;
use crate::session::Session;

pub(crate) async fn run(session: &Session, wanted: &LimitArguments) -> Result<()> {
    let mut all = Vec::new();
    for kind in OperationKind::ALL {
        all.extend(session.catalog.operations(kind, wanted.limit).await?.into_iter().filter(is_shown));
    }
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

/// Plans that were only looked at are no operations.
pub(crate) fn is_shown(operation: &Operation) -> bool {
    match &operation.detail {
        Detail::Restore(detail) => !detail.dry_run,
        Detail::Prune(detail) => !detail.dry_run,
        Detail::Backup(_) | Detail::Drill(_) => true,
    }
}

/// What is to be known of a backup at a glance: how far it was verified, where it is, what becomes of it.
fn of_a_backup(detail: &BackupDetail) -> String {
    let mut remarks: Vec<String> = detail.consistency.iter().map(ToString::to_string).collect();
    remarks.extend(detail.folded_from.map(|_| "folded".to_owned()));
    remarks.extend(detail.levels.keys().next_back().map(ToString::to_string));
    if !detail.replicas.is_empty() {
        let regions: Vec<String> = detail.replicas.keys().map(ToString::to_string).collect();
        remarks.push(format!("also in {}", regions.join(" and ")));
    }
    remarks.extend(detail.is_cold.then(|| "cold".to_owned()));
    remarks.extend(detail.hold.as_ref().map(|_| "held".to_owned()));
    remarks.extend(detail.removal.as_ref().map(|_| "to be removed".to_owned()));
    remarks.join(", ")
}

fn row(operation: &Operation) -> [String; 9] {
    let totals = &operation.totals;
    let remarks = match &operation.detail {
        Detail::Backup(detail) => of_a_backup(detail),
        Detail::Restore(detail) => {
            let to = detail.at.map(|at| format!("to {}", output::restore_time(at)));
            let from = detail.backup.map(|backup| format!("from {backup}"));
            let waits = detail.thawing_since_millis.filter(|_| operation.state == OperationState::Requested);
            to.into_iter().chain(from).chain(waits.map(waits_for_cold_storage)).collect::<Vec<_>>().join(", ")
        }
        Detail::Drill(detail) => {
            let of = detail.backup.map(|backup| format!("with {backup}"));
            let reached = detail.reached.map(|level| format!("proved {level}"));
            of.into_iter().chain(reached).collect::<Vec<_>>().join(", ")
        }
        Detail::Prune(detail) => {
            format!("{} kept, {} marked, {} removed", detail.kept, detail.marked, detail.removed)
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
