//! Reads, by subject. Each is one statement on a connection of its own, so it sees one moment and never waits for the
//! writer.

mod access;
mod assets;
mod bus;
mod catalog;
mod events;
mod quarantine;
mod runs;
pub mod sealed;
mod triggers;

use std::borrow::Cow;

pub use bus::partition_of;

use crate::{
    db::Arg,
    rows::{DEFAULT_LIMIT, MAX_LIMIT},
};

/// A run's events from sequence number $3 on, along the chain that begins at its newest event, in place $2 of shard $1.
pub const JOURNAL: &str = "WITH RECURSIVE chain (shard_seq, seq, previous, at, event) AS (\
    SELECT shard_seq, seq, previous, at, event FROM journal WHERE shard = $1 AND shard_seq = $2 AND seq >= $3 \
    UNION ALL SELECT j.shard_seq, j.seq, j.previous, j.at, j.event FROM chain JOIN journal AS j \
    ON j.shard = $1 AND j.shard_seq = chain.previous WHERE chain.seq > $3) \
    SELECT shard_seq, seq, at, event FROM chain ORDER BY seq";

/// A statement whose conditions depend on a filter. Only constant texts become SQL; values are always arguments.
struct Query {
    sql: String,
    args: Vec<Arg>,
    conditions: usize,
}

impl Query {
    fn new(select: &'static str) -> Self {
        Self { sql: select.to_owned(), args: Vec::new(), conditions: 0 }
    }

    fn condition(&mut self, text: &str) {
        self.sql.push_str(if self.conditions == 0 { " WHERE " } else { " AND " });
        self.sql.push_str(text);
        self.conditions += 1;
    }

    /// Adds `column operator $n`, when there is a value.
    fn compare(&mut self, column_and_operator: &'static str, value: Option<Arg>) {
        if let Some(value) = value {
            self.args.push(value);
            let text = format!("{column_and_operator} ${}", self.args.len());
            self.condition(&text);
        }
    }

    /// Adds `column IN ($n, …)`, when there are values.
    fn one_of(&mut self, column: &'static str, values: impl IntoIterator<Item = Arg>) {
        let first = self.args.len() + 1;
        self.args.extend(values);
        if self.args.len() >= first {
            let places: Vec<_> = (first..=self.args.len()).map(|n| format!("${n}")).collect();
            self.condition(&format!("{column} IN ({})", places.join(", ")));
        }
    }

    fn finish(mut self, order: &'static str, limit: u32) -> (Cow<'static, str>, Vec<Arg>) {
        self.args.push(bounded(limit).into());
        self.sql.push_str(&format!(" ORDER BY {order} LIMIT ${}", self.args.len()));
        (Cow::Owned(self.sql), self.args)
    }
}

/// How many rows a listing may give.
fn bounded(limit: u32) -> u32 {
    if limit == 0 { DEFAULT_LIMIT } else { limit.min(MAX_LIMIT) }
}

/// The first text after all that begin with `prefix`: ids are ASCII, so a character above all of theirs ends the range.
fn prefix_end(prefix: &str) -> String {
    format!("{prefix}~")
}
