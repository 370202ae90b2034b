//! The form of a sealed journal: one compressed document.

use kickwheel_schemas::Millis;
use serde::{Deserialize, Serialize};

use crate::{
    db::{Result, Row, undecodable},
    rows::JournalRow,
};

/// Version of the form. A reader refuses another one.
const FORM: u32 = 1;
/// Compression level: journals are JSON and repeat themselves, so more effort gains little.
const LEVEL: i32 = 3;

/// What is compressed. Events are in order, from sequence number 0, each with its time.
#[derive(Serialize, Deserialize)]
struct Sealed {
    form: u32,
    events: Vec<(i64, String)>,
}

/// Compresses a whole journal.
pub fn pack(rows: &[JournalRow]) -> Vec<u8> {
    let events = rows.iter().map(|row| (row.at.0, row.event.clone())).collect();
    let text = serde_json::to_vec(&Sealed { form: FORM, events }).expect("numbers and texts always serialise");
    zstd::encode_all(text.as_slice(), LEVEL).expect("compressing in memory does no I/O")
}

/// The inverse of [`pack`].
pub fn unpack(body: &[u8]) -> Result<Vec<JournalRow>> {
    let text = zstd::decode_all(body).map_err(|e| undecodable("sealed.body", &e))?;
    let sealed: Sealed = serde_json::from_slice(&text).map_err(|e| undecodable("sealed.body", &e))?;
    if sealed.form != FORM {
        return Err(undecodable("sealed.body", &format!("form {} is not known", sealed.form)));
    }
    let rows = sealed.events.into_iter().enumerate();
    Ok(rows.map(|(seq, (at, event))| JournalRow { seq: seq as u64, at: Millis(at), event }).collect())
}

/// A row of the live journal.
pub fn journal_row(row: &Row) -> Result<JournalRow> {
    Ok(JournalRow { seq: row.uint("seq")?, at: row.millis("at")?, event: row.text("event")? })
}

/// Whether these are the events `from..next`, all of them and in order.
pub fn is_whole(rows: &[JournalRow], from: u64, next: u64) -> bool {
    rows.len() as u64 == next.saturating_sub(from) && rows.iter().zip(from..).all(|(row, seq)| row.seq == seq)
}
