//! The few calls of librdkafka that the safe interface lacks, and the only unsafe code of this crate.
//!
//! - A topic's id is only to be had by `rd_kafka_DescribeTopics`.
//! - Whether a failed record may be in the log is only known to `rd_kafka_message_status`.
//! - The safe interface panics at a header whose name is not UTF-8, and such a record may be sent by anybody.
//!
//! All functions are in librdkafka's `rdkafka.h`, where their ownership is documented.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_char, c_void},
    ptr,
    time::Duration,
};

use rdkafka::{
    client::{Client, ClientContext},
    error::RDKafkaErrorCode,
    message::BorrowedMessage,
};
use rdkafka_sys as sys;

/// News that one question discards at the most, so that it cannot be kept from being asked.
const MAX_DISCARDED: usize = 10_000;

/// A topic as a broker describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    /// The UUID in URL-safe base64 without padding, as Kafka's own tools print it.
    pub id: String,
    pub partitions: Vec<DescribedPartition>,
}

/// Where the copies of a partition are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DescribedPartition {
    pub partition: u32,
    pub replicas: u32,
    pub in_sync: u32,
}

/// Gives a native object back by the function that belongs to it.
struct Owned<T> {
    object: *mut T,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the object came from the constructor that `destroy` belongs to, is not null, and is given back once.
        unsafe { (self.destroy)(self.object) }
    }
}

/// Takes ownership, unless the constructor gave nothing.
fn owned<T>(object: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Result<Owned<T>, RDKafkaErrorCode> {
    if object.is_null() { Err(RDKafkaErrorCode::Fail) } else { Ok(Owned { object, destroy }) }
}

/// Describes one topic. Blocks for `timeout` at the longest.
pub(crate) fn describe_topic<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Described, RDKafkaErrorCode> {
    let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let rk = client.native_ptr();
    // SAFETY: `rk` lives as long as `client`, which is borrowed for this whole function, and librdkafka's handles may be
    // used from any thread. The names are copied by the collection. Every object is given back by its `Owned`, in the
    // reverse order of creation, so the event goes before the queue. What is read from the event is copied before that.
    unsafe {
        discard_log(rk)?;
        let queue = owned(sys::rd_kafka_queue_new(rk), sys::rd_kafka_queue_destroy)?;
        let mut names = [name.as_ptr()];
        let topics = owned(
            sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr().cast(), names.len()),
            sys::rd_kafka_TopicCollection_destroy,
        )?;
        let options = owned(
            sys::rd_kafka_AdminOptions_new(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            sys::rd_kafka_AdminOptions_destroy,
        )?;
        let mut text = [0 as c_char; 256];
        let refused =
            sys::rd_kafka_AdminOptions_set_request_timeout(options.object, timeout_ms, text.as_mut_ptr(), text.len());
        if refused != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(refused.into());
        }
        sys::rd_kafka_DescribeTopics(rk, topics.object, options.object, queue.object);
        // The request has a time-out of its own and then answers with an error; the margin lets it do so.
        let event = sys::rd_kafka_queue_poll(queue.object, timeout_ms.saturating_add(500));
        let event = owned(event, sys::rd_kafka_event_destroy).map_err(|_| RDKafkaErrorCode::OperationTimedOut)?;
        let failed = sys::rd_kafka_event_error(event.object);
        if failed != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(failed.into());
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event.object);
        if result.is_null() {
            return Err(RDKafkaErrorCode::Fail);
        }
        let mut count = 0;
        let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if descriptions.is_null() || count != 1 {
            return Err(RDKafkaErrorCode::Fail);
        }
        described(*descriptions)
    }
}

/// Lines of the log, and other news, that a client for questions gathers in its main queue. Nothing else reads that
/// queue, and while brokers are away it grows by the second.
///
/// # Safety
/// `rk` must be a living client whose main queue is read by nobody else.
unsafe fn discard_log(rk: *mut sys::rd_kafka_t) -> Result<(), RDKafkaErrorCode> {
    // SAFETY: the queue is a reference of our own, and each event is given back before it.
    unsafe {
        let queue = owned(sys::rd_kafka_queue_get_main(rk), sys::rd_kafka_queue_destroy)?;
        for _ in 0..MAX_DISCARDED {
            let event = sys::rd_kafka_queue_poll(queue.object, 0);
            if event.is_null() {
                break;
            }
            sys::rd_kafka_event_destroy(event);
        }
    }
    Ok(())
}

/// Copies one description.
///
/// # Safety
/// `description` must belong to a result that lives during this call.
unsafe fn described(description: *const sys::rd_kafka_TopicDescription_t) -> Result<Described, RDKafkaErrorCode> {
    // SAFETY: the caller keeps the result alive; all that is read here is owned by it and copied.
    unsafe {
        let error = sys::rd_kafka_TopicDescription_error(description);
        if !error.is_null() {
            let code = sys::rd_kafka_error_code(error);
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(code.into());
            }
        }
        let id = sys::rd_kafka_Uuid_base64str(sys::rd_kafka_TopicDescription_topic_id(description));
        if id.is_null() {
            return Err(RDKafkaErrorCode::Fail);
        }
        let id = CStr::from_ptr(id).to_string_lossy().into_owned();
        let mut count = 0;
        let partitions = sys::rd_kafka_TopicDescription_partitions(description, &raw mut count);
        let mut found = Vec::with_capacity(count);
        for at in 0..count {
            let partition = *partitions.add(at);
            let (mut replicas, mut in_sync) = (0, 0);
            sys::rd_kafka_TopicPartitionInfo_replicas(partition, &raw mut replicas);
            sys::rd_kafka_TopicPartitionInfo_isr(partition, &raw mut in_sync);
            found.push(DescribedPartition {
                partition: u32::try_from(sys::rd_kafka_TopicPartitionInfo_partition(partition)).unwrap_or(0),
                replicas: replicas as u32,
                in_sync: in_sync as u32,
            });
        }
        Ok(Described { id, partitions: found })
    }
}

/// Whether a record that failed is certainly not in the log.
pub(crate) fn is_not_persisted(message: &BorrowedMessage<'_>) -> bool {
    // SAFETY: the pointer is valid as long as the message that is borrowed here.
    let status = unsafe { sys::rd_kafka_message_status(message.ptr()) };
    status == sys::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED
}

/// All headers, in order.
pub(crate) fn headers(message: &BorrowedMessage<'_>) -> Vec<(String, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut headers = ptr::null_mut();
    // SAFETY: the message is borrowed for this whole function and owns the headers; name and value point into them and
    // are copied at once. `rd_kafka_header_get_all` leaves the out parameters alone when it answers with an error.
    unsafe {
        let absent = sys::rd_kafka_message_headers(message.ptr(), &raw mut headers);
        if absent != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return found;
        }
        loop {
            let (mut name, mut value, mut size): (*const c_char, *const c_void, usize) = (ptr::null(), ptr::null(), 0);
            let end = sys::rd_kafka_header_get_all(headers, found.len(), &raw mut name, &raw mut value, &raw mut size);
            if end != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
                return found;
            }
            let name = CStr::from_ptr(name).to_string_lossy().into_owned();
            let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size).to_vec());
            found.push((name, value));
        }
    }
}
