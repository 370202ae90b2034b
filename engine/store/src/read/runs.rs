//! Runs, their journals, snapshots and inboxes.

use std::collections::BTreeMap;

use kickwheel_schemas::{Millis, RunId, api::RunPhase};

use super::{JOURNAL, Query, bounded, prefix_end, sealed};
use crate::{
    EventKey, ReadError, Store,
    db::{Arg, Result, Row, undecodable},
    key,
    rows::{Counts, InboxRow, JournalRow, RunFilter, RunRow, SnapshotRow},
};

/// A statement that reads [`RunRow`]s. Statements are constants, and only a macro puts constants together.
macro_rules! run_where {
    ($rest:literal) => {
        concat!(
            "SELECT shard, run, project, workflow, plan_digest, source_digest, event_source, event_id, event_key, ",
            "generation, branch, commit_id, cause, decision, created_at, state, open_commands, wake_at, ended_at, ",
            "next_seq, sealed FROM runs ",
            $rest
        )
    };
}

const PHASES: [RunPhase; 6] = [
    RunPhase::Queued,
    RunPhase::Running,
    RunPhase::Waiting,
    RunPhase::Succeeded,
    RunPhase::Failed,
    RunPhase::Cancelled,
];

fn run_row(row: &Row) -> Result<RunRow> {
    let state = row.text("state")?;
    let state = PHASES
        .into_iter()
        .find(|phase| phase.as_str() == state)
        .ok_or_else(|| undecodable("runs.state", &format!("{state:?} is not known")))?;
    Ok(RunRow {
        run: row.parse("run")?,
        shard: row.uint("shard")? as u32,
        project: row.text("project")?,
        workflow: row.text("workflow")?,
        plan_digest: row.parse("plan_digest")?,
        source_digest: row.parse("source_digest")?,
        event_source: row.text("event_source")?,
        event_id: row.text("event_id")?,
        event_key: row.parse("event_key")?,
        generation: row.uint("generation")? as u32,
        branch: row.opt_text("branch")?,
        commit: row.opt_text("commit_id")?,
        cause: row.text("cause")?,
        decision: row.text("decision")?,
        created_at: row.millis("created_at")?,
        state,
        open: row.uint("open_commands")? as u32,
        wake_at: row.opt_millis("wake_at")?,
        ended_at: row.opt_millis("ended_at")?,
        next_seq: row.uint("next_seq")?,
        sealed: row.flag("sealed")?,
    })
}

fn run_rows(rows: Vec<Row>) -> std::result::Result<Vec<RunRow>, ReadError> {
    Ok(rows.iter().map(run_row).collect::<Result<_>>()?)
}

fn inbox_rows(rows: Vec<Row>) -> std::result::Result<Vec<InboxRow>, ReadError> {
    let decode = |row: &Row| {
        Ok(InboxRow {
            shard: row.uint("shard")? as u32,
            run: row.parse("run")?,
            input_id: row.text("input_id")?,
            body: row.json("body")?,
            at: row.millis("at")?,
        })
    };
    Ok(rows.iter().map(decode).collect::<Result<_>>()?)
}

/// The condition of the small index that holds all runs of these states, if there is one: those that live, or those
/// that ended badly. Of those that ended well there are too many for it to help.
fn index_over_states(states: &[RunPhase]) -> Option<&'static str> {
    if states.is_empty() {
        None
    } else if states.iter().all(|state| !state.is_terminal()) {
        Some("ended_at IS NULL")
    } else if states.iter().all(|state| matches!(state, RunPhase::Failed | RunPhase::Cancelled)) {
        Some("ended_at IS NOT NULL")
    } else {
        None
    }
}

impl Store {
    /// The run, if there is one.
    pub async fn run(&self, run: RunId) -> std::result::Result<Option<RunRow>, ReadError> {
        let rows = self.readers().fetch(run_where!("WHERE run = $1"), [Arg::show(run)]).await?;
        Ok(run_rows(rows)?.pop())
    }

    /// Up to two runs whose ids begin with `prefix`: one means that it is unique.
    pub async fn runs_by_prefix(&self, prefix: &str) -> std::result::Result<Vec<RunRow>, ReadError> {
        let sql = run_where!("WHERE run >= $1 AND run < $2 ORDER BY run LIMIT 2");
        run_rows(self.readers().fetch(sql, [prefix.into(), prefix_end(prefix).into()]).await?)
    }

