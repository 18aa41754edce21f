//! Bounds and sizes that shape the work, each with its unit and its reason. Read from the environment at one place
//! (the Lambda's and the command line's start); everything below takes them as an argument.

use crate::error::{Error, ErrorKind, Result};

/// Bytes in a mebibyte.
pub const MIB: u64 = 1024 * 1024;

/// What an operator may tune. The template's parameters of the same names say the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How much BSON a chunk should hold. A chunk is read within one snapshot (300 s on Atlas), so a read should
    /// take a minute at most: 256 MiB leaves room for a server that gives 5 MiB/s.
    pub chunk_target_bytes: u64,
    /// zstd level of the stored documents.
    pub compression_level: i32,
    /// How many frames are compressed at the same time: one for each virtual CPU of the function.
    pub compress_workers: usize,
    /// How many inserts are in flight at the same time in a restore.
    pub insert_workers: usize,
    /// How many bytes of changes a fold holds at a time; a range with more is folded in several passes.
    pub pending_bytes_max: u64,
}

impl Settings {
    /// The smallest useful chunk: below it the fixed cost of an object outweighs its documents.
    pub const CHUNK_TARGET_BYTES_MIN: u64 = 64 * 1024;
    /// Larger chunks could not be read within the snapshot history.
    pub const CHUNK_TARGET_BYTES_MAX: u64 = 1024 * MIB;

    /// The settings with a chunk target that was given as text.
    pub fn with_chunk_target(mut self, text: &str) -> Result<Self> {
        let bytes = text
            .parse()
            .ok()
            .filter(|bytes| (Self::CHUNK_TARGET_BYTES_MIN..=Self::CHUNK_TARGET_BYTES_MAX).contains(bytes));
        self.chunk_target_bytes = bytes.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "read the chunk target").hint(format!(
                "a number of bytes from {} to {}",
                Self::CHUNK_TARGET_BYTES_MIN,
                Self::CHUNK_TARGET_BYTES_MAX
            ))
        })?;
        Ok(self)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            chunk_target_bytes: 256 * MIB,
            compression_level: 3,
            compress_workers: 2,
            insert_workers: 4,
            pending_bytes_max: 128 * MIB,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_target_out_of_bounds_is_refused() {
        for (text, good) in
            [("65536", true), ("1073741824", true), ("65535", false), ("-1", false), ("4MiB", false)]
        {
            assert_eq!(Settings::default().with_chunk_target(text).is_ok(), good, "{text}");
        }
    }
}
