//! Nightsafe's ports over the AWS SDK, and what the command line needs of AWS.

mod alerts;
mod catalog;
mod data_keys;
mod error;
mod items;
mod machines;
mod object_store;
mod other_region;
mod sdk;
mod secrets;
mod stack;
mod timeline;

pub use alerts::SnsAlerts;
pub use catalog::DynamoCatalog;
pub use data_keys::KmsDataKeys;
pub use machines::{Execution, Machines, MapProgress, Pipelines};
pub use object_store::{LockMode, S3Copies, S3Locks, S3ObjectStore};
pub use other_region::{Home, OtherRegion};
pub use sdk::{Sdk, SystemClock};
pub use secrets::connection_string;
pub use stack::Stack;
pub use timeline::DynamoTimeline;