    /// Runs, newest first.
    pub async fn runs(&self, filter: &RunFilter) -> std::result::Result<Vec<RunRow>, ReadError> {
        let mut query = Query::new(run_where!(""));
        // Where a small index over the states serves best, the names are hidden from the indexes over names: neither
        // planner knows that few runs live or fail among very many.
        let (project, workflow) = match index_over_states(&filter.states) {
            Some(condition) => {
                query.condition(condition);
                ("project || '' =", "workflow || '' =")
            }
            None => ("project =", "workflow ="),
        };
        query.compare(project, filter.project.as_ref().map(Arg::from));
        query.compare(workflow, filter.workflow.as_ref().map(Arg::from));
        query.compare("branch =", filter.branch.as_ref().map(Arg::from));
        query.compare("created_at >=", filter.since.map(Arg::from));
        query.compare("created_at <", filter.until.map(Arg::from));
        query.compare("run <", filter.before.map(Arg::show));
        if !filter.states.is_empty() {
            // States are constants of ours, so they may stand in the text.
            let states: Vec<_> = filter.states.iter().map(|state| format!("'{}'", state.as_str())).collect();
            query.condition(&format!("state IN ({})", states.join(", ")));
        }
        let (sql, args) = query.finish("run DESC", filter.limit);
        run_rows(self.readers().fetch_text(sql, args).await?)
    }

    /// The run that an event started for a workflow in a generation.
    pub async fn run_of(
        &self,
        project: &str,
        workflow: &str,
        event_source: &str,
        event_id: &str,
        generation: u32,
    ) -> std::result::Result<Option<RunId>, ReadError> {
        let identity = key::run_identity(project, workflow, event_source, event_id);
        let row = self
            .readers()
            .fetch_one(
                "SELECT run FROM run_identity WHERE identity = $1 AND generation = $2",
                [identity.into(), generation.into()],
            )
            .await?;
        Ok(row.map(|row| row.parse("run")).transpose()?)
    }

    /// The highest generation in which an event started a workflow.
    pub async fn last_generation(
        &self,
        project: &str,
        workflow: &str,
        event_source: &str,
        event_id: &str,
    ) -> std::result::Result<Option<u32>, ReadError> {
        let identity = key::run_identity(project, workflow, event_source, event_id);
        let sql = "SELECT generation FROM run_identity WHERE identity = $1 ORDER BY generation DESC LIMIT 1";
        let row = self.readers().fetch_one(sql, [Arg::from(identity)]).await?;
        Ok(row.map(|row| row.uint("generation")).transpose()?.map(|generation| generation as u32))
    }

    /// Runs that an event started, oldest first.
    pub async fn runs_of_event(&self, key: EventKey) -> std::result::Result<Vec<RunId>, ReadError> {
        let sql = "SELECT run FROM runs WHERE event_key = $1 ORDER BY run";
        let rows = self.readers().fetch(sql, [Arg::show(key)]).await?;
        Ok(rows.iter().map(|row| row.parse("run")).collect::<Result<_>>()?)
    }

    /// A run's events from `from_seq` on, in order, whether sealed or not. Empty for an unknown run.
    pub async fn journal(&self, run: RunId, from_seq: u64) -> std::result::Result<Vec<JournalRow>, ReadError> {
        let sql = "SELECT shard, next_seq, last_event, sealed FROM runs WHERE run = $1";
        let Some(row) = self.readers().fetch_one(sql, [Arg::show(run)]).await? else { return Ok(Vec::new()) };
        let (shard, next_seq) = (row.int("shard")?, row.uint("next_seq")?);
        if next_seq <= from_seq {
            return Ok(Vec::new());
        }
        if !row.flag("sealed")? {
            let chain = [shard.into(), Arg::Int(row.opt_int("last_event")?), from_seq.into()];
            let links = self.readers().fetch(JOURNAL, chain).await?;
            let events = links.iter().map(sealed::journal_row).collect::<Result<Vec<_>>>()?;
            if sealed::is_whole(&events, from_seq, next_seq) {
                return Ok(events);
            }
            // It was sealed since we looked: its rows are gone, and the sealed form is there for good.
        }
        let sql = "SELECT body FROM sealed WHERE shard = $1 AND run = $2";
        let body = self.readers().fetch_one(sql, [shard.into(), Arg::show(run)]).await?;
        let Some(body) = body else {
            return Err(ReadError::Corrupt {
                message: format!("the journal of run {run} lacks events and is not sealed"),
            });
        };
        let mut rows = sealed::unpack(&body.blob("body")?)?;
        rows.retain(|row| row.seq >= from_seq);
        Ok(rows)
    }

