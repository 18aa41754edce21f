//! The manifest: everything needed to restore a backup from the bucket alone. Written last, sealed.

use serde::{Deserialize, Serialize};

use super::{BackupPlace, Captured, ObjectContext, ObjectKind, SealedAs};
use crate::bson::{IdRange, check_coverage};
use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::id::{ClusterTime, CollectionUuid, OperationId, SourceName};
use crate::namespace::{Label, Namespace};
use crate::operation::{Totals, Trigger};

/// The version of manifests that is written. Version 1 has no folded backups; it is still read.
pub const MANIFEST_FORMAT: u16 = 2;

/// Whether all chunks are of one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// Every exact chunk was read at the same T: the backup is the database at that instant.
    SingleInstant,
    /// Each chunk is exact at its own T: collections and ranges may be minutes apart.
    Mosaic,
}

impl std::fmt::Display for Consistency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SingleInstant => "single-instant",
            Self::Mosaic => "mosaic",
        })
    }
}

/// A sealed backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the format; see `docs/FORMAT.md`.
    pub format: u16,
    /// The backup's id.
    pub backup: OperationId,
    /// The protected cluster.
    pub source: SourceName,
    /// The database.
    pub database: String,
    /// The collections that were asked for; empty means all of them.
    pub collections: Vec<String>,
    /// What started it.
    pub trigger: Trigger,
    /// The server's version.
    pub server_version: String,
    /// The T of the plan.
    pub cluster_time: ClusterTime,
    /// Whether all chunks share that T.
    pub consistency: Consistency,
    /// When it was sealed, ISO 8601 in UTC.
    pub sealed_at: String,
    /// Every namespace of the database that was asked for, captured or not.
    pub namespaces: Vec<ManifestNamespace>,
    /// The backup it was folded from; none if it was read from the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folded_from: Option<OperationId>,
}

/// A namespace of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestNamespace {
    /// Its metadata.
    pub namespace: Namespace,
    /// How exactly it is held.
    pub label: Label,
    /// Why it is not exact, where it is not.
    pub reason: Option<String>,
    /// What else happened to it while the backup ran.
    pub notes: Vec<String>,
    /// Its chunks, in the order of `_id`.
    pub chunks: Vec<ManifestChunk>,
}

impl ManifestNamespace {
    /// Why a collection that existed at T is not in the backup.
    pub const LOST: &str = "dropped or replaced while the backup ran, before it was read";
    /// Why a collection that came to be while the backup ran is not in it.
    pub const LATER: &str = "created after the backup's T";
}

/// A chunk of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestChunk {
    /// Its number in the backup.
    pub ordinal: u32,
    /// The `_id`s it holds.
    pub range: IdRange,
    /// What is stored of it.
    pub stored: Captured,
}

impl ManifestNamespace {
    /// The identity its chunks are bound to.
    pub fn collection(&self) -> Result<CollectionUuid> {
        self.namespace.uuid.ok_or_else(|| corrupt("find a collection's UUID: the manifest has none"))
    }
}

impl Manifest {
    /// The context a chunk's object is sealed for.
    pub fn chunk_context(
        &self,
        namespace: &ManifestNamespace,
        chunk: &ManifestChunk,
    ) -> Result<ObjectContext> {
        let own = SealedAs { backup: self.backup, ordinal: chunk.ordinal };
        let sealed_as = chunk.stored.sealed_as.unwrap_or(own);
        Ok(ObjectContext {
            kind: ObjectKind::Chunk,
            source: self.source,
            operation: sealed_as.backup,
            collection: namespace.collection()?,
            ordinal: sealed_as.ordinal,
            cluster_time: chunk.stored.cluster_time.unwrap_or(ClusterTime { seconds: 0, ordinal: 0 }),
        })
    }

    /// Every chunk with its namespace, in the order of their numbers.
    pub fn chunks(&self) -> impl Iterator<Item = (&ManifestNamespace, &ManifestChunk)> {
        self.namespaces
            .iter()
            .flat_map(|namespace| namespace.chunks.iter().map(move |chunk| (namespace, chunk)))
    }

    /// Where its objects are.
    #[must_use]
    pub const fn place(&self) -> BackupPlace {
        BackupPlace { trigger: self.trigger, backup: self.backup }
    }

    /// How many collections that existed at T are not in the backup, because they were gone before they were read.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let lost = |it: &&ManifestNamespace| it.reason.as_deref() == Some(ManifestNamespace::LOST);
        u64::try_from(self.namespaces.iter().filter(lost).count()).unwrap_or(u64::MAX)
    }

    /// Sums over all chunks.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let captured =
            self.namespaces.iter().filter(|namespace| namespace.label != Label::NotCaptured).count();
        let mut totals =
            Totals { namespaces: u64::try_from(captured).unwrap_or(u64::MAX), ..Totals::default() };
        for (_, chunk) in self.chunks() {
            totals.chunks += 1;
            totals.documents += chunk.stored.documents;
            totals.bson_bytes += chunk.stored.bson_bytes;
            totals.stored_bytes += chunk.stored.stored_bytes;
        }
        totals
    }

    /// Checks what must hold of every manifest, before it is written and after it was read.
    pub fn check(&self) -> Result<()> {
        if !(1..=MANIFEST_FORMAT).contains(&self.format) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("read a manifest of format {}", self.format),
            ));
        }
        let is_folded =
            self.folded_from.is_some() || self.chunks().any(|(_, it)| it.stored.sealed_as.is_some());
        if self.format < 2 && is_folded {
            return Err(corrupt("check a manifest: its format has no folded backups"));
        }
        let counts: [fn(&Captured) -> u64; 3] = [|it| it.documents, |it| it.bson_bytes, |it| it.stored_bytes];
        for count in counts {
            self.chunks()
                .try_fold(0_u64, |sum, (_, chunk)| sum.checked_add(count(&chunk.stored)))
                .ok_or_else(|| corrupt("check a manifest: its sums are impossible"))?;
        }
        let (mut seen, mut names) = (std::collections::HashSet::new(), std::collections::HashSet::new());
        for namespace in &self.namespaces {
            if !names.insert(namespace.namespace.name.as_str()) {
                return Err(corrupt("check a manifest: a name stands twice"));
            }
            if !namespace.chunks.is_empty() {
                check_coverage(namespace.chunks.iter().map(|chunk| &chunk.range))?;
                namespace.collection()?;
            }
            for chunk in &namespace.chunks {
                if !seen.insert(chunk.ordinal) {
                    return Err(corrupt(format!("check a manifest: chunk {} stands twice", chunk.ordinal)));
                }
            }
            if namespace.label == Label::Exact
                && namespace.chunks.iter().any(|chunk| chunk.stored.cluster_time.is_none())
            {
                return Err(corrupt("check a manifest: a chunk of an exact collection has no T"));
            }
        }
        Ok(())
    }
}
