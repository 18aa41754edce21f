//! Removing versions of objects for good. S3 refuses a locked version with the words it has for a missing permission,
//! so each refusal is looked into: what is locked stays and is told, what is not is an error.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use aws_sdk_s3::error::BuildError;
use aws_sdk_s3::operation::list_object_versions::ListObjectVersionsOutput;
use aws_sdk_s3::operation::list_object_versions::builders::ListObjectVersionsFluentBuilder;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use backup_core::format::{ObjectKey, Prefix};
use backup_core::ports::{Shelves, StoredVersion};
use backup_core::{Error, ErrorKind, Result};

use super::{PAGE_MAX, S3ObjectStore};
use crate::error::refused;
use crate::items::internal;

/// S3 removes no more with one request.
const AT_ONCE_MAX: usize = 1000;
/// Versions of one object: pages of 1000. An object has one, or a few where a step was repeated.
const PAGES_OF_ONE_MAX: u32 = 20;
/// The bucket tells its time in whole seconds, and may end a lock a little late.
const SLACK_MILLIS: u64 = 3000;

#[async_trait]
impl Shelves for S3ObjectStore {
    async fn versions(&self, prefix: Prefix) -> Result<Vec<StoredVersion>> {
        let prefix = prefix.to_path()?;
        let page = self.page_of_versions(&prefix, |ask| ask).await?;
        let found = stored(&page, &prefix)?;
        if found.is_empty() && page.is_truncated() == Some(true) {
            let what = format!("list the versions of {prefix}: a page is empty, and there are more");
            return Err(Error::new(ErrorKind::Transient, what)); // or it would look like the end
        }
        Ok(found)
    }

    async fn versions_of(&self, key: ObjectKey) -> Result<Vec<StoredVersion>> {
        let path = key.to_path()?;
        let (mut found, mut next) = (Vec::new(), (None, None));
        for _ in 0..PAGES_OF_ONE_MAX {
            let (from, behind) = next;
            let page =
                self.page_of_versions(&path, |ask| ask.set_key_marker(from).set_version_id_marker(behind));
            let page = page.await?;
            let listed = stored(&page, &path)?;
            // Of all paths that begin with this one, it comes first.
            let is_all = page.is_truncated() != Some(true) || listed.iter().any(|it| it.path != path);
            found.extend(listed.into_iter().filter(|it| it.path == path));
            if is_all {
                return Ok(found);
            }
            next = (page.next_key_marker, page.next_version_id_marker);
        }
        Err(Error::new(ErrorKind::Internal, format!("list the versions of {path}: there are too many")))
    }

    async fn remove(&self, versions: &[StoredVersion]) -> Result<Vec<StoredVersion>> {
        let mut locked = Vec::new();
        for batch in versions.chunks(AT_ONCE_MAX) {
            let stayed = self.delete(batch).await?;
            if stayed.is_empty() {
                continue;
            }
            let now_millis = self.now_millis().await?;
            for version in stayed {
                if !self.is_locked(version, now_millis).await? {
                    let what = format!("remove {} in bucket {}", version.path, self.bucket);
                    return Err(refused(what, "AccessDenied", "it is not locked"));
                }
                locked.push(version.clone());
            }
        }
        Ok(locked)
    }
}

impl S3ObjectStore {
    async fn page_of_versions(
        &self,
        prefix: &str,
        from: impl FnOnce(ListObjectVersionsFluentBuilder) -> ListObjectVersionsFluentBuilder + Send,
    ) -> Result<ListObjectVersionsOutput> {
        let ask = self.client.list_object_versions().bucket(&self.bucket).prefix(prefix).max_keys(PAGE_MAX);
        from(ask).send().await.map_err(|why| self.told(format!("list the versions of {prefix}"), why))
    }

    /// Removes versions; gives those that were refused. Each must have its answer.
    async fn delete<'a>(&self, batch: &'a [StoredVersion]) -> Result<Vec<&'a StoredVersion>> {
        let attempted = format!("remove {} versions in bucket {}", batch.len(), self.bucket);
        let object =
            |it: &StoredVersion| ObjectIdentifier::builder().key(&it.path).version_id(&it.version).build();
        let objects: Result<Vec<_>, BuildError> = batch.iter().map(object).collect();
        let objects = objects.map_err(|why| internal(&attempted, why))?;
        let delete = Delete::builder().set_objects(Some(objects)).quiet(false).build();
        let delete = delete.map_err(|why| internal(&attempted, why))?;
        let reply = self.client.delete_objects().bucket(&self.bucket).delete(delete).send().await;
        let reply = reply.map_err(|why| self.told(format!("remove {} versions", batch.len()), why))?;
        let removed: HashSet<_> = reply.deleted().iter().map(|it| (it.key(), it.version_id())).collect();
        let stayed: HashMap<_, _> =
            reply.errors().iter().map(|it| ((it.key(), it.version_id()), it)).collect();
        let mut denied = Vec::new();
        for version in batch {
            let name = (Some(version.path.as_str()), Some(version.version.as_str()));
            if removed.contains(&name) {
                continue;
            }
            match stayed.get(&name).map(|why| (why.code().unwrap_or("unknown"), why.message())) {
                Some(("NoSuchKey" | "NoSuchVersion", _)) => {} // somebody removed it before
                Some(("AccessDenied", _)) => denied.push(version),
                Some((code, message)) => {
                    let what = format!("remove {} in bucket {}", version.path, self.bucket);
                    return Err(refused(what, code, message.unwrap_or("no message")));
                }
                None => {
                    let what = format!("{attempted}: there is no answer for {}", version.path);
                    return Err(Error::new(ErrorKind::Transient, what));
                }
            }
        }
        Ok(denied)
    }

    async fn is_locked(&self, version: &StoredVersion, now_millis: u64) -> Result<bool> {
        let lock = match self.retention(&version.path, Some(&version.version)).await {
            Err(why) if why.kind() == ErrorKind::Unsupported => return Ok(false), // no locks in this bucket
            lock => lock?,
        };
        let until = lock.and_then(|lock| lock.retain_until_date).and_then(|until| until.to_millis().ok());
        let until_millis = until.and_then(|until| u64::try_from(until).ok()).unwrap_or(0);
        if until_millis.saturating_add(SLACK_MILLIS) > now_millis {
            return Ok(true);
        }
        self.is_on_hold(&version.path, &version.version).await
    }
}

/// Every version of a page, and every mark of a deletion.
fn stored(page: &ListObjectVersionsOutput, prefix: &str) -> Result<Vec<StoredVersion>> {
    let version = |path: Option<&str>, version: Option<&str>, bytes: Option<i64>| {
        let bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok())?;
        Some(StoredVersion { path: path?.to_owned(), version: version?.to_owned(), bytes })
    };
    let objects = page.versions().iter().map(|it| version(it.key(), it.version_id(), it.size()));
    let marks = page.delete_markers().iter().map(|it| version(it.key(), it.version_id(), Some(0)));
    let all: Option<Vec<_>> = objects.chain(marks).collect();
    all.ok_or_else(|| {
        Error::new(ErrorKind::Internal, format!("list the versions of {prefix}: one has no key, id or size"))
    })
}
