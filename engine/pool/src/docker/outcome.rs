//! What is known about an attempt: from its folder first, and from the engine where the folder does not tell.

use std::time::Duration;

use kickwheel_artifacts::Put;
use kickwheel_schemas::{
    AttemptKey, Millis,
    runner::{CancelRequest, Claim, Heartbeat, JobEnd, JobResult, JobSpec, RunnerExit, Signed as _, file},
};

use super::{
    Inner,
    engine::Container,
    import::{self, ImportError},
};
use crate::{Observed, PoolError};

/// How `JobEnd::OutOfMemory` names a runner that was killed together with its job.
const BY_DOCKER: &str = "docker";

/// How much longer than the grace a runner may take to obey a cancel request before its container is killed.
const CANCEL_MARGIN: Duration = Duration::from_secs(10);

impl Inner {
    /// The attempt as it is now.
    pub(super) async fn look(&self, key: &AttemptKey) -> Result<Observed, PoolError> {
        if !self.places.exists(key) {
            return Ok(Observed::Unknown);
        }
        if let Some(outcome) = self.kept_outcome(key).await? {
            return Ok(outcome);
        }
        if let Some(result) = self.runners_result(key) {
            return self.take(key, result).await;
        }
        match self.engine.container(&self.container_name(key)).await? {
            Container::Absent if self.places.has(key, file::CLAIM) => {
                self.conclude(key, "somebody removed its container".to_owned()).await
            }
            // It is about to be made and started, or will be by the next sweep.
            Container::Absent | Container::Created => Ok(Observed::Pending),
            Container::Running { pid } => {
                self.enforce_cancel(key).await?;
                Ok(match (self.claim(key), self.places.untrusted::<Heartbeat>(key)) {
                    (Some(Claim { at, .. }), Some(heartbeat)) if heartbeat.child_pid != 0 => {
                        Observed::Running { heartbeat, pid, claimed_at: at }
                    }
                    _ => Observed::Pending,
                })
            }
            Container::Ended { out_of_memory: true, .. } => {
                let end = JobEnd::OutOfMemory { mechanism: BY_DOCKER.to_owned() };
                self.end_without_runner(key, end).await
            }
            Container::Ended { code, problem, out_of_memory: false } => {
                if self.kept::<CancelRequest>(key).await?.is_some() {
                    return self.end_without_runner(key, JobEnd::Cancelled).await;
                }
                let reason = self.reason_of_loss(key, code, &problem).await?;
                self.conclude(key, reason).await
            }
        }
    }

    /// What was decided about its end, if it was.
    async fn kept_outcome(&self, key: &AttemptKey) -> Result<Option<Observed>, PoolError> {
        if let Some(result) = self.kept::<JobResult>(key).await? {
            return Ok(Some(Observed::Ended(Box::new(result))));
        }
        Ok(self.kept::<RunnerExit>(key).await?.map(|lost| Observed::Lost { reason: lost.message }))
    }

    async fn kept<D: kickwheel_artifacts::Document>(&self, key: &AttemptKey) -> Result<Option<D>, PoolError> {
        Ok(self.places.kept_documents().get::<D>(&key.file_name()).await?)
    }

    /// The runner's result, if there is an authentic one. A forged one is as good as none.
    fn runners_result(&self, key: &AttemptKey) -> Option<JobResult> {
        let result = self.places.untrusted::<JobResult>(key)?;
        if result.is_authentic(&self.credential(key)) && result.attempt == key.to_string() {
            return Some(result);
        }
        tracing::warn!(attempt = %key, "a result that is not signed with the attempt's credential is ignored");
        None
    }

    /// Imports a result's outputs, then keeps it.
    async fn take(&self, key: &AttemptKey, mut result: JobResult) -> Result<Observed, PoolError> {
        let turn = self.turn(key);
        let _turn = turn.lock().await;
        if let Some(outcome) = self.kept_outcome(key).await? {
            return Ok(outcome);
        }
        match import::import(&self.artifacts, &self.places.attempt(key), &result, self.config.output_limit_bytes).await
        {
            Ok(()) => {}
            Err(ImportError::Pool(error)) => return Err(error),
            Err(ImportError::Bad(message)) => {
                result.end = JobEnd::BadOutput { message };
                result.values.clear();
                result.artifacts.clear();
                result = result.signed(&self.credential(key));
            }
        }
        self.keep(key, result).await
    }

