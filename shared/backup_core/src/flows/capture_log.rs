//! `capture-log`: archives the source's changes since the last time as slices, and moves the timeline's head.
//!
//! A slice is stored first; the head and the slice's row are written together, and only by whoever saw the newest
//! head. Killed anywhere, the next run reads on from where the head is; run twice at once, one of them finds that
//! the head has moved, and goes on from there. What nobody's row names is rubbish, and is read by nobody.

use bson::RawDocument;
use bytes::Bytes;

use crate::alert::Alert;
use crate::bson::split_documents;
use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::id::{ClusterTime, SourceName};
use crate::ports::{
    Alerts, Catalog, ChangeStream, Changes, Clock, DataKeys, Machines, ObjectStore, Source, Timeline,
};
use crate::settings::{MIB, Settings};
use crate::timeline::{
    Break, BreakReason, Event, EventBatch, Position, ResumeToken, SliceRecord, TimelineHead,
};

use super::slice_writer::SliceWriter;

/// Nothing new is begun with less time than this: a slice is read, sealed and stored in a few seconds.
const SLICE_MILLIS_MIN: u64 = 60_000;
/// A slice is closed once it holds so much: what is captured in a run that dies is captured again.
const SLICE_BYTES: u64 = 64 * MIB;
/// A slice is closed once it interrupts so many databases: they are written together with it.
const BREAKS_MAX: usize = 16;
/// How often it is looked whether time went on; each look lasts a second or so.
const ROUNDS_MAX: u32 = 20;
/// Without any change, the head moves alone, but this long at most: whoever has lost the catalog knows the timeline by
/// its slices.
const IDLE_SECONDS_MAX: u32 = 3600;
/// The procedures' objective for transaction logs: people are told once the head has not moved for as long.
const LAG_MILLIS_MAX: u64 = 3_600_000;

/// The ports of this step.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The source's changes.
    pub changes: &'a dyn Changes,
    /// The source, for its cluster time.
    pub source: &'a dyn Source,
    /// The bucket.
    pub store: &'a dyn ObjectStore,
    /// The key service (slices are only sealed).
    pub keys: &'a dyn DataKeys,
    /// The timeline.
    pub timeline: &'a dyn Timeline,
    /// The catalog, for the backups there are.
    pub catalog: &'a dyn Catalog,
    /// The state machines, to start a new base.
    pub machines: &'a dyn Machines,
    /// The channels to people.
    pub alerts: &'a dyn Alerts,
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Who wants the changes archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The schedule. It is also what keeps the windows open: it starts backups that are wanted.
    Schedule,
    /// A backup that is to be compared with the one before it: the timeline has to get behind its instant.
    Backup,
}

/// Runs the step for `source` until everything is archived, or time is short.
pub async fn run(ports: Ports<'_>, settings: &Settings, source: SourceName, caller: Caller) -> Result<()> {
    let begun = begin(ports).await?;
    let now = ports.source.cluster_time().await?;
    let capture = Capture { ports, settings, source, now };
    let done = match caller {
        Caller::Schedule => capture.catch_up(begun).await,
        Caller::Backup => capture.get_behind_now(begun).await,
    };
    match done {
        Ok(()) if caller == Caller::Backup => Ok(()),
        Ok(()) => super::upkeep::start_wanted(ports, source).await,
        Err(why) => {
            tell_lag(ports, source, &why).await?;
            Err(why)
        }
    }
}

/// The head; a timeline that has not begun begins now.
pub(super) async fn begin_at_now(
    source: &dyn Source,
    timeline: &dyn Timeline,
    clock: &dyn Clock,
) -> Result<TimelineHead> {
    match timeline.head().await? {
        Some(head) => Ok(head),
        None => {
            timeline.begin(&TimelineHead::beginning(source.cluster_time().await?, clock.now_millis())).await
        }
    }
}

async fn begin(ports: Ports<'_>) -> Result<TimelineHead> {
    begin_at_now(ports.source, ports.timeline, ports.clock).await
}

