//! Scripted events against a kernel that only remembers.

mod changes;
mod endpoints;
mod failures;
mod restarts;
mod rig;
mod rules;