    /// The attempt's turn is taken.
    async fn keep(&self, key: &AttemptKey, result: JobResult) -> Result<Observed, PoolError> {
        let _: Put = self.places.kept_documents().put(&key.file_name(), &result).await?;
        if let Err(error) = self.places.discard_stores(key) {
            // Only space is at stake; the attempt's removal tries again.
            tracing::warn!(attempt = %key, %error, "failed to free an ended attempt's stores");
        }
        Ok(Observed::Ended(Box::new(result)))
    }

    /// The container has ended, and the last look at its folder decides: with a result or as lost.
    async fn conclude(&self, key: &AttemptKey, reason: String) -> Result<Observed, PoolError> {
        if let Some(result) = self.runners_result(key) {
            return self.take(key, result).await;
        }
        let turn = self.turn(key);
        let _turn = turn.lock().await;
        if let Some(outcome) = self.kept_outcome(key).await? {
            return Ok(outcome);
        }
        self.lose(key, reason.clone()).await?;
        Ok(Observed::Lost { reason })
    }

    /// The runner went with its container, and why is known: the pool signs what the runner could not write.
    async fn end_without_runner(&self, key: &AttemptKey, end: JobEnd) -> Result<Observed, PoolError> {
        if let Some(result) = self.runners_result(key) {
            return self.take(key, result).await;
        }
        let turn = self.turn(key);
        let _turn = turn.lock().await;
        if let Some(outcome) = self.kept_outcome(key).await? {
            return Ok(outcome);
        }
        let now = Millis::now();
        let heartbeat = self.places.untrusted::<Heartbeat>(key);
        let claim = self.claim(key);
        let limit = self.kept::<JobSpec>(key).await?.and_then(|spec| spec.memory_bytes).unwrap_or(0);
        let peak_rss_bytes = match &end {
            JobEnd::OutOfMemory { .. } => limit,
            _ => heartbeat.map_or(0, |heartbeat| heartbeat.rss_bytes),
        };
        let result = JobResult {
            attempt: key.to_string(),
            nonce: claim.as_ref().map(|claim| claim.nonce.clone()).unwrap_or_default(),
            end,
            values: Default::default(),
            artifacts: Default::default(),
            metrics: Default::default(),
            started_at: claim.map_or(now, |claim| claim.at),
            ended_at: now,
            cpu_ms: 0,
            peak_rss_bytes,
            mac: String::new(),
        }
        .signed(&self.credential(key));
        self.keep(key, result).await
    }

    /// Kills a container whose runner had its grace and more, and did not obey.
    async fn enforce_cancel(&self, key: &AttemptKey) -> Result<(), PoolError> {
        let Some(request) = self.kept::<CancelRequest>(key).await? else { return Ok(()) };
        let patience = Duration::from_millis(request.grace_ms) + CANCEL_MARGIN;
        if Duration::from_millis(Millis::now().since(request.at)) > patience {
            tracing::warn!(attempt = %key, "a runner did not obey a cancel request; its container is killed");
            self.engine.kill(&self.container_name(key), "SIGKILL").await?;
        }
        Ok(())
    }

    async fn reason_of_loss(&self, key: &AttemptKey, code: i64, problem: &str) -> Result<String, PoolError> {
        if let Some(exit) = self.places.untrusted::<RunnerExit>(key) {
            return Ok(exit.message);
        }
        if self.places.has(key, file::RESULT) {
            return Ok("its result is not signed with the attempt's credential".to_owned());
        }
        let mut reason = format!("its container ended with code {code} and without a result");
        if code == 137 {
            reason.push_str(": it was killed, or the container engine was restarted");
        }
        for words in [problem, &self.engine.last_words(&self.container_name(key)).await?] {
            if !words.is_empty() {
                reason = format!("{reason}: {words}");
            }
        }
        Ok(reason)
    }
}
