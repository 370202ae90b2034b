//! The pool of this machine.
#![allow(unused, missing_docs)]

use crate::{Capacity, LogStream, Observed, OpenError, PoolError, Request, StartError};
use kickwheel_schemas::{AttemptKey, runner::JobSpec};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// How the local pool is set up.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// The pool's folder, `pool/local` of the data folder; made if it is absent.
    pub folder: PathBuf,
    /// Root folder of the artifact store.
    pub artifacts: PathBuf,
    /// The runner binary.
    pub runner: PathBuf,
    /// What live attempts together may ask for.
    pub capacity: Capacity,
    /// The data folder's key, from which every attempt's credential is derived.
    pub key: Vec<u8>,
    /// The administrator's name for what is installed on this machine; changing it invalidates cached results.
    pub environment: String,
    /// `PATH` of jobs that set none.
    pub path: String,
    /// A delegated cgroup folder (v1 memory controller or v2) for memory limits; without one, resident memory is watched.
    pub cgroup: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct LocalPool {
    inner: Arc<()>,
}

#[derive(Debug)]
pub struct Changes {}

impl Changes {
    /// The next attempt that is worth observing.
    pub async fn next(&mut self) -> AttemptKey {
        todo!()
    }
}

impl LocalConfig {
    /// This machine's whole capacity and this process's `PATH`.
    pub fn new(
        folder: impl Into<PathBuf>,
        artifacts: impl Into<PathBuf>,
        runner: impl Into<PathBuf>,
        key: Vec<u8>,
    ) -> Self {
        todo!()
    }
}

impl LocalPool {
    pub async fn open(config: LocalConfig) -> Result<Self, OpenError> {
        todo!()
    }
    pub async fn start(&self, key: &AttemptKey, spec: &JobSpec, request: &Request) -> Result<(), StartError> {
        todo!()
    }
    pub async fn observe(&self, key: &AttemptKey) -> Result<Observed, PoolError> {
        todo!()
    }
    pub async fn wait(&self, key: &AttemptKey) -> Result<Observed, PoolError> {
        todo!()
    }
    pub async fn cancel(&self, key: &AttemptKey, grace: Duration) -> Result<(), PoolError> {
        todo!()
    }
    pub fn changes(&self) -> Changes {
        todo!()
    }
    pub async fn read_log(&self, key: &AttemptKey, offset: u64, follow: bool) -> Result<LogStream, PoolError> {
        todo!()
    }
    pub fn capacity(&self) -> Capacity {
        todo!()
    }
    pub async fn occupied(&self) -> Result<Capacity, PoolError> {
        todo!()
    }
    pub fn environment(&self) -> String {
        todo!()
    }
    pub async fn remove(&self, key: &AttemptKey) -> Result<(), PoolError> {
        todo!()
    }
}
