//! The bucket, over S3. Every put carries a CRC32 that S3 checks; large objects go up in parts over a bounded
//! number of requests.

mod clock;
mod cold_storage;
mod copies;
mod locks;
mod shelves;
mod upload;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, ChecksumType, Object};
use backup_core::bson::base64_bytes;
use backup_core::format::{ObjectKey, Prefix};
use backup_core::ports::{Listing, ObjectStore, PutOutcome, Upload};
use backup_core::{Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use serde::de::IntoDeserializer;
use serde::de::value::{Error as NotBase64, StrDeserializer};

pub use copies::S3Copies;
pub use locks::{LockMode, S3Locks};

use crate::error::{code, told};
use crate::sdk::Sdk;

/// S3 lists no more at once.
const PAGE_MAX: i32 = 1000;

/// A bucket.
#[derive(Clone, Debug)]
pub struct S3ObjectStore {
    client: Client,
    bucket: String,
}

impl S3ObjectStore {
    /// The bucket with this name.
    #[must_use]
    pub fn new(sdk: &Sdk, bucket: String) -> Self {
        Self { client: Client::new(&sdk.config), bucket }
    }

    fn told<E>(&self, attempted: impl Into<String>, why: SdkError<E>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        told(format!("{} in bucket {}", attempted.into(), self.bucket), why)
    }

    async fn put_object(&self, path: &str, body: Bytes, if_absent: bool) -> Result<PutOutcome> {
        let put = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(path)
            .set_if_none_match(if_absent.then(|| "*".to_owned()))
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .body(body.into());
        match put.send().await {
            Ok(_) => Ok(PutOutcome::Stored),
            // 409: another conditional put of this key is under way; it may win or not.
            Err(why) if if_absent && code(&why) == Some("ConditionalRequestConflict") => {
                Err(Error::new(ErrorKind::Transient, format!("put {path}"))
                    .because("another put of it is under way"))
            }
            Err(why) if if_absent && code(&why) == Some("PreconditionFailed") => Ok(PutOutcome::AlreadyThere),
            Err(why) => Err(self.told(format!("put {path}"), why)),
        }
    }

    /// What S3 tells of an object without sending it; none if there is none.
    async fn head(
        &self,
        path: &str,
        checksums: Option<ChecksumMode>,
        attempted: &str,
    ) -> Result<Option<HeadObjectOutput>> {
        let head = self.client.head_object().bucket(&self.bucket).key(path).set_checksum_mode(checksums);
        match head.send().await {
            Ok(reply) => Ok(Some(reply)),
            Err(why) if matches!(code(&why), Some("NotFound" | "NoSuchKey")) => Ok(None),
            Err(why) => Err(self.told(attempted, why)),
        }
    }
}

#[async_trait]
impl ObjectStore for S3ObjectStore {
    async fn put(&self, key: ObjectKey, body: Bytes) -> Result<()> {
        self.put_object(&key.to_path()?, body, false).await.map(|_| ())
    }

    async fn put_if_absent(&self, key: ObjectKey, body: Bytes) -> Result<PutOutcome> {
        self.put_object(&key.to_path()?, body, true).await
    }

    async fn upload(&self, key: ObjectKey) -> Result<Box<dyn Upload>> {
        Ok(Box::new(upload::S3Upload::new(self.clone(), key.to_path()?)))
    }

    async fn get(&self, key: ObjectKey, bytes_max: u64) -> Result<Bytes> {
        let path = key.to_path()?;
        let reply = self.client.get_object().bucket(&self.bucket).key(&path).send().await;
        let mut reply = reply.map_err(|why| self.told(format!("get {path}"), why))?;
        let mut body = BytesMut::new();
        // Piece by piece, so that an object that is larger than it may be is not taken into memory.
        while let Some(piece) = reply.body.next().await {
            let piece =
                piece.map_err(|why| Error::new(ErrorKind::Transient, format!("get {path}")).because(why))?;
            if u64::try_from(body.len() + piece.len()).unwrap_or(u64::MAX) > bytes_max {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("get {path}: it has more than {bytes_max} bytes"),
                ));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    async fn get_range(&self, key: ObjectKey, offset: u64, length: u64) -> Result<Bytes> {
        let path = key.to_path()?;
        if length == 0 {
            return Ok(Bytes::new());
        }
        let range = format!("bytes={offset}-{}", offset.saturating_add(length) - 1);
        let attempted = format!("get {path} {range}");
        let reply = self.client.get_object().bucket(&self.bucket).key(&path).range(range).send().await;
        let reply = reply.map_err(|why| match code(&why) {
            Some("InvalidRange") => {
                Error::new(ErrorKind::Corrupt, format!("{attempted}: the object is shorter"))
            }
            _ => self.told(&attempted, why),
        })?;
        let body = reply.body.collect().await;
        let body =
            body.map_err(|why| Error::new(ErrorKind::Transient, &attempted).because(why))?.into_bytes();
        if u64::try_from(body.len()).ok() == Some(length) {
            Ok(body)
        } else {
            Err(Error::new(ErrorKind::Corrupt, format!("{attempted}: {} bytes came", body.len())))
        }
    }

    async fn copy(&self, from: ObjectKey, to: ObjectKey) -> Result<()> {
        let (from, to) = (from.to_path()?, to.to_path()?);
        let copy = self.client.copy_object().bucket(&self.bucket).key(&to);
        // Keys are of our own making: nothing in them needs encoding.
        let copied = copy.copy_source(format!("{}/{from}", self.bucket)).send().await;
        copied.map(|_| ()).map_err(|why| self.told(format!("copy {from} to {to}"), why))
    }

    async fn size(&self, key: ObjectKey) -> Result<Option<u64>> {
        let path = key.to_path()?;
        let attempted = format!("ask for the size of {path}");
        let Some(head) = self.head(&path, None, &attempted).await? else { return Ok(None) };
        let length = head.content_length().and_then(|length| u64::try_from(length).ok());
        let missing = || Error::new(ErrorKind::Transient, format!("{attempted}: no length came"));
        length.map(Some).ok_or_else(missing)
    }

    async fn stored_sha256(&self, key: ObjectKey) -> Result<Option<[u8; 32]>> {
        let path = key.to_path()?;
        let attempted = format!("ask for the checksum of {path}");
        let head = self.head(&path, Some(ChecksumMode::Enabled), &attempted).await?;
        Ok(head.and_then(|head| sha256_of_the_whole(head.checksum_sha256()?, head.checksum_type())))
    }

    async fn store_millis(&self) -> Result<u64> {
        self.now_millis().await
    }
}

#[async_trait]
impl Listing for S3ObjectStore {
    async fn list(&self, prefix: Prefix, after: Option<&str>) -> Result<Vec<(String, u64)>> {
        let prefix = prefix.to_path()?;
        let attempted = format!("list {prefix}");
        let list = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .set_start_after(after.map(str::to_owned))
            .max_keys(PAGE_MAX);
        let page = list.send().await.map_err(|why| self.told(&attempted, why))?;
        if page.contents().is_empty() && page.is_truncated() == Some(true) {
            let what = format!("{attempted}: a page was empty, and not the last");
            return Err(Error::new(ErrorKind::Transient, what)); // or it would look like the end
        }
        let object =
            |it: &Object| Some((it.key()?.to_owned(), it.size().and_then(|size| u64::try_from(size).ok())?));
        let objects: Option<Vec<_>> = page.contents().iter().map(object).collect();
        objects.ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("{attempted}: an object has no key or no size"))
        })
    }
}

/// The checksum of an object that came in parts is one of its parts' checksums: it says so by its type, or by the
/// number of parts behind it, which is not base64.
fn sha256_of_the_whole(text: &str, kind: Option<&ChecksumType>) -> Option<[u8; 32]> {
    if kind.is_some_and(|kind| *kind != ChecksumType::FullObject) {
        return None;
    }
    let text: StrDeserializer<'_, NotBase64> = text.into_deserializer();
    base64_bytes::deserialize(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_checksum_of_the_whole_counts() {
        let whole = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let bytes: [u8; 32] = std::array::from_fn(|place| u8::try_from(place).unwrap());
        let check = |text: &str, kind: Option<ChecksumType>, expected: Option<[u8; 32]>| {
            assert_eq!(sha256_of_the_whole(text, kind.as_ref()), expected, "{text} {kind:?}");
        };
        check(whole, Some(ChecksumType::FullObject), Some(bytes));
        check(whole, None, Some(bytes));
        check(whole, Some(ChecksumType::Composite), None);
        check(&format!("{whole}-1"), None, None);
        check(&format!("{whole}-16"), Some(ChecksumType::FullObject), None);
        check("AAECAw==", None, None);
        check("", None, None);
    }
}
