//! `nightsafe plan retention` and `nightsafe prune`.

use backup_core::Result;
use backup_core::flows::open_retention_plan;
use backup_core::id::OperationId;
use backup_core::operation::{Detail, OperationKind, PruneDetail, Trigger};
use backup_core::ports::Catalog;
use backup_core::retention::{Decision, RetentionPlan, Usage, usage};

use crate::agree;
use crate::arguments::PruneArguments;
use crate::follow::follow;
use crate::output;
use crate::session::Session;

/// Backups whose sizes are summed.
const LOOKED_AT_MAX: u32 = 100_000;

/// `nightsafe plan retention`.
pub(crate) async fn plan(session: &Session) -> Result<()> {
    run(session, &PruneArguments { dry_run: true, force: false, yes: false }).await
}

/// `nightsafe prune`. The work is the pruner's: nobody else may remove anything.
pub(crate) async fn run(session: &Session, wanted: &PruneArguments) -> Result<()> {
    if !wanted.dry_run {
        session.must_be_first("remove backups")?;
        if wanted.force && !wanted.yes {
            agree_to_more(session)?;
        }
    }
    let detail = PruneDetail::requested(Trigger::Manual, wanted.dry_run, wanted.force);
    let (id, execution) = session.start("", &[], Detail::Prune(detail)).await?;
    let followed = follow(session, OperationKind::Prune, id, &execution).await;
    let shown = show(session, id).await;
    // A run that failed may have no plan: its own error says why.
    followed.and(shown)
}

fn agree_to_more(session: &Session) -> Result<()> {
    let source = session.source;
    let question = format!(
        "Type the source's name to remove more of the backups of {:?} in one run than the configured share",
        source.as_str()
    );
    agree::ask("remove more than the configured share: nobody agreed", &question, source.as_str())
}

/// What a run planned, and what it did of it.
async fn show(session: &Session, id: OperationId) -> Result<()> {
    let operation = session.catalog.operation(OperationKind::Prune, id).await?;
    let plan = open_retention_plan(&session.store, &session.keys, &operation).await?;
    let backups = session.catalog.operations(OperationKind::Backup, LOOKED_AT_MAX).await?;
    let usage = usage(&backups, session.region()?, &plan);
    let done = operation.prune()?;
    if session.json {
        println!(
            "{}",
            serde_json::json!({ "message_type": "retention", "id": id, "done": done, "plan": plan, "usage": usage })
        );
        return Ok(());
    }
    print!("{}\n{}", text(&plan), shelves(&usage, session.quota_bytes()?));
    if !done.dry_run {
        println!(
            "{} kept, {} marked to be removed, {} removed ({} freed), {} locked",
            kept(&plan),
            done.marked,
            done.removed,
            output::bytes(done.freed_bytes),
            done.locked
        );
    }
    Ok(())
}

fn kept(plan: &RetentionPlan) -> usize {
    plan.decisions.iter().filter(|it| it.keep).count()
}

fn text(plan: &RetentionPlan) -> String {
    let mut table =
        output::table(&["backup", "database", "requested (UTC)", "tiers", "", "why", "copies"], &[]);
    for decision in &plan.decisions {
        table.add_row(row(decision));
    }
    let kept = kept(plan);
    let removed = plan.decisions.len() - kept;
    let mut text = format!("{table}\nkeep {kept}, remove {removed}\n");
    if let Some(why) = &plan.refused {
        text.push_str(&format!("nothing is removed: {why}\n"));
    }
    text
}

/// What is stored, by region and by the tier that keeps it longest.
fn shelves(usage: &Usage, quota_bytes: Option<u64>) -> String {
    let mut table = output::table(&["region", "tier", "backups", "stored"], &[2, 3]);
    for shelf in &usage.shelves {
        table.add_row([
            shelf.region.to_string(),
            shelf.tier.map(|tier| tier.to_string()).unwrap_or_default(),
            output::count(shelf.backups),
            output::bytes(shelf.stored_bytes),
        ]);
    }
    let of_quota = quota_bytes.map_or(String::new(), |quota| {
        format!(", {} % of {}", usage.share_percent(quota), output::bytes(quota))
    });
    format!("{table}\n{} in all{of_quota}\n", output::bytes(usage.total_bytes))
}

fn row(decision: &Decision) -> [String; 7] {
    let tiers: Vec<String> = decision.tiers.iter().map(ToString::to_string).collect();
    let copies: Vec<String> = decision
        .copies
        .iter()
        .map(|(region, keep)| if *keep { region.to_string() } else { format!("{region} (remove)") })
        .collect();
    [
        decision.backup.to_string(),
        decision.database.clone(),
        output::time(decision.backup.requested_millis()),
        tiers.join(", "),
        if decision.keep { "keep".to_owned() } else { "remove".to_owned() },
        decision.reason.to_string(),
        copies.join(", "),
    ]
}
