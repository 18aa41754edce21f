//! Leases: who works on what. The row of a lease is never removed, so that its fence never comes again.

use aws_sdk_dynamodb::types::{ConditionCheck, TransactWriteItem};
use backup_core::id::{Fence, OperationId};
use backup_core::operation::Operation;
use backup_core::ports::{Lease, Resource};
use backup_core::{Error, ErrorKind, Result};

use super::{DynamoCatalog, TRIES};
use crate::error::{code, told};
use crate::items::{CONDITION_FAILED, Item, get, internal, key, number, text};

impl DynamoCatalog {
    fn lease_key(&self, resource: &Resource) -> Item {
        let sk = match resource {
            Resource::Source => "source".to_owned(),
            Resource::Folding => "folding".to_owned(),
            Resource::Target(database) => format!("target#{database}"),
            Resource::Drills => "drills".to_owned(),
            Resource::Shelves => "shelves".to_owned(),
        };
        key(format!("lease#{}", self.source), sk)
    }

    /// The newest fence, and the lease if somebody has it, be it over or not.
    pub(super) async fn lease_row(&self, resource: &Resource) -> Result<(Fence, Option<Lease>)> {
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

    pub(super) async fn acquire(
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

    pub(super) async fn check(&self, operation: &Operation) -> Result<()> {
        let (fence, lease) = self.lease_row(&operation.resource()).await?;
        if lease.is_some_and(|lease| lease.holder == operation.id) && Some(fence) == operation.fence {
            return Ok(());
        }
        Err(fenced(operation.id))
    }

    /// Lets a transaction fail unless the operation holds its lease.
    pub(super) fn while_held(
        &self,
        operation: &Operation,
        fence: Fence,
        attempted: &str,
    ) -> Result<TransactWriteItem> {
        let check = ConditionCheck::builder()
            .table_name(&self.catalog_table)
            .set_key(Some(self.lease_key(&operation.resource())))
            .condition_expression("holder = :me AND fence = :fence")
            .expression_attribute_values(":me", text(operation.id.to_string()))
            .expression_attribute_values(":fence", number(fence.0));
        let check = check.build().map_err(|why| internal(attempted, why))?;
        Ok(TransactWriteItem::builder().condition_check(check).build())
    }

    pub(super) async fn release(&self, resource: &Resource, holder: OperationId) -> Result<()> {
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
}

fn held(resource: &Resource, lease: &Lease) -> Error {
    let what = match resource {
        Resource::Source => {
            let hint = format!("wait for it (`nightsafe show {}`), or take over with --force", lease.holder);
            return conflict(lease, hint);
        }
        Resource::Folding => "another backup is being folded",
        Resource::Target(_) => "another restore is under way",
        Resource::Drills => "another drill is under way",
        Resource::Shelves => "backups are being removed by another run",
    };
    conflict(lease, format!("{what}: wait for it (`nightsafe show {}`)", lease.holder))
}

fn conflict(lease: &Lease, hint: String) -> Error {
    let since = backup_core::audit::iso_8601(lease.since_millis);
    let what =
        format!("take the lease: {} holds it since {since}, asked for by {}", lease.holder, lease.user);
    Error::new(ErrorKind::Conflict, what).hint(hint)
}

/// What a step is told that lost its lease.
pub(super) fn fenced(id: OperationId) -> Error {
    Error::new(ErrorKind::Fenced, format!("go on with {id}: its lease was taken over or has ended"))
        .hint("another operation holds it now; `nightsafe status` shows which")
}
