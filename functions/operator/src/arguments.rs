//! What the command line takes.

use backup_core::Error;
use backup_core::id::{OperationId, RegionName};
use backup_core::operation::{Level, RestoreTime};
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
    /// List the times that databases can be restored to, and the gaps between them.
    Windows(WindowsArguments),
    /// Fold the newest backup of a database and what happened since into a new backup, without touching the database.
    Synthesize(SynthesizeArguments),
    /// Show one document as it was at a time.
    Get(GetArguments),
    /// Show the versions of one document, with their times.
    History(HistoryArguments),
    /// List backups and restores, newest first.
    List(LimitArguments),
    /// Show one backup or restore in full.
    Show(IdArguments),
    /// Say in one screen whether all is well.
    Status,
    /// Say which backups are kept, which go, and by which rule, without changing anything.
    Plan(PlanArguments),
    /// Remove what is no longer to be kept.
    Prune(PruneArguments),
    /// Keep a backup, whatever the rules say, until it is released.
    Hold(HoldArguments),
    /// Let a backup that was held go by the rules again.
    Release(IdArguments),
    /// Say that a backup made by hand is no longer wanted; it goes once nothing keeps it any more.
    Delete(DeleteArguments),
    /// Verify a backup again.
    Verify(VerifyArguments),
    /// Say in which regions a backup has complete copies.
    Replicas(IdArguments),
    /// The index of what is stored.
    Catalog(CatalogArguments),
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
    /// The whole database, as it was: what is live but was not there is moved aside.
    #[arg(long, required_unless_present_any = ["collections", "time"], conflicts_with = "collections")]
    pub(crate) full: bool,
    /// Only these collections, separated by commas; the rest of the database is left as it is.
    #[arg(short = 'c', long, value_delimiter = ',')]
    pub(crate) collections: Vec<String>,
    /// The time to restore to: "YYYY-MM-DD HH:MM:SS" (UTC, with the whole second), SECONDS,ORDINAL (a cluster time), or
    /// latest. The whole database, unless collections are named.
    #[arg(short = 't', long, value_parser = restore_time, conflicts_with = "backup")]
    pub(crate) time: Option<RestoreTime>,
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

impl RestoreArguments {
    /// Whether the whole database is wanted.
    pub(crate) const fn is_whole(&self) -> bool {
        self.full || self.collections.is_empty()
    }
}

/// With what can be written, which a parser's error would not tell.
fn restore_time(text: &str) -> Result<RestoreTime, String> {
    text.parse().map_err(|why: Error| format!("{why}: {}", why.hint_text().unwrap_or_default()))
}

#[derive(Args)]
pub(crate) struct WindowsArguments {
    /// Only this database.
    #[arg(short = 'd', long)]
    pub(crate) database: Option<String>,
}

#[derive(Args)]
pub(crate) struct GetArguments {
    /// The collection, as DATABASE.COLLECTION.
    pub(crate) namespace: String,
    /// The document's `_id`: Extended JSON, the digits of an `ObjectId`, or plain text.
    pub(crate) id: String,
    /// The time: as `restore -t` takes it.
    #[arg(long, value_parser = restore_time, default_value = "latest")]
    pub(crate) at: RestoreTime,
}

#[derive(Args)]
pub(crate) struct HistoryArguments {
    /// The collection, as DATABASE.COLLECTION.
    pub(crate) namespace: String,
    /// The document's `_id`: Extended JSON, the digits of an `ObjectId`, or plain text.
    pub(crate) id: String,
    /// Up to this time, in whose window it is looked: as `restore -t` takes it.
    #[arg(long, value_parser = restore_time, default_value = "latest")]
    pub(crate) until: RestoreTime,
}

#[derive(Args)]
pub(crate) struct SynthesizeArguments {
    /// The database.
    #[arg(short = 'd', long)]
    pub(crate) database: String,
}

