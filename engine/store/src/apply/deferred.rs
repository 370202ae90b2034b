//! Inserts that nothing in the batch has to wait for: gathered per table, and sent as one statement each.
//!
//! Only plain inserts of new rows are deferred. Whoever is to read such a row within the same transaction sends them
//! first; a row that cannot be inserted shows when they are sent, and the batch is then told apart by the writer.

use std::collections::HashSet;

use kickwheel_schemas::{RunId, api::RunPhase};
use serde_json::{Value, json};

use super::Applied;
use crate::{
    db::{Arg, Conn},
    write::{Accept, CreateRun, Decide},
};

/// Rows that wait to be inserted.
#[derive(Debug, Default)]
pub struct Deferred {
    /// For [`Deferred::holds_run`].
    run_ids: HashSet<RunId>,
    runs: Vec<Value>,
    events: Vec<Value>,
    undecided: Vec<Value>,
    decisions: Vec<Value>,
    /// What they come to, roughly.
    pub bytes: usize,
}

/// What is known of a row besides its texts.
const ROW_BYTES: usize = 200;

impl Deferred {
    /// Whether this run's row waits.
    pub fn holds_run(&self, run: RunId) -> bool {
        self.run_ids.contains(&run)
    }

    /// Whether rows of events wait.
    pub fn holds_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// A run in its first state: queued, with one open command.
    pub fn run(&mut self, run: &CreateRun) {
        self.run_ids.insert(run.run);
        self.bytes += ROW_BYTES + run.cause.len() + run.decision.len();
        self.runs.push(json!([
            run.shard,
            run.run.to_string(),
            run.project,
            run.workflow,
            run.plan_digest.as_str(),
            run.source_digest.as_str(),
            run.event_source,
            run.event_id,
            run.event_key.to_string(),
            run.generation,
            run.branch,
            run.commit,
            run.cause,
            run.decision,
            run.created_at.0,
            RunPhase::Queued.as_str(),
        ]));
    }

    /// An event at its place in its lane; with what it came to, if that is known already.
    pub fn event(&mut self, accept: &Accept, lane: &str, position: i64, decided: Option<&Decide>) {
        let event = &accept.event;
        let body = crate::db::to_json(event);
        let enrichment = decided.map(|d| crate::db::to_json(&d.enrichment));
        self.bytes += ROW_BYTES + body.len() + enrichment.as_ref().map_or(0, String::len);
        let key = accept.key.to_string();
        if decided.is_none() {
            self.undecided.push(json!([lane, position, accept.project, key]));
        }
        self.events.push(json!([
            key,
            accept.project,
            event.ty,
            event.source,
            event.subject,
            lane,
            position,
            accept.channel,
            accept.received_at.0,
            if decided.is_some() { "decided" } else { "undecided" },
            body,
            enrichment,
            decided.map(|d| d.registry_revision),
            decided.map(|d| d.at.0),
        ]));
    }

    /// The decisions about an event.
    pub fn decisions(&mut self, project: &str, decide: &Decide) {
        let key = decide.key.to_string();
        for outcome in &decide.outcomes {
            self.bytes += ROW_BYTES + outcome.reason.len();
            self.decisions.push(json!([
                key,
                outcome.workflow,
                project,
                outcome.decision,
                outcome.reason,
                outcome.clause,
                outcome.run.map(|run| run.to_string()),
                decide.at.0,
            ]));
        }
    }

    /// Inserts all that waits.
    pub async fn flush(&mut self, conn: &mut Conn) -> Applied<()> {
        let all = std::mem::take(self);
        for (rows, sql) in
            [(all.events, EVENTS), (all.undecided, UNDECIDED), (all.decisions, DECISIONS), (all.runs, RUNS)]
        {
            if !rows.is_empty() {
                conn.execute(sql, [Arg::json(&rows)]).await?;
            }
        }
        Ok(())
    }
}

const EVENTS: &str = "INSERT INTO events (event_key, project, type, source, subject, lane, position, channel, \
    received_at, state, body, enrichment, registry_revision, decided_at) SELECT value->>0, value->>1, value->>2, \
    value->>3, value->>4, value->>5, CAST(value->>6 AS bigint), value->>7, CAST(value->>8 AS bigint), value->>9, \
    value->>10, value->>11, CAST(value->>12 AS bigint), CAST(value->>13 AS bigint) FROM {rows}";

const UNDECIDED: &str = "INSERT INTO undecided (lane, position, project, event_key) \
    SELECT value->>0, CAST(value->>1 AS bigint), value->>2, value->>3 FROM {rows}";

const DECISIONS: &str = "INSERT INTO decisions (event_key, workflow, project, decision, reason, clause, run, at) \
    SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, CAST(value->>7 AS bigint) \
    FROM {rows}";

const RUNS: &str = "INSERT INTO runs (shard, run, project, workflow, plan_digest, source_digest, event_source, \
    event_id, event_key, generation, branch, commit_id, cause, decision, created_at, state, open_commands, wake_at, \
    recover_at, ended_at, next_seq, sealed) SELECT CAST(value->>0 AS bigint), value->>1, value->>2, value->>3, \
    value->>4, value->>5, value->>6, value->>7, value->>8, CAST(value->>9 AS bigint), value->>10, value->>11, \
    value->>12, value->>13, CAST(value->>14 AS bigint), value->>15, 1, NULL, 0, NULL, 0, 0 FROM {rows}";
