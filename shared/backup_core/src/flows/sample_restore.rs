//! `sample-restore`: restores some chunks of a backup into a server that is thrown away, always the newest and the
//! smallest among them, and leaves evidence. [`super::close`] reports it.
//!
//! It finds what reading a stored chunk cannot: documents, options and indexes that a server does not take, or does
//! not give back as they were. It believes the manifest: whoever can seal chunk and manifest anew, and change the row
//! in the catalog, is not found here but by the comparison with the backup before it ([`super::prove_chunk`]).

use crate::checks::{Check, Extent, concerning, judge};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Manifest, ObjectKey, Sampled};
use crate::id::OperationId;
use crate::operation::{OperationKind, OperationState};
use crate::plan::sample::{SampleBounds, pick, seed_of};
use crate::ports::{Catalog, Clock, DataKeys, ObjectStore, Scratch};

use super::rehearse::{Rehearsal, read_checks};

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service.
    pub keys: &'a dyn DataKeys,
    /// The catalog.
    pub catalog: &'a dyn Catalog,
    /// Where to restore to.
    pub scratch: &'a dyn Scratch,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Runs the step for backup `id`.
pub async fn run(ports: Ports<'_>, id: OperationId) -> Result<()> {
    let operation = ports.catalog.operation(OperationKind::Backup, id).await?;
    let key = ObjectKey::Sampled(operation.backup_place()?);
    if operation.state.is_final() || ports.store.size(key).await?.is_some() {
        return Ok(()); // a repeat
    }
    if operation.state != OperationState::Sealed {
        let what = format!("restore a sample of backup {id}: it is {}", operation.state);
        return Err(Error::new(ErrorKind::Internal, what));
    }
    let opened = super::open_manifest_and_key(ports.store, ports.keys, &operation).await?;
    let told = |why: Error| why.while_doing(format!("restore a sample of backup {id}"));
    let sampled = sample(ports, id, &opened.value).await.map_err(told)?;
    ports.store.put(key, opened.evidence.sign(key, &sampled)?).await
}

async fn sample(ports: Ports<'_>, id: OperationId, manifest: &Manifest) -> Result<Sampled> {
    let Ports { store, keys, scratch, clock, .. } = ports;
    let seed = seed_of(id);
    let ordinals = pick(manifest, seed, SampleBounds::default());
    if ordinals.is_empty() {
        return Ok(Sampled::skipped(seed, "the backup has no chunks"));
    }
    let (checks, unusable) = usable_checks(store, manifest).await?;
    let place = match scratch.open().await {
        Err(why) if why.kind() == ErrorKind::NotFound => {
            return Ok(Sampled::skipped(seed, "no server to restore to is configured"));
        }
        opened => opened?,
    };
    let rehearsal = Rehearsal { store, keys, clock };
    let found = rehearsal.run(place, manifest, &ordinals, &checks).await?;
    let failed = judge(&found.counts, Extent::Part).err().map(|why| why.to_string());
    Ok(Sampled::restored(seed, found, unusable.or(failed)))
}

/// The owner's checks, or why they cannot be used: a slip in them must not cost a good backup.
async fn usable_checks(store: &dyn ObjectStore, manifest: &Manifest) -> Result<(Vec<Check>, Option<String>)> {
    let read = read_checks(store).await;
    let read = read.and_then(|all| concerning(&all, manifest).map(|own| own.into_iter().cloned().collect()));
    match read {
        Err(why)
            if matches!(why.kind(), ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::Corrupt) =>
        {
            Ok((Vec::new(), Some(why.to_string())))
        }
        checks => checks.map(|checks| (checks, None)),
    }
}
