//! Backups, captures and folded backups, one after another, while the workload runs.

use std::sync::atomic::{AtomicBool, Ordering};

use backup_core::ErrorKind;
use backup_core::id::{ClusterTime, OperationId};
use backup_core::operation::OperationKind;
use backup_core::ports::Source;
use backup_mongo::Cluster;

use crate::chain::Chain;

use super::DATABASES;
use super::draw::Draw;

/// What was done to protect the databases.
pub(super) struct Protection<'a> {
    chain: &'a Chain,
    source: &'a Cluster,
    draw: Draw,
    seed: u64,
    scans: Vec<Scan>,
    pub(super) folded: usize,
    /// Backups that were refused: their database had nothing just then.
    pub(super) refused: usize,
}

/// A backup that was read from the source. Capped collections were scanned while they changed, so up to its end they
/// may be restored with what came later, and without what went.
struct Scan {
    database: &'static str,
    from: ClusterTime,
    until: ClusterTime,
}

impl<'a> Protection<'a> {
    pub(super) fn new(chain: &'a Chain, source: &'a Cluster, seed: u64) -> Self {
        let draw = Draw::new(seed ^ 0xbeef);
        Self { chain, source, draw, seed, scans: Vec::new(), folded: 0, refused: 0 }
    }

    /// The first backup of each database.
    pub(super) async fn begin(&mut self) {
        for database in DATABASES {
            self.back_up(database).await;
        }
    }

    /// Goes on until the workload is over.
    pub(super) async fn run(&mut self, is_over: &AtomicBool) {
        let mut turn = 0_u32;
        while !is_over.load(Ordering::Relaxed) {
            let database = self.draw.of(&DATABASES);
            match turn % 4 {
                0 => self.chain.capture().await.unwrap_or_else(|why| panic!("seed {}: {why}", self.seed)),
                2 => self.back_up(database).await,
                _ => self.synthesize(database).await,
            }
            turn += 1;
        }
    }

    /// Backups that were read from the source.
    pub(super) const fn backups(&self) -> usize {
        self.scans.len()
    }

    /// Whether capped collections may not be exact at that time.
    pub(super) fn was_scanned(&self, database: &str, time: ClusterTime) -> bool {
        self.scans.iter().any(|scan| scan.database == database && (scan.from..=scan.until).contains(&time))
    }

    async fn back_up(&mut self, database: &'static str) {
        match self.chain.back_up(database, &[]).await {
            Ok(manifest) => {
                let until = self.source.cluster_time().await.unwrap();
                self.scans.push(Scan { database, from: manifest.cluster_time, until });
                self.check_proof(manifest.backup).await;
            }
            // The workload had dropped all of it.
            Err(why)
                if why.kind() == ErrorKind::NotFound && why.to_string().starts_with("back up database") =>
            {
                self.refused += 1;
            }
            Err(why) => panic!("seed {}: {why}", self.seed),
        }
    }

    async fn synthesize(&mut self, database: &str) {
        let folded = self.chain.synthesize(database).await;
        let folded = folded.unwrap_or_else(|why| panic!("seed {}: fold {database}: {why}", self.seed));
        assert!(folded.folded_from.is_some());
        self.folded += 1;
    }

    /// What an earlier backup and the timeline make of its chunks is what was read, if there is an earlier one.
    async fn check_proof(&self, backup: OperationId) {
        let row = self.chain.ports.operation(OperationKind::Backup, backup).await;
        if let Some(proof) = row.backup().unwrap().proof {
            let is_proved = proof.different == 0 && proof.unproved == 0;
            assert!(is_proved, "seed {}: backup {backup} of {}: {proof:?}", self.seed, row.database);
        }
    }
}
