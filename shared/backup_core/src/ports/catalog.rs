//! What is known of operations and of the timeline, the state machines, and the channels to people.

use async_trait::async_trait;

use crate::alert::Alert;
use crate::audit::AuditRecord;
use crate::error::Result;
use crate::id::{ClusterTime, Fence, OperationId, RegionName};
use crate::operation::{BackupNote, Failure, Operation, OperationKind, Pipeline};
use crate::timeline::{Break, ReplicatedTimeline, SliceRecord, TimelineHead};
use crate::watch::WatchState;

/// What a lease is held on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// The source: one backup at a time.
    Source,
    /// What was taken of the source: one folded backup at a time.
    Folding,
    /// A database of the target: one restore at a time.
    Target(String),
    /// One drill at a time.
    Drills,
    /// Removing backups: one run at a time.
    Shelves,
}

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The operation that holds it.
    pub holder: OperationId,
    /// Who asked for that operation.
    pub user: String,
    /// Counts the holders.
    pub fence: Fence,
    /// When it was taken, in milliseconds since 1970 UTC.
    pub since_millis: u64,
    /// When it ends by itself, in milliseconds since 1970 UTC.
    pub expires_millis: u64,
}

/// The index of what exists, the leases, and the audit trail. Everything read was written before (strong reads).
#[async_trait]
pub trait Catalog: Send + Sync {
    /// Adds a request; `Conflict` if the id exists.
    async fn create_operation(&self, operation: &Operation) -> Result<()>;

    /// The operation with this id; `Corrupt` if its row is another's.
    async fn operation(&self, kind: OperationKind, id: OperationId) -> Result<Operation>;

    /// The newest operations of a kind, newest first, at most `count_max`.
    async fn operations(&self, kind: OperationKind, count_max: u32) -> Result<Vec<Operation>>;

    /// Writes the row if nobody wrote it since it was read (`Transient` otherwise: a step that is repeated finds what
    /// the other one did) and counts its revision. If the row has a fence, it is written only while its operation
    /// holds the lease (`Fenced` otherwise).
    async fn update_operation(&self, operation: &mut Operation) -> Result<()>;

    /// Notes why a step failed, whatever else is written to the row meanwhile. Of an operation that has ended nothing
    /// is noted: a step that is still alive somewhere has no say any more.
    async fn record_failure(&self, kind: OperationKind, id: OperationId, failure: &Failure) -> Result<()>;

    /// Writes a note to a backup's row, whatever else is written to it meanwhile, and without holding its lease; counts
    /// its revision. Gives the row as it is then; `NotFound` if there is none.
    async fn note(&self, id: OperationId, note: &BackupNote) -> Result<Operation>;

    /// Removes the row of an operation that has ended, if nobody wrote it since it was read (`Transient` otherwise).
    /// Again: no error.
    async fn forget(&self, operation: &Operation) -> Result<()>;

    /// Ends an operation as failed, without holding its lease; `false` if it had ended already.
    async fn fail_operation(&self, operation: &Operation, now_millis: u64) -> Result<bool>;

    /// Takes the lease. Again by the same holder: the same fence. By another while it holds: `Conflict`, unless
    /// `force`. The fence is one more than the last holder's.
    async fn acquire_lease(
        &self,
        resource: &Resource,
        holder: &Operation,
        force: bool,
        now_millis: u64,
        seconds: u64,
    ) -> Result<Fence>;

    /// `Ok` while the operation holds the lease; `Fenced` once it was taken over.
    async fn check_lease(&self, operation: &Operation) -> Result<()>;

    /// The lease, if somebody holds it at `now_millis`.
    async fn lease(&self, resource: &Resource, now_millis: u64) -> Result<Option<Lease>>;

    /// Frees the lease if `holder` has it; otherwise does nothing.
    async fn release_lease(&self, resource: &Resource, holder: OperationId) -> Result<()>;

    /// Appends to the audit chain, once for each operation and status: again is no error and adds nothing.
    async fn append_audit(&self, id: OperationId, record: &AuditRecord) -> Result<()>;

    /// The newest audit records, newest first, at most `count_max`.
    async fn audit(&self, count_max: u32) -> Result<Vec<AuditRecord>>;

    /// What the watch has told; nothing before its first run.
    async fn watch_state(&self) -> Result<WatchState>;

    /// Writes what the watch has told, if nobody wrote it since it was read (`Transient` otherwise), and counts its
    /// revision.
    async fn set_watch_state(&self, state: &WatchState) -> Result<()>;
}

/// The state machines.
#[async_trait]
pub trait Machines: Send + Sync {
    /// Starts the execution of a pipeline for an operation that was asked for. Again: no error, and nothing more is
    /// started.
    async fn start(&self, pipeline: Pipeline, operation: &Operation) -> Result<()>;

    /// Starts the copying of a backup once more; false if that was done not long ago.
    async fn copy_again(&self, backup: &Operation) -> Result<bool>;
}

/// Tells people.
#[async_trait]
pub trait Alerts: Send + Sync {
    /// Publishes to the channels of the alert's severity.
    async fn publish(&self, alert: &Alert) -> Result<()>;
}

/// What the catalog knows of a source's timeline. Everything read was written before (strong reads).
#[async_trait]
pub trait Timeline: Send + Sync {
    /// How far it is; none before it began.
    async fn head(&self) -> Result<Option<TimelineHead>>;

    /// Begins the timeline, unless it has begun; gives the head there is then.
    async fn begin(&self, head: &TimelineHead) -> Result<TimelineHead>;

    /// Moves the head, and adds a slice and breaks, all or nothing. The head is given as it was read; what is stored
    /// has the next revision. `Transient` if somebody else moved it since.
    async fn advance(&self, head: &TimelineHead, slice: Option<&SliceRecord>, breaks: &[Break])
    -> Result<()>;

    /// The slices that have instants from `from` up to and without `to`, in order.
    async fn slices(&self, from: ClusterTime, to: ClusterTime) -> Result<Vec<SliceRecord>>;

    /// Every break, in the order of [`Break::from`].
    async fn breaks(&self) -> Result<Vec<Break>>;

    /// Removes the row of a slice. Again: no error.
    async fn forget_slice(&self, slice: &SliceRecord) -> Result<()>;

    /// Writes a timeline that was found in the bucket; `Conflict` if there is one.
    async fn bring_back(&self, head: &TimelineHead, slices: &[SliceRecord], breaks: &[Break]) -> Result<()>;

    /// How far the copy of the timeline in a region is; none before it began.
    async fn replicated(&self, region: RegionName) -> Result<Option<ReplicatedTimeline>>;

    /// Notes how far the copy in a region is; a note of less far is dropped.
    async fn set_replicated(&self, region: RegionName, replicated: &ReplicatedTimeline) -> Result<()>;
}
