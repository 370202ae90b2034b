//! Stories from end to end: the real binary, real Git, real jobs, on SQLite and on Postgres.
//!
//! What goes wrong on purpose (kills, full disks, locked databases) is in `faults`.

mod abroad;
mod answers;
mod bus;
mod chains;
mod cron;
mod datasets;
mod door;
mod elsewhere;
// Git's own HTTP server with TLS and credentials, as the tests of the mirrors use it.
#[allow(dead_code)]
#[path = "../../../engine/repos/tests/it/http_server.rs"]
mod git_server;
mod images;
mod jobs;
mod keys;
mod opening;
mod polling;
mod pushes;
mod reuse;
mod sources;
// And its sshd.
#[allow(dead_code)]
#[path = "../../../engine/repos/tests/it/ssh_server.rs"]
mod ssh_server;
mod told;
mod twins;
