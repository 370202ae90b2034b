//! The pools of this engine, and which of them runs what.
//!
//! A step with an image goes to the pool with containers, one without to the processes of this machine. Each pool has a
//! line and a capacity of its own. What it deliberately does not do: choose among several pools that fit.

use kickwheel_core::{event::Work, plan::Resources};
use kickwheel_pool::Pool;

use crate::admission::Admission;

/// A pool and who may start next on it.
pub struct Place {
    /// As `doctor` and messages call it.
    pub name: &'static str,
    /// Where jobs run.
    pub pool: Pool,
    /// The line before it.
    pub admission: Admission,
}

/// All of them.
pub struct Pools {
    /// Processes of this machine.
    pub local: Place,
    /// Containers of a Docker Engine.
    pub docker: Option<Place>,
    /// Whether processes of this machine may be started.
    pub host_processes: bool,
}

impl Place {
    /// A pool, with its whole capacity to give.
    pub fn new(name: &'static str, pool: Pool) -> Self {
        let capacity = pool.capacity();
        Self { name, pool, admission: Admission::new(name, capacity.cpu_milli, capacity.memory_bytes) }
    }
}

impl Pools {
    /// All that there are.
    pub fn all(&self) -> impl Iterator<Item = &Place> {
        std::iter::once(&self.local).chain(&self.docker)
    }

    /// Where such work runs, or would: without a pool for containers the local one stands in for asking, and
    /// [`Pools::unplaceable`] has said that nothing is started there.
    pub fn of(&self, work: &Work) -> &Place {
        match (image_of(work), &self.docker) {
            (Some(_), Some(docker)) => docker,
            (Some(_), None) | (None, _) => &self.local,
        }
    }

    /// Why no pool that is configured can ever run it.
    pub fn unplaceable(&self, work: &Work, resources: &Resources) -> Option<String> {
        match (image_of(work), &self.docker) {
            (Some(image), None) => {
                return Some(format!(
                    "it needs a container ({image}) and no pool with containers is configured; start the server with \
                     `--docker`, or remove `image` to run it as a process of this machine"
                ));
            }
            (None, _) if !self.host_processes => {
                return Some(
                    "it has no `image`, and this server starts no processes of its own machine; give the step an image"
                        .to_owned(),
                );
            }
            (Some(_), Some(_)) | (None, _) => {}
        }
        self.of(work).admission.impossible(resources)
    }
}

/// The image that a job runs in.
pub fn image_of(work: &Work) -> Option<&str> {
    match work {
        Work::Job { image, .. } => image.as_deref(),
        Work::Call { .. } => None,
    }
}
