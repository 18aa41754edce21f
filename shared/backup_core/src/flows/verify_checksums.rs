//! `verify-checksums`: reads the stored chunks of one work item back as a whole: length, checksum, seal, count,
//! document hash. Leaves evidence; [`super::close`] wants it for every chunk.

use crate::error::{Error, ErrorKind, Result};
use crate::format::{ObjectKey, VerifiedChunks, WorkItem};
use crate::id::OperationId;
use crate::operation::OperationKind;
use crate::ports::{Catalog, Clock, DataKeys, Locks, ObjectStore};
use crate::retention::Period;

use super::chunk_reader::{Hashing, read_chunk};

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service.
    pub keys: &'a dyn DataKeys,
    /// The bucket's locks.
    pub locks: &'a dyn Locks,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for the chunks of `item` of backup `id`. What was found good is locked for as long as `lock` from the
/// backup's request on.
pub async fn run(ports: Ports<'_>, lock: Period, id: OperationId, item: WorkItem) -> Result<()> {
    let operation = ports.catalog.operation(OperationKind::Backup, id).await?;
    let place = operation.backup_place()?;
    let opened = super::open_manifest_and_key(ports.store, ports.keys, &operation).await?;
    let manifest = &opened.value;
    let mut verified = VerifiedChunks { ordinals: Vec::new(), documents: 0 };
    for (namespace, chunk) in manifest.chunks().filter(|(_, chunk)| item.ordinals().contains(&chunk.ordinal))
    {
        super::time_for_a_chunk(ports.clock)?;
        let which = (manifest, namespace, chunk);
        let mut reads = 1;
        let read = loop {
            match read_chunk(ports.store, ports.keys, place, which, Hashing::Compare, |_| async { Ok(()) })
                .await
            {
                Err(why) if why.kind() == ErrorKind::Corrupt && reads < super::READS_MAX => reads += 1,
                other => break other,
            }
        };
        read.map_err(|why| match why.kind() {
            ErrorKind::Corrupt | ErrorKind::Unsupported => damaged(&operation.id, why),
            _ => why,
        })?;
        let now = ports.clock.now_millis();
        let until = super::close::lock_end(lock, id, now);
        if until > now {
            let key = ObjectKey::Chunk(place, chunk.ordinal, chunk.stored.attempt);
            ports.locks.lock(key, until).await?;
        }
        verified.ordinals.push(chunk.ordinal);
        verified.documents += chunk.stored.documents;
    }
    let key = ObjectKey::Verified(place, item.first);
    ports.store.put(key, opened.evidence.sign(key, &verified)?).await
}

fn damaged(backup: &OperationId, why: Error) -> Error {
    let hint = "this backup cannot be trusted: take another one, and keep the older ones";
    why.while_doing(format!("verify backup {backup}")).hint(hint)
}
