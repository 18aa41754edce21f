//! `state(t) = fold(state at T, changes with T < time <= t)`: pure, over raw BSON.

pub mod documents;
pub mod metadata;
