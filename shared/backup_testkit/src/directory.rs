//! A bucket that is a directory: for amounts that memory should not hold.

use std::fs::{self, File};
use std::io::{ErrorKind as Io, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use async_trait::async_trait;
use backup_core::format::ObjectKey;
use backup_core::ports::{Locks, ObjectStore, PutOutcome, Upload};
use backup_core::{Error, ErrorKind, Result};
use bytes::Bytes;

/// A bucket in a directory.
#[derive(Clone)]
pub struct DirectoryStore(PathBuf);

impl DirectoryStore {
    /// Keeps objects below `directory`.
    #[must_use]
    pub const fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    fn path(&self, key: ObjectKey) -> Result<PathBuf> {
        let path = self.0.join(key.to_path()?);
        fs::create_dir_all(path.parent().unwrap()).map_err(|why| told("prepare", &why))?;
        Ok(path)
    }
}

fn told(attempted: &str, why: &std::io::Error) -> Error {
    let kind = if why.kind() == Io::NotFound { ErrorKind::NotFound } else { ErrorKind::Internal };
    Error::new(kind, format!("{attempted} a file")).because(why.to_string())
}

#[async_trait]
impl ObjectStore for DirectoryStore {
    async fn put(&self, key: ObjectKey, body: Bytes) -> Result<()> {
        fs::write(self.path(key)?, body).map_err(|why| told("write", &why))
    }

    async fn put_if_absent(&self, key: ObjectKey, body: Bytes) -> Result<PutOutcome> {
        match File::create_new(self.path(key)?) {
            Err(why) if why.kind() == Io::AlreadyExists => Ok(PutOutcome::AlreadyThere),
            file => file
                .and_then(|mut file| file.write_all(&body))
                .map(|()| PutOutcome::Stored)
                .map_err(|why| told("write", &why)),
        }
    }

    async fn upload(&self, key: ObjectKey) -> Result<Box<dyn Upload>> {
        let path = self.path(key)?;
        let part = path.with_extension("part");
        let file = File::create(&part).map_err(|why| told("begin", &why))?;
        Ok(Box::new(DirectoryUpload { file, part, path }))
    }

    async fn get(&self, key: ObjectKey, bytes_max: u64) -> Result<Bytes> {
        let body = fs::read(self.path(key)?).map_err(|why| told("read", &why))?;
        if u64::try_from(body.len()).unwrap() > bytes_max {
            return Err(Error::new(ErrorKind::Corrupt, "get an object: it is too large"));
        }
        Ok(body.into())
    }

    async fn get_range(&self, key: ObjectKey, offset: u64, length: u64) -> Result<Bytes> {
        let mut body = vec![0; usize::try_from(length).unwrap()];
        let mut file = File::open(self.path(key)?).map_err(|why| told("read", &why))?;
        let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut body));
        read.map(|()| body.into())
            .map_err(|_| Error::new(ErrorKind::Corrupt, "get a range: the object is shorter"))
    }

    async fn copy(&self, from: ObjectKey, to: ObjectKey) -> Result<()> {
        let object = self.get(from, u64::MAX).await?;
        self.put(to, object).await
    }

    async fn stored_sha256(&self, _key: ObjectKey) -> Result<Option<[u8; 32]>> {
        Ok(None)
    }

    async fn store_millis(&self) -> Result<u64> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Ok(u64::try_from(now.unwrap().as_millis()).unwrap())
    }

    async fn size(&self, key: ObjectKey) -> Result<Option<u64>> {
        match fs::metadata(self.path(key)?) {
            Ok(found) => Ok(Some(found.len())),
            Err(why) if why.kind() == Io::NotFound => Ok(None),
            Err(why) => Err(told("look at", &why)),
        }
    }
}

struct DirectoryUpload {
    file: File,
    part: PathBuf,
    path: PathBuf,
}

#[async_trait]
impl Upload for DirectoryUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.file.write_all(&bytes).map_err(|why| told("write", &why))
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        fs::rename(&self.part, &self.path).map_err(|why| told("finish", &why))
    }

    async fn abort(self: Box<Self>) {
        let _ = fs::remove_file(&self.part);
    }
}

/// Nothing locks a directory.
#[async_trait]
impl Locks for DirectoryStore {
    async fn lock(&self, _key: ObjectKey, _until_millis: u64) -> Result<()> {
        Ok(())
    }
}
