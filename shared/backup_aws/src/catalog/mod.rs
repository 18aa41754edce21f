//! The catalog, the leases and the audit trail, over DynamoDB. Every read is strongly consistent, every write is
//! conditional.
//!
//! | table | `pk` | `sk` | is |
//! |---|---|---|---|
//! | catalog | `backup#SOURCE`, `restore#SOURCE`, `drill#SOURCE`, `prune#SOURCE` | operation id | one operation |
//! | catalog | `lease#SOURCE` | `source`, `folding`, `target#DATABASE`, `drills`, `shelves` | one lease |
//! | catalog | `watch#SOURCE` | `state` | what the watch told people |
//! | audit | `SOURCE` | `record#N` | the N-th audit record |
//! | audit | `SOURCE` | `head` | the number and hash of the newest record |
//! | audit | `SOURCE` | `once#ID#EVENT` | that a record was written for this operation |
//!
//! The timeline has its rows in the catalog table, too (see `timeline.rs`).

mod audit;
mod leases;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::TransactWriteItem;
use backup_core::audit::AuditRecord;
use backup_core::id::{Fence, OperationId, SourceName};
use backup_core::operation::{BackupNote, Failure, Operation, OperationKind, OperationState};
use backup_core::ports::{Catalog, Lease, Resource};
use backup_core::watch::WatchState;
use backup_core::{Error, ErrorKind, Result};

use crate::error::{code, told};
use crate::items::{
    CONDITION_FAILED, Item, Replaces, Rows, failed_conditions, from_item, get, key, number, put, to_item,
    to_value,
};
use crate::sdk::Sdk;

/// Tries at a write that others may be making too.
const TRIES: u32 = 20;

/// Of an operation in one of these, nothing is changed any more but what is noted of a backup.
const FINAL_STATES: [OperationState; 4] =
    [OperationState::Verified, OperationState::Restored, OperationState::Done, OperationState::Failed];

/// The two tables, for one source.
#[derive(Clone, Debug)]
pub struct DynamoCatalog {
    client: Client,
    catalog_table: String,
    audit_table: String,
    source: SourceName,
}

impl DynamoCatalog {
    /// The tables with these names, for `source`.
    #[must_use]
    pub fn new(sdk: &Sdk, catalog_table: String, audit_table: String, source: SourceName) -> Self {
        Self { client: Client::new(&sdk.config), catalog_table, audit_table, source }
    }

    fn operation_key(&self, kind: OperationKind, id: OperationId) -> Item {
        key(format!("{kind}#{}", self.source), id.to_string())
    }

    fn watch_key(&self) -> Item {
        key(format!("watch#{}", self.source), "state".to_owned())
    }

    fn put_operation(
        &self,
        operation: &Operation,
        replaces: Replaces,
        attempted: &str,
    ) -> Result<TransactWriteItem> {
        let mut item = to_item(operation)?;
        item.extend(self.operation_key(operation.kind(), operation.id));
        put(&self.catalog_table, item, replaces, attempted)
    }

    /// An update of an operation's row, without its condition.
    fn update(&self, kind: OperationKind, id: OperationId) -> UpdateItemFluentBuilder {
        let update = self.client.update_item().table_name(&self.catalog_table);
        update.set_key(Some(self.operation_key(kind, id)))
    }

    /// The newest rows of a partition, newest first: all of them, or those whose `sk` begins with `prefix`.
    async fn query(
        &self,
        table: &str,
        pk: String,
        prefix: Option<&str>,
        count_max: u32,
    ) -> Result<Vec<Item>> {
        let rows = Rows {
            table,
            pk,
            sk: prefix.map(|prefix| ("begins_with(sk, :sk)", prefix.to_owned())),
            descending: true,
            page_rows_max: count_max.min(1000),
        };
        let wanted = usize::try_from(count_max).unwrap_or(usize::MAX);
        let (mut items, mut from) = (Vec::new(), None);
        loop {
            let (page, next) = rows.page(&self.client, from).await?;
            items.extend(page);
            from = next;
            if items.len() >= wanted || from.is_none() {
                items.truncate(wanted);
                return Ok(items);
            }
        }
    }
}

