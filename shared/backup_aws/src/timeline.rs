//! The timeline, over DynamoDB: rows of the catalog's table. Every read is strongly consistent; the head is moved on
//! condition that it is as it was read, and what comes with a move is written in the same transaction.
//!
//! | `pk` | `sk` | is |
//! |---|---|---|
//! | `timeline#SOURCE` | `head` | how far the timeline is |
//! | `slice#SOURCE` | `FROM.SLICE` | one slice |
//! | `break#SOURCE` | `FROM.TO` | one break of every database |
//! | `break#SOURCE` | `FROM.TO#DATABASE` | one break of one database |
//!
//! `FROM` and `TO` are cluster times as text that sorts by time: ten digits of seconds, a dot, ten of the ordinal.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::TransactWriteItem;
use backup_core::id::{ClusterTime, SourceName};
use backup_core::ports::Timeline;
use backup_core::timeline::{BREAKS_AT_ONCE_MAX, Break, SliceRecord, TimelineHead};
use backup_core::{Error, ErrorKind, Result};

use crate::error::told;
use crate::items::{Item, Replaces, Rows, failed_conditions, from_item, get, key, put, to_item};
use crate::sdk::Sdk;

/// Rows that are read at once: some hours of slices.
const PAGE_ROWS_MAX: u32 = 100;

/// The timeline of one source, in the catalog's table.
#[derive(Clone, Debug)]
pub struct DynamoTimeline {
    client: Client,
    table: String,
    source: SourceName,
}

impl DynamoTimeline {
    /// The timeline of `source` in the catalog's table.
    #[must_use]
    pub fn new(sdk: &Sdk, catalog_table: String, source: SourceName) -> Self {
        Self { client: Client::new(&sdk.config), table: catalog_table, source }
    }

    fn head_key(&self) -> Item {
        key(format!("timeline#{}", self.source), "head".to_owned())
    }

    fn slices_key(&self) -> String {
        format!("slice#{}", self.source)
    }

    fn breaks_key(&self) -> String {
        format!("break#{}", self.source)
    }

    fn put_head(
        &self,
        head: &TimelineHead,
        replaces: Replaces,
        attempted: &str,
    ) -> Result<TransactWriteItem> {
        let mut item = to_item(head)?;
        item.extend(self.head_key());
        put(&self.table, item, replaces, attempted)
    }

    fn put_slice(&self, slice: &SliceRecord, attempted: &str) -> Result<TransactWriteItem> {
        let mut item = to_item(slice)?;
        item.extend(key(self.slices_key(), format!("{}.{}", sortable(slice.from), slice.slice)));
        put(&self.table, item, Replaces::Nothing, attempted)
    }

    /// A transaction refuses two writes of one row, so what is the same stretch of the same database is one.
    fn put_breaks(&self, breaks: &[Break], attempted: &str) -> Result<Vec<TransactWriteItem>> {
        let rows: BTreeMap<String, &Break> = breaks.iter().map(|it| (break_sk(it), it)).collect();
        if rows.len() > BREAKS_AT_ONCE_MAX {
            let what = format!("{attempted}: {} breaks at once, more than {BREAKS_AT_ONCE_MAX}", rows.len());
            return Err(Error::new(ErrorKind::Internal, what));
        }
        let writes = rows.into_iter().map(|(sk, it)| {
            let mut item = to_item(it)?;
            item.extend(key(self.breaks_key(), sk));
            put(&self.table, item, Replaces::Anything, attempted)
        });
        writes.collect()
    }
}

#[async_trait]
impl Timeline for DynamoTimeline {
    async fn head(&self) -> Result<Option<TimelineHead>> {
        let attempted = "look up how far the timeline is";
        let item = get(&self.client, &self.table, self.head_key(), attempted).await?;
        item.map(|item| from_item(item, attempted)).transpose()
    }

    async fn begin(&self, head: &TimelineHead) -> Result<TimelineHead> {
        let attempted = "begin the timeline";
        let write = self.put_head(head, Replaces::Nothing, attempted)?;
        match self.client.transact_write_items().transact_items(write).send().await {
            Err(why) if failed_conditions(&why) != [true] => return Err(told(attempted, why)),
            _ => {} // whoever began it
        }
        let gone = || Error::new(ErrorKind::Internal, format!("{attempted}: its row is not there"));
        self.head().await?.ok_or_else(gone)
    }