#[derive(Args)]
pub(crate) struct LimitArguments {
    /// How many at most (of each kind, where there are several).
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

#[derive(Args)]
pub(crate) struct IdArguments {
    /// The id, as `list` shows it.
    pub(crate) id: OperationId,
}

#[derive(Args)]
pub(crate) struct PlanArguments {
    #[command(subcommand)]
    pub(crate) what: Planned,
}

#[derive(Subcommand)]
pub(crate) enum Planned {
    /// Of every backup: whether it is kept, and why.
    Retention,
}

#[derive(Args)]
pub(crate) struct PruneArguments {
    /// Say what would happen, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Remove more in one run than the configured share; asks first.
    #[arg(long)]
    pub(crate) force: bool,
    /// Without asking.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Args)]
pub(crate) struct HoldArguments {
    /// The backup.
    pub(crate) id: OperationId,
    /// Why: for whoever wonders later.
    #[arg(long)]
    pub(crate) reason: String,
}

#[derive(Args)]
pub(crate) struct DeleteArguments {
    /// The backup.
    pub(crate) id: OperationId,
    /// Without asking.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Args)]
pub(crate) struct VerifyArguments {
    /// The backup.
    pub(crate) id: OperationId,
    /// How far: L0 every object is there, L1 its checksum is right, L2 every document was read and counted, L3 a sample
    /// was restored, L4 everything was restored, L5 the owner's checks passed on it.
    #[arg(long, default_value = "L2", value_parser = level)]
    pub(crate) level: Level,
    /// Read the copy in this region.
    #[arg(long)]
    pub(crate) copy_in: Option<RegionName>,
}

fn level(text: &str) -> Result<Level, String> {
    text.parse().map_err(|why: Error| format!("{why}: {}", why.hint_text().unwrap_or_default()))
}

#[derive(Args)]
pub(crate) struct CatalogArguments {
    #[command(subcommand)]
    pub(crate) what: CatalogCommand,
}

#[derive(Subcommand)]
pub(crate) enum CatalogCommand {
    /// Build it again from the bucket alone, after the tables were lost. What it has already stays as it is.
    Rebuild,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a shell takes it: what stands in quotes is one word.
    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let words = line.split('"').enumerate().flat_map(|(place, part)| {
            if place % 2 == 1 { vec![part] } else { part.split_whitespace().collect() }
        });
        Arguments::try_parse_from(words)
    }

    #[test]
    fn the_commands_of_the_procedures_are_understood() {
        let check = |line: &str, good: bool| {
            let parsed = parse(line);
            assert_eq!(parsed.is_ok(), good, "{line}: {:?}", parsed.err().map(|why| why.to_string()));
        };
        check("nightsafe backup -d crm", true);
        check("nightsafe backup -d crm -c leads,messages", true);
        check("nightsafe backup -d crm --force", true);
        check("nightsafe restore -d crm --full", true);
        check("nightsafe restore -d crm -c leads,messages", true);
        check("nightsafe restore -d crm --full --dry-run --json", true);
        check("nightsafe restore -d crm -t \"2026-11-22 02:00:00\"", true);
        check("nightsafe restore -d crm --full -t latest", true);
        check("nightsafe restore -d crm -c leads --time 1795312807,3", true);
        check("nightsafe windows", true);
        check("nightsafe windows -d crm --json", true);
        check("nightsafe restore -d crm", false);
        check("nightsafe restore -d crm --full -c leads", false);
        check("nightsafe restore -d crm -t latest --backup 01KAMW1V2Q3R4S5T6V7W8X9YZA", false);
        check("nightsafe restore -d crm -t 2026-11-22", false);
        check("nightsafe restore -d crm -t \"2026-11-22 02:00:00\" --full -c leads", false);
        check("nightsafe backup", false);
        check("nightsafe show nothing", false);
        check("nightsafe plan retention --json", true);
        check("nightsafe prune --dry-run", true);
        check("nightsafe prune --force --yes", true);
        check("nightsafe hold 01KAMW1V2Q3R4S5T6V7W8X9YZA --reason \"a dispute\"", true);
        check("nightsafe hold 01KAMW1V2Q3R4S5T6V7W8X9YZA", false);
        check("nightsafe release 01KAMW1V2Q3R4S5T6V7W8X9YZA", true);
        check("nightsafe verify 01KAMW1V2Q3R4S5T6V7W8X9YZA --level L3", true);
        check("nightsafe verify 01KAMW1V2Q3R4S5T6V7W8X9YZA --level L6", false);
        check("nightsafe replicas 01KAMW1V2Q3R4S5T6V7W8X9YZA", true);
        check("nightsafe --region eu-west-1 catalog rebuild", true);
    }

    #[test]
    fn a_time_is_for_the_whole_database_unless_collections_are_named() {
        let check = |line: &str, time: RestoreTime, whole: bool| {
            let Ok(Arguments { command: Command::Restore(wanted), .. }) = parse(line) else {
                panic!("{line}: no restore")
            };
            assert_eq!((wanted.time, wanted.is_whole()), (Some(time), whole), "{line}");
        };
        let at = |text: &str| RestoreTime::At(text.parse().unwrap());
        check("nightsafe restore -d crm -t latest", RestoreTime::Latest, true);
        check("nightsafe restore -d crm -t latest --full", RestoreTime::Latest, true);
        check("nightsafe restore -d crm -t 1795312807,3 -c leads", at("1795312807,3"), false);
        check("nightsafe restore -d crm -t \"2026-11-22 02:00:07\"", at("1795312807,4294967295"), true);
        check("nightsafe restore -d crm -t 2026-11-22T02:00:07Z", at("1795312807,4294967295"), true);
    }

    #[test]
    fn a_wrong_time_is_told_with_the_right_forms() {
        let why = parse("nightsafe restore -d crm -t yesterday").err().map(|why| why.to_string());
        let why = why.unwrap_or_default();
        for form in ["YYYY-MM-DD HH:MM:SS", "SECONDS,ORDINAL", "latest"] {
            assert!(why.contains(form), "{form} in {why}");
        }
    }
}
