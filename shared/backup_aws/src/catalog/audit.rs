//! The audit trail: records that are only ever appended, each with the hash of the one before it.

use aws_sdk_dynamodb::types::{Put, TransactWriteItem};
use backup_core::audit::AuditRecord;
use backup_core::id::OperationId;
use backup_core::{Error, ErrorKind, Result};

use super::{DynamoCatalog, TRIES};
use crate::error::told;
use crate::items::{
    Replaces, failed_conditions, from_item, get, internal, key, met_another, number, put, text, to_item,
};

impl DynamoCatalog {
    pub(super) async fn append(&self, id: OperationId, record: &AuditRecord) -> Result<()> {
        let attempted = format!("write the audit record of {id}");
        for _ in 0..TRIES {
            let writes = self.link(id, record, &attempted).await?;
            match self.client.transact_write_items().set_transact_items(Some(writes)).send().await {
                Ok(_) => return Ok(()),
                Err(why) => match failed_conditions(&why).as_slice() {
                    [true, ..] => return Ok(()), // it was written before
                    [] if !met_another(&why) => return Err(told(attempted, why)),
                    _ => {} // another record comes between: chain to that one
                },
            }
        }
        Err(Error::new(ErrorKind::Transient, format!("{attempted}: others kept writing")))
    }

    /// The writes that append a record behind the newest: that it is written once, the record, the new head.
    async fn link(
        &self,
        id: OperationId,
        record: &AuditRecord,
        attempted: &str,
    ) -> Result<Vec<TransactWriteItem>> {
        let (table, pk) = (&self.audit_table, self.source.to_string());
        let mut head = key(pk.clone(), "head".into());
        let old = get(&self.client, table, head.clone(), attempted).await?.unwrap_or_default();
        let count: u64 =
            old.get("count").and_then(|it| it.as_n().ok()).and_then(|it| it.parse().ok()).unwrap_or(0);
        let previous = old.get("hash").and_then(|it| it.as_s().ok()).cloned().unwrap_or_default();
        let hash = record.link(&previous);
        let mut row = to_item(record)?;
        row.extend(key(pk.clone(), format!("record#{:012}", count + 1)));
        row.insert("previous".into(), text(&previous));
        row.insert("hash".into(), text(&hash));
        head.insert("count".into(), number(count + 1));
        head.insert("hash".into(), text(&hash));
        let head = Put::builder().table_name(table).set_item(Some(head));
        let head = match count {
            0 => head.condition_expression("attribute_not_exists(pk)"),
            _ => head
                .condition_expression("#count = :count")
                .expression_attribute_names("#count", "count")
                .expression_attribute_values(":count", number(count)),
        };
        let head = head.build().map_err(|why| internal(attempted, why))?;
        let once = key(pk, format!("once#{id}#{}", record.event()));
        Ok(vec![
            put(table, once, Replaces::Nothing, attempted)?,
            put(table, row, Replaces::Nothing, attempted)?,
            TransactWriteItem::builder().put(head).build(),
        ])
    }

    pub(super) async fn newest_records(&self, count_max: u32) -> Result<Vec<AuditRecord>> {
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
