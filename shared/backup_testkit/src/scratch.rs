//! A server that is thrown away, in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use backup_core::ports::{Scratch, ScratchDatabase, Target};
use backup_core::{Error, ErrorKind, Result};

use crate::MemoryCluster;

/// Gives an empty cluster each time. Clones count together.
#[derive(Clone, Default)]
pub struct MemoryScratch {
    opened: Arc<AtomicU64>,
    closed: Arc<AtomicU64>,
    is_missing: Arc<AtomicBool>,
}

impl MemoryScratch {
    /// As where none was configured.
    pub fn set_missing(&self, is_missing: bool) {
        self.is_missing.store(is_missing, Ordering::SeqCst);
    }

    /// How many were opened.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::SeqCst)
    }

    /// How many were closed.
    #[must_use]
    pub fn closed(&self) -> u64 {
        self.closed.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Scratch for MemoryScratch {
    async fn open(&self) -> Result<Box<dyn ScratchDatabase>> {
        if self.is_missing.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::NotFound, "open a scratch server: none was configured"));
        }
        self.opened.fetch_add(1, Ordering::SeqCst);
        let cluster = MemoryCluster::default();
        Ok(Box::new(MemoryScratchDatabase { cluster, closed: Arc::clone(&self.closed) }))
    }
}

struct MemoryScratchDatabase {
    cluster: MemoryCluster,
    closed: Arc<AtomicU64>,
}

#[async_trait]
impl ScratchDatabase for MemoryScratchDatabase {
    fn target(&self) -> &dyn Target {
        &self.cluster
    }

    fn database(&self) -> &'static str {
        "scratch"
    }

    fn description(&self) -> &'static str {
        "in memory"
    }

    async fn close(self: Box<Self>) -> Result<()> {
        self.closed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}
