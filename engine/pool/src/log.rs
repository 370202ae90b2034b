//! Reading an attempt's log, also while it grows. What lies under its name is the job's to choose: only a regular file is
//! read, and no link is followed.

use std::{io, path::PathBuf, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use kickwheel_artifacts::beneath;
use kickwheel_schemas::AttemptKey;
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _, SeekFrom},
};

use crate::{LogStream, Observed, Pool, PoolError};

/// Bytes in one piece.
const PIECE_BYTES: usize = 64 * 1024;

/// Between two looks for more, while somebody follows.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(50);

struct Reading {
    pool: Pool,
    key: AttemptKey,
    path: PathBuf,
    offset: u64,
    follow: bool,
    file: Option<File>,
    /// The attempt had ended before the last read, so an end of file is the end.
    ended: bool,
}

/// The log from `offset` on.
pub fn read(pool: Pool, key: AttemptKey, path: PathBuf, offset: u64, follow: bool) -> LogStream {
    let reading = Reading { pool, key, path, offset, follow, file: None, ended: !follow };
    futures::stream::try_unfold(reading, |mut reading| async move {
        loop {
            if let Some(piece) = reading.piece().await? {
                return Ok(Some((piece, reading)));
            }
            if reading.ended || !reading.follow {
                return Ok(None);
            }
            // The log is complete when there is a result: one more read, and that is all.
            match reading.pool.observe(&reading.key).await? {
                Observed::Unknown | Observed::Ended(_) | Observed::Lost { .. } => reading.ended = true,
                Observed::Pending | Observed::Running { .. } => tokio::time::sleep(FOLLOW_INTERVAL).await,
            }
        }
    })
    .boxed()
}

impl Reading {
    async fn piece(&mut self) -> Result<Option<Bytes>, PoolError> {
        let file = match &mut self.file {
            Some(file) => file,
            None => match beneath::open_file(&self.path) {
                Ok(file) => {
                    let mut file = File::from_std(file);
                    file.seek(SeekFrom::Start(self.offset)).await.map_err(PoolError::io(&self.path))?;
                    self.file.insert(file)
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(PoolError::io(&self.path)(error)),
            },
        };
        let mut piece = vec![0; PIECE_BYTES];
        let read = file.read(&mut piece).await.map_err(PoolError::io(&self.path))?;
        piece.truncate(read);
        Ok((read > 0).then(|| piece.into()))
    }
}