#[async_trait]
impl Catalog for DynamoCatalog {
    async fn create_operation(&self, operation: &Operation) -> Result<()> {
        let attempted = format!("add {}", operation.id);
        // A transaction, though of one write: the SDK repeats it under the same token if its answer is lost, while a
        // put that is repeated would meet the row it wrote.
        let write = self.put_operation(operation, Replaces::Nothing, &attempted)?;
        match self.client.transact_write_items().transact_items(write).send().await {
            Ok(_) => Ok(()),
            Err(why) if failed_conditions(&why) == [true] => {
                Err(Error::new(ErrorKind::Conflict, format!("{attempted}: it exists")))
            }
            Err(why) => Err(told(attempted, why)),
        }
    }

    async fn operation(&self, kind: OperationKind, id: OperationId) -> Result<Operation> {
        let attempted = format!("look up {kind} {id}");
        let item = get(&self.client, &self.catalog_table, self.operation_key(kind, id), &attempted).await?;
        let item = item.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("{attempted}: the catalog has none"))
                .hint("`nightsafe list` shows what there is")
        })?;
        let row: Operation = from_item(item, &attempted)?;
        if (row.kind(), row.id) != (kind, id) {
            return Err(Error::new(ErrorKind::Corrupt, format!("{attempted}: the row is another's")));
        }
        Ok(row)
    }

    async fn operations(&self, kind: OperationKind, count_max: u32) -> Result<Vec<Operation>> {
        let items =
            self.query(&self.catalog_table, format!("{kind}#{}", self.source), None, count_max).await?;
        items.into_iter().map(|item| from_item(item, "list operations")).collect()
    }

    async fn update_operation(&self, operation: &mut Operation) -> Result<()> {
        let attempted = format!("update {}", operation.id);
        let mut changed = operation.clone();
        changed.revision += 1;
        let replaces = Replaces::Revision(operation.revision);
        let mut writes = vec![self.put_operation(&changed, replaces, &attempted)?];
        if let Some(fence) = operation.fence {
            writes.push(self.while_held(operation, fence, &attempted)?);
        }
        match self.client.transact_write_items().set_transact_items(Some(writes)).send().await {
            Ok(_) => {
                operation.revision += 1;
                Ok(())
            }
            Err(why) => Err(match failed_conditions(&why).as_slice() {
                [_, true] => leases::fenced(operation.id),
                [true, ..] => written_meanwhile(&attempted),
                _ => told(attempted, why),
            }),
        }
    }

    async fn record_failure(&self, kind: OperationKind, id: OperationId, failure: &Failure) -> Result<()> {
        let attempted = format!("note why {id} failed");
        let update = self
            .update(kind, id)
            .update_expression("SET failure = :failure")
            .expression_attribute_values(":failure", to_value(failure, &attempted)?);
        match unless_final(update, &attempted)?.send().await {
            Err(why) if code(&why) != Some(CONDITION_FAILED) => Err(told(attempted, why)),
            _ => Ok(()),
        }
    }

    async fn note(&self, id: OperationId, note: &BackupNote) -> Result<Operation> {
        let attempted = format!("write a note to {id}");
        for _ in 0..TRIES {
            let mut row = self.operation(OperationKind::Backup, id).await?;
            let read = row.revision;
            note.apply(row.backup_mut()?);
            row.revision += 1;
            // The detail alone: what its steps write beside it meanwhile stays.
            let update = self
                .update(OperationKind::Backup, id)
                .update_expression("SET #detail = :detail, revision = :new")
                .condition_expression("revision = :old")
                .expression_attribute_names("#detail", "detail")
                .expression_attribute_values(":detail", to_value(&row.detail, &attempted)?)
                .expression_attribute_values(":old", number(read))
                .expression_attribute_values(":new", number(row.revision));
            match update.send().await {
                Ok(_) => return Ok(row),
                Err(why) if was_beaten(code(&why)) => {}
                Err(why) => return Err(told(attempted, why)),
            }
        }
        Err(Error::new(ErrorKind::Transient, format!("{attempted}: others kept writing it")))
    }

    async fn forget(&self, operation: &Operation) -> Result<()> {
        let attempted = format!("forget {}", operation.id);
        let delete = self
            .client
            .delete_item()
            .table_name(&self.catalog_table)
            .set_key(Some(self.operation_key(operation.kind(), operation.id)))
            .condition_expression("attribute_not_exists(pk) OR revision = :old")
            .expression_attribute_values(":old", number(operation.revision));
        match delete.send().await {
            Ok(_) => Ok(()),
            Err(why) if code(&why) == Some(CONDITION_FAILED) => Err(written_meanwhile(&attempted)),
            Err(why) => Err(told(attempted, why)),
        }
    }

    async fn fail_operation(&self, operation: &Operation, now_millis: u64) -> Result<bool> {
        let attempted = format!("end {}", operation.id);
        let update = self
            .update(operation.kind(), operation.id)
            .update_expression(
                "SET #state = :failed, finished_millis = :now, failure = :failure, revision = revision + :one",
            )
            .expression_attribute_values(":failed", to_value(&OperationState::Failed, &attempted)?)
            .expression_attribute_values(":now", number(now_millis))
            .expression_attribute_values(":one", number(1))
            .expression_attribute_values(":failure", to_value(&operation.failure, &attempted)?);
        match unless_final(update, &attempted)?.send().await {
            Ok(_) => Ok(true),
            Err(why) if code(&why) == Some(CONDITION_FAILED) => Ok(false),
            Err(why) => Err(told(attempted, why)),
        }
    }

    async fn acquire_lease(
        &self,
        resource: &Resource,
        holder: &Operation,
        force: bool,
        now_millis: u64,
        seconds: u64,
    ) -> Result<Fence> {
        self.acquire(resource, holder, force, now_millis, seconds).await
    }

    async fn check_lease(&self, operation: &Operation) -> Result<()> {
        self.check(operation).await
    }

    async fn lease(&self, resource: &Resource, now_millis: u64) -> Result<Option<Lease>> {
        let (_, lease) = self.lease_row(resource).await?;
        Ok(lease.filter(|lease| lease.expires_millis > now_millis))
    }

    async fn release_lease(&self, resource: &Resource, holder: OperationId) -> Result<()> {
        self.release(resource, holder).await
    }

    async fn append_audit(&self, id: OperationId, record: &AuditRecord) -> Result<()> {
        self.append(id, record).await
    }

    async fn audit(&self, count_max: u32) -> Result<Vec<AuditRecord>> {
        self.newest_records(count_max).await
    }

    async fn watch_state(&self) -> Result<WatchState> {
        let attempted = "look up what people were told";
        let item = get(&self.client, &self.catalog_table, self.watch_key(), attempted).await?;
        item.map_or_else(|| Ok(WatchState::default()), |item| from_item(item, attempted))
    }

    async fn set_watch_state(&self, state: &WatchState) -> Result<()> {
        let attempted = "note what people were told";
        let replaces = match state.revision {
            0 => Replaces::Nothing, // the count of a row that nobody wrote
            old => Replaces::Revision(old),
        };
        let mut item = to_item(&WatchState { revision: state.revision + 1, ..state.clone() })?;
        item.extend(self.watch_key());
        let write = put(&self.catalog_table, item, replaces, attempted)?;
        match self.client.transact_write_items().transact_items(write).send().await {
            Ok(_) => Ok(()),
            Err(why) if failed_conditions(&why) == [true] => Err(written_meanwhile(attempted)),
            Err(why) => Err(told(attempted, why)),
        }
    }
}

