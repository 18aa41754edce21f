//! `cargo demo`: the main job, on real parts, proved.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command's output")]
#![allow(clippy::indexing_slicing, reason = "only of JSON values, where it does not panic")]

pub mod data;
pub mod proof;

use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use mongodb::Client;
use serde_json::Value;

use crate::{Cloud, CloudOptions};

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
    println!("\n{}\nEvery document, option and index is what it was at T.", phases.table());
    Ok(())
}

async fn story(cloud: &Cloud, phases: &mut Phases) -> Result<()> {
    let client = Client::with_uri_str(cloud.users().administrator).await?;
    let database = client.database(DATABASE);

    phases.begin("seed");
    data::seed(&database, |done| phases.progress(done, data::DOCUMENTS)).await?;
    let metadata = proof::metadata(&database).await?;
    phases.end(format!("{} documents in {} collections and views", data::DOCUMENTS, metadata.len()));

    phases.begin("back up and verify");
    let writer = data::Writer::start(&client, DATABASE);
    let backup = command(cloud, "backup.sh", &["-d", DATABASE, "--json"]).await;
    let writes = writer.stop().await?;
    let backup = backup?;
    ensure!(backup["state"] == "verified", "the backup is {}", backup["state"]);
    ensure!(writes > 0, "the application wrote nothing meanwhile");
    let totals = &backup["totals"];
    phases.end(format!(
        "{} documents, {} chunks, {writes} writes meanwhile",
        totals["documents"], totals["chunks"]
    ));

    phases.begin("copy as of T");
    let time = backup["detail"]["backup"]["cluster_time"].as_str().context("the backup has no T")?;
    proof::copy_at(&client, DATABASE, TRUTH, cluster_time(time)?).await?;
    let truth = proof::db_hash(&client.database(TRUTH)).await?;
    let live = proof::db_hash(&database).await?;
    ensure!(truth != live, "the application's writes changed nothing");
    phases.end(format!("by snapshot reads at {time}"));

    phases.begin("damage");
    data::damage(&database).await?;
    phases.end("documents deleted and changed, a collection, a view and an index dropped".to_owned());

    phases.begin("restore");
    let restore = command(cloud, "restore.sh", &["-d", DATABASE, "--full", "--yes", "--json"]).await?;
    ensure!(restore["state"] == "restored", "the restore is {}", restore["state"]);
    phases.end(format!("{} documents, read back and compared", restore["totals"]["documents"]));

    phases.begin("prove");
    proof::ensure_equal("documents", &truth, &proof::db_hash(&database).await?)?;
    proof::ensure_equal("options and indexes", &metadata, &proof::metadata(&database).await?)?;
    phases.end(format!("dbHash equal in {} collections; options and indexes equal", truth.len()));
    Ok(())
}

fn cluster_time(text: &str) -> Result<(u32, u32)> {
    let (seconds, ordinal) = text.split_once(',').context("a cluster time without a comma")?;
    Ok((seconds.parse()?, ordinal.parse()?))
}

/// Runs one of the procedures' scripts with `--json`; gives the object it printed.
async fn command(cloud: &Cloud, script: &str, arguments: &[&str]) -> Result<Value> {
    let path = std::env::join_paths(
        cloud
            .nightsafe()
            .parent()
            .map(Path::to_path_buf)
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    let output = tokio::process::Command::new(cloud.workspace().join(script))
        .args(arguments)
        .envs(cloud.environment())
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("run {script}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{script} failed ({}): {told}", output.status);
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("read what {script} printed"))
}

/// The phases, as bars while they run and as a table at the end.
#[derive(Default)]
struct Phases {
    bar: Option<ProgressBar>,
    name: &'static str,
    began: Option<Instant>,
    done: Vec<(&'static str, f64, String)>,
}

impl Phases {
    fn begin(&mut self, name: &'static str) {
        (self.name, self.began) = (name, Some(Instant::now()));
        if stderr().is_terminal() {
            let bar = ProgressBar::new_spinner().with_message(name);
            bar.set_style(style("{spinner} {msg:40} {elapsed:>4}"));
            bar.enable_steady_tick(Duration::from_millis(100));
            self.bar = Some(bar);
        } else {
            eprintln!("… {name}");
        }
    }

    fn detail(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("{}: {what}", self.name)),
            None => eprintln!("  {what}"),
        }
    }

    fn progress(&self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_style(style("{spinner} {msg:40} {elapsed:>4} [{bar:30}] {pos}/{len}"));
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    fn end(&mut self, what: String) {
        let seconds = self.began.take().map_or(0.0, |began| began.elapsed().as_secs_f64());
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            eprintln!("✓ {:18} {seconds:>5.1} s", self.name);
        }
        self.done.push((self.name, seconds, what));
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["phase", "seconds", "what"]);
        for (name, seconds, what) in &self.done {
            table.add_row([(*name).to_owned(), format!("{seconds:.1}"), what.clone()]);
        }
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
