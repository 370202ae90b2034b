//! kickwheel-artifacts.
