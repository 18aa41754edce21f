//! What the command line takes.

use backup_core::id::OperationId;
use clap::{Args, Parser, Subcommand};

/// Backup and restore for MongoDB, without a server.
#[derive(Parser)]
#[command(name = "nightsafe", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// The name of the deployed stack.
    #[arg(long, global = true, env = "NIGHTSAFE_STACK", default_value = "nightsafe")]
    pub(crate) stack: String,
    /// The AWS region of the stack; else the one AWS tools use.
    #[arg(long, global = true)]
    pub(crate) region: Option<String>,
    /// Print one JSON object instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 error, 2 usage, 3 done but not for all, 4 damaged or not equal, 5 not found, 6 held by another, \
7 denied, 8 needs your word (--yes), 130 interrupted. Any other code is a failure too.";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Back up a database, or some of its collections.
    Backup(BackupArguments),
    /// Restore a database, or some of its collections.
    Restore(RestoreArguments),
    /// List backups and restores, newest first.
    List(LimitArguments),
    /// Show one backup or restore in full.
    Show(ShowArguments),
    /// Say in one screen whether all is well.
    Status,
    /// Print the audit trail, newest first: who backed up or restored what, and how it ended.
    Audit(LimitArguments),
}

#[derive(Args)]
pub(crate) struct BackupArguments {
    /// The database.
    #[arg(short = 'd', long)]
    pub(crate) database: String,
    /// Only these collections, separated by commas.
    #[arg(short = 'c', long, value_delimiter = ',')]
    pub(crate) collections: Vec<String>,
    /// Take over from a backup that is running; it can write nothing more then.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args)]
pub(crate) struct RestoreArguments {
    /// The database.
    #[arg(short = 'd', long)]
    pub(crate) database: String,
    /// The whole database, as it was: what is live but not in the backup is moved aside.
    #[arg(long, required_unless_present = "collections", conflicts_with = "collections")]
    pub(crate) full: bool,
    /// Only these collections, separated by commas; the rest of the database is left as it is.
    #[arg(short = 'c', long, value_delimiter = ',')]
    pub(crate) collections: Vec<String>,
    /// The backup to restore; else the newest verified one.
    #[arg(long)]
    pub(crate) backup: Option<OperationId>,
    /// Say what would happen, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Replace live collections without asking.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Args)]
pub(crate) struct LimitArguments {
    /// How many at most (of each kind, where there are several).
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

#[derive(Args)]
pub(crate) struct ShowArguments {
    /// The id, as `list` shows it.
    pub(crate) id: OperationId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_of_the_procedures_are_understood() {
        let check = |line: &str, good: bool| {
            let parsed = Arguments::try_parse_from(line.split(' '));
            assert_eq!(parsed.is_ok(), good, "{line}: {:?}", parsed.err().map(|why| why.to_string()));
        };
        check("nightsafe backup -d crm", true);
        check("nightsafe backup -d crm -c leads,messages", true);
        check("nightsafe backup -d crm --force", true);
        check("nightsafe restore -d crm --full", true);
        check("nightsafe restore -d crm -c leads,messages", true);
        check("nightsafe restore -d crm --full --dry-run --json", true);
        check("nightsafe restore -d crm", false);
        check("nightsafe restore -d crm --full -c leads", false);
        check("nightsafe backup", false);
        check("nightsafe show nothing", false);
    }
}
