//! `nightsafe verify` and `nightsafe replicas`.

use backup_core::id::OperationId;
use backup_core::operation::{Detail, DrillDetail, OperationKind, Trigger};
use backup_core::ports::Catalog;
use backup_core::{Error, ErrorKind, Result};

use crate::arguments::VerifyArguments;
use crate::follow::follow;
use crate::output;
use crate::session::Session;

/// `nightsafe verify`: a drill with one backup.
pub(crate) async fn run(session: &Session, wanted: &VerifyArguments) -> Result<()> {
    let backup = session.catalog.operation(OperationKind::Backup, wanted.id).await?;
    let requested = DrillDetail::requested(Trigger::Manual, wanted.level, wanted.copy_in);
    let detail = DrillDetail { backup: Some(wanted.id), ..requested };
    let (id, execution) = session.start(&backup.database, &[], Detail::Drill(detail)).await?;
    if !session.json {
        eprintln!("drill {id} with backup {} of {:?}", wanted.id, backup.database);
    }
    let operation = follow(session, OperationKind::Drill, id, &execution).await?;
    let drill = operation.drill()?;
    if session.json {
        println!("{}", output::json("drill", &operation));
    } else {
        let reached = drill.reached.map(|level| level.to_string()).unwrap_or_default();
        println!(
            "{} is proved at {reached}: {} chunks, {}",
            wanted.id,
            drill.chunks,
            output::totals(&operation.totals)
        );
    }
    match drill.reached {
        Some(reached) if reached >= wanted.level => Ok(()),
        reached => {
            let reached = reached.map_or("nothing".to_owned(), |level| level.to_string());
            Err(Error::new(
                ErrorKind::Partial,
                format!("verify {}: {} was asked for, {reached} was proved", wanted.id, wanted.level),
            )
            .hint("L5 needs checks of the owner: docs/RUNBOOK.md"))
        }
    }
}

/// `nightsafe replicas`.
pub(crate) async fn replicas(session: &Session, id: OperationId) -> Result<()> {
    let backup = session.catalog.operation(OperationKind::Backup, id).await?;
    let wanted = session.replica_regions()?;
    let found = &backup.backup()?.replicas;
    if session.json {
        let value = serde_json::json!({
            "message_type": "replicas",
            "id": id,
            "home": session.region()?,
            "regions": wanted,
            "replicas": found,
        });
        println!("{value}");
        return Ok(());
    }
    let mut table = output::table(&["region", "copy", "since (UTC)", "objects", "stored"], &[3, 4]);
    let totals = &backup.totals;
    table.add_row([
        format!("{} (home)", session.region()?),
        backup.state.to_string(),
        backup.finished_millis.map(output::time).unwrap_or_default(),
        String::new(),
        output::bytes(totals.stored_bytes),
    ]);
    let others = found.keys().filter(|region| !wanted.contains(region));
    for region in wanted.iter().chain(others) {
        let copy = found.get(region);
        table.add_row([
            region.to_string(),
            if copy.is_some() { "complete".to_owned() } else { "none".to_owned() },
            copy.map(|copy| output::time(copy.completed_millis)).unwrap_or_default(),
            copy.map(|copy| output::count(copy.objects)).unwrap_or_default(),
            copy.map(|copy| output::bytes(copy.stored_bytes)).unwrap_or_default(),
        ]);
    }
    println!("{table}");
    Ok(())
}
