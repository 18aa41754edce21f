//! Following an execution to its end: a bar for each state on a terminal, a line for each elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use backup_aws::{Execution, MapProgress};
use backup_core::id::OperationId;
use backup_core::operation::{Operation, OperationKind};
use backup_core::ports::Catalog;
use backup_core::{Error, ErrorKind, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output;
use crate::session::Session;

/// Well below what the service allows, also for several operators at once.
const LOOK_MILLIS: u64 = 800;
/// Where it is waited for hours.
const PATIENT_LOOK_MILLIS: u64 = 10_000;
/// The state in which a restore waits.
const COLD_STORAGE: &str = "wait-for-cold-storage";
/// Looks for the mark of an execution that ended outside its own error handling.
const MARKED_LOOKS_MAX: u32 = 10;
/// Without a terminal: how often a state that goes on is told of again.
const LINE_SECONDS: u64 = 30;

/// Waits until the execution ended; gives the operation's row if it succeeded, its failure otherwise.
pub(crate) async fn follow(
    session: &Session,
    kind: OperationKind,
    id: OperationId,
    execution: &str,
) -> Result<Operation> {
    let mut shown = Shown::new(session.json);
    let (mut troubles, mut pause) = (0, LOOK_MILLIS);
    let ended = loop {
        match look(session, execution).await {
            Ok((execution, map)) => {
                troubles = 0;
                let is_patient = execution.entered.last().is_some_and(|(name, _)| name == COLD_STORAGE);
                pause = if is_patient { PATIENT_LOOK_MILLIS } else { LOOK_MILLIS };
                shown.update(&execution, map);
                if execution.succeeded.is_some() {
                    break execution;
                }
            }
            // The job goes on whether we see it or not.
            Err(why) if why.kind().is_retryable() && troubles < 20 => troubles += 1,
            Err(why) => return Err(why),
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    };
    let mut operation = session.catalog.operation(kind, id).await?;
    if ended.succeeded == Some(true) {
        return Ok(operation);
    }
    // An execution that was stopped or timed out is marked a moment later, by a rule.
    for _ in 0..MARKED_LOOKS_MAX {
        if operation.state.is_final() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
        operation = session.catalog.operation(kind, id).await?;
    }
    Err(failure(&operation, ended))
}

async fn look(session: &Session, execution: &str) -> Result<(Execution, Option<MapProgress>)> {
    let looked = session.machines.look(execution).await?;
    let in_map = looked.entered.last().is_some_and(|(name, _)| is_map(name));
    let map = if in_map { session.machines.newest_map(execution).await? } else { None };
    Ok((looked, map))
}

fn failure(operation: &Operation, ended: Execution) -> Error {
    let what = format!("{} {}", operation.kind(), operation.id);
    match &operation.failure {
        Some(failure) => {
            let error = Error::new(failure.kind, format!("{what}: {}: {}", failure.step, failure.message));
            match &failure.hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        }
        None => {
            Error::new(ErrorKind::Internal, format!("{what} failed: {}", ended.error.unwrap_or_default()))
        }
    }
}

/// What a restore waits for, and how long that takes.
pub(crate) fn waits_for_cold_storage(since_millis: u64) -> String {
    format!("waits for cold storage since {} UTC, usually 3 to 5 hours", output::time(since_millis))
}

/// The states that are shown, in order: those in which something happens; of many looks at cold storage the first.
fn steps(entered: &[(String, i64)]) -> Vec<&(String, i64)> {
    let first_wait = entered.iter().position(|(name, _)| name == COLD_STORAGE);
    let is_shown = |number: usize, name: &str| match name {
        "done" | "failed" | "is-more-than-a-plan" | "is-it-thawed" => false,
        "thaw" | COLD_STORAGE => first_wait.is_none_or(|first| number <= first),
        _ => true,
    };
    let numbered = entered.iter().enumerate().filter(|(number, (name, _))| is_shown(*number, name));
    numbered.map(|(_, state)| state).collect()
}

/// What was shown so far.
struct Shown {
    bar: Option<ProgressBar>,
    quiet: bool,
    states: usize,
    began: Instant,
    line_at: Instant,
}

impl Shown {
    fn new(quiet: bool) -> Self {
        let now = Instant::now();
        Self { bar: None, quiet, states: 0, began: now, line_at: now }
    }

    fn update(&mut self, execution: &Execution, map: Option<MapProgress>) {
        if self.quiet {
            return;
        }
        let steps = steps(&execution.entered);
        let ended = execution.succeeded.is_some();
        for (number, (name, entered)) in steps.iter().enumerate().skip(self.states.saturating_sub(1)) {
            if number >= self.states {
                self.begin(name, *entered);
            }
            // A state lasts until the next one is entered; the hidden last ones end the others.
            let next = steps.get(number + 1).copied().or(execution.entered.last()).map(|(_, at)| *at);
            if number + 1 < steps.len() || ended {
                let is_last = number + 1 == steps.len();
                self.end(
                    name,
                    execution.succeeded != Some(false) || !is_last,
                    next.unwrap_or(*entered) - entered,
                );
            }
        }
        self.states = steps.len();
        if !ended {
            self.progress(steps.last().map(|(name, _)| name.as_str()).unwrap_or_default(), map);
        }
    }

    fn begin(&mut self, name: &str, entered: i64) {
        self.line_at = Instant::now();
        if name == COLD_STORAGE {
            eprintln!("{}", waits_for_cold_storage(u64::try_from(entered).unwrap_or(0)));
        }
        if !stderr().is_terminal() {
            eprintln!("{:>7.1} s  {name}", self.began.elapsed().as_secs_f64());
            return;
        }
        let bar = ProgressBar::new_spinner().with_message(name.to_owned());
        bar.set_style(style("{spinner} {msg:18} {elapsed:>4}"));
        bar.enable_steady_tick(Duration::from_millis(100));
        self.bar = Some(bar);
    }

    fn progress(&mut self, name: &str, map: Option<MapProgress>) {
        let Some(map) = map.filter(|map| is_map(name) && map.total > 0) else { return };
        if let Some(bar) = &self.bar {
            bar.set_style(style("{spinner} {msg:18} {elapsed:>4} [{bar:30}] {pos}/{len}"));
            bar.set_length(map.total);
            bar.set_position(map.succeeded);
        } else if self.line_at.elapsed() >= Duration::from_secs(LINE_SECONDS) {
            self.line_at = Instant::now();
            eprintln!(
                "{:>7.1} s  {name} {}/{}",
                self.began.elapsed().as_secs_f64(),
                map.succeeded,
                map.total
            );
        }
    }

    fn end(&mut self, name: &str, well: bool, millis: i64) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            let mark = if well { "✓" } else { "✗" };
            eprintln!("{mark} {name:18} {:>3}.{} s", millis / 1000, millis % 1000 / 100);
        }
    }
}

