//! Locks of objects, over S3 Object Lock. They are only ever made longer: nothing here can take one away.

use std::str::FromStr;

use async_trait::async_trait;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{ObjectLockLegalHoldStatus, ObjectLockRetention, ObjectLockRetentionMode};
use backup_core::format::ObjectKey;
use backup_core::ports::Locks;
use backup_core::{Error, ErrorKind, Result};

use super::S3ObjectStore;
use crate::error::code;

/// The end of the year 9999: dates behind it have no text.
const SECONDS_MAX: u64 = 253_402_300_799;

/// What S3 says of the mark of a deletion, which cannot be locked.
const NO_OBJECT: &str = "MethodNotAllowed";

/// How firmly objects are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Whoever has a permission of its own for it can take a lock away.
    Governance,
    /// Nobody can take a lock away, not even the account's root.
    Compliance,
}

impl FromStr for LockMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "GOVERNANCE" => Ok(Self::Governance),
            "COMPLIANCE" => Ok(Self::Compliance),
            _ => Err(Error::new(ErrorKind::Invalid, "read how firmly objects are locked")
                .hint("the parameter LockMode is GOVERNANCE or COMPLIANCE")),
        }
    }
}

impl From<LockMode> for ObjectLockRetentionMode {
    fn from(mode: LockMode) -> Self {
        match mode {
            LockMode::Governance => Self::Governance,
            LockMode::Compliance => Self::Compliance,
        }
    }
}

/// How the objects of a bucket are locked. A lock that there is keeps its mode.
#[derive(Clone, Debug)]
pub struct S3Locks {
    store: S3ObjectStore,
    mode: LockMode,
}

impl S3Locks {
    /// For a bucket with Object Lock; `mode` is that of new locks.
    #[must_use]
    pub const fn new(store: S3ObjectStore, mode: LockMode) -> Self {
        Self { store, mode }
    }
}

#[async_trait]
impl Locks for S3Locks {
    async fn lock(&self, key: ObjectKey, until_millis: u64) -> Result<()> {
        let path = key.to_path()?;
        let until = end(until_millis).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("lock {path} until {until_millis} ms: it has no date"))
        })?;
        let found = self.store.retention(&path, None).await?;
        if reaches(found.as_ref(), until) {
            return Ok(());
        }
        let mode = found.and_then(|lock| lock.mode).unwrap_or_else(|| self.mode.into());
        let lock = ObjectLockRetention::builder().mode(mode).retain_until_date(until).build();
        let S3ObjectStore { client, bucket } = &self.store;
        let put = client.put_object_retention().bucket(bucket).key(&path).retention(lock);
        let Err(why) = put.send().await else { return Ok(()) };
        let why = self.store.told(format!("lock {path}"), why);
        // Another run may have made it longer since it was looked at.
        let is_denied = why.kind() == ErrorKind::Denied;
        if is_denied && reaches(self.store.retention(&path, None).await?.as_ref(), until) {
            return Ok(());
        }
        Err(why)
    }
}

impl S3ObjectStore {
    /// Until when and how firmly a version (the newest, if none is named) is locked; none if it never was.
    /// `Unsupported` if the bucket has no locks.
    pub(super) async fn retention(
        &self,
        path: &str,
        version: Option<&str>,
    ) -> Result<Option<ObjectLockRetention>> {
        let attempted = format!("look at the lock of {path}");
        let ask = self.client.get_object_retention().bucket(&self.bucket).key(path);
        match ask.set_version_id(version.map(str::to_owned)).send().await {
            Ok(reply) => Ok(reply.retention),
            Err(why) => match code(&why) {
                Some("NoSuchObjectLockConfiguration" | NO_OBJECT) => Ok(None),
                Some("InvalidRequest") => {
                    Err(Error::new(ErrorKind::Unsupported, format!("{attempted} in bucket {}", self.bucket))
                        .because("the bucket has no Object Lock")
                        .hint("turn on Object Lock of the bucket, or deploy a template that has it"))
                }
                _ => Err(self.told(attempted, why)),
            },
        }
    }

    /// Whether somebody holds a version for as long as they please.
    pub(super) async fn is_on_hold(&self, path: &str, version: &str) -> Result<bool> {
        let ask = self.client.get_object_legal_hold().bucket(&self.bucket).key(path).version_id(version);
        match ask.send().await {
            Ok(reply) => {
                Ok(reply.legal_hold().and_then(|hold| hold.status()) == Some(&ObjectLockLegalHoldStatus::On))
            }
            Err(why) => match code(&why) {
                Some("NoSuchObjectLockConfiguration" | "InvalidRequest" | NO_OBJECT) => Ok(false),
                _ => Err(self.told(format!("look whether {path} is held"), why)),
            },
        }
    }
}

/// The end of a lock, in whole seconds, not before this time.
fn end(until_millis: u64) -> Option<DateTime> {
    let seconds = Some(until_millis.div_ceil(1000)).filter(|seconds| *seconds <= SECONDS_MAX)?;
    i64::try_from(seconds).ok().map(DateTime::from_secs)
}

fn reaches(lock: Option<&ObjectLockRetention>, until: DateTime) -> bool {
    lock.and_then(ObjectLockRetention::retain_until_date).is_some_and(|held| *held >= until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_a_second_that_has_a_date() {
        let check = |millis: u64, expected: Option<i64>| {
            assert_eq!(end(millis), expected.map(DateTime::from_secs), "{millis}");
        };
        check(0, Some(0));
        check(1_795_312_807_000, Some(1_795_312_807));
        check(1_795_312_807_001, Some(1_795_312_808));
        check(253_402_300_799_000, Some(253_402_300_799));
        check(253_402_300_799_001, None);
        check(u64::MAX, None);
    }

    #[test]
    fn a_mode_is_one_of_two_words() {
        let check = |text: &str, expected: Option<LockMode>| {
            assert_eq!(text.parse::<LockMode>().ok(), expected, "{text}");
        };
        check("GOVERNANCE", Some(LockMode::Governance));
        check("COMPLIANCE", Some(LockMode::Compliance));
        check("compliance", None);
        check("", None);
    }
}
