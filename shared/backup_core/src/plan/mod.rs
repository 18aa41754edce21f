//! Pure decisions: which ranges to read, which chunks share a work item, how exactly a namespace can be held, what a
//! restore will do and in which shape it creates things.

pub mod capture;
pub mod metadata;
pub mod ranges;
pub mod restore;
