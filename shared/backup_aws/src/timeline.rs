//! The timeline, over DynamoDB: rows of the catalog's table. Every read is strongly consistent; the head is moved on
//! condition that it is as it was read, and what comes with a move is written in the same transaction.
//!
//! | `pk` | `sk` | is |
//! |---|---|---|
//! | `timeline#SOURCE` | `head` | how far the timeline is |
//! | `timeline#SOURCE` | `replicated#REGION` | how far its copy in a region is |
//! | `slice#SOURCE` | `FROM.SLICE` | one slice |
//! | `break#SOURCE` | `FROM.TO` | one break of every database |
//! | `break#SOURCE` | `FROM.TO#DATABASE` | one break of one database |
//!
//! `FROM` and `TO` are cluster times as text that sorts by time: ten digits of seconds, a dot, ten of the ordinal.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::TransactWriteItem;
use backup_core::id::{ClusterTime, RegionName, SourceName};
use backup_core::ports::Timeline;
use backup_core::timeline::{BREAKS_AT_ONCE_MAX, Break, ReplicatedTimeline, SliceRecord, TimelineHead};
use backup_core::{Error, ErrorKind, Result};

use crate::error::{code, told};
use crate::items::{
    CONDITION_FAILED, Item, Replaces, Rows, failed_conditions, from_item, get, key, number, put, to_item,
};
use crate::sdk::Sdk;

/// Rows that are read at once: some hours of slices.
const PAGE_ROWS_MAX: u32 = 100;
/// Rows that a transaction takes.
const ROWS_AT_ONCE_MAX: usize = 100;
/// In the row of a copy beside what it says: how far it is, as a number that can be compared.
const REACH: &str = "reach";

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

    fn replicated_key(&self, region: RegionName) -> Item {
        key(format!("timeline#{}", self.source), format!("replicated#{region}"))
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

    fn slice_key(&self, slice: &SliceRecord) -> Item {
        key(self.slices_key(), format!("{}.{}", sortable(slice.from), slice.slice))
    }

    fn put_slice(
        &self,
        slice: &SliceRecord,
        replaces: Replaces,
        attempted: &str,
    ) -> Result<TransactWriteItem> {
        let mut item = to_item(slice)?;
        item.extend(self.slice_key(slice));
        put(&self.table, item, replaces, attempted)
    }

    /// A transaction refuses two writes of one row, so what is the same stretch of the same database is one.
    fn put_breaks(&self, breaks: &[Break], attempted: &str) -> Result<Vec<TransactWriteItem>> {
        let rows: BTreeMap<String, &Break> = breaks.iter().map(|it| (break_sk(it), it)).collect();
        let writes = rows.into_iter().map(|(sk, it)| {
            let mut item = to_item(it)?;
            item.extend(key(self.breaks_key(), sk));
            put(&self.table, item, Replaces::Anything, attempted)
        });
        writes.collect()
    }

    /// A slice stands for one row only once, as a break does.
    fn put_slices(&self, slices: &[SliceRecord], attempted: &str) -> Result<Vec<TransactWriteItem>> {
        let rows: BTreeMap<_, &SliceRecord> = slices.iter().map(|it| ((it.from, it.slice), it)).collect();
        rows.into_values().map(|it| self.put_slice(it, Replaces::Anything, attempted)).collect()
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
            writes.push(self.put_slice(slice, Replaces::Nothing, attempted)?);
        }
        let breaks = self.put_breaks(breaks, attempted)?;
        if breaks.len() > BREAKS_AT_ONCE_MAX {
            let what =
                format!("{attempted}: {} breaks at once, more than {BREAKS_AT_ONCE_MAX}", breaks.len());
            return Err(Error::new(ErrorKind::Internal, what));
        }
        writes.extend(breaks);
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

    async fn forget_slice(&self, slice: &SliceRecord) -> Result<()> {
        let delete =
            self.client.delete_item().table_name(&self.table).set_key(Some(self.slice_key(slice))).send();
        delete.await.map(|_| ()).map_err(|why| told("forget a slice of the timeline", why))
    }

    async fn bring_back(&self, head: &TimelineHead, slices: &[SliceRecord], breaks: &[Break]) -> Result<()> {
        let attempted = "bring the timeline back";
        let there_is_one = || {
            Error::new(ErrorKind::Conflict, format!("{attempted}: there is one"))
                .hint("it is brought back only where the table has none")
        };
        if self.head().await?.is_some() {
            return Err(there_is_one());
        }
        let mut rows = self.put_slices(slices, attempted)?;
        rows.extend(self.put_breaks(breaks, attempted)?);
        for batch in rows.chunks(ROWS_AT_ONCE_MAX) {
            let write = self.client.transact_write_items().set_transact_items(Some(batch.to_vec()));
            write.send().await.map_err(|why| told(attempted, why))?;
        }
        // The head comes last: with it, everything is there.
        let write = self.put_head(head, Replaces::Nothing, attempted)?;
        match self.client.transact_write_items().transact_items(write).send().await {
            Ok(_) => Ok(()),
            Err(why) if failed_conditions(&why) == [true] => Err(there_is_one()),
            Err(why) => Err(told(attempted, why)),
        }
    }

    async fn replicated(&self, region: RegionName) -> Result<Option<ReplicatedTimeline>> {
        let attempted = "look up how far the copy of the timeline is";
        let item = get(&self.client, &self.table, self.replicated_key(region), attempted).await?;
        item.map(|mut item| {
            item.remove(REACH);
            from_item(item, attempted)
        })
        .transpose()
    }

    async fn set_replicated(&self, region: RegionName, replicated: &ReplicatedTimeline) -> Result<()> {
        let attempted = "note how far the copy of the timeline is";
        let reach = number(replicated.to.to_u64());
        let mut item = to_item(replicated)?;
        item.extend(self.replicated_key(region));
        item.insert(REACH.to_owned(), reach.clone());
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression(format!("attribute_not_exists(pk) OR {REACH} <= :reach"))
            .expression_attribute_values(":reach", reach);
        match put.send().await {
            Err(why) if code(&why) != Some(CONDITION_FAILED) => Err(told(attempted, why)),
            _ => Ok(()), // or it is further already
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
