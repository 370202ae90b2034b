//! What a plugin writes while it runs: lines of its `log` import, and of its standard output and error.
//!
//! The lines are only collected here. They are revealed with the call's result, never earlier, so that a call that runs
//! ahead of a commit leaves no visible trace.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// For the plugin's author.
    Debug,
    /// For whoever reads the task's log.
    Info,
    /// Something is odd.
    Warn,
    /// Something went wrong.
    Error,
}

impl LogLevel {
    /// From the WIT world's text; what is unknown counts as `info`.
    pub fn parse(text: &str) -> Self {
        match text {
            "debug" => Self::Debug,
            "warn" => Self::Warn,
            "error" => Self::Error,
            _ => Self::Info,
        }
    }
}

/// One line of a plugin's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// How much it matters.
    pub level: LogLevel,
    /// Its text, without a line break at the end.
    pub message: String,
}

/// What one more line costs of the limit beside its text, so that empty lines are not free.
const LINE_COST: usize = 16;

/// The log of one call, shared between its `log` import and its two output streams.
#[derive(Clone, Debug)]
pub(crate) struct CallLog(Arc<Mutex<Lines>>);

#[derive(Debug)]
struct Lines {
    kept: Vec<LogLine>,
    left: usize,
    limit: usize,
    dropped: u64,
    /// Unfinished lines of standard output and standard error.
    partial: [Vec<u8>; 2],
}

/// One of the two output streams of a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn level(self) -> LogLevel {
        match self {
            Self::Stdout => LogLevel::Info,
            Self::Stderr => LogLevel::Warn,
        }
    }
}

impl CallLog {
    pub(crate) fn new(limit: usize) -> Self {
        let partial = [Vec::new(), Vec::new()];
        Self(Arc::new(Mutex::new(Lines { kept: Vec::new(), left: limit, limit, dropped: 0, partial })))
    }

    fn with<R>(&self, f: impl FnOnce(&mut Lines) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a line, or counts it as dropped once the limit is reached.
    pub(crate) fn push(&self, level: LogLevel, message: String) {
        self.with(|lines| lines.push(level, message));
    }

    /// Adds bytes of a stream; each line break ends a line.
    pub(crate) fn write(&self, stream: Stream, bytes: &[u8]) {
        self.with(|lines| {
            for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
                // A guest that never ends its line must not grow the host's memory past the limit either.
                let room = (lines.left + 1).saturating_sub(lines.partial[stream as usize].len());
                lines.partial[stream as usize].extend_from_slice(&piece[..piece.len().min(room)]);
                if piece.ends_with(b"\n") {
                    lines.end_line(stream);
                }
            }
        });
    }

    /// The lines so far, unfinished ones included; where some were dropped, the last line says so.
    pub(crate) fn take(&self) -> Vec<LogLine> {
        self.with(|lines| {
            for stream in [Stream::Stdout, Stream::Stderr] {
                if !lines.partial[stream as usize].is_empty() {
                    lines.end_line(stream);
                }
            }
            let mut kept = mem::take(&mut lines.kept);
            if lines.dropped > 0 {
                let message =
                    format!("{} more lines were dropped: a call may log {} bytes", lines.dropped, lines.limit);
                kept.push(LogLine { level: LogLevel::Warn, message });
            }
            kept
        })
    }
}

impl Lines {
    fn push(&mut self, level: LogLevel, message: String) {
        let cost = message.len() + LINE_COST;
        if self.dropped > 0 || cost > self.left {
            self.dropped += 1;
            return;
        }
        self.left -= cost;
        self.kept.push(LogLine { level, message });
    }

    fn end_line(&mut self, stream: Stream) {
        let bytes = mem::take(&mut self.partial[stream as usize]);
        let text = String::from_utf8_lossy(&bytes);
        self.push(stream.level(), text.trim_end_matches(['\n', '\r']).to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(log: &CallLog) -> Vec<String> {
        log.take().into_iter().map(|line| line.message).collect()
    }

    #[test]
    fn lines_past_the_limit_are_counted_and_not_kept() {
        let log = CallLog::new(2 * (LINE_COST + 3));
        for line in ["one", "two", "six", "x"] {
            log.push(LogLevel::Info, line.to_owned());
        }
        assert_eq!(texts(&log), ["one", "two", "2 more lines were dropped: a call may log 38 bytes"]);
    }

    #[test]
    fn a_stream_is_cut_into_lines_and_its_rest_is_kept() {
        let log = CallLog::new(1_000);
        log.write(Stream::Stdout, b"a\nb");
        log.write(Stream::Stderr, b"oh\r\n");
        log.write(Stream::Stdout, b"c");
        let lines = log.take();
        assert_eq!(lines.len(), 3);
        assert_eq!((lines[0].level, lines[0].message.as_str()), (LogLevel::Info, "a"));
        assert_eq!((lines[1].level, lines[1].message.as_str()), (LogLevel::Warn, "oh"));
        assert_eq!((lines[2].level, lines[2].message.as_str()), (LogLevel::Info, "bc"));
    }

    #[test]
    fn a_line_without_end_does_not_outgrow_the_limit() {
        let log = CallLog::new(100);
        for _ in 0..1_000 {
            log.write(Stream::Stdout, &[b'x'; 64]);
        }
        assert!(log.with(|lines| lines.partial[0].len()) <= 101);
        assert_eq!(texts(&log), ["1 more lines were dropped: a call may log 100 bytes"]);
    }
}
