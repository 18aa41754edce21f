//! Nightsafe's ports over the AWS SDK, and what the command line needs of AWS.

mod alerts;
mod catalog;
mod data_keys;
mod error;
mod items;
mod machines;
mod object_store;
mod sdk;
mod secrets;
mod stack;
mod timeline;

pub use alerts::SnsAlerts;
pub use catalog::DynamoCatalog;
pub use data_keys::KmsDataKeys;
pub use machines::{BackupMachines, Execution, Machines, MapProgress};
pub use object_store::S3ObjectStore;
pub use sdk::{Sdk, SystemClock};
pub use secrets::connection_string;
pub use stack::Stack;
pub use timeline::DynamoTimeline;
