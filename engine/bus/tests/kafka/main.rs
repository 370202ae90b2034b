//! The adapter against a real Kafka: no mock can show what a broker does with transactions, lost ranges and new topics.
//!
//! `KICKWHEEL_TEST_KAFKA` names a broker where topics may be created; each case has topics of its own. The cases in
//! `outage` stop a broker, so they start one for themselves by `tests/services/kafka.sh`.

#![allow(clippy::unwrap_used)]

mod fixture;
mod outage;
mod read;
mod topics;
mod write;
