//! kickwheel-triggers.

pub mod dataset;
pub mod git;
