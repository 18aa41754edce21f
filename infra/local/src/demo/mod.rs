//! `cargo demo`: the main job, on real parts, proved.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command's output")]
#![allow(clippy::indexing_slicing, reason = "only of JSON values, where it does not panic")]

pub mod data;
pub mod proof;

mod accident;
mod phases;
mod shell;

use anyhow::{Context, Result, bail, ensure};
use mongodb::Client;

use crate::{Cloud, CloudOptions};
use phases::Phases;

const DATABASE: &str = "crm";
const TRUTH: &str = "truth";

/// Runs the demo in a cloud of its own, which is gone afterwards.
pub async fn run() -> Result<()> {
    let shared = Cloud::default_directory();
    std::fs::create_dir_all(&shared)?;
    let directory = tempfile::Builder::new().prefix("demo-").tempdir_in(&shared)?;
    let mut phases = Phases::default();
    // The server is the referee, so it must remember T until the proof.
    let options = CloudOptions { history_seconds: 3600, ..CloudOptions::default() };
    phases.begin("start the cloud");
    let cloud = tokio::select! {
        cloud = Cloud::start(directory.path(), &options, |what| phases.detail(what)) => cloud?,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    phases.end(String::new());
    let outcome = tokio::select! {
        outcome = story(&cloud, &mut phases) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted; the cloud is stopped")),
    };
    cloud.stop()?;
    outcome?;
    println!("\n{}\nBoth times, every document, option and index is what it was.", phases.table());
    Ok(())
}

async fn story(cloud: &Cloud, phases: &mut Phases) -> Result<()> {
    let client = Client::with_uri_str(cloud.users().administrator).await?;
    let database = client.database(DATABASE);

    phases.begin("seed");
    data::seed(&database, |done| phases.progress(done, data::DOCUMENTS)).await?;
    let metadata = proof::metadata(&database).await?;
    phases.end(format!("{} documents in {} collections and views", data::DOCUMENTS, metadata.len()));

    let time = back_up(cloud, &client, phases).await?;

    phases.begin("copy as of T");
    proof::copy_at(&client, DATABASE, TRUTH, cluster_time(&time)?).await?;
    let truth = proof::db_hash(&client.database(TRUTH)).await?;
    let live = proof::db_hash(&database).await?;
    ensure!(truth != live, "the application's writes changed nothing");
    phases.end(format!("by snapshot reads at {time}"));

    Box::pin(accident::undo(cloud, &database, phases)).await?;

    phases.begin("damage");
    data::damage(&database).await?;
    phases.end("documents deleted and changed, a collection, a view and an index dropped".to_owned());

    phases.begin("restore all");
    let words = ["./restore.sh", "-d", DATABASE, "--full", "--yes", "--json"];
    let restore = shell::json(cloud, phases, &words).await?;
    ensure!(restore["state"] == "restored", "the restore is {}", restore["state"]);
    phases.end(format!("{} documents as of T, read back and compared", restore["totals"]["documents"]));

    phases.begin("prove");
    proof::ensure_equal("documents", &truth, &proof::db_hash(&database).await?)?;
    proof::ensure_equal("options and indexes", &metadata, &proof::metadata(&database).await?)?;
    phases.end(format!("dbHash equal in {} collections; options and indexes equal", truth.len()));
    Ok(())
}

/// Backs up while the application writes; gives T as the backup tells it.
async fn back_up(cloud: &Cloud, client: &Client, phases: &mut Phases) -> Result<String> {
    phases.begin("back up and verify");
    let writer = data::Writer::start(client, DATABASE);
    let backup = shell::json(cloud, phases, &["./backup.sh", "-d", DATABASE, "--json"]).await;
    let writes = writer.stop().await?;
    let backup = backup?;
    ensure!(backup["state"] == "verified", "the backup is {}", backup["state"]);
    ensure!(writes > 0, "the application wrote nothing meanwhile");
    let totals = &backup["totals"];
    phases.end(format!(
        "{} documents, {} chunks, {writes} writes meanwhile",
        totals["documents"], totals["chunks"]
    ));
    let time = backup["detail"]["backup"]["cluster_time"].as_str().context("the backup has no T")?;
    Ok(time.to_owned())
}

fn cluster_time(text: &str) -> Result<(u32, u32)> {
    let (seconds, ordinal) = text.split_once(',').context("a cluster time without a comma")?;
    Ok((seconds.parse()?, ordinal.parse()?))
}
