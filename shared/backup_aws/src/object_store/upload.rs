//! Writing an object of unknown size: one put if it stays small, a multipart upload otherwise.

use async_trait::async_trait;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use backup_core::ports::Upload;
use backup_core::{Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;

use super::S3ObjectStore;
use crate::error::told;

/// S3 takes 5 MiB to 5 GiB and 10,000 parts: this reaches 78 GiB, far beyond a chunk.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// Parts being sent: with the one being filled, an upload holds 24 MiB at most.
const PARTS_AT_ONCE: usize = 2;

/// An object being written.
pub(super) struct S3Upload {
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
    pub(super) fn new(store: S3ObjectStore, path: String) -> Self {
        Self {
            store,
            path,
            filling: BytesMut::new(),
            upload_id: None,
            sending: JoinSet::new(),
            sent: Vec::new(),
            next_part: 1,
        }
    }

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
