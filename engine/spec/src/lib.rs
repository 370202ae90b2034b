//! kickwheel-spec.
