//! The pure heart of Nightsafe.
//!
//! Nothing in here knows AWS, the MongoDB driver, the wall clock or the environment. Dependencies point one way:
//! `flows -> ports -> pure parts`. A flow is one pipeline step; its parameters are its permissions.

pub mod alert;
pub mod at_once;
pub mod audit;
pub mod bson;
pub mod checks;
pub mod compress;
pub mod document_hash;
pub mod error;
pub mod flows;
pub mod fold;
pub mod format;
pub mod id;
pub mod namespace;
pub mod operation;
pub mod plan;
pub mod ports;
pub mod report;
pub mod retention;
pub mod schedule;
pub mod seal;
pub mod settings;
pub mod timeline;
pub mod watch;

pub use error::{Error, ErrorKind, Result};
