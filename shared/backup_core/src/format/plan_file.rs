//! What a backup is going to read: namespaces with their metadata and ranges, and the work items.

use serde::{Deserialize, Serialize};

use crate::bson::IdRange;
use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::id::ClusterTime;
use crate::namespace::{Label, Namespace};

/// The plan of a backup. Stored sealed: it holds names and range bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupPlan {
    /// The database.
    pub database: String,
    /// The collections that were asked for; none for all.
    pub collections: Vec<String>,
    /// The server's version, for people.
    pub server_version: String,
    /// The T at which chunks are read first. Metadata was the same just before and just after it.
    pub cluster_time: ClusterTime,
    /// Whether the metadata kept still while T was taken (it is exact at T then).
    pub metadata_is_exact: bool,
    /// Every namespace of the database that was asked for, captured or not.
    pub namespaces: Vec<PlannedNamespace>,
}

/// A namespace of the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedNamespace {
    /// Its metadata.
    pub namespace: Namespace,
    /// How exactly it can be held.
    pub label: Label,
    /// Why it is not exact, where it is not.
    pub reason: Option<String>,
    /// A guess at the size of one document, to choose the size of batches.
    pub document_bytes_hint: u64,
    /// A guess at the bytes of BSON in the whole collection, to pack small ones together.
    pub expected_bytes: u64,
    /// The ranges to read, in the order of `_id`; none if there are no documents to capture.
    pub chunks: Vec<PlannedChunk>,
}

/// A range to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedChunk {
    /// Its number in the backup, from 0 without a hole.
    pub ordinal: u32,
    /// The `_id`s it holds.
    pub range: IdRange,
}

impl BackupPlan {
    /// The chunk with this number, and its namespace.
    pub fn chunk(&self, ordinal: u32) -> Result<(&PlannedNamespace, &PlannedChunk)> {
        self.namespaces
            .iter()
            .flat_map(|namespace| namespace.chunks.iter().map(move |chunk| (namespace, chunk)))
            .find(|(_, chunk)| chunk.ordinal == ordinal)
            .ok_or_else(|| {
                Error::new(ErrorKind::Invalid, format!("find chunk {ordinal}: the plan has no such chunk"))
            })
    }

    /// How many chunks there are.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.namespaces.iter().map(|namespace| namespace.chunks.len()).sum()
    }
}

/// One item of a Distributed Map: chunks `first` to `first + count - 1`. Small chunks share an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkItem {
    /// The first chunk's number.
    pub first: u32,
    /// How many chunks.
    pub count: u32,
}

impl WorkItem {
    /// The chunks' numbers.
    #[must_use]
    pub fn ordinals(self) -> std::ops::Range<u32> {
        self.first..self.first.saturating_add(self.count)
    }
}

/// The items as JSON lines, as a Distributed Map reads them.
pub fn write_work_items(items: &[WorkItem]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for item in items {
        serde_json::to_writer(&mut out, item)
            .map_err(|why| Error::new(ErrorKind::Internal, "write work items").because(why))?;
        out.push(b'\n');
    }
    Ok(out)
}

/// Reads what [`write_work_items`] wrote.
pub fn read_work_items(lines: &[u8]) -> Result<Vec<WorkItem>> {
    lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            // Serde's own words quote what is there instead; only the place is told.
            serde_json::from_slice(line).map_err(|why| {
                corrupt(format!("read work items: unexpected JSON at column {} of a line", why.column()))
            })
        })
        .collect()
}
