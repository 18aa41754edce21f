//! The local cloud: a real `mongod` replica set, and the real template deployed to a local AWS with the real Lambda
//! binary. `cargo local`, `cargo demo` and the end-to-end tests all start it from here.

pub mod demo;
pub mod mongod;

mod aws;
mod build;
mod cloud;
mod deploy;
mod process;
mod python;

pub use cloud::{Cloud, CloudOptions};
