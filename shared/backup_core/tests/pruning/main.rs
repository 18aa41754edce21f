//! The pruner over ports in memory: whatever it meets, and wherever it is killed, nothing that is needed goes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod interleaved;
mod invariants;
mod killed;
mod scene;
mod spared;