async fn tell_lag(ports: Ports<'_>, source: SourceName, why: &Error) -> Result<()> {
    let Some(mut head) = ports.timeline.head().await? else { return Ok(()) };
    let now = ports.clock.now_millis();
    let lag = now.saturating_sub(head.moved_millis);
    if lag < LAG_MILLIS_MAX || now.saturating_sub(head.lag_told_millis) < LAG_MILLIS_MAX {
        return Ok(());
    }
    ports.alerts.publish(&Alert::timeline_lags(source, head.to, lag / 60_000, why)).await?;
    head.lag_told_millis = now;
    ports.timeline.advance(&head, None, &[]).await
}

/// Changes one by one, and what comes behind the newest.
struct Follower {
    stream: Box<dyn ChangeStream>,
    batch: EventBatch,
    used: usize,
}

impl Follower {
    /// The next change, without going on to the one behind it; none if there are no more.
    async fn peek(&mut self) -> Result<Option<&RawDocument>> {
        if self.used >= self.batch.events.len() {
            self.batch = self.stream.next_batch().await?;
            self.used = 0;
        }
        let rest = self.batch.events.get(self.used..).unwrap_or_default();
        let Some(event) = split_documents(rest).next().transpose()? else { return Ok(None) };
        RawDocument::from_bytes(event).map(Some).map_err(|why| corrupt("read a change").because(why))
    }

    /// Goes on behind a change of this length.
    const fn pass(&mut self, length: usize) {
        self.used += length;
    }
}

struct Capture<'a> {
    ports: Ports<'a>,
    settings: &'a Settings,
    source: SourceName,
    /// When this run began: what is newer is for the next one, or a busy source would never let it end.
    now: ClusterTime,
}

/// Where a slice ends. A change's own token holds the key of its document, which must not stand in the catalog; since
/// slices end between instants, the instant does as well there.
struct Cut {
    to: ClusterTime,
    position: Position,
    caught_up: bool,
}