/// The update of a row, on condition that its operation has not ended.
fn unless_final(update: UpdateItemFluentBuilder, attempted: &str) -> Result<UpdateItemFluentBuilder> {
    let names: Vec<String> = (0..FINAL_STATES.len()).map(|place| format!(":final{place}")).collect();
    let condition = format!("attribute_exists(pk) AND NOT #state IN ({})", names.join(", "));
    let mut update = update.condition_expression(condition).expression_attribute_names("#state", "state");
    for (name, state) in names.into_iter().zip(FINAL_STATES) {
        update = update.expression_attribute_values(name, to_value(&state, attempted)?);
    }
    Ok(update)
}

/// Whether a write was refused because somebody else wrote the row since it was read, or is just writing it.
fn was_beaten(code: Option<&str>) -> bool {
    matches!(code, Some(CONDITION_FAILED | "TransactionConflictException"))
}

fn written_meanwhile(attempted: &str) -> Error {
    Error::new(ErrorKind::Transient, format!("{attempted}: another step wrote it meanwhile"))
}

#[cfg(test)]
mod tests {
    use backup_core::operation::OperationState::{Planned, Requested, Running, Sealed};

    use super::*;

    #[test]
    fn the_final_states_are_all_there_are() {
        assert!(FINAL_STATES.iter().all(|state| state.is_final()));
        assert!(![Requested, Planned, Running, Sealed].into_iter().any(OperationState::is_final));
    }
}
