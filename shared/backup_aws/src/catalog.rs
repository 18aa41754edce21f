//! The catalog, the leases and the audit trail, over DynamoDB. Every read is strongly consistent, every write is
//! conditional.
//!
//! | table | `pk` | `sk` | is |
//! |---|---|---|---|
//! | catalog | `backup#SOURCE`, `restore#SOURCE` | operation id | one operation |
//! | catalog | `lease#SOURCE` | `source`, `folding`, `target#DATABASE` | one lease |
//! | audit | `SOURCE` | `record#N` | the N-th audit record |
//! | audit | `SOURCE` | `head` | the number and hash of the newest record |
//! | audit | `SOURCE` | `once#ID#STATUS` | that a record was written for this operation |
//!
//! The timeline has its rows in the catalog table, too (see `timeline.rs`).

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{ConditionCheck, Put, TransactWriteItem};
use backup_core::audit::{AuditRecord, AuditStatus};
use backup_core::id::{Fence, OperationId, SourceName};
use backup_core::operation::{ChainProof, Failure, Operation, OperationKind, OperationState};
use backup_core::ports::{Catalog, Lease, Resource};
use backup_core::{Error, ErrorKind, Result};

use crate::error::{code, told};
use crate::items::{
    Item, Replaces, Rows, failed_conditions, from_item, get, internal, key, number, put, text, to_item,
    to_value,
};
use crate::sdk::Sdk;

