//! The timeline, in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::id::{Attempt, ClusterTime, RegionName};
use backup_core::ports::Timeline;
use backup_core::timeline::{BREAKS_AT_ONCE_MAX, Break, ReplicatedTimeline, SliceRecord, TimelineHead};
use backup_core::{Error, ErrorKind, Result};

/// What a break is known by: its stretch, and its database.
type BreakKey = (ClusterTime, ClusterTime, Option<String>);

#[derive(Default)]
struct State {
    head: Option<TimelineHead>,
    slices: BTreeMap<(ClusterTime, Attempt), SliceRecord>,
    breaks: BTreeMap<BreakKey, Break>,
    replicated: BTreeMap<RegionName, ReplicatedTimeline>,
}

/// The timeline of one source. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryTimeline {
    state: Arc<Mutex<State>>,
}

impl MemoryTimeline {
    /// Loses everything.
    pub fn clear(&self) {
        *self.state.lock().unwrap() = State::default();
    }

    /// Edits the row of the slice that begins at `from` behind everybody's back.
    pub fn tamper(&self, from: ClusterTime, edit: impl FnOnce(&mut SliceRecord)) {
        let mut state = self.state.lock().unwrap();
        edit(state.slices.values_mut().find(|it| it.from == from).unwrap());
    }
}

#[async_trait]
impl Timeline for MemoryTimeline {
    async fn head(&self) -> Result<Option<TimelineHead>> {
        Ok(self.state.lock().unwrap().head.clone())
    }

    async fn begin(&self, head: &TimelineHead) -> Result<TimelineHead> {
        Ok(self.state.lock().unwrap().head.get_or_insert_with(|| head.clone()).clone())
    }

    async fn advance(
        &self,
        head: &TimelineHead,
        slice: Option<&SliceRecord>,
        breaks: &[Break],
    ) -> Result<()> {
        let breaks: BTreeMap<BreakKey, Break> =
            breaks.iter().map(|it| ((it.from, it.to, it.database.clone()), it.clone())).collect();
        if breaks.len() > BREAKS_AT_ONCE_MAX {
            return Err(Error::new(ErrorKind::Internal, "move the timeline: too many breaks at once"));
        }
        let mut state = self.state.lock().unwrap();
        if state.head.as_ref().map(|it| it.revision) != Some(head.revision) {
            return Err(Error::new(
                ErrorKind::Transient,
                "move the timeline: another run moved it meanwhile",
            ));
        }
        if slice.is_some_and(|it| state.slices.contains_key(&(it.from, it.slice))) {
            return Err(Error::new(ErrorKind::Internal, "move the timeline: it has the slice already"));
        }
        state.head = Some(TimelineHead { revision: head.revision + 1, ..head.clone() });
        state.slices.extend(slice.map(|it| ((it.from, it.slice), it.clone())));
        state.breaks.extend(breaks);
        Ok(())
    }

    async fn slices(&self, from: ClusterTime, to: ClusterTime) -> Result<Vec<SliceRecord>> {
        let state = self.state.lock().unwrap();
        Ok(state.slices.values().filter(|it| it.from < to && it.to > from).cloned().collect())
    }

    async fn breaks(&self) -> Result<Vec<Break>> {
        Ok(self.state.lock().unwrap().breaks.values().cloned().collect())
    }

    async fn forget_slice(&self, slice: &SliceRecord) -> Result<()> {
        self.state.lock().unwrap().slices.remove(&(slice.from, slice.slice));
        Ok(())
    }

    async fn bring_back(&self, head: &TimelineHead, slices: &[SliceRecord], breaks: &[Break]) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.head.is_some() {
            return Err(Error::new(ErrorKind::Conflict, "bring the timeline back: there is one"));
        }
        state.slices = slices.iter().map(|it| ((it.from, it.slice), it.clone())).collect();
        state.breaks = breaks.iter().map(|it| ((it.from, it.to, it.database.clone()), it.clone())).collect();
        state.head = Some(head.clone());
        Ok(())
    }

    async fn replicated(&self, region: RegionName) -> Result<Option<ReplicatedTimeline>> {
        Ok(self.state.lock().unwrap().replicated.get(&region).copied())
    }

    async fn set_replicated(&self, region: RegionName, replicated: &ReplicatedTimeline) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let is_behind = state.replicated.get(&region).is_some_and(|old| old.to > replicated.to);
        if !is_behind {
            state.replicated.insert(region, *replicated);
        }
        Ok(())
    }
}
