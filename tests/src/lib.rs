//! kickwheel-tests.