/// Tries at a write that others may be making too.
const TRIES: u32 = 20;

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

    fn lease_key(&self, resource: &Resource) -> Item {
        let sk = match resource {
            Resource::Source => "source".to_owned(),
            Resource::Folding => "folding".to_owned(),
            Resource::Target(database) => format!("target#{database}"),
        };
        key(format!("lease#{}", self.source), sk)
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

    async fn lease_row(&self, resource: &Resource) -> Result<(Fence, Option<Lease>)> {
        let key = self.lease_key(resource);
        let item = get(&self.client, &self.catalog_table, key, "look at the lease").await?;
        let item = item.unwrap_or_default();
        let number =
            |name| item.get(name).and_then(|it| it.as_n().ok()).and_then(|it| it.parse().ok()).unwrap_or(0);
        let fence = Fence(number("fence"));
        let holder = item.get("holder").and_then(|it| it.as_s().ok()).and_then(|it| it.parse().ok());
        let lease = holder.map(|holder| Lease {
            holder,
            user: item.get("user").and_then(|it| it.as_s().ok()).cloned().unwrap_or_default(),
            fence,
            since_millis: number("since_millis"),
            expires_millis: number("expires_millis"),
        });
        Ok((fence, lease))
    }

    async fn take_lease(&self, resource: &Resource, old: Fence, new: &Lease) -> Result<bool> {
        let mut item = self.lease_key(resource);
        item.insert("holder".into(), text(new.holder.to_string()));
        item.insert("user".into(), text(&new.user));
        item.insert("fence".into(), number(new.fence.0));
        item.insert("since_millis".into(), number(new.since_millis));
        item.insert("expires_millis".into(), number(new.expires_millis));
        let put = self
            .client
            .put_item()
            .table_name(&self.catalog_table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(pk) OR fence = :old")
            .expression_attribute_values(":old", number(old.0));
        match put.send().await {
            Ok(_) => Ok(true),
            Err(why) if code(&why) == Some(CONDITION_FAILED) => Ok(false),
            Err(why) => Err(told("take the lease", why)),
        }
    }
}

const CONDITION_FAILED: &str = "ConditionalCheckFailedException";
const FINAL_STATES: [OperationState; 3] =
    [OperationState::Verified, OperationState::Restored, OperationState::Failed];

#[async_trait]
impl Catalog for DynamoCatalog {
    async fn create_operation(&self, operation: &Operation) -> Result<()> {
        let mut item = to_item(operation)?;
        item.extend(self.operation_key(operation.kind(), operation.id));
        let attempted = format!("add {}", operation.id);
        // A transaction, though of one write: the SDK repeats it under the same token if its answer is lost, while a
        // put that is repeated would meet the row it wrote.
        let write = put(&self.catalog_table, item, Replaces::Nothing, &attempted)?;
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
        let mut item = to_item(&changed)?;
        item.extend(self.operation_key(operation.kind(), operation.id));
        let replaces = Replaces::Revision(operation.revision);
        let mut writes = vec![put(&self.catalog_table, item, replaces, &attempted)?];
        if let Some(fence) = operation.fence {
            let check = ConditionCheck::builder()
                .table_name(&self.catalog_table)
                .set_key(Some(self.lease_key(&operation.resource())))
                .condition_expression("holder = :me AND fence = :fence")
                .expression_attribute_values(":me", text(operation.id.to_string()))
                .expression_attribute_values(":fence", number(fence.0));
            let check = check.build().map_err(|why| internal(&attempted, why))?;
            writes.push(TransactWriteItem::builder().condition_check(check).build());
        }
        match self.client.transact_write_items().set_transact_items(Some(writes)).send().await {
            Ok(_) => {
                operation.revision += 1;
                Ok(())
            }
            Err(why) => Err(match failed_conditions(&why).as_slice() {
                [_, true] => fenced(operation.id),
                [true, ..] => {
                    Error::new(ErrorKind::Transient, format!("{attempted}: another step wrote it meanwhile"))
                }
                _ => told(attempted, why),
            }),
        }
    }

    async fn record_failure(&self, kind: OperationKind, id: OperationId, failure: &Failure) -> Result<()> {
        let attempted = format!("note why {id} failed");
        let update = self
            .client
            .update_item()
            .table_name(&self.catalog_table)
            .set_key(Some(self.operation_key(kind, id)))
            .update_expression("SET failure = :failure")
            .expression_attribute_values(":failure", to_value(failure, &attempted)?);
        match unless_final(update, &attempted)?.send().await {
            Err(why) if code(&why) != Some(CONDITION_FAILED) => Err(told(attempted, why)),
            _ => Ok(()),
        }
    }

    async fn record_proof(&self, id: OperationId, proof: &ChainProof) -> Result<()> {
        let attempted = format!("note on {id} that it was compared");
        let update = self
            .client
            .update_item()
            .table_name(&self.catalog_table)
            .set_key(Some(self.operation_key(OperationKind::Backup, id)))
            .update_expression("SET #detail.#backup.proved_by = :proof")
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_names("#detail", "detail")
            .expression_attribute_names("#backup", "backup")
            .expression_attribute_values(":proof", to_value(proof, &attempted)?);
        update.send().await.map(|_| ()).map_err(|why| told(attempted, why))
    }

    async fn fail_operation(&self, operation: &Operation, now_millis: u64) -> Result<bool> {
        let attempted = format!("end {}", operation.id);
        let update = self
            .client
            .update_item()
            .table_name(&self.catalog_table)
            .set_key(Some(self.operation_key(operation.kind(), operation.id)))
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
        for _ in 0..TRIES {
            let (old, current) = self.lease_row(resource).await?;
            if let Some(current) = current {
                if current.holder == holder.id {
                    return Ok(current.fence);
                }
                if current.expires_millis > now_millis && !force {
                    return Err(held(resource, &current));
                }
            }
            let new = Lease {
                holder: holder.id,
                user: holder.user.clone(),
                fence: Fence(old.0 + 1),
                since_millis: now_millis,
                expires_millis: now_millis.saturating_add(seconds.saturating_mul(1000)),
            };
            if self.take_lease(resource, old, &new).await? {
                return Ok(new.fence);
            }
        }
        Err(Error::new(ErrorKind::Transient, "take the lease: others kept taking it"))
    }

    async fn check_lease(&self, operation: &Operation) -> Result<()> {
        let (fence, lease) = self.lease_row(&operation.resource()).await?;
        if lease.is_some_and(|lease| lease.holder == operation.id) && Some(fence) == operation.fence {
            return Ok(());
        }
        Err(fenced(operation.id))
    }

    async fn lease(&self, resource: &Resource, now_millis: u64) -> Result<Option<Lease>> {
        let (_, lease) = self.lease_row(resource).await?;
        Ok(lease.filter(|lease| lease.expires_millis > now_millis))
    }

    async fn release_lease(&self, resource: &Resource, holder: OperationId) -> Result<()> {
        let update = self
            .client
            .update_item()
            .table_name(&self.catalog_table)
            .set_key(Some(self.lease_key(resource)))
            .update_expression("REMOVE holder")
            .condition_expression("holder = :me")
            .expression_attribute_values(":me", text(holder.to_string()));
        match update.send().await {
            Err(why) if code(&why) != Some(CONDITION_FAILED) => Err(told("release the lease", why)),
            _ => Ok(()),
        }
    }

    async fn append_audit(&self, id: OperationId, record: &AuditRecord) -> Result<()> {
        let attempted = format!("write the audit record of {id}");
        let pk = self.source.to_string();
        let status = match record.status {
            AuditStatus::Success => "success",
            AuditStatus::Failure => "failure",
        };
        for _ in 0..TRIES {
            let head_key = key(pk.clone(), "head".into());
            let head =
                get(&self.client, &self.audit_table, head_key.clone(), &attempted).await?.unwrap_or_default();
            let count: u64 =
                head.get("count").and_then(|it| it.as_n().ok()).and_then(|it| it.parse().ok()).unwrap_or(0);
            let previous = head.get("hash").and_then(|it| it.as_s().ok()).cloned().unwrap_or_default();
            let hash = record.link(&previous);
            let mut row = to_item(record)?;
            row.extend(key(pk.clone(), format!("record#{:012}", count + 1)));
            row.insert("previous".into(), text(&previous));
            row.insert("hash".into(), text(&hash));
            let mut new_head = head_key;
            new_head.insert("count".into(), number(count + 1));
            new_head.insert("hash".into(), text(&hash));
            let once = key(pk.clone(), format!("once#{id}#{status}"));
            let head_put = Put::builder().table_name(&self.audit_table).set_item(Some(new_head));
            let head_put = match count {
                0 => head_put.condition_expression("attribute_not_exists(pk)"),
                _ => head_put
                    .condition_expression("#count = :count")
                    .expression_attribute_names("#count", "count")
                    .expression_attribute_values(":count", number(count)),
            };
            let head_put = head_put.build().map_err(|why| internal(&attempted, why))?;
            let writes = vec![
                put(&self.audit_table, once, Replaces::Nothing, &attempted)?,
                put(&self.audit_table, row, Replaces::Nothing, &attempted)?,
                TransactWriteItem::builder().put(head_put).build(),
            ];
            match self.client.transact_write_items().set_transact_items(Some(writes)).send().await {
                Ok(_) => return Ok(()),
                Err(why) => match failed_conditions(&why).as_slice() {
                    [true, ..] => return Ok(()), // it was written before
                    [] => return Err(told(attempted, why)),
                    _ => {} // another record came between: chain to that one
                },
            }
        }
        Err(Error::new(ErrorKind::Transient, format!("{attempted}: others kept writing")))
    }

    async fn audit(&self, count_max: u32) -> Result<Vec<AuditRecord>> {
        let items =
            self.query(&self.audit_table, self.source.to_string(), Some("record#"), count_max).await?;
        items
            .into_iter()
            .map(|mut item| {
                item.retain(|name, _| !matches!(name.as_str(), "previous" | "hash"));
                from_item(item, "read the audit trail")
            })
            .collect()
    }
}

/// The update of a row, on condition that its operation has not ended.
fn unless_final(update: UpdateItemFluentBuilder, attempted: &str) -> Result<UpdateItemFluentBuilder> {
    let mut update = update
        .condition_expression("attribute_exists(pk) AND NOT #state IN (:final0, :final1, :final2)")
        .expression_attribute_names("#state", "state");
    for (place, state) in FINAL_STATES.iter().enumerate() {
        update = update.expression_attribute_values(format!(":final{place}"), to_value(state, attempted)?);
    }
    Ok(update)
}

fn held(resource: &Resource, lease: &Lease) -> Error {
    let hint = match resource {
        Resource::Source => {
            format!("wait for it (`nightsafe show {}`), or take over with --force", lease.holder)
        }
        Resource::Folding => {
            format!("another backup is being folded: wait for it (`nightsafe show {}`)", lease.holder)
        }
        Resource::Target(_) => {
            format!("another restore is under way: wait for it (`nightsafe show {}`)", lease.holder)
        }
    };
    let since = backup_core::audit::iso_8601(lease.since_millis);
    let what =
        format!("take the lease: {} holds it since {since}, asked for by {}", lease.holder, lease.user);
    Error::new(ErrorKind::Conflict, what).hint(hint)
}

fn fenced(id: OperationId) -> Error {
    Error::new(ErrorKind::Fenced, format!("go on with {id}: its lease was taken over or has ended"))
        .hint("another operation holds it now; `nightsafe status` shows which")
}
