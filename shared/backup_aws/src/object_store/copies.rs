//! Copies of objects from the home region's bucket. S3 moves the bytes; they never pass through us.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::config::Builder;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::types::{ChecksumAlgorithm, TaggingDirective};
use backup_core::Result;
use backup_core::format::ObjectKey;
use backup_core::ports::Copies;

use super::S3ObjectStore;

/// A chunk of a GiB takes S3 up to a minute or so between continents, during which it says nothing.
const ATTEMPT_SECONDS_MAX: u64 = 240;
/// Leaves a step of fifteen minutes some time to tell of it.
const OPERATION_SECONDS_MAX: u64 = 600;

/// How objects come from the home region's bucket into that of another. One request takes up to 5 GB, far more than
/// any object has.
#[derive(Clone, Debug)]
pub struct S3Copies {
    store: S3ObjectStore,
    home_bucket: String,
}

impl S3Copies {
    /// Into the bucket `store` of the other region.
    #[must_use]
    pub const fn new(store: S3ObjectStore, home_bucket: String) -> Self {
        Self { store, home_bucket }
    }
}

#[async_trait]
impl Copies for S3Copies {
    async fn bring(&self, key: ObjectKey) -> Result<()> {
        let path = key.to_path()?;
        let limits = TimeoutConfig::builder()
            .operation_attempt_timeout(Duration::from_secs(ATTEMPT_SECONDS_MAX))
            .operation_timeout(Duration::from_secs(OPERATION_SECONDS_MAX))
            .build();
        let copy = self
            .store
            .client
            .copy_object()
            .bucket(&self.store.bucket)
            .key(&path)
            .copy_source(format!("{}/{path}", self.home_bucket)) // of our own making: nothing in it needs encoding
            .checksum_algorithm(ChecksumAlgorithm::Sha256) // S3 takes it of the whole, and tells it later
            .tagging_directive(TaggingDirective::Replace) // the home region's archives are not this one's
            .customize()
            .config_override(Builder::new().timeout_config(limits));
        let copied = copy.send().await;
        let attempted = format!("copy {path} from bucket {}", self.home_bucket);
        copied.map(|_| ()).map_err(|why| self.store.told(attempted, why))
    }
}
