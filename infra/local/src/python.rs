//! The private Python environment, made once and again when its requirements change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::run;

const REQUIREMENTS: &str = include_str!("../requirements.txt");

/// The environment's `python`.
pub(crate) fn environment(directory: &Path) -> Result<PathBuf> {
    let environment = directory.join("python");
    let python = environment.join("bin/python");
    let made_for = environment.join("requirements.txt");
    if python.exists() && fs::read_to_string(&made_for).is_ok_and(|made_for| made_for == REQUIREMENTS) {
        return Ok(python);
    }
    check_system_python()?;
    if environment.exists() {
        fs::remove_dir_all(&environment)?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&environment))
        .context("make a Python environment (on Debian, `apt-get install python3-venv` may be missing)")?;
    let wanted = directory.join("requirements.txt");
    fs::write(&wanted, REQUIREMENTS)?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(&wanted))
    .context("install the local AWS from PyPI (is the package index reachable?)")?;
    fs::write(&made_for, REQUIREMENTS)?;
    Ok(python)
}

fn check_system_python() -> Result<()> {
    let version =
        Command::new("python3").args(["-c", "import sys; print(*sys.version_info[:2], sep='.')"]).output();
    let version = match version {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(_) => {
            bail!("python3 is missing: install Python 3.11 (on Debian: apt-get install python3 python3-venv)")
        }
    };
    let minor = version.strip_prefix("3.").and_then(|minor| minor.parse::<u32>().ok());
    if minor.is_none_or(|minor| minor < 11) {
        bail!("python3 is {version}: the local AWS needs Python 3.11 or newer");
    }
    Ok(())
}
