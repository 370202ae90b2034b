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
    sync::mpsc::{RecvTimeoutError, sync_channel},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::mask::Masker;

/// How long the last bytes are waited for when every process of the job has ended. Only a process outside the job's tree
/// that was handed the pipe can keep it open.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// When so long nothing came, what is held back for the sake of masking and tells nothing is written.
const PAUSE: Duration = Duration::from_millis(300);

/// Chunks that wait for being masked.
const QUEUED_CHUNKS: usize = 4;

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

    /// Begins to copy what is written into the other end of `pipe`, at most `limit` bytes of it, without what `masker` hides.
    pub fn pump(&self, pipe: PipeReader, limit: u64, masker: Masker) -> io::Result<Pump> {
        let mut copy =
            Copy { log: Self { file: self.file.try_clone()? }, limit, left: limit, dropped: 0, failed: None };
        let (ended, done) = oneshot::channel();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            if masker.is_idle() {
                read(pipe, |chunk| copy.write(chunk));
            } else {
                copy.masked(pipe, masker);
            }
            copy.conclude();
            // Nobody may be waiting any more.
            let _ = ended.send(());
        })?;
        Ok(Pump { done })
    }
}

/// Reads to the end.
fn read(mut pipe: PipeReader, mut take: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => take(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

struct Copy {
    log: Log,
    limit: u64,
    left: u64,
    dropped: u64,
    failed: Option<io::Error>,
}

impl Copy {
    fn write(&mut self, bytes: &[u8]) {
        let kept = self.left.min(bytes.len() as u64) as usize;
        if kept > 0
            && let Err(error) = (&self.log.file).write_all(&bytes[..kept])
        {
            // The pipe is read on: a job must not stand still because its log cannot be written.
            self.failed = Some(error);
        }
        self.left -= kept as u64;
        if kept < bytes.len() {
            if self.dropped == 0 {
                let limit = self.limit;
                self.log.note(&format!("the log has reached its limit of {limit} bytes; what follows is dropped"));
            }
            self.dropped += (bytes.len() - kept) as u64;
        }
    }

    /// A second thread reads, since this one must notice when nothing comes.
    fn masked(&mut self, pipe: PipeReader, mut masker: Masker) {
        let (sender, chunks) = sync_channel::<Vec<u8>>(QUEUED_CHUNKS);
        let reader = std::thread::Builder::new().name("log-read".to_owned()).spawn(move || {
            // Nobody receives any more only if the other thread is gone, and then the process ends.
            read(pipe, |chunk| _ = sender.send(chunk.to_vec()));
        });
        if let Err(error) = reader {
            // Without it there is no log: showing it unmasked is no alternative.
            self.failed = Some(error);
            return;
        }
        let mut shown = Vec::new();
        loop {
            let chunk = if masker.is_holding() {
                chunks.recv_timeout(PAUSE)
            } else {
                chunks.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match chunk {
                Ok(chunk) => masker.push(&chunk, &mut shown),
                Err(RecvTimeoutError::Timeout) => masker.pause(&mut shown),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.write(&shown);
            shown.clear();
        }
        masker.finish(&mut shown);
        self.write(&shown);
    }

    fn conclude(&mut self) {
        if self.dropped > 0 {
            self.log.note(&format!("{} bytes of log were dropped", self.dropped));
        }
        if let Some(error) = &self.failed {
            self.log.note(&format!("some of the log could not be written: {error}"));
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
