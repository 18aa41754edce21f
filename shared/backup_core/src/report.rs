//! What is told of a backup once it is verified: as JSON for dashboards, and as a page for people.
//!
//! Neither has names of databases or collections, or any document content: both stand in clear.

pub mod drill;
mod page;

use bytes::Bytes;
use serde::Serialize;

use crate::audit::iso_8601;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Consistency, Manifest, Rehearsed, Sampled};
use crate::id::{ClusterTime, OperationId};
use crate::namespace::Label;
use crate::operation::{ChainProof, Level, Operation, Totals};
use crate::settings::MIB;

pub use page::Page;

/// The integrity report beside the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IntegrityReport {
    /// The backup.
    pub backup: OperationId,
    /// The T of its plan.
    pub cluster_time: ClusterTime,
    /// Whether all chunks share that T.
    pub consistency: Consistency,
    /// Sums over all chunks.
    pub totals: Totals,
    /// Namespaces that are exactly what they were at an instant.
    pub namespaces_exact: usize,
    /// Namespaces that were read without a snapshot.
    pub namespaces_fuzzy: usize,
    /// Namespaces whose changes cannot be followed.
    pub namespaces_base_only: usize,
    /// Namespaces that are not in the backup.
    pub namespaces_not_captured: usize,
    /// SHA-256 of the stored manifest in hexadecimal digits.
    pub manifest_sha256: Option<String>,
    /// Chunks that were read back and found good.
    pub chunks_verified: usize,
    /// What the comparison with the earlier backup found.
    pub chain_proof: Option<ChainProof>,
    /// What became of the sample; none if nobody took one.
    pub sample: Option<Sampled>,
    /// The levels of verification that were proved.
    pub levels: Vec<Level>,
    /// When, as ISO 8601 in UTC.
    pub verified_at: String,
}

impl IntegrityReport {
    /// The report of a backup of which so many chunks were read back and found good.
    pub fn of(
        operation: &Operation,
        manifest: &Manifest,
        chunks_verified: usize,
        chain_proof: Option<ChainProof>,
        sample: Option<Sampled>,
        now_millis: u64,
    ) -> Result<Self> {
        let labelled = |label| manifest.namespaces.iter().filter(|it| it.label == label).count();
        let mut levels = vec![Level::Present, Level::Checksums, Level::Decoded];
        if sample.as_ref().is_some_and(|sample| sample.rehearsed.is_some()) {
            levels.push(Level::SampleRestored);
        }
        Ok(Self {
            backup: manifest.backup,
            cluster_time: manifest.cluster_time,
            consistency: manifest.consistency,
            totals: manifest.totals(),
            namespaces_exact: labelled(Label::Exact),
            namespaces_fuzzy: labelled(Label::Fuzzy),
            namespaces_base_only: labelled(Label::BaseOnly),
            namespaces_not_captured: labelled(Label::NotCaptured),
            manifest_sha256: operation.backup()?.manifest_sha256.clone(),
            chunks_verified,
            chain_proof,
            sample,
            levels,
            verified_at: iso_8601(now_millis),
        })
    }

    /// For dashboards.
    pub fn to_json(&self) -> Result<Bytes> {
        let json = serde_json::to_vec(self);
        json.map(Bytes::from).map_err(|why| Error::new(ErrorKind::Internal, "write JSON").because(why))
    }

    /// For people.
    #[must_use]
    pub fn to_html(&self) -> Bytes {
        let levels: Vec<String> = self.levels.iter().map(Level::to_string).collect();
        let lead = format!("Verified at {}: {}.", self.verified_at, levels.join(", "));
        let mut page = Page::new(&format!("Backup {}", self.backup), &lead);
        page.section("What it holds", self.contents());
        page.section("What was proved", self.proofs());
        page.section("Sample restore", sample_rows(self.sample.as_ref()));
        page.to_html().into()
    }

    fn contents(&self) -> Vec<(String, String)> {
        let instant = format!("{} UTC ({})", self.cluster_time.utc(), self.cluster_time);
        vec![
            row("instant", instant),
            row("consistency", self.consistency),
            row("collections and views", self.totals.namespaces),
            row("of them exact", self.namespaces_exact),
            row("read without a snapshot", self.namespaces_fuzzy),
            row("whose changes cannot be followed", self.namespaces_base_only),
            row("not in the backup", self.namespaces_not_captured),
            row("chunks", self.totals.chunks),
            row("documents", self.totals.documents),
            row("documents' size", bytes(self.totals.bson_bytes)),
            row("stored", bytes(self.totals.stored_bytes)),
            row("SHA-256 of the manifest", self.manifest_sha256.as_deref().unwrap_or("unknown")),
        ]
    }

