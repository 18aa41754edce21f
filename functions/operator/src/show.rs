//! `nightsafe show`.

use backup_core::flows::{open_manifest, open_restore_plan};
use backup_core::format::{Manifest, ManifestNamespace};
use backup_core::id::OperationId;
use backup_core::operation::{
    BackupDetail, ChainProof, Detail, Operation, OperationKind, OperationState, RestoreDetail,
};
use backup_core::plan::restore::RestorePlan;
use backup_core::ports::Catalog;
use backup_core::{Error, ErrorKind, Result};

use crate::follow::waits_for_cold_storage;
use crate::session::Session;
use crate::{output, restore};

pub(crate) async fn run(session: &Session, id: OperationId) -> Result<()> {
    let operation = find(session, id).await?;
    let (manifest, plan) = match &operation.detail {
        Detail::Backup(detail) if detail.manifest_sha256.is_some() => {
            (Some(open_manifest(&session.store, &session.keys, &operation).await?), None)
        }
        Detail::Restore(_) if operation.totals.namespaces > 0 => {
            (None, Some(open_restore_plan(&session.store, &session.keys, &operation).await?))
        }
        _ => (None, None),
    };
    if session.json {
        let mut value = output::json("operation", &operation);
        if let (Some(fields), Some(manifest)) = (value.as_object_mut(), &manifest) {
            fields.insert("namespaces".into(), manifest.namespaces.iter().map(as_json).collect());
            let largest = manifest.chunks().map(|(_, chunk)| chunk.stored.bson_bytes).max();
            fields.insert("largest_chunk_bson_bytes".into(), largest.into());
        }
        println!("{value}");
        return Ok(());
    }
    print!("{}", head(&operation));
    if let Some(manifest) = &manifest {
        print!("{}", contents(manifest));
    }
    if let Some(plan) = &plan {
        print!("{}", items(plan));
    }
    Ok(())
}

/// Of whatever kind it is.
async fn find(session: &Session, id: OperationId) -> Result<Operation> {
    for kind in OperationKind::ALL {
        match session.catalog.operation(kind, id).await {
            Err(why) if why.kind() == ErrorKind::NotFound => {}
            found => return found,
        }
    }
    Err(Error::new(ErrorKind::NotFound, format!("show {id}: there is no such backup or restore"))
        .hint("`nightsafe list` shows what there is"))
}

/// How far a backup was verified, and what keeps it.
fn kept(detail: &BackupDetail) -> String {
    let mut text = String::new();
    let levels: Vec<String> =
        detail.levels.iter().map(|(level, at)| format!("{level} {}", output::time(*at))).collect();
    if !levels.is_empty() {
        text.push_str(&format!("  verified   {} (UTC)\n", levels.join(", ")));
    }
    for (region, copy) in &detail.replicas {
        text.push_str(&format!(
            "  copy       in {region} since {} UTC\n",
            output::time(copy.completed_millis)
        ));
    }
    if detail.locked_until_millis > 0 {
        text.push_str(&format!("  locked     until {} UTC\n", output::time(detail.locked_until_millis)));
    }
    if detail.is_cold {
        text.push_str("  storage    cold: a restore has to wait for hours\n");
    }
    if let Some(hold) = &detail.hold {
        let since = output::time(hold.since_millis);
        text.push_str(&format!("  held       since {since} UTC by {}: {}\n", hold.user, hold.reason));
    }
    if let Some(removal) = &detail.removal {
        let marked = output::time(removal.marked_millis);
        text.push_str(&format!("  removed    soon, marked at {marked} UTC: {}\n", removal.reason));
    }
    text
}

