//! The bucket, over S3. Every put carries a CRC32 that S3 checks; large objects go up in parts over a bounded
//! number of requests.

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use backup_core::format::ObjectKey;
use backup_core::ports::{ObjectStore, PutOutcome, Upload};
use backup_core::{Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;

use crate::error::{code, told};
use crate::sdk::Sdk;

/// S3 takes 5 MiB to 5 GiB and 10,000 parts: this reaches 78 GiB, far beyond a chunk.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// Parts being sent: with the one being filled, an upload holds 24 MiB at most.
const PARTS_AT_ONCE: usize = 2;

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
        Ok(Box::new(S3Upload {
            store: self.clone(),
            path: key.to_path()?,
            filling: BytesMut::new(),
            upload_id: None,
            sending: JoinSet::new(),
            sent: Vec::new(),
            next_part: 1,
        }))
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
        match self.client.head_object().bucket(&self.bucket).key(&path).send().await {
            Ok(reply) => {
                let length = reply.content_length().and_then(|length| u64::try_from(length).ok());
                let missing = || {
                    Error::new(ErrorKind::Transient, format!("ask for the size of {path}: no length came"))
                };
                length.map(Some).ok_or_else(missing)
            }
            Err(why) if code(&why) == Some("NotFound") || code(&why) == Some("NoSuchKey") => Ok(None),
            Err(why) => Err(self.told(format!("ask for the size of {path}"), why)),
        }
    }
}

/// An object being written: one put if it stays small, a multipart upload otherwise.
struct S3Upload {
    store: S3ObjectStore,
    path: String,
    filling: BytesMut,
    upload_id: Option<String>,
    sending: JoinSet<Result<CompletedPart>>,
    sent: Vec<CompletedPart>,
    next_part: i32,
}

#[async_trait]
impl Upload for S3Upload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.filling.extend_from_slice(&bytes);
        while self.filling.len() > PART_BYTES {
            let part = self.filling.split_to(PART_BYTES).freeze();
            self.send_part(part).await?;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<()> {
        let last = self.filling.split().freeze();
        if self.upload_id.is_none() {
            return self.store.put_object(&self.path, last, false).await.map(|_| ());
        }
        self.send_part(last).await?;
        while !self.sending.is_empty() {
            self.join_part().await?;
        }
        self.sent.sort_by_key(CompletedPart::part_number);
        let parts =
            CompletedMultipartUpload::builder().set_parts(Some(std::mem::take(&mut self.sent))).build();
        let S3ObjectStore { client, bucket } = &self.store;
        let complete = client
            .complete_multipart_upload()
            .bucket(bucket)
            .key(&self.path)
            .set_upload_id(self.upload_id.clone())
            .multipart_upload(parts);
        complete.send().await.map(|_| ()).map_err(|why| told(format!("complete {}", self.path), why))
    }

    async fn abort(mut self: Box<Self>) {
        self.sending.shutdown().await;
        if let Some(id) = &self.upload_id {
            let S3ObjectStore { client, bucket } = &self.store;
            let abort = client.abort_multipart_upload().bucket(bucket).key(&self.path).upload_id(id);
            if let Err(why) = abort.send().await {
                // The bucket's lifecycle rule reaps what is left.
                tracing::warn!(path = self.path, why = %told("abort an upload", why), "could not abort an upload");
            }
        }
    }
}

impl S3Upload {
    async fn send_part(&mut self, part: Bytes) -> Result<()> {
        while self.sending.len() >= PARTS_AT_ONCE {
            self.join_part().await?;
        }
        let upload_id = self.begin().await?;
        let (S3ObjectStore { client, bucket }, path) = (self.store.clone(), self.path.clone());
        let number = self.next_part;
        self.next_part += 1;
        self.sending.spawn(async move {
            let put = client
                .upload_part()
                .bucket(bucket)
                .key(&path)
                .upload_id(upload_id)
                .part_number(number)
                .checksum_algorithm(ChecksumAlgorithm::Crc32)
                .body(part.into());
            let reply = put.send().await.map_err(|why| told(format!("put part {number} of {path}"), why))?;
            Ok(CompletedPart::builder()
                .part_number(number)
                .set_e_tag(reply.e_tag().map(str::to_owned))
                .set_checksum_crc32(reply.checksum_crc32().map(str::to_owned))
                .build())
        });
        Ok(())
    }

    async fn begin(&mut self) -> Result<String> {
        if let Some(id) = &self.upload_id {
            return Ok(id.clone());
        }
        let S3ObjectStore { client, bucket } = &self.store;
        let create = client
            .create_multipart_upload()
            .bucket(bucket)
            .key(&self.path)
            .checksum_algorithm(ChecksumAlgorithm::Crc32);
        let reply = create.send().await.map_err(|why| told(format!("begin {}", self.path), why))?;
        let id = reply.upload_id().unwrap_or_default().to_owned();
        self.upload_id = Some(id.clone());
        Ok(id)
    }

    async fn join_part(&mut self) -> Result<()> {
        if let Some(joined) = self.sending.join_next().await {
            let part = joined.map_err(|why| Error::new(ErrorKind::Internal, "send a part").because(why))?;
            self.sent.push(part?);
        }
        Ok(())
    }
}