    /// A run's snapshot.
    pub async fn snapshot(&self, run: RunId) -> std::result::Result<Option<SnapshotRow>, ReadError> {
        let sql = "SELECT snapshots.seq, snapshots.body FROM runs JOIN snapshots ON snapshots.shard = runs.shard \
                   AND snapshots.run = runs.run WHERE runs.run = $1";
        let row = self.readers().fetch_one(sql, [Arg::show(run)]).await?;
        let decode = |row: Row| Ok::<_, sqlx::Error>(SnapshotRow { seq: row.uint("seq")?, body: row.blob("body")? });
        Ok(row.map(decode).transpose()?)
    }

    /// Runs of a shard that somebody has to act for: open commands, a timer, or inbox rows. Oldest first.
    pub async fn open_runs(&self, shard: u32) -> std::result::Result<Vec<RunRow>, ReadError> {
        let sql = run_where!(
            "WHERE shard = $1 AND run IN (SELECT run FROM runs WHERE shard = $1 AND recover_at IS NOT NULL \
             UNION SELECT run FROM inbox WHERE shard = $1) ORDER BY run"
        );
        run_rows(self.readers().fetch(sql, [Arg::from(shard)]).await?)
    }

    /// Runs of a shard whose timer is due at `now`.
    pub async fn due_wakes(&self, shard: u32, now: Millis, limit: u32) -> std::result::Result<Vec<RunRow>, ReadError> {
        let sql = run_where!("WHERE shard = $1 AND recover_at <= $2 AND wake_at <= $2 ORDER BY wake_at, run LIMIT $3");
        run_rows(self.readers().fetch(sql, [shard.into(), now.into(), bounded(limit).into()]).await?)
    }

    /// Runs that have ended and are not sealed, those that ended first first.
    pub async fn unsealed_finished(&self, limit: u32) -> std::result::Result<Vec<RunRow>, ReadError> {
        let sql = run_where!("WHERE ended_at IS NOT NULL AND sealed = 0 ORDER BY ended_at LIMIT $1");
        run_rows(self.readers().fetch(sql, [Arg::from(bounded(limit))]).await?)
    }

    /// Like [`Store::unsealed_finished`], but only runs whose whole journal was relayed.
    pub async fn unsealed_relayed(&self, limit: u32) -> std::result::Result<Vec<RunRow>, ReadError> {
        let sql = run_where!(
            "WHERE ended_at IS NOT NULL AND sealed = 0 AND coalesce(last_event, 0) <= \
             coalesce((SELECT shard_seq FROM relay_cursors WHERE relay_cursors.shard = runs.shard), 0) \
             ORDER BY ended_at LIMIT $1"
        );
        run_rows(self.readers().fetch(sql, [Arg::from(bounded(limit))]).await?)
    }

    /// Inputs that wait for runs of a shard, oldest first.
    pub async fn inbox(&self, shard: u32, limit: u32) -> std::result::Result<Vec<InboxRow>, ReadError> {
        let sql =
            "SELECT shard, run, input_id, at, body FROM inbox WHERE shard = $1 ORDER BY at, run, input_id LIMIT $2";
        inbox_rows(self.readers().fetch(sql, [shard.into(), bounded(limit).into()]).await?)
    }

    /// Inputs that wait for one run, oldest first.
    pub async fn inbox_of(&self, shard: u32, run: RunId) -> std::result::Result<Vec<InboxRow>, ReadError> {
        let sql =
            "SELECT shard, run, input_id, at, body FROM inbox WHERE shard = $1 AND run = $2 ORDER BY at, input_id";
        inbox_rows(self.readers().fetch(sql, [shard.into(), Arg::show(run)]).await?)
    }

    /// Numbers for metrics.
    pub async fn counts(&self) -> std::result::Result<Counts, ReadError> {
        let live = "SELECT state, count(*) AS n FROM runs WHERE ended_at IS NULL GROUP BY state";
        let mut live_runs = BTreeMap::new();
        for row in self.readers().fetch(live, []).await? {
            live_runs.insert(row.text("state")?, row.uint("n")?);
        }
        let sql = "SELECT (SELECT count(*) FROM undecided) AS undecided, \
                   (SELECT count(*) FROM events WHERE state = 'quarantined') AS quarantined, \
                   (SELECT count(*) FROM inbox) AS inbox, \
                   (SELECT count(*) FROM quarantine WHERE state = 'held') AS held";
        let mut counts = Counts { live_runs, ..Counts::default() };
        if let Some(row) = self.readers().fetch_one(sql, []).await? {
            counts.undecided = row.uint("undecided")?;
            counts.quarantined = row.uint("quarantined")?;
            counts.inbox = row.uint("inbox")?;
            counts.held = row.uint("held")?;
        }
        Ok(counts)
    }
}
