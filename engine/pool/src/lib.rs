//! kickwheel-pool.