fn is_map(name: &str) -> bool {
    matches!(
        name,
        "dump-chunk"
            | "fold-chunk"
            | "verify-checksums"
            | "prove-chunk"
            | "restore-chunk"
            | "validate-chunk"
            | "rehearse-chunk"
    )
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_looks_at_cold_storage_the_first_is_shown() {
        let check = |entered: &[&str], expected: &[&str]| {
            let entered: Vec<(String, i64)> = entered.iter().map(|name| ((*name).to_owned(), 7)).collect();
            let shown: Vec<&str> = steps(&entered).into_iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(shown, expected, "{entered:?}");
        };
        let (looks, waits) = (["thaw", "is-it-thawed"], COLD_STORAGE);
        check(&[], &[]);
        check(&["thaw"], &["thaw"]);
        check(&["trigger-backup", "dump-chunk", "done"], &["trigger-backup", "dump-chunk"]);
        check(&["thaw", "is-it-thawed", "plan-restore"], &["thaw", "plan-restore"]);
        let waiting = [&looks[..], &[waits], &looks, &[waits], &looks].concat();
        check(&waiting, &["thaw", waits]);
        let rest = ["plan-restore", "is-more-than-a-plan", "restore-chunk", "done"];
        let ended = [&waiting[..], &rest].concat();
        check(&ended, &["thaw", waits, "plan-restore", "restore-chunk"]);
    }
}
