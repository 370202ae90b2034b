//! The job's log: standard output and standard error as one stream of bytes, appended as they come.
//!
//! A pipe and a thread stand between the job and the file, because the log has a limit: a job that writes more goes on,
//! and what comes after is dropped with a notice. The bytes are not interpreted; they need not be UTF-8. The file is not
//! synchronised: losing the tail of a log with the power is no lie about the result.

use std::{
    fs::{File, OpenOptions},
    io::{self, PipeReader, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use tokio::sync::oneshot;

/// How long the last bytes are waited for when every process of the job has ended. Only a process outside the job's tree
/// that was handed the pipe can keep it open.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// Writes the runner's own remarks, each a line, between the job's.
pub struct Log {
    file: File,
}

/// The thread that copies the job's output.
pub struct Pump {
    done: oneshot::Receiver<()>,
}

impl Log {
    /// Opens the file for appending.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().create(true).append(true).mode(0o644).open(path)? })
    }

    /// Adds a remark. A full disk must not fail the job, so failing to write is accepted.
    pub fn note(&self, text: &str) {
        let _ = (&self.file).write_all(format!("kickwheel: {text}\n").as_bytes());
    }

    /// Begins to copy what is written into the other end of `pipe`, at most `limit` bytes of it.
    pub fn pump(&self, mut pipe: PipeReader, limit: u64) -> io::Result<Pump> {
        let log = Self { file: self.file.try_clone()? };
        let (ended, done) = oneshot::channel();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            log.copy(&mut pipe, limit);
            // Nobody may be waiting any more.
            let _ = ended.send(());
        })?;
        Ok(Pump { done })
    }

    fn copy(&self, pipe: &mut PipeReader, limit: u64) {
        let mut buffer = vec![0; 64 * 1024];
        let (mut left, mut dropped, mut failed) = (limit, 0, None);
        loop {
            let read = match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let kept = left.min(read as u64) as usize;
            if kept > 0
                && let Err(error) = (&self.file).write_all(&buffer[..kept])
            {
                // The pipe is read on: a job must not stand still because its log cannot be written.
                failed = Some(error);
            }
            left -= kept as u64;
            if kept < read {
                if dropped == 0 {
                    self.note(&format!("the log has reached its limit of {limit} bytes; what follows is dropped"));
                }
                dropped += (read - kept) as u64;
            }
        }
        if dropped > 0 {
            self.note(&format!("{dropped} bytes of log were dropped"));
        }
        if let Some(error) = failed {
            self.note(&format!("some of the log could not be written: {error}"));
        }
    }
}

impl Pump {
    /// Waits until everything is written. All processes of the job have ended.
    pub async fn finish(self) {
        // Late or failed: the log is as complete as it will be.
        let _ = tokio::time::timeout(DRAIN_PATIENCE, self.done).await;
    }
}
