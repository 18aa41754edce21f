//! Building the real binaries, and packing the one that runs in Lambda.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use zip::write::SimpleFileOptions;

/// The root of the workspace this was built in.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Builds `bootstrap` and `nightsafe` with the default profile; gives the folder they are in.
pub(crate) fn binaries() -> Result<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--bin", "bootstrap", "--bin", "nightsafe"])
        .current_dir(workspace())
        .stdin(Stdio::null())
        .status()
        .context("start cargo")?;
    if !status.success() {
        bail!("the binaries did not build");
    }
    let target = std::env::var("CARGO_TARGET_DIR").map_or_else(|_| workspace().join("target"), PathBuf::from);
    Ok(workspace().join(target).join("debug"))
}

/// A Lambda package: a zip with one executable file.
pub(crate) fn package(binary: &Path, name: &str) -> Result<Vec<u8>> {
    let content = fs::read(binary).with_context(|| format!("read {}", binary.display()))?;
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    // Stored, not deflated: the package stays on this machine.
    let executable = SimpleFileOptions::default()
        .unix_permissions(0o755)
        .compression_method(zip::CompressionMethod::Stored);
    archive.start_file(name, executable)?;
    archive.write_all(&content)?;
    Ok(archive.finish()?.into_inner())
}
