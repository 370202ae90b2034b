//! kickwheel-triggers.
