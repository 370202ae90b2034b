//! Claiming an attempt: the conditional put that decides which of several runners may run user code.

use std::fs;

use kickwheel_artifacts::{Attempts, Put};
use kickwheel_schemas::{
    Millis,
    runner::{Claim, JobSpec, Signed as _, file},
};

use crate::process;

/// The right to run user code of an attempt.
pub struct Claimed {
    /// Signs the result.
    pub credential: String,
    /// Tells this runner from others.
    pub nonce: String,
}

/// Takes the attempt, or says that another runner has it. The credential's file is removed by the winner, so that the job
/// finds no key in its folder that would sign another result.
pub async fn take(attempts: &Attempts, name: &str, spec: &JobSpec) -> Result<Option<Claimed>, String> {
    let path = attempts.folder().join(name).join(file::CREDENTIAL);
    let credential = match fs::read_to_string(&path) {
        Ok(text) => text,
        // The winner has removed it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return match attempts.get::<Claim>(name).await {
                Ok(Some(_)) => Ok(None),
                Ok(None) => Err(format!("read {}: the engine has written none", path.display())),
                Err(error) => Err(error.to_string()),
            };
        }
        Err(error) => return Err(format!("read {}: {error}", path.display())),
    };
    let pid = std::process::id();
    let nonce = hex::encode(rand::random::<[u8; 16]>());
    let claim = Claim {
        attempt: spec.attempt.clone(),
        nonce: nonce.clone(),
        pid,
        start_ticks: process::stat(pid).ok_or("read its own /proc entry; mount /proc")?.start_ticks,
        boot: process::boot_id()?,
        at: Millis::now(),
        mac: String::new(),
    }
    .signed(&credential);
    match attempts.claim(name, &claim).await.map_err(|error| error.to_string())? {
        Put::Existed => Ok(None),
        Put::Stored => {
            fs::remove_file(&path).map_err(|error| format!("remove {}: {error}", path.display()))?;
            Ok(Some(Claimed { credential, nonce }))
        }
    }
}
