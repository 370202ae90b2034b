//! What a pool has and what an attempt asks of it.

use serde::{Deserialize, Serialize};

/// Amounts: of a whole pool, or the sum over its live attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Whole GPUs.
    pub gpu: u32,
}

/// What one attempt asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes; none counts as nothing. The limit itself is part of the job's specification.
    pub memory_bytes: Option<u64>,
    /// Whole GPUs.
    pub gpu: u32,
    /// A container image; none for a process.
    pub image: Option<String>,
}

impl Capacity {
    /// All cores and all memory of this machine, no GPU.
    pub fn of_this_machine() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let memory = rustix::system::sysinfo();
        Self {
            cpu_milli: cores * 1000,
            memory_bytes: (memory.totalram as u64).saturating_mul(u64::from(memory.mem_unit)),
            gpu: 0,
        }
    }

    /// This and what `request` asks for.
    pub(crate) fn plus(self, request: &Request) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_add(request.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_add(request.memory_bytes.unwrap_or(0)),
            gpu: self.gpu.saturating_add(request.gpu),
        }
    }

    /// The first amount of which `self` has more than `whole`, for people.
    pub(crate) fn excess_over(self, whole: Self) -> Option<String> {
        let gib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0 / 1024.0;
        if self.cpu_milli > whole.cpu_milli {
            Some(format!("{} of {} cores", self.cpu_milli as f64 / 1000.0, whole.cpu_milli as f64 / 1000.0))
        } else if self.memory_bytes > whole.memory_bytes {
            Some(format!("{:.2} of {:.2} GiB of memory", gib(self.memory_bytes), gib(whole.memory_bytes)))
        } else if self.gpu > whole.gpu {
            Some(format!("{} of {} GPUs", self.gpu, whole.gpu))
        } else {
            None
        }
    }
}
