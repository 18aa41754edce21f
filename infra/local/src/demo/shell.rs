//! The operator's shell: the procedures' scripts and the command line, run as they are typed.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::phases::Phases;
use crate::Cloud;

/// Runs a command of the checkout that prints an object, and shows its line; gives the object.
pub(super) async fn json(cloud: &Cloud, phases: &mut Phases, words: &[&str]) -> Result<Value> {
    let line = line(words);
    phases.command(&line);
    let (program, arguments) = words.split_first().context("a command without a program")?;
    let binaries = cloud.nightsafe().parent().map(ToOwned::to_owned);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(binaries.into_iter().chain(std::env::split_paths(&path)))?;
    let output = tokio::process::Command::new(program)
        .args(arguments)
        .envs(cloud.environment())
        .env("PATH", path)
        .current_dir(cloud.workspace())
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("run {line}"))?;
    if !output.status.success() {
        bail!("{line} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("read what {line} printed"))
}

/// The words as a shell takes them.
fn line(words: &[&str]) -> String {
    let quoted = |word: &&str| if word.contains(' ') { format!("\"{word}\"") } else { (*word).to_owned() };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_be_typed_again() {
        let check = |words: &[&str], expected: &str| assert_eq!(line(words), expected);
        check(&["./backup.sh", "-d", "crm"], "./backup.sh -d crm");
        check(&["./restore.sh", "-t", "2026-11-22 02:00:07"], "./restore.sh -t \"2026-11-22 02:00:07\"");
    }
}
