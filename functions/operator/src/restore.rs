//! `nightsafe restore`: plan first, ask where something would be replaced, then do it.

use backup_core::Result;
use backup_core::flows::open_restore_plan;
use backup_core::format::{Consistency, ManifestNamespace};
use backup_core::id::{Attempt, OperationId};
use backup_core::namespace::{Label, NamespaceKind};
use backup_core::operation::{Detail, Operation, OperationKind, RestoreDetail};
use backup_core::plan::restore::{RestoreItem, RestorePlan};
use backup_core::ports::Catalog;

use crate::agree;
use crate::arguments::RestoreArguments;
use crate::follow::follow;
use crate::output;
use crate::session::Session;

/// Stands where there is nothing to tell.
const NONE: &str = "–";
/// What is said of a plan whose backup cannot be read at once.
const IN_COLD_STORAGE: &str =
    "the backup is in cold storage: the restore asks for it first, and waits, usually 3 to 5 hours\n";

pub(crate) async fn run(session: &Session, wanted: &RestoreArguments) -> Result<()> {
    let mut detail = RestoreDetail {
        backup: wanted.backup,
        may_replace: wanted.yes,
        at: wanted.time,
        ..RestoreDetail::requested(wanted.is_whole())
    };
    if !wanted.yes || wanted.dry_run {
        let (planned, plan) = dry_run(session, wanted, &detail).await?;
        let backup = session.catalog.operation(OperationKind::Backup, plan.backup).await?;
        let is_cold = backup.backup()?.is_cold;
        if wanted.dry_run {
            if session.json {
                let told = serde_json::json!({
                    "message_type": "restore_plan", "id": planned.id, "plan": plan, "is_cold": is_cold,
                });
                println!("{told}");
            } else {
                print!("{}", describe(&plan, is_cold));
            }
            return Ok(());
        }
        if plan.replaces() > 0 {
            show_and_ask(&plan, is_cold)?;
            detail.may_replace = true;
        }
        // What was agreed to is what is restored. An instant has one state, whichever backup it is folded from.
        detail.at = planned.restore()?.at;
        detail.backup = detail.at.is_none().then_some(plan.backup);
    }
    let (id, execution) = start(session, wanted, detail).await?;
    if !session.json {
        eprintln!("restore {id} into {:?}", wanted.database);
    }
    let operation = follow(session, OperationKind::Restore, id, &execution).await?;
    if session.json {
        println!("{}", output::json("restore", &operation));
        return Ok(());
    }
    print!("{}", done(&operation)?);
    let plan = open_restore_plan(&session.store, &session.keys, &operation).await?;
    print!("{}", caveats(&plan));
    Ok(())
}

async fn start(
    session: &Session,
    wanted: &RestoreArguments,
    detail: RestoreDetail,
) -> Result<(OperationId, String)> {
    session.start(&wanted.database, &wanted.collections, Detail::Restore(detail)).await
}

async fn dry_run(
    session: &Session,
    wanted: &RestoreArguments,
    detail: &RestoreDetail,
) -> Result<(Operation, RestorePlan)> {
    let detail = RestoreDetail { may_replace: false, dry_run: true, ..detail.clone() };
    let (id, execution) = start(session, wanted, detail).await?;
    let planned = follow(session, OperationKind::Restore, id, &execution).await?;
    let plan = open_restore_plan(&session.store, &session.keys, &planned).await?;
    Ok((planned, plan))
}

fn show_and_ask(plan: &RestorePlan, is_cold: bool) -> Result<()> {
    eprint!("{}", describe(plan, is_cold));
    let (database, replaces) = (&plan.database, plan.replaces());
    let what = format!("restore {database:?}: it would replace {replaces} live collections or views");
    agree::ask(&what, "Type the database's name to go on", database)
}

