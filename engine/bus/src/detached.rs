//! A value whose end may block, kept away from the threads of the async runtime.
//!
//! Closing a client of librdkafka waits for its threads, and for a broker that may never answer. Who drops a reader
//! because its lease was lost must not wait for that.

use std::ops::Deref;

/// Drops its value on a thread of its own.
#[derive(Debug)]
pub(crate) struct Detached<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Detached<T> {
    pub fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T: Send + 'static> Deref for Detached<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("the value is taken only when this is dropped")
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        let value = self.0.take();
        // Where no thread can be had, the closure is dropped here and now, with the value in it: slow, but not leaked.
        if let Err(error) = std::thread::Builder::new().name("kafka-close".into()).spawn(move || drop(value)) {
            tracing::warn!(%error, "closed a Kafka client in place, because no thread could be started");
        }
    }
}
