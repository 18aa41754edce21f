//! `cargo local` and `cargo demo`.

#![allow(clippy::print_stdout, reason = "a command's output")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use local::{Cloud, CloudOptions, demo};

/// The local cloud: a real mongod, and the real template on a local AWS.
#[derive(Parser)]
#[command(name = "cargo local", bin_name = "cargo local")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start it, or find it running, and print what to export.
    Up {
        /// The snapshot history mongod keeps, in seconds.
        #[arg(long, default_value_t = CloudOptions::default().history_seconds)]
        history_seconds: u32,
        /// How much BSON a chunk should hold.
        #[arg(long, default_value_t = CloudOptions::default().chunk_target_bytes)]
        chunk_target_bytes: u64,
        /// Let the schedules call their steps, as on AWS.
        #[arg(long)]
        schedules: bool,
        /// Only in one region, not in three.
        #[arg(long)]
        one_region: bool,
        /// Without the layer on which samples are restored.
        #[arg(long)]
        no_layer: bool,
    },
    /// Say whether it runs, and where.
    Status,
    /// Print what to export.
    Env,
    /// Stop it and remove what it kept.
    Down,
    /// Back up a database of 50,000 documents, undo an accident, restore it all, prove both: in a cloud of its own.
    Demo,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&format!("error: {why:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    let directory: PathBuf = Cloud::default_directory();
    match command {
        Command::Up { history_seconds, chunk_target_bytes, schedules, one_region, no_layer } => {
            let cloud = if let Some(cloud) = Cloud::find(&directory) {
                cloud
            } else {
                Cloud::stop_in(&directory)?; // what is left of one that died
                let options = CloudOptions {
                    history_seconds,
                    chunk_target_bytes,
                    schedules,
                    regions: !one_region,
                    layer: !no_layer,
                    ..CloudOptions::default()
                };
                up(&directory, &options).await?
            };
            print!("{}\n{}", cloud.description(), cloud.exports());
            println!("\n# in a shell:  source {}/env", directory.display());
        }
        Command::Status => match Cloud::find(&directory) {
            Some(cloud) => print!("running\n{}", cloud.description()),
            None => println!("not running (start it with `cargo local up`)"),
        },
        Command::Env => match Cloud::find(&directory) {
            Some(cloud) => print!("{}", cloud.exports()),
            None => anyhow::bail!("the local cloud does not run: start it with `cargo local up`"),
        },
        Command::Down => {
            let was = Cloud::stop_in(&directory)?;
            println!("{}", if was { "stopped" } else { "it was not running" });
        }
        Command::Demo => demo::run().await?,
    }
    Ok(())
}

/// Starts the cloud; interrupted, it leaves no server behind.
async fn up(directory: &Path, options: &CloudOptions) -> Result<Cloud> {
    tokio::select! {
        cloud = Cloud::start(directory, options, |phase| say(&format!("… {phase}"))) => cloud,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}

#[allow(clippy::print_stderr, reason = "progress of a command")]
fn say(line: &str) {
    eprintln!("{line}");
}
