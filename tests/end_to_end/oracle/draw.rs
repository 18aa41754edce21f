//! What is random, drawn from a seed.

use crate::numbers::Numbers;

/// Draws the same for the same seed.
pub(super) struct Draw(Numbers);

impl Draw {
    pub(super) const fn new(seed: u64) -> Self {
        Self(Numbers::new(seed))
    }

    /// A number from 0 to `end - 1`.
    pub(super) fn int(&self, end: i32) -> i32 {
        i32::try_from(self.0.below(u64::try_from(end).unwrap())).unwrap()
    }

    /// `true` in so many cases of a hundred.
    pub(super) fn chance(&self, percent: u64) -> bool {
        self.0.below(100) < percent
    }

    /// One of them.
    pub(super) fn of<T: Copy>(&self, all: &[T]) -> T {
        all[usize::try_from(self.0.below(u64::try_from(all.len()).unwrap())).unwrap()]
    }
}
