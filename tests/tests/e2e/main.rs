//! Stories from end to end: the real binary, real Git, real jobs, on SQLite and on Postgres.
//!
//! What goes wrong on purpose (kills, full disks, locked databases) is in `faults`.

mod bus;
mod chains;
mod door;
mod jobs;
mod opening;
mod pushes;
mod reuse;
mod twins;
