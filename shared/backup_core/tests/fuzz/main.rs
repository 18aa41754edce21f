//! Every decoder of bytes that come from outside, under a fuzzer: as a test, a second of random input each; under
//! libFuzzer as long as one likes (the README has the command).
//!
//! An input says how a valid object is damaged, see [`backup_testkit::hostile`]. What is asserted is more than that
//! nothing panics: output stays within its bound, nothing that was not written comes out of a seal, what is read is
//! the same when it is written and read again, and an error tells nothing of what it read.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod documents;
mod objects;
mod texts;
