//! One record, as it was read.
//!
//! Nothing is interpreted here; see [`crate::codec`].

/// A record of a partition, with nothing left out: what cannot be decoded must still be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Number of the partition.
    pub partition: u32,
    /// Position in the partition. The offset to store after this record is one more.
    pub offset: u64,
    /// Milliseconds since 1970, by the sender's or the broker's clock, as the topic is configured.
    pub timestamp_ms: Option<i64>,
    /// What chose the partition.
    pub key: Option<Vec<u8>>,
    /// The value; none is a tombstone, which is not the same as an empty one.
    pub payload: Option<Vec<u8>>,
    /// In the order of the record; names may repeat. Bytes of a name that are not UTF-8 are replaced by U+FFFD.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum();
        self.key.as_ref().map_or(0, Vec::len) + self.payload.as_ref().map_or(0, Vec::len) + headers
    }
}
