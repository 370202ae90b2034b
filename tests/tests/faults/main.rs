//! What goes wrong on purpose: kills in every window, full disks, locked, stopped and missing databases, broken files,
//! a Kafka that is away or made anew, and a Docker Engine that is started again.
//!
//! Each is told on SQLite and on Postgres; after each, the checker says whether anything was lost or done twice. The kills
//! need the fault points of a development build (the store's `fault` module). `KICKWHEEL_LONG=1` kills more often.

mod adoption;
mod broken_file;
mod broker;
mod containers;
mod full_disk;
mod kills;
mod lost_database;
mod planted;
mod wheel;
