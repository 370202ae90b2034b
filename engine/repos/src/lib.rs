//! kickwheel-repos.
