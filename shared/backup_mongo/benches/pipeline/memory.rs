//! Peak resident size (`VmHWM`) of a process that does nothing but one step: the bench runs itself for each.

use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::operation::{Operation, OperationKind};
use backup_core::ports::Catalog;
use backup_mongo::Cluster;

use crate::Options;
use crate::whole::World;

const ROW: &str = "backup.json";
const DIRECTORY: &str = "NIGHTSAFE_BENCH_DIRECTORY";

/// Runs a dump and a restore, each in a process of its own.
pub(crate) fn measure(options: &Options) {
    let directory = tempfile::tempdir().unwrap();
    for step in ["dump", "restore"] {
        run_alone(options, directory.path(), step);
    }
}

/// Runs a step in a process of its own.
pub(crate) fn run_alone(options: &Options, directory: &Path, step: &str) {
    let number = |value: usize| value.to_string();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--child", step, "--mib", &options.mib.to_string(), "--level", &options.level.to_string()])
        .args(["--workers", &number(options.workers), "--writers", &number(options.writers)])
        .args(["--document-bytes", &number(options.document_bytes)])
        .args(options.timeline.then_some("--timeline"))
        .env(DIRECTORY, directory)
        .status()
        .unwrap();
    assert!(status.success());
}

/// Where such a process finds what the ones before it left.
pub(crate) fn directory() -> PathBuf {
    std::env::var_os(DIRECTORY).unwrap().into()
}

/// One step, and what it took.
pub(crate) async fn child(cluster: &Cluster, options: &Options, step: &str) {
    let directory = directory();
    let world = World::new(cluster, &directory, options);
    if step == "dump" {
        let id = world.plan_backup().await;
        world.dump(id).await;
        tell("dump-chunk");
        world.seal(id).await;
        let row = world.operation(OperationKind::Backup, id).await;
        std::fs::write(directory.join(ROW), serde_json::to_vec(&row).unwrap()).unwrap();
    } else {
        let row: Operation = serde_json::from_slice(&std::fs::read(directory.join(ROW)).unwrap()).unwrap();
        world.catalog.create_operation(&row).await.unwrap();
        let id = world.plan_restore(row.id).await;
        world.insert(id).await;
        tell("restore-chunk");
        world.give_up(id).await;
    }
}

/// Prints what this process took so far.
pub(crate) fn tell(step: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{step:14} peak resident size {:.0} MiB", kib / 1024.0);
}
