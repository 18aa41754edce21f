//! `nightsafe restore`: plan first, ask where something would be replaced, then do it.

use std::io::{BufRead, IsTerminal, stdin};

use backup_core::flows::open_restore_plan;
use backup_core::format::Consistency;
use backup_core::id::OperationId;
use backup_core::namespace::{Label, NamespaceKind};
use backup_core::operation::{Detail, Operation, OperationKind, RestoreDetail};
use backup_core::plan::restore::RestorePlan;
use backup_core::{Error, ErrorKind, Result};

use crate::arguments::RestoreArguments;
use crate::follow::follow;
use crate::output;
use crate::session::{Machine, Session};

pub(crate) async fn run(session: &Session, wanted: &RestoreArguments) -> Result<()> {
    let (mut backup, mut may_replace) = (wanted.backup, wanted.yes);
    if !wanted.yes || wanted.dry_run {
        let (planned, plan) = dry_run(session, wanted).await?;
        if wanted.dry_run {
            if session.json {
                println!(
                    "{}",
                    serde_json::json!({ "message_type": "restore_plan", "id": planned.id, "plan": plan })
                );
            } else {
                print!("{}", describe(&plan));
            }
            return Ok(());
        }
        if plan.replaces() > 0 {
            agree(&plan)?;
            may_replace = true;
        }
        backup = Some(plan.backup); // what was agreed to is what is restored
    }
    let (id, execution) = start(session, wanted, backup, may_replace, false).await?;
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
    backup: Option<OperationId>,
    may_replace: bool,
    dry_run: bool,
) -> Result<(OperationId, String)> {
    let detail = RestoreDetail { backup, full: wanted.full, may_replace, dry_run, kept_aside: Vec::new() };
    session.start(Machine::Restore, &wanted.database, &wanted.collections, Detail::Restore(detail)).await
}

async fn dry_run(session: &Session, wanted: &RestoreArguments) -> Result<(Operation, RestorePlan)> {
    let (id, execution) = start(session, wanted, wanted.backup, false, true).await?;
    let planned = follow(session, OperationKind::Restore, id, &execution).await?;
    let plan = open_restore_plan(&session.store, &session.keys, &planned).await?;
    Ok((planned, plan))
}

/// Asks on a terminal; elsewhere nobody can answer.
fn agree(plan: &RestorePlan) -> Result<()> {
    eprint!("{}", describe(plan));
    let refused = |why: &str| {
        let what = format!(
            "restore {:?}: it would replace {} live collections or views",
            plan.database,
            plan.replaces()
        );
        Err(Error::new(ErrorKind::Refused, what).hint(why))
    };
    if !stdin().is_terminal() {
        return refused("agree with --yes");
    }
    eprint!("Type the database's name to go on: ");
    let mut answer = String::new();
    let read = stdin().lock().read_line(&mut answer);
    if read.is_ok() && answer.trim_end_matches('\n') == plan.database {
        Ok(())
    } else {
        refused("nothing was done")
    }
}

fn describe(plan: &RestorePlan) -> String {
    let mut table = output::table(&["name", "documents", "BSON", "label", "what happens"], &[1, 2]);
    for item in &plan.items {
        let what = match item.live.as_ref().map(|live| live.kind) {
            Some(NamespaceKind::View) => "replaces the live view",
            Some(_) => "replaces the live one, which is kept aside",
            None => "is created",
        };
        let bytes = output::bytes(item.bson_bytes);
        table.add_row([
            item.name.clone(),
            output::count(item.documents),
            bytes,
            item.label.to_string(),
            what.into(),
        ]);
    }
    for extra in &plan.extras {
        let none = || "–".to_owned();
        table.add_row([
            extra.name.clone(),
            none(),
            none(),
            none(),
            "is live, not in the backup: is moved aside".into(),
        ]);
    }
    for left in &plan.left_out {
        let none = || "–".to_owned();
        table.add_row([
            left.name.clone(),
            none(),
            none(),
            none(),
            format!("is left as it is: {}", left.reason),
        ]);
    }
    format!("restore of {:?} from backup {}\n{table}\n{}", plan.database, plan.backup, caveats(plan))
}

/// What is less than the database at one instant.
fn caveats(plan: &RestorePlan) -> String {
    let mut text = match plan.consistency {
        Consistency::SingleInstant => {
            format!("single-instant: the database as of cluster time {}\n", plan.cluster_time)
        }
        Consistency::Mosaic => format!(
            "mosaic: every chunk is exact at its own instant from cluster time {} on; they are not of one instant\n",
            plan.cluster_time
        ),
    };
    for item in plan.items.iter().filter(|item| item.label != Label::Exact) {
        text.push_str(&format!(
            "  {:?} is {}: `nightsafe show {}` says why\n",
            item.name, item.label, plan.backup
        ));
    }
    text
}

fn done(operation: &Operation) -> Result<String> {
    let totals = &operation.totals;
    let detail = operation.restore()?;
    let mut text = format!(
        "{} {}: {} documents, {} of BSON in {} collections and views\n",
        operation.id,
        operation.state,
        output::count(totals.documents),
        output::bytes(totals.bson_bytes),
        totals.namespaces,
    );
    for kept in &detail.kept_aside {
        text.push_str(&format!("  the {:?} that was live is kept as {:?}\n", kept.name, kept.aside));
    }
    Ok(text)
}
