//! The timeline: every change of the source, archived without a gap as slices.
//!
//! Stretches of it are half-open: `from` is the first instant that is in it, `to` the first that is not. A slice never
//! ends between changes of one instant, so a transaction is never cut. Slices of one run meet: each begins where the
//! one before it ended. Where they do not, there is a [`Break`], and no time inside it is restorable.

mod event;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use event::{Change, Event};

use crate::id::{Attempt, ClusterTime};

/// Where a change stream goes on: BSON that only the server understands.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResumeToken(#[serde(with = "crate::bson::base64_bytes")] pub Vec<u8>);

/// Shows nothing: a token holds the key of a document.
impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResumeToken({} bytes)", self.0.len())
    }
}

/// Where to begin reading changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Position {
    /// With the changes of this instant.
    At(ClusterTime),
    /// Behind what this token stands for.
    After(ResumeToken),
}

/// Changes as the server sent them, and how far they reach.
#[derive(Clone, Debug)]
pub struct EventBatch {
    /// Change events, concatenated BSON, in the stream's order. Empty if there is nothing new.
    pub events: Bytes,
    /// Where the stream goes on behind them.
    pub token: ResumeToken,
    /// The instant of the token: every change before it was given. Changes of that instant itself may follow, unless
    /// the batch is empty and the last change given was of it.
    pub time: ClusterTime,
}

/// One slice as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceRecord {
    /// The first instant that is in it.
    pub from: ClusterTime,
    /// The first instant behind it.
    pub to: ClusterTime,
    /// Its name: the attempt that wrote it.
    pub slice: Attempt,
    /// Bytes of the stored object.
    pub stored_bytes: u64,
    /// Changes in it.
    pub events: u64,
    /// Bytes of BSON of those changes.
    pub event_bytes: u64,
}

/// How far the copy of a timeline in another region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicatedTimeline {
    /// Every slice with instants before this one is there.
    pub to: ClusterTime,
    /// How many breaks are there, of those in the order of the catalog.
    pub breaks: u64,
    /// When it was moved, or people were told that it is not, in milliseconds since 1970 UTC.
    pub moved_millis: u64,
}

/// How far the timeline is. There is one for a source; whoever moves it has to have seen its newest revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimelineHead {
    /// Counts its moves: a write with another count than the next is refused.
    pub revision: u64,
    /// Where the first run began. It never changes.
    pub began: ClusterTime,
    /// Where the newest run began: there is no gap between this instant and `to`. If it is not the first run, a break
    /// of every database ends here.
    pub since: ClusterTime,
    /// Where the newest slice of this run ended; `since` if there is none yet.
    pub stored_to: ClusterTime,
    /// Every change before this instant is in a slice, or there was none.
    pub to: ClusterTime,
    /// Where to go on reading.
    pub position: Position,
    /// When it was moved, in milliseconds since 1970 UTC.
    pub moved_millis: u64,
    /// When people were last told that it lags, in milliseconds since 1970 UTC.
    pub lag_told_millis: u64,
}

impl TimelineHead {
    /// A timeline that begins with the changes of `at`.
    #[must_use]
    pub const fn beginning(at: ClusterTime, now_millis: u64) -> Self {
        Self {
            revision: 0,
            began: at,
            since: at,
            stored_to: at,
            to: at,
            position: Position::At(at),
            moved_millis: now_millis,
            lag_told_millis: 0,
        }
    }
}

/// Breaks that are added with one move of the head, at most, those of the same stretch and database counted once: a
/// transaction takes a hundred rows.
pub const BREAKS_AT_ONCE_MAX: usize = 90;

/// Why a window was closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakReason {
    /// The server no longer had the changes that came next.
    HistoryLost,
    /// A change was larger than the server can send.
    EventTooLarge,
    /// Documents came into a collection without the stream telling of them.
    NotFollowed(String),
    /// A change of a kind that cannot be folded.
    UnknownChange(String),
    /// An earlier backup, folded to the instants of a later one, was not that one.
    NotProved,
}

impl fmt::Display for BreakReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HistoryLost => f.write_str("the server had forgotten the changes that came next"),
            Self::EventTooLarge => f.write_str("a change was larger than the server can send"),
            Self::NotFollowed(name) => write!(f, "{name:?} was filled without the stream telling of it"),
            Self::UnknownChange(kind) => write!(f, "a change of kind {kind:?} cannot be folded"),
            Self::NotProved => f.write_str("two backups and what happened between them do not agree"),
        }
    }
}

/// Where the timeline cannot be followed, for every database or for one. No instant from `from` on is restorable from
/// a backup of before `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Break {
    /// The first instant that cannot be restored.
    pub from: ClusterTime,
    /// The first instant of which a backup can be followed again.
    pub to: ClusterTime,
    /// The database it concerns; none for all.
    pub database: Option<String>,
    /// Why.
    pub reason: BreakReason,
    /// When it was noticed, in milliseconds since 1970 UTC.
    pub noticed_millis: u64,
}

impl Break {
    /// Whether it concerns this database.
    #[must_use]
    pub fn concerns(&self, database: &str) -> bool {
        self.database.as_deref().is_none_or(|it| it == database)
    }
}
