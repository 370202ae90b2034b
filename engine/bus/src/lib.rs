//! Kafka, as the ordered log that carries events.
