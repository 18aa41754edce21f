//! What a drill found: as JSON for dashboards, and as one page for people. Neither has names of databases or
//! collections.

use bytes::Bytes;
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::id::{OperationId, RegionName};
use crate::operation::Level;

use super::page::Page;

/// What a drill found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DrillReport {
    /// The drill.
    pub id: OperationId,
    /// The backup that it was made with.
    pub backup: OperationId,
    /// How far it was to verify.
    pub level: Level,
    /// How far it did.
    pub reached: Level,
    /// The region whose copy was read; none for the region of the stack.
    pub region: Option<RegionName>,
    /// What the choice of chunks followed from, where only some were restored.
    pub seed: Option<u64>,
    /// Chunks that were read or restored.
    pub chunks: u64,
    /// Chunks that the backup has.
    pub chunks_of_backup: u64,
    /// Documents in those that were read or restored.
    pub documents: u64,
    /// Bytes of BSON in them.
    pub bytes: u64,
    /// Indexes that were built.
    pub indexes: u64,
    /// The owner's checks that were judged on the whole.
    pub checks: u64,
    /// The servers that were restored to.
    pub servers: Vec<String>,
    /// When it began, ISO 8601 in UTC.
    pub began: String,
    /// When it ended, ISO 8601 in UTC.
    pub ended: String,
    /// How long it took.
    pub seconds: u64,
}

impl DrillReport {
    /// The report for dashboards.
    pub fn to_json(&self) -> Result<Bytes> {
        let json = serde_json::to_vec(self);
        json.map(Bytes::from).map_err(|why| Error::new(ErrorKind::Internal, "write JSON").because(why))
    }

    /// The report for people.
    #[must_use]
    pub fn to_html(&self) -> Bytes {
        let mut page = Page::new(&format!("Drill {}", self.id), &self.sentence());
        let named = |rows: Vec<(&'static str, String)>| {
            rows.into_iter().map(|(what, found)| (what.to_owned(), found))
        };
        page.section("What was proved", named(self.proofs()));
        page.section("How it was done", named(self.circumstances()));
        page.to_html().into()
    }

    fn sentence(&self) -> String {
        let backup = self.backup;
        match self.reached {
            Level::Present => format!("Every object of backup {backup} is there, with its size."),
            Level::Checksums => format!("Every object of backup {backup} has its checksum."),
            Level::Decoded => format!("Every document of backup {backup} was opened, counted and hashed."),
            Level::SampleRestored => {
                format!("A part of backup {backup} was restored into a server and read back equal.")
            }
            Level::FullyRestored => {
                format!("The whole of backup {backup} was restored into a server and read back equal.")
            }
            Level::ApplicationChecked => format!(
                "The whole of backup {backup} was restored into a server and read back equal, and the owner's checks \
                 passed on it."
            ),
        }
    }

    fn proofs(&self) -> Vec<(&'static str, String)> {
        vec![
            ("Asked for", self.level.to_string()),
            ("Proved", self.reached.to_string()),
            ("Chunks", format!("{} of {}", self.chunks, self.chunks_of_backup)),
            ("Documents", self.documents.to_string()),
            ("Bytes of BSON", self.bytes.to_string()),
            ("Indexes built", self.indexes.to_string()),
            ("Checks of the owner that passed on the whole", self.checks.to_string()),
        ]
    }

    fn circumstances(&self) -> Vec<(&'static str, String)> {
        let region = self.region.map_or("home".to_owned(), |region| region.to_string());
        let mut rows = vec![
            ("Copy that was read", region),
            ("Servers that were restored to", self.servers.join(", ")),
            ("Began", self.began.clone()),
            ("Ended", self.ended.clone()),
            ("Seconds", self.seconds.to_string()),
        ];
        if let Some(seed) = self.seed {
            rows.push(("Seed that the choice of chunks follows from", seed.to_string()));
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_what_was_proved_and_how_long_it_took() {
        let id = |byte| OperationId::from_bytes([byte; 16]);
        let report = DrillReport {
            id: id(1),
            backup: id(2),
            level: Level::ApplicationChecked,
            reached: Level::FullyRestored,
            region: Some("eu-west-1".parse().unwrap()),
            seed: None,
            chunks: 12,
            chunks_of_backup: 12,
            documents: 85,
            bytes: 4096,
            indexes: 3,
            checks: 0,
            servers: vec!["8.0.4 <script>".into()],
            began: "2026-11-22T02:00:07.042Z".into(),
            ended: "2026-11-22T02:01:07.042Z".into(),
            seconds: 60,
        };
        let page = String::from_utf8(report.to_html().to_vec()).unwrap();
        for told in [
            "The whole of backup",
            &id(2).to_string(),
            "<td>L4</td>",
            "<td>eu-west-1</td>",
            "<td>12 of 12</td>",
            "8.0.4 &lt;script&gt;",
            "<td>60</td>",
        ] {
            assert!(page.contains(told), "{told} is not in {page}");
        }
        let json: serde_json::Value = serde_json::from_slice(&report.to_json().unwrap()).unwrap();
        assert_eq!(json["reached"], "L4");
        assert_eq!(json["seconds"], 60);
        assert_eq!(json["region"], "eu-west-1");
    }
}