fn describe(plan: &RestorePlan, is_cold: bool) -> String {
    let [documents, bytes] = figures(plan);
    let mut table = output::table(&["name", documents, bytes, "label", "what happens"], &[1, 2]);
    for item in &plan.items {
        let what = match item.live.as_ref().map(|live| live.kind) {
            Some(NamespaceKind::View) => "replaces the live view",
            Some(_) => "replaces the live one, which is kept aside",
            None => "is created",
        };
        let [documents, bytes] = figures_of(plan, item);
        table.add_row([&item.name, &documents, &bytes, &item.label.to_string(), what]);
    }
    let (from, lacks) = match &plan.at {
        Some(at) => {
            let from = format!("to {}, folded from backup {}", output::instant(at.time), plan.backup);
            (from, "was not there then")
        }
        None => (format!("from backup {}", plan.backup), "not in the backup"),
    };
    for extra in &plan.extras {
        table.add_row([&extra.name, NONE, NONE, NONE, &format!("is live, {lacks}: is moved aside")]);
    }
    for left in &plan.left_out {
        table.add_row([&left.name, NONE, NONE, NONE, &format!("is left as it is: {}", left.reason)]);
    }
    let (database, note) = (&plan.database, figures_note(plan));
    let waits = if is_cold { IN_COLD_STORAGE } else { "" };
    format!("restore of {database:?} {from}\n{table}\n{note}{}{waits}", caveats(plan))
}

/// The headers of an item's figures. Of what is to be folded, they are the figures of what it is folded from.
pub(crate) const fn figures(plan: &RestorePlan) -> [&'static str; 2] {
    if plan.at.is_some() { ["documents (about)", "BSON (about)"] } else { ["documents", "BSON"] }
}

/// An item's figures; none of a collection that came after the backup, because nobody has counted it yet.
pub(crate) fn figures_of(plan: &RestorePlan, item: &RestoreItem) -> [String; 2] {
    let entry = folded(plan, &item.name);
    if entry.is_some_and(|it| it.chunks.iter().any(|chunk| chunk.stored.attempt == Attempt::NONE)) {
        return [NONE, NONE].map(str::to_owned);
    }
    [output::count(item.documents), output::bytes(item.bson_bytes)]
}

/// Says what the figures are, where they are not those of what is restored.
pub(crate) fn figures_note(plan: &RestorePlan) -> String {
    let Some(at) = &plan.at else { return String::new() };
    format!(
        "about: as in the backup, before the changes up to {} are folded into it\n",
        output::instant(at.time)
    )
}

/// A collection or view as it was at the plan's instant, where it has one.
fn folded<'a>(plan: &'a RestorePlan, name: &str) -> Option<&'a ManifestNamespace> {
    plan.at.as_ref()?.manifest.namespaces.iter().find(|it| it.namespace.name == name)
}

/// What is less than the database at one instant.
fn caveats(plan: &RestorePlan) -> String {
    let mut text = match (&plan.at, plan.consistency) {
        (Some(at), _) => format!("single-instant: the database as of {}\n", output::instant(at.time)),
        (None, Consistency::SingleInstant) => {
            format!("single-instant: the database as of cluster time {}\n", plan.cluster_time)
        }
        (None, Consistency::Mosaic) => format!(
            "mosaic: every chunk is exact at its own instant from cluster time {} on; they are not of one instant\n",
            plan.cluster_time
        ),
    };
    for item in plan.items.iter().filter(|item| item.label != Label::Exact) {
        let reason = folded(plan, &item.name).and_then(|it| it.reason.clone());
        let reason = reason.unwrap_or_else(|| format!("`nightsafe show {}` says why", plan.backup));
        text.push_str(&format!("  {:?} is {}: {reason}\n", item.name, item.label));
    }
    text
}

fn done(operation: &Operation) -> Result<String> {
    let totals = &operation.totals;
    let detail = operation.restore()?;
    let documents = output::count(totals.documents);
    let what = if let Some(backup) = detail.backup.filter(|_| detail.at.is_some()) {
        format!("{documents} documents, folded from backup {backup},")
    } else {
        format!("{documents} documents, {} of BSON", output::bytes(totals.bson_bytes))
    };
    let mut text = format!(
        "{} {}: {what} in {} collections and views\n",
        operation.id, operation.state, totals.namespaces
    );
    for kept in &detail.kept_aside {
        text.push_str(&format!("  the {:?} that was live is kept as {:?}\n", kept.name, kept.aside));
    }
    Ok(text)
}