/// What the proof of the chain found, from an earlier backup, or by a later one.
fn proved(what: &str, proof: &ChainProof) -> String {
    let mut text =
        format!("  chain      proved {what} backup {}: {} chunks are equal", proof.with, proof.equal);
    for (count, what) in [
        (proof.different, "DIFFER"),
        (proof.unproved, "were not compared"),
        (proof.skipped, "cannot be compared"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text.push('\n');
    text
}

/// What a restore brings back, and what it waits for.
fn restored(operation: &Operation, detail: &RestoreDetail) -> String {
    let mut text = String::new();
    if let Some(at) = detail.at {
        text.push_str(&format!("  to         {}\n", output::restore_time(at)));
    }
    if let Some(backup) = detail.backup {
        text.push_str(&format!("  from       backup {backup}\n"));
    }
    let since = detail.thawing_since_millis.filter(|_| operation.state == OperationState::Requested);
    if let Some(since) = since {
        text.push_str(&format!("  now        {}\n", waits_for_cold_storage(since)));
    }
    for kept in &detail.kept_aside {
        text.push_str(&format!("  kept aside {:?} as {:?}\n", kept.name, kept.aside));
    }
    text
}

fn head(operation: &Operation) -> String {
    let mut text = format!(
        "{} {}\n  state      {}\n  source     {}\n  database   {}\n  requested  {} UTC by {}\n",
        operation.kind(),
        operation.id,
        operation.state,
        operation.source,
        operation.database,
        output::time(operation.id.requested_millis()),
        operation.user,
    );
    if !operation.collections.is_empty() {
        text.push_str(&format!("  only       {}\n", operation.collections.join(", ")));
    }
    if let Some(finished) = operation.finished_millis {
        let took = output::duration(finished.saturating_sub(operation.id.requested_millis()));
        text.push_str(&format!("  ended      {} UTC, after {took}\n", output::time(finished)));
    }
    match &operation.detail {
        Detail::Backup(detail) => {
            if let (Some(time), Some(consistency)) = (detail.cluster_time, detail.consistency) {
                text.push_str(&format!("  instant    cluster time {time}, {consistency}\n"));
            }
            if let Some(base) = detail.folded_from {
                text.push_str(&format!("  folded     from backup {base}\n"));
            }
            for (what, proof) in [("from", detail.proof), ("by", detail.proved_by)] {
                text.extend(proof.map(|proof| proved(what, &proof)));
            }
            if detail.lost > 0 {
                text.push_str(&format!(
                    "  lost       {} collections that existed at T (below)\n",
                    detail.lost
                ));
            }
            if detail.manifest_sha256.is_some() {
                text.push_str(&format!("  holds      {}\n", output::totals(&operation.totals)));
            }
            text.push_str(&kept(detail));
        }
        Detail::Restore(detail) => text.push_str(&restored(operation, detail)),
        Detail::Drill(detail) => {
            if let Some(backup) = detail.backup {
                let place = detail.region.map(|region| format!(" in {region}")).unwrap_or_default();
                text.push_str(&format!("  with       backup {backup}{place}\n"));
            }
            let reached = detail.reached.map_or("nothing yet".to_owned(), |level| level.to_string());
            text.push_str(&format!("  proved     {reached} of {}, {} chunks\n", detail.level, detail.chunks));
        }
        Detail::Prune(detail) => {
            text.push_str(&format!(
                "  did        {} kept, {} marked, {} removed ({}), {} locked\n",
                detail.kept,
                detail.marked,
                detail.removed,
                output::bytes(detail.freed_bytes),
                detail.locked,
            ));
        }
    }
    if let Some(failure) = operation.failure.as_ref().filter(|_| operation.state == OperationState::Failed) {
        text.push_str(&format!("  failed in  {}\n  why        {}\n", failure.step, failure.message));
        if let Some(hint) = &failure.hint {
            text.push_str(&format!("  hint       {hint}\n"));
        }
    }
    text
}

fn contents(manifest: &Manifest) -> String {
    let mut table =
        output::table(&["name", "label", "documents", "BSON", "chunks", "indexes", "remarks"], &[2, 3, 4, 5]);
    for entry in &manifest.namespaces {
        let mut remarks: Vec<&str> = entry.reason.iter().map(String::as_str).collect();
        remarks.extend(entry.notes.iter().map(String::as_str));
        table.add_row([
            entry.namespace.name.clone(),
            entry.label.to_string(),
            output::count(documents(entry)),
            output::bytes(entry.chunks.iter().map(|chunk| chunk.stored.bson_bytes).sum()),
            entry.chunks.len().to_string(),
            entry.namespace.indexes.len().to_string(),
            remarks.join("; "),
        ]);
    }
    format!("  server     MongoDB {}\n\n{table}\n", manifest.server_version)
}

fn documents(entry: &ManifestNamespace) -> u64 {
    entry.chunks.iter().map(|chunk| chunk.stored.documents).sum()
}

fn as_json(entry: &ManifestNamespace) -> serde_json::Value {
    serde_json::json!({
        "name": entry.namespace.name,
        "kind": entry.namespace.kind,
        "label": entry.label,
        "reason": entry.reason,
        "notes": entry.notes,
        "documents": documents(entry),
        "chunks": entry.chunks.len(),
        "indexes": entry.namespace.indexes.len(),
    })
}

fn items(plan: &RestorePlan) -> String {
    let [documents, bytes] = restore::figures(plan);
    let mut table = output::table(&["name", "label", documents, bytes, "replaces"], &[2, 3]);
    for item in &plan.items {
        let replaces = if item.live.is_some() { "yes" } else { "no" };
        let [documents, bytes] = restore::figures_of(plan, item);
        table.add_row([&item.name, &item.label.to_string(), &documents, &bytes, replaces]);
    }
    format!("\n{table}\n{}", restore::figures_note(plan))
}
