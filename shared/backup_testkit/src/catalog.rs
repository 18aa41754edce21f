//! The catalog and the channels to people, in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::alert::Alert;
use backup_core::audit::AuditRecord;
use backup_core::id::{Fence, OperationId};
use backup_core::operation::{BackupNote, Failure, Operation, OperationKind, OperationState, Pipeline};
use backup_core::ports::{Alerts, Catalog, Lease, Machines, Resource};
use backup_core::watch::WatchState;
use backup_core::{Error, ErrorKind, Result};

#[derive(Default)]
struct State {
    operations: HashMap<(OperationKind, OperationId), Operation>,
    leases: HashMap<Resource, (Fence, Option<Lease>)>,
    audit: Vec<(OperationId, AuditRecord)>,
    watch: WatchState,
}

/// A catalog. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryCatalog {
    state: Arc<Mutex<State>>,
}

impl MemoryCatalog {
    /// Loses everything, the audit trail as well.
    pub fn clear(&self) {
        *self.state.lock().unwrap() = State::default();
    }

    /// Edits a row behind everybody's back.
    pub fn tamper(&self, kind: OperationKind, id: OperationId, edit: impl FnOnce(&mut Operation)) {
        edit(self.state.lock().unwrap().operations.get_mut(&(kind, id)).unwrap());
    }
}

impl State {
    fn holds(&self, operation: &Operation) -> Result<()> {
        let lease = self.leases.get(&operation.resource());
        match lease {
            Some((fence, Some(lease))) if lease.holder == operation.id && Some(*fence) == operation.fence => {
                Ok(())
            }
            _ => Err(Error::new(ErrorKind::Fenced, "go on: the lease was taken over")),
        }
    }
}

#[async_trait]
impl Catalog for MemoryCatalog {
    async fn create_operation(&self, operation: &Operation) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let key = (operation.kind(), operation.id);
        if state.operations.contains_key(&key) {
            return Err(Error::new(ErrorKind::Conflict, "add an operation: it exists"));
        }
        state.operations.insert(key, operation.clone());
        Ok(())
    }

    async fn operation(&self, kind: OperationKind, id: OperationId) -> Result<Operation> {
        let state = self.state.lock().unwrap();
        let missing = || Error::new(ErrorKind::NotFound, format!("look up {id}"));
        let row = state.operations.get(&(kind, id)).ok_or_else(missing)?;
        if (row.kind(), row.id) != (kind, id) {
            return Err(Error::new(ErrorKind::Corrupt, format!("look up {id}: the row is another's")));
        }
        Ok(row.clone())
    }

    async fn operations(&self, kind: OperationKind, count_max: u32) -> Result<Vec<Operation>> {
        let state = self.state.lock().unwrap();
        let mut all: Vec<_> = state.operations.values().filter(|it| it.kind() == kind).cloned().collect();
        all.sort_by_key(|it| std::cmp::Reverse(it.id));
        all.truncate(usize::try_from(count_max).unwrap());
        Ok(all)
    }

    async fn update_operation(&self, operation: &mut Operation) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        if operation.fence.is_some() {
            state.holds(operation)?;
        }
        let row = state.operations.get_mut(&(operation.kind(), operation.id));
        let row = row.filter(|row| row.revision == operation.revision);
        let row = row.ok_or_else(|| Error::new(ErrorKind::Transient, "update: another step wrote it"))?;
        operation.revision += 1;
        *row = operation.clone();
        Ok(())
    }

    async fn record_failure(&self, kind: OperationKind, id: OperationId, failure: &Failure) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let row =
            state.operations.get_mut(&(kind, id)).ok_or_else(|| Error::new(ErrorKind::NotFound, "no row"))?;
        if !row.state.is_final() {
            row.failure = Some(failure.clone());
        }
        Ok(())
    }

    async fn note(&self, id: OperationId, note: &BackupNote) -> Result<Operation> {
        let mut state = self.state.lock().unwrap();
        let missing = || Error::new(ErrorKind::NotFound, format!("look up {id}"));
        let row = state.operations.get_mut(&(OperationKind::Backup, id)).ok_or_else(missing)?;
        note.apply(row.backup_mut()?);
        row.revision += 1;
        Ok(row.clone())
    }

    async fn forget(&self, operation: &Operation) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let key = (operation.kind(), operation.id);
        if state.operations.get(&key).is_some_and(|row| row.revision != operation.revision) {
            return Err(Error::new(ErrorKind::Transient, "forget: another step wrote it"));
        }
        state.operations.remove(&key);
        Ok(())
    }

    async fn fail_operation(&self, operation: &Operation, now_millis: u64) -> Result<bool> {
        let mut state = self.state.lock().unwrap();
        let row =
            state.operations.get_mut(&(operation.kind(), operation.id)).filter(|row| !row.state.is_final());
        let Some(row) = row else { return Ok(false) };
        row.state = OperationState::Failed;
        row.finished_millis = Some(now_millis);
        row.failure.clone_from(&operation.failure);
        row.revision += 1;
        Ok(true)
    }

    async fn acquire_lease(
        &self,
        resource: &Resource,
        holder: &Operation,
        force: bool,
        now_millis: u64,
        seconds: u64,
    ) -> Result<Fence> {
        let mut state = self.state.lock().unwrap();
        let (fence, lease) = state.leases.entry(resource.clone()).or_insert((Fence(0), None));
        if let Some(current) = lease {
            if current.holder == holder.id {
                return Ok(*fence);
            }
            if current.expires_millis > now_millis && !force {
                let what =
                    format!("take the lease: {} holds it, asked for by {}", current.holder, current.user);
                return Err(Error::new(ErrorKind::Conflict, what));
            }
        }
        *fence = Fence(fence.0 + 1);
        *lease = Some(Lease {
            holder: holder.id,
            user: holder.user.clone(),
            fence: *fence,
            since_millis: now_millis,
            expires_millis: now_millis + seconds * 1000,
        });
        Ok(*fence)
    }

    async fn check_lease(&self, operation: &Operation) -> Result<()> {
        self.state.lock().unwrap().holds(operation)
    }

    async fn lease(&self, resource: &Resource, now_millis: u64) -> Result<Option<Lease>> {
        let state = self.state.lock().unwrap();
        let lease = state.leases.get(resource).and_then(|(_, lease)| lease.clone());
        Ok(lease.filter(|lease| lease.expires_millis > now_millis))
    }

    async fn release_lease(&self, resource: &Resource, holder: OperationId) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        if let Some((_, lease)) = state.leases.get_mut(resource)
            && lease.as_ref().is_some_and(|lease| lease.holder == holder)
        {
            *lease = None;
        }
        Ok(())
    }

    async fn append_audit(&self, id: OperationId, record: &AuditRecord) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        if !state.audit.iter().any(|(of, it)| *of == id && it.event() == record.event()) {
            state.audit.push((id, record.clone()));
        }
        Ok(())
    }

    async fn audit(&self, count_max: u32) -> Result<Vec<AuditRecord>> {
        let state = self.state.lock().unwrap();
        let newest_first = state.audit.iter().rev().map(|(_, record)| record.clone());
        Ok(newest_first.take(usize::try_from(count_max).unwrap()).collect())
    }

    async fn watch_state(&self) -> Result<WatchState> {
        Ok(self.state.lock().unwrap().watch.clone())
    }

    async fn set_watch_state(&self, watch: &WatchState) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.watch.revision != watch.revision {
            return Err(Error::new(ErrorKind::Transient, "note what was told: another run wrote it"));
        }
        state.watch = WatchState { revision: watch.revision + 1, ..watch.clone() };
        Ok(())
    }
}

