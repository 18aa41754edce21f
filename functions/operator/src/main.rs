//! `nightsafe`, the operator's command line.
//!
//! Results go to standard output, everything else to standard error. It starts executions and follows them; all the
//! work is done by the steps. It needs AWS credentials, a region and the stack's name, and nothing else.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints")]

mod agree;
mod arguments;
mod audit;
mod backup;
mod catalog;
mod follow;
mod hold;
mod list;
mod lookup;
mod output;
mod restore;
mod retention;
mod session;
mod show;
mod status;
mod verify;
mod windows;

use std::process::ExitCode;

use backup_core::{Error, Result};
use clap::Parser;

use crate::arguments::{Arguments, CatalogCommand, Command, Planned};
use crate::session::Session;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tell(&why, arguments.json);
            ExitCode::from(why.kind().exit_code())
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let session = Session::open(arguments).await?;
    match &arguments.command {
        Command::Backup(wanted) => backup::run(&session, wanted).await,
        Command::Restore(wanted) => restore::run(&session, wanted).await,
        Command::Windows(wanted) => windows::run(&session, wanted).await,
        Command::Synthesize(wanted) => backup::fold(&session, wanted).await,
        Command::Get(wanted) => lookup::get(&session, wanted).await,
        Command::History(wanted) => lookup::versions(&session, wanted).await,
        Command::List(wanted) => list::run(&session, wanted).await,
        Command::Show(wanted) => show::run(&session, wanted.id).await,
        Command::Status => status::run(&session).await,
        Command::Plan(wanted) => match wanted.what {
            Planned::Retention => retention::plan(&session).await,
        },
        Command::Prune(wanted) => retention::run(&session, wanted).await,
        Command::Hold(wanted) => hold::hold(&session, wanted).await,
        Command::Release(wanted) => hold::release(&session, wanted.id).await,
        Command::Delete(wanted) => hold::delete(&session, wanted).await,
        Command::Verify(wanted) => verify::run(&session, wanted).await,
        Command::Replicas(wanted) => verify::replicas(&session, wanted.id).await,
        Command::Catalog(wanted) => match wanted.what {
            CatalogCommand::Rebuild => catalog::rebuild(&session).await,
        },
        Command::Audit(wanted) => audit::run(&session, wanted).await,
    }
}

fn tell(why: &Error, json: bool) {
    if json {
        let object = serde_json::json!({
            "message_type": "exit_error",
            "code": why.kind().exit_code(),
            "kind": why.kind().name(),
            "message": why.to_string(),
            "hint": why.hint_text(),
        });
        println!("{object}");
    }
    eprintln!("error: {why}");
    if let Some(hint) = why.hint_text() {
        eprintln!("hint: {hint}");
    }
}
