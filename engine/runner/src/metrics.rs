//! `$KICKWHEEL_METRICS`: JSON lines `{"name": …, "value": …, "step"?: …}`, read while the job runs.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

use kickwheel_artifacts::beneath;
use serde::Deserialize;

/// Most names that are kept; later new ones are dropped.
const NAMES_LIMIT: usize = 1000;

/// Longest line that is looked at, in bytes.
const LINE_LIMIT: usize = 64 * 1024;

/// Read at once, so that a job that writes much does not hold up the supervision.
const READ_LIMIT: u64 = 4 * 1024 * 1024;

/// The metric that is the fraction done.
const PROGRESS: &str = "progress";

#[derive(Deserialize)]
struct Line {
    name: String,
    // Some writers put NaN as null; that is no measurement.
    value: Option<f64>,
}

/// Reads the file from where it stopped.
pub struct Metrics {
    path: PathBuf,
    owner: Option<u32>,
    offset: u64,
    last: BTreeMap<String, f64>,
    malformed: u64,
}

impl Metrics {
    /// Metrics that will be written to `path`, by `owner` if that is not us.
    pub fn new(path: PathBuf, owner: Option<u32>) -> Self {
        Self { path, owner, offset: 0, last: BTreeMap::new(), malformed: 0 }
    }

    /// Takes in complete lines that were written since, at most a few megabytes of them. Says whether there may be more.
    pub fn refresh(&mut self) -> bool {
        let mut bytes = Vec::new();
        let read = self.open().and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.take(READ_LIMIT).read_to_end(&mut bytes)
        });
        // The job may have removed the file; then there is nothing more to read.
        if read.is_err() {
            return false;
        }
        let full = bytes.len() as u64 == READ_LIMIT;
        // A line without its end is still being written, unless it is longer than any line may be.
        let complete = match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if full => bytes.len(),
            None => 0,
        };
        for line in bytes[..complete].split(|byte| *byte == b'\n') {
            self.take(line);
        }
        self.offset += complete as u64;
        full
    }

    /// Everything that was written, once the job has ended: also a last line without its end. With the number of lines
    /// that were not understood.
    pub fn finish(mut self) -> (BTreeMap<String, f64>, u64) {
        while self.refresh() {}
        let mut rest = Vec::new();
        let read = self.open().and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.take(LINE_LIMIT as u64).read_to_end(&mut rest)
        });
        if read.is_ok() {
            self.take(&rest);
        }
        (self.last, self.malformed)
    }

    /// The fraction done, when the job reports one.
    pub fn progress(&self) -> Option<f64> {
        self.last.get(PROGRESS).map(|fraction| fraction.clamp(0.0, 1.0))
    }

    /// Whatever the job has put there: a pipe must not hold up the supervision.
    fn open(&self) -> io::Result<File> {
        beneath::owned(beneath::open_file(&self.path)?, self.owner)
    }

    fn take(&mut self, line: &[u8]) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let text = String::from_utf8_lossy(&line[..line.len().min(LINE_LIMIT)]);
        match serde_json::from_str::<Line>(&text) {
            Ok(Line { name, value: Some(value) }) if value.is_finite() => {
                if self.last.len() < NAMES_LIMIT || self.last.contains_key(&name) {
                    self.last.insert(name, value);
                }
            }
            Ok(_) => {}
            // Python's json.dumps writes these bare words, which are not JSON. They mean "no measurement" too.
            Err(_) if ["NaN", "Infinity"].iter().any(|word| text.contains(word)) => {}
            Err(_) => self.malformed += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_last_finite_value_of_each_name_counts() {
        let mut file = tempfile::NamedTempFile::new().expect("temporary files can be made");
        let mut metrics = Metrics::new(file.path().to_owned(), None);
        let mut write = |text: &str| file.write_all(text.as_bytes()).expect("it can be written");
        write("{\"name\":\"loss\",\"value\":2,\"step\":1}\n{\"name\":\"progress\",\"value\":0.5}\n{\"name\":\"lo");
        assert!(!metrics.refresh());
        assert_eq!(metrics.progress(), Some(0.5));
        write("ss\",\"value\":1.5}\n{\"name\":\"loss\",\"value\":NaN}\n{\"name\":\"loss\",\"value\":null}\nwhat\n\n");
        write("{\"name\":\"progress\",\"value\":7}\n{\"name\":\"f1\",\"value\":1e999}\n{\"name\":\"end\",\"value\":3}");
        assert!(!metrics.refresh());
        assert_eq!(metrics.progress(), Some(1.0));
        let (values, malformed) = metrics.finish();
        let expected = [("end", 3.0), ("loss", 1.5), ("progress", 7.0)];
        assert_eq!(values, expected.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        // 1e999 is beyond a float and an error of the parser; "what" is nothing at all.
        assert_eq!(malformed, 2);
    }

    #[test]
    fn a_pipe_in_place_of_the_file_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("temporary folders can be made");
        let path = folder.path().join("metrics");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .expect("pipes can be made");
        let (told, answer) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(Metrics::new(path, None).refresh()));
        let more = answer.recv_timeout(std::time::Duration::from_secs(10));
        assert_eq!(more, Ok(false));
    }

    #[test]
    fn a_missing_file_is_no_metrics() {
        let (values, malformed) = Metrics::new("/nowhere/at/all".into(), None).finish();
        assert!(values.is_empty());
        assert_eq!(malformed, 0);
    }
}
