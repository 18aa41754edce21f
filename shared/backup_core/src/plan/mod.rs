//! Pure decisions: which ranges to read, which chunks share a work item, how exactly a namespace can be held, what a
//! restore will do and in which shape it creates things.

pub mod capture;
pub mod metadata;
pub mod point_in_time;
pub mod ranges;
pub mod restore;
pub mod sample;
pub mod slices_found;
pub mod synthesis;
pub mod windows;