    async fn advance(
        &self,
        head: &TimelineHead,
        slice: Option<&SliceRecord>,
        breaks: &[Break],
    ) -> Result<()> {
        let attempted = "move the timeline";
        let moved = TimelineHead { revision: head.revision + 1, ..head.clone() };
        let mut writes = vec![self.put_head(&moved, Replaces::Revision(head.revision), attempted)?];
        if let Some(slice) = slice {
            writes.push(self.put_slice(slice, attempted)?);
        }
        writes.extend(self.put_breaks(breaks, attempted)?);
        match self.client.transact_write_items().set_transact_items(Some(writes)).send().await {
            Ok(_) => Ok(()),
            Err(why) => Err(match failed_conditions(&why).as_slice() {
                [true, ..] => {
                    Error::new(ErrorKind::Transient, format!("{attempted}: another run moved it meanwhile"))
                }
                [_, true, ..] => {
                    Error::new(ErrorKind::Internal, format!("{attempted}: it has the slice already"))
                }
                _ => told(attempted, why),
            }),
        }
    }

    async fn slices(&self, from: ClusterTime, to: ClusterTime) -> Result<Vec<SliceRecord>> {
        let rows = Rows {
            table: &self.table,
            pk: self.slices_key(),
            // Of a slice that begins at `to`, the row's name goes on behind these characters, so it is greater.
            sk: Some(("sk < :sk", sortable(to))),
            descending: true,
            page_rows_max: PAGE_ROWS_MAX,
        };
        let (mut slices, mut next, mut is_behind) = (Vec::new(), None, false);
        while !is_behind {
            let (page, behind) = rows.page(&self.client, next).await?;
            for item in page {
                let slice: SliceRecord = from_item(item, "list slices")?;
                // No two of them overlap: all that is older than this one ended by `from`, too.
                is_behind = slice.to <= from;
                if is_behind {
                    break;
                }
                slices.push(slice);
            }
            is_behind = is_behind || behind.is_none();
            next = behind;
        }
        slices.reverse();
        Ok(slices)
    }

    async fn breaks(&self) -> Result<Vec<Break>> {
        let rows = Rows {
            table: &self.table,
            pk: self.breaks_key(),
            sk: None,
            descending: false,
            page_rows_max: PAGE_ROWS_MAX,
        };
        let (mut breaks, mut next) = (Vec::new(), None);
        loop {
            let (page, behind) = rows.page(&self.client, next).await?;
            for item in page {
                breaks.push(from_item(item, "list breaks of the timeline")?);
            }
            next = behind;
            if next.is_none() {
                return Ok(breaks);
            }
        }
    }
}

fn break_sk(it: &Break) -> String {
    let stretch = format!("{}.{}", sortable(it.from), sortable(it.to));
    match &it.database {
        Some(database) => format!("{stretch}#{database}"),
        None => stretch,
    }
}

/// Text that sorts as cluster times do.
fn sortable(time: ClusterTime) -> String {
    format!("{:010}.{:010}", time.seconds, time.ordinal)
}

#[cfg(test)]
mod tests {
    use backup_core::timeline::BreakReason;

    use super::*;

    #[test]
    fn rows_sort_by_time() {
        let times = [(0, 1), (9, 4_000_000_000), (10, 2), (10, 11), (4_294_967_295, 0)];
        let texts = times.map(|(seconds, ordinal)| sortable(ClusterTime { seconds, ordinal }));
        assert!(texts.is_sorted(), "{texts:?}");
        assert!(texts.iter().all(|text| text.len() == 21));
    }

    #[test]
    fn a_break_has_one_name() {
        let time = |ordinal| ClusterTime { seconds: 7, ordinal };
        let name = |from, to, database: Option<&str>| {
            let (from, to, database) = (time(from), time(to), database.map(str::to_owned));
            break_sk(&Break { from, to, database, reason: BreakReason::HistoryLost, noticed_millis: 0 })
        };
        assert_eq!(name(1, 2, None), "0000000007.0000000001.0000000007.0000000002");
        assert_eq!(name(1, 2, Some("crm")), "0000000007.0000000001.0000000007.0000000002#crm");
        assert!(name(1, 3, None) < name(2, 2, Some("crm")), "by where they begin");
        assert_ne!(name(1, 2, None), name(1, 2, Some("*")), "a database may have this name");
    }
}
