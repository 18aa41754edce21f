//! `validate-chunk`: reads the restored chunks of one work item back from staging and compares count and document
//! hash with the backup.

use crate::bson::split_documents;
use crate::document_hash::DocumentHash;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    FoldedChunks, ManifestChunk, ManifestNamespace, ObjectKey, RestorePlace, VerifiedChunks, WorkItem,
};
use crate::id::{CollectionUuid, OperationId};
use crate::ports::{Catalog, ChunkRead, Clock, DataKeys, DocumentStream, ObjectStore, Target};

use super::restore_chunk::Restoring;

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The target.
    pub target: &'a dyn Target,
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service.
    pub keys: &'a dyn DataKeys,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for the chunks of `item` of restore `id`.
pub async fn run(ports: Ports<'_>, id: OperationId, item: WorkItem) -> Result<()> {
    let restoring = Restoring::open(ports.catalog, ports.store, ports.keys, id).await?;
    let expected = expected(ports, &restoring, item).await?;
    let mut validated = VerifiedChunks { ordinals: Vec::new(), documents: 0 };
    for (namespace, chunk) in restoring.chunks(item) {
        super::time_for_a_chunk(ports.clock)?;
        let item = restoring.plan.item(&namespace.namespace.name)?;
        let staged = item
            .staging
            .ok_or_else(|| Error::new(ErrorKind::Internal, "validate a chunk without staging"))?;
        let read = staged_read(&restoring, namespace, chunk, staged)?;
        let (documents, hash) = count_and_hash(ports.target.read(&read).await?).await?;
        compare(namespace, chunk, expected.as_ref(), (documents, hash))?;
        validated.ordinals.push(chunk.ordinal);
        validated.documents += documents;
    }
    let key = ObjectKey::Validated(RestorePlace(id), item.first);
    ports.store.put(key, restoring.evidence.sign(key, &validated)?).await
}

/// What the units of this item came to when they were folded; none where stored chunks were restored as they are.
async fn expected(ports: Ports<'_>, restoring: &Restoring, item: WorkItem) -> Result<Option<FoldedChunks>> {
    if restoring.plan.at.is_none() {
        return Ok(None);
    }
    let key = ObjectKey::Inserted(restoring.operation.restore_place(), item.first);
    super::read_evidence(ports.store, &restoring.evidence, key).await.map(Some)
}

fn staged_read(
    restoring: &Restoring,
    namespace: &ManifestNamespace,
    chunk: &ManifestChunk,
    uuid: CollectionUuid,
) -> Result<ChunkRead> {
    Ok(ChunkRead {
        database: restoring.operation.database.clone(),
        name: restoring.staging(namespace)?,
        uuid,
        range: chunk.range.clone(),
        at: None,
        document_bytes_hint: chunk.stored.bson_bytes / chunk.stored.documents.max(1),
    })
}

/// Reads a stream to its end.
pub(super) async fn count_and_hash(mut stream: Box<dyn DocumentStream>) -> Result<(u64, DocumentHash)> {
    let (mut documents, mut hash) = (0, DocumentHash::default());
    while let Some(batch) = stream.next_batch().await? {
        for document in split_documents(&batch) {
            hash.add(document?);
            documents += 1;
        }
    }
    Ok((documents, hash))
}

fn compare(
    namespace: &ManifestNamespace,
    chunk: &ManifestChunk,
    folded: Option<&FoldedChunks>,
    (documents, hash): (u64, DocumentHash),
) -> Result<()> {
    let name = &namespace.namespace.name;
    let differs = |what: String| {
        Err(Error::new(
            ErrorKind::ValidationFailed,
            format!("validate {name:?}, chunk {}: {what}", chunk.ordinal),
        )
        .hint("the restored documents are not the ones that were backed up; nothing was swapped in"))
    };
    let expected = match folded {
        None => Some((chunk.stored.documents, chunk.stored.document_hash)),
        Some(folded) => {
            let unit = folded.chunks.iter().find(|it| it.ordinal == chunk.ordinal);
            unit.map(|unit| (unit.documents, unit.document_hash))
        }
    };
    let Some((expected_documents, expected_hash)) = expected else {
        return differs("nothing shows what it was folded to".to_owned());
    };
    if documents != expected_documents {
        return differs(format!("{documents} documents were restored, {expected_documents} were backed up"));
    }
    if hash != expected_hash {
        return differs("a restored document differs".to_owned());
    }
    Ok(())
}
