//! kickwheel-store.