    fn proofs(&self) -> Vec<(String, String)> {
        let read_back = format!("{} of {}", self.chunks_verified, self.totals.chunks);
        let mut rows = vec![row("chunks read back, opened, counted and hashed", read_back)];
        match &self.chain_proof {
            None => rows.push(row("comparison with an earlier backup", "there was none to compare with")),
            Some(proof) => {
                rows.push(row("compared with", proof.with));
                rows.push(row("chunks that are the earlier ones with their changes", proof.equal));
                rows.push(row("chunks that are not", proof.different));
                rows.push(row("chunks that cannot be compared", proof.skipped));
                rows.push(row("chunks that should have been compared and were not", proof.unproved));
            }
        }
        rows
    }
}

fn sample_rows(sample: Option<&Sampled>) -> Vec<(String, String)> {
    let Some(sample) = sample else { return vec![row("restored", "nothing: no sample was taken")] };
    let mut rows = vec![row("seed", sample.seed)];
    if let Some(why) = &sample.skipped {
        rows.push(row("restored", format!("nothing: {why}")));
    }
    if let Some(rehearsed) = &sample.rehearsed {
        rows.extend(rehearsed_rows(rehearsed));
    }
    rows
}

fn rehearsed_rows(rehearsed: &Rehearsed) -> Vec<(String, String)> {
    let ordinals: Vec<String> = rehearsed.ordinals.iter().map(u32::to_string).collect();
    let mut rows = vec![
        row("chunks restored, read back and found equal", ordinals.join(", ")),
        row("documents", rehearsed.documents),
        row("documents' size", bytes(rehearsed.bson_bytes)),
        row("indexes built", rehearsed.indexes),
        row("server", &rehearsed.server),
        row("time", format!("{} s", rehearsed.millis.div_ceil(1000))),
    ];
    rows.extend(rehearsed.counts.iter().map(|found| {
        let at_most = found.at_most.map_or("any number".to_owned(), |at_most| at_most.to_string());
        let told = format!("{} match; {} to {at_most} may in all", found.count, found.at_least);
        row(&format!("check {}", found.name), told)
    }));
    rows
}

fn row(name: &str, value: impl std::fmt::Display) -> (String, String) {
    (name.to_owned(), value.to_string())
}

fn bytes(count: u64) -> String {
    format!("{count} bytes ({} MiB)", count.div_ceil(MIB))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::CheckCount;
    use crate::operation::{BackupDetail, Detail, Trigger};

    fn report(sample: Option<Sampled>) -> IntegrityReport {
        let id = OperationId::from_bytes([1; 16]);
        let detail = Detail::Backup(BackupDetail::requested(Trigger::Manual, false));
        let source = "main".parse().unwrap();
        let operation = Operation::requested(id, source, "canary".into(), vec![], "ana".into(), detail);
        let manifest = Manifest {
            format: crate::format::MANIFEST_FORMAT,
            backup: id,
            source,
            database: "canary".into(),
            collections: vec![],
            trigger: Trigger::Manual,
            server_version: "6.0.5".into(),
            cluster_time: ClusterTime { seconds: 9, ordinal: 1 },
            consistency: Consistency::SingleInstant,
            sealed_at: String::new(),
            namespaces: vec![],
            folded_from: None,
        };
        IntegrityReport::of(&operation, &manifest, 0, None, sample, 1_795_312_807_000).unwrap()
    }

    #[test]
    fn a_level_is_only_told_with_evidence() {
        let counts = vec![CheckCount { name: "<b>&".into(), count: 1, at_least: 0, at_most: Some(2) }];
        let (ordinals, server) = (vec![3, 5], "MongoDB 6.0.5".to_owned());
        let rehearsed =
            Rehearsed { ordinals, documents: 7, bson_bytes: 70, indexes: 2, server, counts, millis: 1001 };
        let check = |sample: Option<Sampled>, is_restored: bool, says: &str| {
            let report = report(sample);
            assert_eq!(report.levels.contains(&Level::SampleRestored), is_restored);
            let json: serde_json::Value = serde_json::from_slice(&report.to_json().unwrap()).unwrap();
            assert_eq!(json["levels"].as_array().unwrap().len(), 3 + usize::from(is_restored));
            let page = String::from_utf8(report.to_html().to_vec()).unwrap();
            assert!(page.contains(says), "{page}");
            assert!(!page.contains("<b>"), "{page}");
            for text in [page, json.to_string()] {
                assert!(!text.contains("canary"), "{text}");
            }
        };
        check(None, false, "no sample was taken");
        check(Some(Sampled::skipped(4, "no server")), false, "nothing: no server");
        check(Some(Sampled::restored(4, rehearsed, None)), true, "check &lt;b&gt;&amp;");
    }
}
