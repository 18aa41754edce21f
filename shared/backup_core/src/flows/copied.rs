//! Objects of the home region in another one: brought there, and proved to be there as they are at home. Nothing counts
//! as copied that was not measured, by the store itself or by reading it back, in the other region.

use sha2::{Digest, Sha256};

use crate::at_once::at_once;
use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::format::{Captured, ObjectKey};
use crate::operation::{Operation, OperationState};
use crate::ports::{ObjectStore, Region};
use crate::settings::MIB;

/// Regions worked on at the same time.
const REGIONS_AT_ONCE: usize = 4;
/// Objects of one region copied at the same time. Each holds [`READ_BYTES`] at most: 64 MiB in all regions together.
pub(super) const COPIES_AT_ONCE: usize = 4;
/// Objects of one region looked at or locked at the same time: one short call each.
pub(super) const LOOKS_AT_ONCE: usize = 64;
/// Stored bytes read at a time, where a store keeps no SHA-256.
const READ_BYTES: u64 = 4 * MIB;

/// Whether a backup is to be copied: not if it is going to be removed. `Refused` unless it was verified.
pub(super) fn is_to_be_copied(backup: &Operation) -> Result<bool> {
    if backup.state != OperationState::Verified {
        let what = format!("copy backup {} to other regions: it is {}", backup.id, backup.state);
        return Err(Error::new(ErrorKind::Refused, what).hint("only what was proved to be good is copied"));
    }
    Ok(backup.backup()?.removal.is_none())
}

/// Does the work of every region, whatever becomes of it in the others; tells the first error at the end.
pub(super) async fn in_each<'a, T, F>(
    regions: &[Region<'a>],
    work: impl Fn(Region<'a>) -> F,
) -> Result<Vec<T>>
where
    F: Future<Output = Result<T>>,
{
    let jobs: Vec<F> = regions.iter().map(|region| work(*region)).collect();
    let never_failing = jobs.into_iter().map(|job| async move { Ok(job.await) });
    at_once(REGIONS_AT_ONCE, never_failing).await?.into_iter().collect()
}

/// What tells two objects apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// Its length.
    pub(super) bytes: u64,
    sha256: [u8; 32],
}

impl Fingerprint {
    /// What the manifest tells of a chunk's object.
    pub(super) fn of_chunk(stored: &Captured) -> Result<Self> {
        let mut sha256 = [0; 32];
        hex::decode_to_slice(&stored.stored_sha256, &mut sha256)
            .map_err(|_| corrupt("read a manifest: a SHA-256 is not 64 hexadecimal digits"))?;
        Ok(Self { bytes: stored.stored_bytes, sha256 })
    }

    /// What is stored; none if there is no object.
    pub(super) async fn of_stored(store: &dyn ObjectStore, key: ObjectKey) -> Result<Option<Self>> {
        let Some(bytes) = store.size(key).await? else { return Ok(None) };
        let sha256 = match store.stored_sha256(key).await? {
            Some(sha256) => sha256,
            None => read_back(store, key, bytes).await?,
        };
        Ok(Some(Self { bytes, sha256 }))
    }
}

async fn read_back(store: &dyn ObjectStore, key: ObjectKey, bytes: u64) -> Result<[u8; 32]> {
    let (mut sha256, mut at) = (Sha256::new(), 0);
    while at < bytes {
        let length = READ_BYTES.min(bytes - at);
        sha256.update(store.get_range(key, at, length).await?);
        at += length;
    }
    Ok(sha256.finalize().into())
}

/// What an object in another region has to be.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// This.
    Known(Fingerprint),
    /// What it is at home, where it may be replaced meanwhile.
    AsAtHome(&'a dyn ObjectStore),
}

impl Wanted<'_> {
    async fn fingerprint(self, key: ObjectKey) -> Result<Fingerprint> {
        match self {
            Self::Known(fingerprint) => Ok(fingerprint),
            Self::AsAtHome(home) => {
                let found = Fingerprint::of_stored(home, key).await?;
                found.ok_or_else(|| Error::new(ErrorKind::NotFound, "the home region has no such object"))
            }
        }
    }
}

/// Brings an object into a region, unless it is there as it has to be, and proves it there. Gives what it is.
pub(super) async fn bring(region: Region<'_>, key: ObjectKey, wanted: Wanted<'_>) -> Result<Fingerprint> {
    let brought = try_bring(region, key, wanted).await;
    brought.map_err(|why| why.while_doing(format!("copy {} to {}", super::path(key), region.name)))
}

async fn try_bring(region: Region<'_>, key: ObjectKey, wanted: Wanted<'_>) -> Result<Fingerprint> {
    let mut brought = 0;
    loop {
        let fingerprint = wanted.fingerprint(key).await?;
        if is_there(region, key, fingerprint).await? {
            return Ok(fingerprint);
        }
        if brought == super::READS_MAX {
            let what = format!("it was brought {brought} times, and is still not what it has to be");
            let hint = "it is damaged at home, or its copies are damaged on their way: verify the backup";
            return Err(corrupt(what).hint(hint));
        }
        region.copies.bring(key).await?;
        brought += 1;
    }
}

async fn is_there(region: Region<'_>, key: ObjectKey, wanted: Fingerprint) -> Result<bool> {
    match Fingerprint::of_stored(region.store, key).await {
        Ok(found) => Ok(found == Some(wanted)),
        // It was replaced while it was read, or its store itself found it damaged.
        Err(why) if matches!(why.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => Ok(false),
        Err(why) => Err(why),
    }
}
