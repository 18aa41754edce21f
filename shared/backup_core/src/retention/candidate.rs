//! One backup as the rules see it.

use crate::id::OperationId;
use crate::operation::{BackupDetail, Operation, OperationState, Trigger};

/// How far a request may be ahead of the clock, in milliseconds: clocks of machines differ by less.
const AHEAD_MILLIS_MAX: u64 = 300_000;

/// One backup as the rules see it.
pub(super) struct Candidate<'a> {
    pub(super) row: &'a Operation,
    pub(super) detail: &'a BackupDetail,
    /// Some clock is or was wrong: nothing is concluded from its date.
    pub(super) is_future_dated: bool,
}

impl<'a> Candidate<'a> {
    /// None if the row is not that of a backup.
    pub(super) fn of(row: &'a Operation, now_millis: u64) -> Option<Self> {
        let is_future_dated = row.id.requested_millis() > now_millis.saturating_add(AHEAD_MILLIS_MAX);
        Some(Self { row, detail: row.backup().ok()?, is_future_dated })
    }

    pub(super) fn id(&self) -> OperationId {
        self.row.id
    }

    pub(super) fn database(&self) -> &'a str {
        &self.row.database
    }

    pub(super) fn requested_millis(&self) -> u64 {
        self.row.id.requested_millis()
    }

    pub(super) fn is_automated(&self) -> bool {
        self.detail.trigger == Trigger::Automated
    }

    pub(super) fn is_folded(&self) -> bool {
        self.detail.folded_from.is_some()
    }

    /// Whether there is, or was, more of it than a row and unnamed objects.
    pub(super) fn has_manifest(&self) -> bool {
        let is_sealed = matches!(self.row.state, OperationState::Sealed | OperationState::Verified);
        is_sealed || self.detail.manifest_sha256.is_some()
    }

    /// Whether an earlier run began to remove it: its manifest may be gone.
    pub(super) fn has_begun_to_go(&self) -> bool {
        self.detail.removal.as_ref().is_some_and(|removal| removal.begun)
    }

    /// Whether a database can be restored from it as a whole. A mark alone changes nothing: it is taken back if the
    /// backup is needed.
    pub(super) fn is_good(&self) -> bool {
        let is_whole = self.row.collections.is_empty() && self.detail.lost == 0;
        let is_verified = self.row.state == OperationState::Verified;
        is_verified && is_whole && !self.is_future_dated && !self.has_begun_to_go()
    }

    /// Whether a person asked for it, and nobody has said that it may go.
    pub(super) fn is_kept_by_hand(&self) -> bool {
        !self.is_automated() && self.has_manifest() && self.detail.unwanted_by.is_none()
    }
}
