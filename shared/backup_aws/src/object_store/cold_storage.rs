//! Cold storage, over S3's archive classes. A rule of the bucket's lifecycle moves the objects that have a tag, within
//! a day or so; until then they are as they were.

use async_trait::async_trait;
use aws_sdk_s3::types::{GlacierJobParameters, RestoreRequest, StorageClass, Tag, Tagging, Tier};
use backup_core::format::ObjectKey;
use backup_core::ports::{ColdStorage, Temperature};
use backup_core::{Error, ErrorKind, Result};

use super::S3ObjectStore;
use crate::error::code;
use crate::items::internal;

/// What the rule of the template looks for.
const TAG: (&str, &str) = ("nightsafe-tier", "cold");
/// How long an object that was thawed can be read: long enough for a restore that fails and is begun again.
const THAWED_DAYS: i32 = 7;

#[async_trait]
impl ColdStorage for S3ObjectStore {
    async fn freeze(&self, key: ObjectKey) -> Result<()> {
        let path = key.to_path()?;
        let attempted = format!("give {path} to cold storage");
        let tag = Tag::builder().key(TAG.0).value(TAG.1).build().map_err(|why| internal(&attempted, why))?;
        let tags = Tagging::builder().tag_set(tag).build().map_err(|why| internal(&attempted, why))?;
        let put = self.client.put_object_tagging().bucket(&self.bucket).key(path).tagging(tags);
        put.send().await.map(|_| ()).map_err(|why| self.told(attempted, why))
    }

    async fn temperature(&self, key: ObjectKey) -> Result<Temperature> {
        let path = key.to_path()?;
        let attempted = format!("look whether {path} is in cold storage");
        let head = self.head(&path, None, &attempted).await?;
        let head =
            head.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{attempted}: there is none")))?;
        Ok(temperature(head.storage_class(), head.restore()))
    }

    async fn thaw(&self, key: ObjectKey) -> Result<()> {
        let path = key.to_path()?;
        let attempted = format!("ask cold storage for {path}");
        let speed = GlacierJobParameters::builder().tier(Tier::Standard).build();
        let speed = speed.map_err(|why| internal(&attempted, why))?;
        let wanted = RestoreRequest::builder().days(THAWED_DAYS).glacier_job_parameters(speed).build();
        let ask = self.client.restore_object().bucket(&self.bucket).key(path).restore_request(wanted);
        let Err(why) = ask.send().await else { return Ok(()) };
        match code(&why) {
            // Somebody asked before, or it is not in cold storage (yet).
            Some("RestoreAlreadyInProgress" | "ObjectAlreadyInActiveTierError" | "InvalidObjectState") => {
                Ok(())
            }
            _ => Err(self.told(attempted, why)),
        }
    }
}

/// `restored` is the header with which S3 tells of a request for an archived object.
fn temperature(class: Option<&StorageClass>, restored: Option<&str>) -> Temperature {
    match (class, restored) {
        (Some(StorageClass::Glacier | StorageClass::DeepArchive), Some(restored)) => {
            let is_there = restored.contains(r#"ongoing-request="false""#);
            if is_there { Temperature::Warm } else { Temperature::Thawing }
        }
        (Some(StorageClass::Glacier | StorageClass::DeepArchive), None) => Temperature::Frozen,
        _ => Temperature::Warm,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_archives_that_nobody_asked_for_are_frozen() {
        use StorageClass::{DeepArchive, Glacier, GlacierIr, Standard};
        let check = |class: Option<StorageClass>, restored: Option<&str>, expected: Temperature| {
            assert_eq!(temperature(class.as_ref(), restored), expected, "{class:?} {restored:?}");
        };
        let there = r#"ongoing-request="false", expiry-date="Fri, 21 Dec 2026 00:00:00 GMT""#;
        check(None, None, Temperature::Warm);
        check(Some(Standard), None, Temperature::Warm);
        check(Some(GlacierIr), None, Temperature::Warm);
        check(Some(Glacier), None, Temperature::Frozen);
        check(Some(DeepArchive), None, Temperature::Frozen);
        check(Some(Glacier), Some(r#"ongoing-request="true""#), Temperature::Thawing);
        check(Some(DeepArchive), Some(there), Temperature::Warm);
    }
}