/// Remembers what was published.
#[derive(Clone, Default)]
pub struct MemoryAlerts {
    published: Arc<Mutex<Vec<Alert>>>,
    broken: Arc<Mutex<Option<ErrorKind>>>,
}

impl MemoryAlerts {
    /// Everything published so far.
    #[must_use]
    pub fn published(&self) -> Vec<Alert> {
        self.published.lock().unwrap().clone()
    }

    /// Publishes nothing any more, because of this; or does again.
    pub fn set_broken(&self, why: Option<ErrorKind>) {
        *self.broken.lock().unwrap() = why;
    }
}

#[async_trait]
impl Alerts for MemoryAlerts {
    async fn publish(&self, alert: &Alert) -> Result<()> {
        if let Some(why) = *self.broken.lock().unwrap() {
            return Err(Error::new(why, "publish an alert"));
        }
        self.published.lock().unwrap().push(alert.clone());
        Ok(())
    }
}

/// The state machines: what was to be started. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryMachines {
    started: Arc<Mutex<Vec<(Pipeline, OperationId)>>>,
}

impl MemoryMachines {
    /// The backups that were started, in order.
    #[must_use]
    pub fn backups(&self) -> Vec<OperationId> {
        let is_backup =
            |it: &(Pipeline, OperationId)| matches!(it.0, Pipeline::Protect | Pipeline::Synthesize);
        self.started().into_iter().filter(is_backup).map(|(_, id)| id).collect()
    }

    /// What was started, each once, in order.
    #[must_use]
    pub fn started(&self) -> Vec<(Pipeline, OperationId)> {
        self.started.lock().unwrap().clone()
    }
}

#[async_trait]
impl Machines for MemoryMachines {
    async fn start(&self, pipeline: Pipeline, operation: &Operation) -> Result<()> {
        let mut started = self.started.lock().unwrap();
        if !started.contains(&(pipeline, operation.id)) {
            started.push((pipeline, operation.id));
        }
        Ok(())
    }

    async fn copy_again(&self, backup: &Operation) -> Result<bool> {
        self.start(Pipeline::Replicate, backup).await.map(|()| true)
    }
}
