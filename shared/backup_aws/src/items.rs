//! Rows of DynamoDB tables: how they are made, written in transactions, and read.
//!
//! Every table has a partition key `pk` and a sort key `sk`, both of them text. Every read is strongly consistent.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
use backup_core::{Error, ErrorKind, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::told;

/// How a write is refused whose condition does not hold.
pub(crate) const CONDITION_FAILED: &str = "ConditionalCheckFailedException";

/// A row.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// The key of a row.
pub(crate) fn key(pk: String, sk: String) -> Item {
    HashMap::from([("pk".to_owned(), text(pk)), ("sk".to_owned(), text(sk))])
}

pub(crate) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(crate) fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(crate) fn to_value<T: Serialize>(value: &T, attempted: &str) -> Result<AttributeValue> {
    serde_dynamo::to_attribute_value(value).map_err(|why| internal(attempted, why))
}

/// A row without its key.
pub(crate) fn to_item<T: Serialize>(value: &T) -> Result<Item> {
    serde_dynamo::to_item(value).map_err(|why| internal("write a row", why))
}

/// By way of JSON, so that rows are read by the same rules as every other stored value.
pub(crate) fn from_item<T: DeserializeOwned>(mut item: Item, attempted: &str) -> Result<T> {
    item.remove("pk");
    item.remove("sk");
    let value: Value = serde_dynamo::from_item(item).map_err(|why| internal(attempted, why))?;
    serde_json::from_value(value).map_err(|why| {
        Error::new(ErrorKind::Corrupt, format!("{attempted}: the row is not understood")).because(why)
    })
}

pub(crate) fn internal(attempted: &str, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Internal, attempted).because(why)
}

/// What there has to be in place of a row for it to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Replaces {
    /// Anything, or nothing.
    Anything,
    /// Nothing.
    Nothing,
    /// A row of this revision.
    Revision(u64),
}

/// A row as one write of a transaction.
pub(crate) fn put(table: &str, item: Item, replaces: Replaces, attempted: &str) -> Result<TransactWriteItem> {
    let put = Put::builder().table_name(table).set_item(Some(item));
    let put = match replaces {
        Replaces::Anything => put,
        Replaces::Nothing => put.condition_expression("attribute_not_exists(pk)"),
        Replaces::Revision(old) => {
            put.condition_expression("revision = :old").expression_attribute_values(":old", number(old))
        }
    };
    let put = put.build().map_err(|why| internal(attempted, why))?;
    Ok(TransactWriteItem::builder().put(put).build())
}

/// For each write of a refused transaction, whether its condition failed. Empty for any other error.
pub(crate) fn failed_conditions<R>(error: &SdkError<TransactWriteItemsError, R>) -> Vec<bool> {
    match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
            let failed: Vec<bool> = cancelled
                .cancellation_reasons()
                .iter()
                .map(|reason| reason.code() == Some("ConditionalCheckFailed"))
                .collect();
            if failed.contains(&true) { failed } else { Vec::new() }
        }
        _ => Vec::new(),
    }
}

/// Whether a transaction was refused because somebody else was writing one of its rows at that moment.
pub(crate) fn met_another<R>(error: &SdkError<TransactWriteItemsError, R>) -> bool {
    match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
            cancelled.cancellation_reasons().iter().any(|reason| reason.code() == Some("TransactionConflict"))
        }
        _ => false,
    }
}

/// The row with this key, if there is one.
pub(crate) async fn get(client: &Client, table: &str, key: Item, attempted: &str) -> Result<Option<Item>> {
    let reply = client.get_item().table_name(table).set_key(Some(key)).consistent_read(true).send().await;
    Ok(reply.map_err(|why| told(format!("{attempted} in table {table}"), why))?.item)
}

/// Which rows of a partition to list, and in what order.
#[derive(Clone, Debug)]
pub(crate) struct Rows<'a> {
    pub(crate) table: &'a str,
    pub(crate) pk: String,
    /// A condition on `sk` that has `:sk` in it, and what `:sk` stands for; none for all rows.
    pub(crate) sk: Option<(&'static str, String)>,
    /// The greatest `sk` first.
    pub(crate) descending: bool,
    /// Rows that are read at once.
    pub(crate) page_rows_max: u32,
}

impl Rows<'_> {
    /// The page that begins behind `from`, and where the next one begins, if there may be one.
    pub(crate) async fn page(
        &self,
        client: &Client,
        from: Option<Item>,
    ) -> Result<(Vec<Item>, Option<Item>)> {
        let mut condition = "pk = :pk".to_owned();
        let mut values = HashMap::from([(":pk".to_owned(), text(&self.pk))]);
        if let Some((on_sk, sk)) = &self.sk {
            condition = format!("{condition} AND {on_sk}");
            values.insert(":sk".to_owned(), text(sk));
        }
        let page = client
            .query()
            .table_name(self.table)
            .key_condition_expression(condition)
            .set_expression_attribute_values(Some(values))
            .scan_index_forward(!self.descending)
            .consistent_read(true)
            .limit(i32::try_from(self.page_rows_max).unwrap_or(i32::MAX))
            .set_exclusive_start_key(from)
            .send()
            .await
            .map_err(|why| told(format!("list in table {}", self.table), why))?;
        Ok((page.items.unwrap_or_default(), page.last_evaluated_key))
    }
}
