//! What the demo shows: its phases, each with the command lines that were run in it.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

/// The phases, as bars while they run and as a table at the end.
#[derive(Default)]
pub(super) struct Phases {
    bar: Option<ProgressBar>,
    name: &'static str,
    began: Option<Instant>,
    lines: Vec<String>,
    done: Vec<(&'static str, f64, String)>,
}

impl Phases {
    pub(super) fn begin(&mut self, name: &'static str) {
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

    pub(super) fn detail(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("{}: {what}", self.name)),
            None => eprintln!("  {what}"),
        }
    }

    /// Shows a command's line, here and in the table.
    pub(super) fn command(&mut self, line: &str) {
        let line = format!("$ {line}");
        self.detail(&line);
        if !self.lines.contains(&line) {
            self.lines.push(line);
        }
    }

    pub(super) fn progress(&self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_style(style("{spinner} {msg:40} {elapsed:>4} [{bar:30}] {pos}/{len}"));
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    pub(super) fn end(&mut self, what: String) {
        let seconds = self.began.take().map_or(0.0, |began| began.elapsed().as_secs_f64());
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            eprintln!("✓ {:18} {seconds:>5.1} s", self.name);
        }
        let rows: Vec<String> = std::iter::once(what).chain(std::mem::take(&mut self.lines)).collect();
        self.done.push((self.name, seconds, rows.join("\n")));
    }

    pub(super) fn table(&self) -> Table {
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