impl Capture<'_> {
    /// On an idle source time itself goes on every ten seconds only.
    async fn get_behind_now(&self, mut head: TimelineHead) -> Result<()> {
        for _ in 0..ROUNDS_MAX {
            self.catch_up(head).await?;
            head = begin(self.ports).await?;
            if head.to > self.now || self.is_short_of_time() {
                break;
            }
        }
        Ok(())
    }

    async fn catch_up(&self, mut head: TimelineHead) -> Result<()> {
        loop {
            let caught_up = match self.follow(&mut head).await {
                Err(why) => {
                    let reason = broken_by(&why).ok_or(why)?;
                    self.interrupt(&mut head, reason).await?;
                    false
                }
                followed => followed?,
            };
            if caught_up || self.is_short_of_time() {
                return Ok(());
            }
        }
    }

    fn is_short_of_time(&self) -> bool {
        self.ports.clock.left_millis() < SLICE_MILLIS_MIN
    }

    /// Follows the changes from the head on; `false` if it did not come to their end.
    async fn follow(&self, head: &mut TimelineHead) -> Result<bool> {
        let stream = self.ports.changes.follow(&head.position).await?;
        let nothing = EventBatch { events: Bytes::new(), token: ResumeToken(Vec::new()), time: head.to };
        let mut follower = Follower { stream, batch: nothing, used: 0 };
        loop {
            let Ports { store, keys, clock, .. } = self.ports;
            let mut writer = SliceWriter::new(store, keys, clock, self.settings, self.source, head.stored_to);
            let cut = self.fill(&mut follower, &mut writer, head.to).await;
            let Ok(cut) = cut else {
                writer.abort().await;
                return cut.map(|_| false);
            };
            let caught_up = cut.caught_up;
            if !self.commit(head, writer, cut).await? {
                return Ok(false); // another run moved the head; go on from there
            }
            if caught_up || self.is_short_of_time() {
                return Ok(caught_up);
            }
        }
    }

    /// Takes changes into a slice until it is full, or there are no more.
    async fn fill(
        &self,
        follower: &mut Follower,
        writer: &mut SliceWriter<'_>,
        from: ClusterTime,
    ) -> Result<Cut> {
        let mut last: Option<ClusterTime> = None;
        loop {
            let Some(raw) = follower.peek().await? else {
                let EventBatch { token, time, .. } = &follower.batch;
                // Changes of the newest instant may follow, unless one of them was the last.
                let (to, position) = match last {
                    Some(last) if last == *time => (time.next(), Position::At(time.next())),
                    _ if *time < from => (from, Position::At(from)), // the token of a change of an earlier run
                    _ => (*time, Position::After(token.clone())),
                };
                return Ok(Cut { to, position, caught_up: true });
            };
            let event = Event::read(raw)?;
            if event.time < from {
                return Err(Error::new(ErrorKind::Internal, "follow the changes: an older one came again"));
            }
            // Only between instants: a transaction is never cut.
            let caught_up = event.time > self.now;
            if last.is_none_or(|last| last < event.time) && (caught_up || self.is_full(writer)) {
                return Ok(Cut { to: event.time, position: Position::At(event.time), caught_up });
            }
            writer.push(&event, raw).await?;
            last = Some(event.time);
            let length = raw.as_bytes().len();
            follower.pass(length);
        }
    }

    fn is_full(&self, writer: &SliceWriter<'_>) -> bool {
        writer.event_bytes() >= SLICE_BYTES || writer.breaks().len() >= BREAKS_MAX || self.is_short_of_time()
    }

    /// Stores the slice and moves the head; `false` if another run moved it meanwhile, and the head is as that one
    /// left it.
    async fn commit(&self, head: &mut TimelineHead, writer: SliceWriter<'_>, cut: Cut) -> Result<bool> {
        let now = self.ports.clock.now_millis();
        let breaks = writer.breaks().to_vec();
        let idle_seconds = cut.to.seconds.saturating_sub(head.stored_to.seconds);
        let slice = writer.finish(cut.to, idle_seconds >= IDLE_SECONDS_MAX).await?;
        if !breaks.is_empty() {
            self.ports.alerts.publish(&Alert::window_closed(self.source, &breaks)).await?;
        }
        let mut next = head.clone();
        next.to = cut.to;
        next.position = cut.position;
        next.moved_millis = now;
        if let Some(slice) = &slice {
            next.stored_to = slice.to;
        }
        self.advance(head, next, slice.as_ref(), &breaks).await
    }

    /// Goes on with what happens now: what came before it is lost.
    async fn interrupt(&self, head: &mut TimelineHead, reason: BreakReason) -> Result<()> {
        let (at, now) = (self.ports.source.cluster_time().await?, self.ports.clock.now_millis());
        // A change that is too large to be sent may be of this very instant.
        let at = if reason == BreakReason::EventTooLarge { at.next() } else { at };
        let lost = Break { from: head.to, to: at.max(head.to), database: None, reason, noticed_millis: now };
        let Ports { store, keys, clock, .. } = self.ports;
        let writer = SliceWriter::new(store, keys, clock, self.settings, self.source, head.stored_to);
        // The run that ends here is all in slices, up to its last instant.
        let last = writer.finish(head.to, head.to > head.stored_to).await?;
        self.ports.alerts.publish(&Alert::window_closed(self.source, std::slice::from_ref(&lost))).await?;
        let mut next = TimelineHead::beginning(lost.to, now);
        next.revision = head.revision;
        next.began = head.began;
        self.advance(head, next, last.as_ref(), &[lost]).await.map(|_| ())
    }

    async fn advance(
        &self,
        head: &mut TimelineHead,
        next: TimelineHead,
        slice: Option<&SliceRecord>,
        breaks: &[Break],
    ) -> Result<bool> {
        super::record::keep_breaks(self.ports.store, self.ports.keys, self.source, breaks).await?;
        let moved = self.ports.timeline.advance(&next, slice, breaks).await;
        let newest = self
            .ports
            .timeline
            .head()
            .await?
            .ok_or_else(|| Error::new(ErrorKind::Internal, "move the timeline: it is gone"))?;
        match moved {
            Err(why) if newest.revision == head.revision => Err(why),
            // Ours, though its answer may have been lost; or that of another run.
            _ => {
                let is_ours = newest.to == next.to && newest.position == next.position;
                *head = newest;
                Ok(is_ours)
            }
        }
    }
}

/// What of the failures to follow is no hiccup: the changes that come next cannot be had, ever.
fn broken_by(why: &Error) -> Option<BreakReason> {
    match why.kind() {
        ErrorKind::HistoryLost => Some(BreakReason::HistoryLost),
        ErrorKind::Unsupported => Some(BreakReason::EventTooLarge),
        _ => None,
    }
}
