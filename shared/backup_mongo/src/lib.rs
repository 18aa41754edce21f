//! Nightsafe's ports over the MongoDB driver: reading a source at an instant, and writing a restore's target.
//!
//! Documents pass through as the bytes the server sent: raw batches out, raw commands in. What the server really
//! does (measured on 6.0.5) is said beside the code that relies on it.

mod changes;
mod connection;
mod error;
mod metadata;
mod reader;
mod scratch;
mod source;
mod target;
mod token;

pub use connection::Cluster;
pub use scratch::{NoScratch, OwnServer, VerificationCluster};
