//! Other regions, each with a bucket of its own and a replica of the key, so that a copy opens without the home region.

use backup_core::id::RegionName;
use backup_core::ports::Region;
use backup_core::{Error, ErrorKind, Result};

use crate::data_keys::KmsDataKeys;
use crate::object_store::{LockMode, S3Copies, S3Locks, S3ObjectStore};
use crate::sdk::Sdk;

/// The home region, as other regions refer to it.
#[derive(Clone, Copy, Debug)]
pub struct Home<'a> {
    /// Its credentials and limits.
    pub sdk: &'a Sdk,
    /// The name of its bucket.
    pub bucket: &'a str,
    /// The ARN of its key.
    pub key: &'a str,
    /// How objects are locked, there as everywhere.
    pub lock: LockMode,
}

/// Another region.
#[derive(Clone, Debug)]
pub struct OtherRegion {
    /// Its name.
    pub name: RegionName,
    /// Its bucket.
    pub store: S3ObjectStore,
    /// Its replica of the key.
    pub keys: KmsDataKeys,
    copies: S3Copies,
    locks: S3Locks,
}

impl OtherRegion {
    /// The region with this name and this bucket. `Invalid` if the home region's key is not given by its ARN.
    pub fn new(home: &Home<'_>, name: RegionName, bucket: String) -> Result<Self> {
        if bucket == home.bucket {
            // What is removed there would be removed here.
            let what = format!("use {name} as another region: it is the one of this stack");
            return Err(Error::new(ErrorKind::Invalid, what)
                .hint("take it out of the stack's parameter ReplicaRegions"));
        }
        let store = S3ObjectStore::new(&home.sdk.in_region(name), bucket);
        Ok(Self {
            name,
            keys: KmsDataKeys::replica(home.sdk, home.key, name)?,
            copies: S3Copies::new(store.clone(), home.bucket.to_owned()),
            locks: S3Locks::new(store.clone(), home.lock),
            store,
        })
    }

    /// The region as the flows take it.
    #[must_use]
    pub fn ports(&self) -> Region<'_> {
        Region {
            name: self.name,
            store: &self.store,
            keys: &self.keys,
            copies: &self.copies,
            locks: &self.locks,
            shelves: &self.store,
        }
    }
}
