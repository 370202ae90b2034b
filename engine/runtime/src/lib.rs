//! kickwheel-runtime.
