//! kickwheel-server.
