//! What is kept, for how long, and why: decided from the catalog's rows and the clock, without touching anything.
//!
//! Whoever removes makes a [`RetentionPlan`] first. It has one decision for each backup, with its reason, and can be
//! printed, stored and compared. The same facts give the same plan, and a plan that was carried out gives one that
//! says the same. Days, weeks and months are those of UTC.
//!
//! Some backups are never let go, whatever the tiers say: the newest good one of each database, what the promised
//! instants are folded from, what somebody holds or uses, and what is not finished or not explained yet.

mod candidate;
mod needed;
mod period;
mod plan;
mod policy;
mod reason;
mod slices;
mod tiers;
mod usage;

pub use period::Period;
pub use plan::{Decision, Facts, RetentionPlan, UnneededSlice, plan};
pub use policy::Policy;
pub use reason::Reason;
pub use slices::slices_needed;
pub use tiers::Tier;
pub use usage::{ShelfUsage, Usage, usage};
