//! The timeline's part of `catalog rebuild`: rows of slices from what stands in the slices themselves, breaks from
//! their objects and from the holes between slices, and a head where the newest slice ends.
//!
//! Where a timeline has begun again meanwhile, because the schedule captures whatever was lost, it stays: what came
//! before it is put in front of it, with the break between the two.

use crate::at_once::at_once;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ObjectKey, Prefix};
use crate::id::{ClusterTime, SourceName};
use crate::plan::slices_found::{FoundTimeline, lacking, put_together};
use crate::timeline::{BREAKS_AT_ONCE_MAX, Break, SliceRecord, TimelineHead};

use super::rebuild_catalog::{Ports, Rebuilt, each_path, is_of_the_object};
use super::{path, record, slice_reader};

/// Objects read at the same time. The index of a slice may take many MiB.
const AT_ONCE: usize = 8;
/// How often the timeline is moved by others before this gives up.
const TRIES: u32 = 10;

/// Brings the timeline of `source` back, and tells what came of it.
pub(super) async fn bring_back(ports: Ports<'_>, source: SourceName, rebuilt: &mut Rebuilt) -> Result<()> {
    let objects = find(ports, source, rebuilt).await?;
    let mut put = Ok(());
    for _ in 0..TRIES {
        put = objects.put_back(ports, source, rebuilt).await;
        // Somebody began it, or moved it: look again.
        if !matches!(&put, Err(why) if matches!(why.kind(), ErrorKind::Conflict | ErrorKind::Transient)) {
            break;
        }
    }
    put?;
    rebuilt.timeline_to = ports.timeline.head().await?.map(|head| head.to);
    Ok(())
}

/// What is in one object.
enum Found {
    Slice(SliceRecord),
    Break(Break),
    Unreadable(ObjectKey, Error),
}

/// What is in all of them.
struct Objects {
    slices: Vec<SliceRecord>,
    /// In the order of the catalog.
    breaks: Vec<Break>,
}

async fn find(ports: Ports<'_>, source: SourceName, rebuilt: &mut Rebuilt) -> Result<Objects> {
    let mut keys = Vec::new();
    let note = |path: &str, bytes: u64| match ObjectKey::from_path(path) {
        Some(key @ (ObjectKey::Slice(..) | ObjectKey::Break(..))) => keys.push((key, bytes)),
        _ => rebuilt.skip(path, "no object of a timeline has this name".to_owned()),
    };
    each_path(ports.listing, Prefix::Timeline(source), note).await?;
    let mut objects = Objects { slices: Vec::new(), breaks: Vec::new() };
    let reads = keys.into_iter().map(|(key, bytes)| read(ports, source, key, bytes));
    for found in at_once(AT_ONCE, reads).await? {
        match found {
            Found::Slice(slice) => objects.slices.push(slice),
            Found::Break(it) => objects.breaks.push(it),
            Found::Unreadable(key, why) => rebuilt.skip(&path(key), why.to_string()),
        }
    }
    objects.breaks.sort_unstable_by(|one, other| {
        (one.from, one.to, &one.database).cmp(&(other.from, other.to, &other.database))
    });
    Ok(objects)
}

async fn read(ports: Ports<'_>, source: SourceName, key: ObjectKey, bytes: u64) -> Result<Found> {
    let Ports { store, keys, .. } = ports;
    let read = match key {
        ObjectKey::Slice(_, from, slice) => {
            slice_reader::describe(store, keys, source, from, slice, bytes).await.map(Found::Slice)
        }
        other => record::open_break(store, keys, source, other).await.map(Found::Break),
    };
    match read {
        Err(why) if is_of_the_object(&why) => Ok(Found::Unreadable(key, why)),
        read => read,
    }
}

impl Objects {
    async fn put_back(&self, ports: Ports<'_>, source: SourceName, rebuilt: &mut Rebuilt) -> Result<()> {
        let (timeline, now) = (ports.timeline, ports.clock.now_millis());
        let Some(head) = timeline.head().await? else {
            let Some(whole) = put_together(self.slices.clone(), &self.breaks, now) else { return Ok(()) };
            self.keep_new(ports, source, &whole.breaks).await?;
            timeline.bring_back(&whole.head, &whole.slices, &whole.breaks).await?;
            rebuilt.slices += count(&whole.slices);
            rebuilt.breaks += count(&whole.breaks);
            return Ok(());
        };
        let (first, last) = (ClusterTime::from_u64(0), ClusterTime::from_u64(u64::MAX));
        let (rows, known) = (timeline.slices(first, last).await?, timeline.breaks().await?);
        let lacking = lacking(&head, &rows, &known, &self.slices, &self.breaks, now);
        self.keep_new(ports, source, &lacking.breaks).await?;
        add(ports, head, lacking, rebuilt).await
    }

    /// Every break has its object, those that only show now as well: other regions get them as objects.
    async fn keep_new(&self, ports: Ports<'_>, source: SourceName, breaks: &[Break]) -> Result<()> {
        let new: Vec<Break> = breaks.iter().filter(|it| !self.breaks.contains(it)).cloned().collect();
        record::keep_breaks(ports.store, ports.keys, source, &new).await
    }
}

/// Where it begins comes last: until then no time before the head's own beginning is in a window.
async fn add(
    ports: Ports<'_>,
    mut head: TimelineHead,
    lacking: FoundTimeline,
    rebuilt: &mut Rebuilt,
) -> Result<()> {
    for slice in &lacking.slices {
        ports.timeline.advance(&head, Some(slice), &[]).await?;
        head.revision += 1;
        rebuilt.slices += 1;
    }
    for breaks in lacking.breaks.chunks(BREAKS_AT_ONCE_MAX) {
        ports.timeline.advance(&head, None, breaks).await?;
        head.revision += 1;
        rebuilt.breaks += count(breaks);
    }
    let (began, since) = (lacking.head.began, lacking.head.since);
    if (began, since) == (head.began, head.since) {
        return Ok(());
    }
    ports.timeline.advance(&TimelineHead { began, since, ..head }, None, &[]).await
}

fn count<T>(all: &[T]) -> u64 {
    u64::try_from(all.len()).unwrap_or(u64::MAX)
}
