//! What a guest can see and use: the state behind one call.
//!
//! Clocks stand still, randomness is the same bytes in every call, standard output goes to the call's log, and there are
//! no files, sockets, variables or arguments. WASI is set up only when a guest first touches it, because most plugins
//! never do and it costs more than their whole work.

use std::{
    future::Future,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWrite;
use wasmtime::{ResourceLimiter, component::ResourceTable};
use wasmtime_wasi::{
    Deterministic, HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

use crate::{
    Limits,
    failure::Breach,
    logs::{CallLog, LogLevel, Stream},
};

pub(crate) mod bindings {
    //! Generated from `schemas/wit`.
    #![allow(missing_docs, clippy::pedantic)]
    wasmtime::component::bindgen!({
        path: "../../schemas/wit",
        world: "plugin",
        exports: { default: async },
    });
}

/// What every clock of a guest shows: 2000-01-01T00:00:00Z, a date that is plainly no real one.
const FIXED_TIME: Duration = Duration::from_hours(262_968);
/// What a guest's monotonic clock shows, in nanoseconds.
const FIXED_INSTANT: u64 = 1_000_000_000;
/// Seed of what guests take for randomness.
const RANDOM_SEED: &[u8] = b"kickwheel plugin randomness";
/// Bytes after which the constant randomness repeats.
const RANDOM_PERIOD: usize = 4096;
/// Most random bytes that a guest may ask for at once.
const RANDOM_MAX: u64 = 1 << 20;
/// Most elements that one table of a guest may have; also what the pool sets aside.
pub(crate) const TABLE_ELEMENTS: usize = 60_000;
/// Most bytes that a guest may write to a stream at once.
const STREAM_CHUNK: usize = 64 << 10;

static RANDOM: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let blocks = RANDOM_PERIOD / Sha256::output_size();
    let block = |i: usize| Sha256::new().chain_update(RANDOM_SEED).chain_update(i.to_le_bytes()).finalize();
    (0..blocks).flat_map(block).collect()
});

/// The state behind one call.
pub(crate) struct Sandbox {
    wasi: Option<WasiCtx>,
    table: ResourceTable,
    memory_used: u64,
    memory_limit: u64,
    /// When the guest has to be done.
    pub(crate) deadline: Instant,
    /// What it wrote.
    pub(crate) log: CallLog,
}

impl Sandbox {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            wasi: None,
            table: ResourceTable::new(),
            memory_used: 0,
            memory_limit: limits.memory_bytes,
            deadline: Instant::now() + limits.time,
            log: CallLog::new(limits.log_bytes),
        }
    }
}

impl bindings::kickwheel::plugin::host::Host for Sandbox {
    fn log(&mut self, level: String, message: String) {
        self.log.push(LogLevel::parse(&level), message);
    }
}

impl WasiView for Sandbox {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self.wasi.get_or_insert_with(|| stubbed_wasi(&self.log));
        WasiCtxView { ctx, table: &mut self.table }
    }
}

/// WASI as a guest gets it. What is not set here is closed by default: standard input is empty, there is no folder, no
/// variable, no argument, and no address may be used; name lookup and sockets are refused outright.
fn stubbed_wasi(log: &CallLog) -> WasiCtx {
    let constant = || Deterministic::new(RANDOM.clone());
    let seed = u128::from_le_bytes(RANDOM[..16].try_into().expect("the period is longer than 16 bytes"));
    WasiCtx::builder()
        .wall_clock(StoppedClock)
        .monotonic_clock(StoppedClock)
        .secure_random(constant())
        .insecure_random(constant())
        .insecure_random_seed(seed)
        .max_random_size(RANDOM_MAX)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .stdout(LogStream { log: log.clone(), stream: Stream::Stdout })
        .stderr(LogStream { log: log.clone(), stream: Stream::Stderr })
        .build()
}

struct StoppedClock;

impl HostWallClock for StoppedClock {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }
    fn now(&self) -> Duration {
        FIXED_TIME
    }
}

impl HostMonotonicClock for StoppedClock {
    fn resolution(&self) -> u64 {
        1
    }
    fn now(&self) -> u64 {
        FIXED_INSTANT
    }
}

impl ResourceLimiter for Sandbox {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        // The limit is for all memories of the component together. Growing past it ends the call rather than returning
        // -1 to the guest: allocators answer -1 with a bare `unreachable`, and the reason would be lost.
        let wanted = self.memory_used + desired.saturating_sub(current) as u64;
        if wanted > self.memory_limit {
            return Err(Breach::Memory { wanted }.into());
        }
        self.memory_used = wanted;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }
}

/// One of the two output streams of a guest, going to the call's log.
#[derive(Clone)]
struct LogStream {
    log: CallLog,
    stream: Stream,
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.log.write(self.stream, &bytes);
        Ok(())
    }
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }
    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(STREAM_CHUNK)
    }
}

impl Pollable for LogStream {
    // Written out because the trait is one of `async_trait`: the log is always ready.
    fn ready<'a, 'b>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(std::future::ready(()))
    }
}

impl AsyncWrite for LogStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.log.write(self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
