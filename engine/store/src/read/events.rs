//! Events, what was decided about them, and refs.

use kickwheel_schemas::Millis;

use super::{Query, bounded, prefix_end};
use crate::{
    EventKey, ReadError, Store,
    db::{Arg, Result, Row, undecodable},
    key,
    rows::{EventFilter, EventRange, EventRow, EventState, RefHead, StoredDecision, TransitionRow},
};

/// A statement that reads [`EventRow`]s. Statements are constants, and only a macro puts constants together.
macro_rules! event_where {
    ($rest:literal) => {
        concat!(
            "SELECT events.event_key, events.project, events.body, events.received_at, events.channel, events.position, ",
            "events.state, events.reason, events.enrichment, events.registry_revision, events.decided_at FROM events ",
            $rest
        )
    };
}

const STATES: [EventState; 4] =
    [EventState::Undecided, EventState::Decided, EventState::Quarantined, EventState::Dropped];

fn event_row(row: &Row) -> Result<EventRow> {
    let state = row.text("state")?;
    let state = STATES
        .into_iter()
        .find(|known| known.as_str() == state)
        .ok_or_else(|| undecodable("events.state", &format!("{state:?} is not known")))?;
    let enrichment = match row.opt_text("enrichment")? {
        Some(_) => row.json("enrichment")?,
        None => serde_json::Value::Null,
    };
    Ok(EventRow {
        key: row.parse("event_key")?,
        project: row.text("project")?,
        event: row.json("body")?,
        received_at: row.millis("received_at")?,
        channel: row.text("channel")?,
        position: row.uint("position")?,
        state,
        reason: row.opt_text("reason")?,
        enrichment,
        registry_revision: row.opt_int("registry_revision")?,
        decided_at: row.opt_millis("decided_at")?,
    })
}

fn event_rows(rows: Vec<Row>) -> std::result::Result<Vec<EventRow>, ReadError> {
    Ok(rows.iter().map(event_row).collect::<Result<_>>()?)
}

impl Store {
    /// The first undecided event of each lane that is not parked beyond `now`; those that are due longest first.
    pub async fn undecided(&self, now: Millis, limit: u32) -> std::result::Result<Vec<EventRow>, ReadError> {
        let sql = event_where!(
            "JOIN undecided ON undecided.event_key = events.event_key \
             JOIN lanes ON lanes.lane = undecided.lane AND lanes.head = undecided.position \
             WHERE lanes.due <= $1 AND lanes.head < lanes.next_position ORDER BY lanes.due, events.event_key LIMIT $2"
        );
        event_rows(self.readers().fetch(sql, [now.into(), bounded(limit).into()]).await?)
    }

    /// When the next parked lane is due, for those that are parked beyond `now`.
    pub async fn next_due(&self, now: Millis) -> std::result::Result<Option<Millis>, ReadError> {
        let sql = "SELECT due FROM lanes WHERE due > $1 AND head < next_position ORDER BY due LIMIT 1";
        let row = self.readers().fetch_one(sql, [Arg::from(now)]).await?;
        Ok(row.map(|row| row.millis("due")).transpose()?)
    }

    /// The event, if there is one.
    pub async fn event(&self, key: EventKey) -> std::result::Result<Option<EventRow>, ReadError> {
        let rows = self.readers().fetch(event_where!("WHERE event_key = $1"), [Arg::show(key)]).await?;
        Ok(event_rows(rows)?.pop())
    }

    /// Up to two events whose keys begin with `prefix`: one means that it is unique.
    pub async fn events_by_prefix(&self, prefix: &str) -> std::result::Result<Vec<EventRow>, ReadError> {
        let sql = event_where!("WHERE event_key >= $1 AND event_key < $2 ORDER BY event_key LIMIT 2");
        event_rows(self.readers().fetch(sql, [prefix.into(), prefix_end(prefix).into()]).await?)
    }

    /// The key under which an identity was accepted, as long as it is remembered.
    pub async fn event_by_identity(
        &self,
        project: &str,
        source: &str,
        id: &str,
    ) -> std::result::Result<Option<EventKey>, ReadError> {
        let identity = key::event_identity(project, source, id);
        let sql = "SELECT event_key FROM seen WHERE identity = $1";
        let row = self.readers().fetch_one(sql, [Arg::from(identity)]).await?;
        Ok(row.map(|row| row.parse("event_key")).transpose()?)
    }

    /// Events, newest first.
    pub async fn events(&self, filter: &EventFilter) -> std::result::Result<Vec<EventRow>, ReadError> {
        let mut query = Query::new(event_where!(""));
        query.compare("project =", filter.project.as_ref().map(Arg::from));
        query.compare("type =", filter.ty.as_ref().map(Arg::from));
        query.compare("source =", filter.source.as_ref().map(Arg::from));
        query.compare("subject =", filter.subject.as_ref().map(Arg::from));
        query.compare("received_at >=", filter.since.map(Arg::from));
        query.compare("event_key <", filter.before.map(Arg::show));
        if let Some(state) = filter.state {
            // A constant of ours, in the text so that the small index of quarantined events is used.
            query.condition(&format!("state = '{}'", state.as_str()));
        }
        let (sql, args) = query.finish("event_key DESC", filter.limit);
        event_rows(self.readers().fetch_text(sql, args).await?)
    }

    /// Events of a project in the order of their receipt, oldest first, whatever became of them.
    pub async fn events_in(&self, range: &EventRange) -> std::result::Result<Vec<EventRow>, ReadError> {
        let mut query = Query::new(event_where!(""));
        query.compare("project =", Some(Arg::from(&range.project)));
        query.compare("received_at >=", range.since.map(Arg::from));
        query.compare("received_at <", range.until.map(Arg::from));
        query.compare("event_key >", range.after.map(Arg::show));
        query.one_of("type", range.types.iter().map(Arg::from));
        let (sql, args) = query.finish("event_key", range.limit);
        event_rows(self.readers().fetch_text(sql, args).await?)
    }

    /// What was decided about an event, except *filtered*; by workflow name.
    pub async fn decisions(&self, key: EventKey) -> std::result::Result<Vec<StoredDecision>, ReadError> {
        let sql =
            "SELECT workflow, decision, reason, clause, run FROM decisions WHERE event_key = $1 ORDER BY workflow";
        let decode = |row: &Row| {
            Ok(StoredDecision {
                workflow: row.text("workflow")?,
                decision: row.text("decision")?,
                reason: row.text("reason")?,
                clause: row.opt_text("clause")?,
                run: row.opt_text("run")?.map(|_| row.parse("run")).transpose()?,
            })
        };
        let rows = self.readers().fetch(sql, [Arg::show(key)]).await?;
        Ok(rows.iter().map(decode).collect::<Result<_>>()?)
    }

    /// Where a ref stood after its last recorded move; none when no move was ever recorded.
    pub async fn ref_head(
        &self,
        project: &str,
        repo: &str,
        ref_name: &str,
    ) -> std::result::Result<Option<RefHead>, ReadError> {
        let sql = "SELECT head, transition FROM ref_heads WHERE project = $1 AND repo = $2 AND ref_name = $3";
        let row = self.readers().fetch_one(sql, [project.into(), repo.into(), ref_name.into()]).await?;
        let decode = |row: Row| {
            Ok::<_, sqlx::Error>(RefHead { commit: row.opt_text("head")?, transition: row.uint("transition")? })
        };
        Ok(row.map(decode).transpose()?)
    }

    /// The same for every ref of a repository that ever moved, with its name.
    pub async fn ref_heads(&self, project: &str, repo: &str) -> std::result::Result<Vec<(String, RefHead)>, ReadError> {
        let sql = "SELECT ref_name, head, transition FROM ref_heads WHERE project = $1 AND repo = $2 ORDER BY ref_name";
        let decode = |row: &Row| {
            let head = RefHead { commit: row.opt_text("head")?, transition: row.uint("transition")? };
            Ok((row.text("ref_name")?, head))
        };
        let rows = self.readers().fetch(sql, [project.into(), repo.into()]).await?;
        Ok(rows.iter().map(decode).collect::<Result<_>>()?)
    }

    /// The newest transitions of a ref, newest first.
    pub async fn transitions(
        &self,
        project: &str,
        repo: &str,
        ref_name: &str,
        limit: u32,
    ) -> std::result::Result<Vec<TransitionRow>, ReadError> {
        let sql = "SELECT transition, before_commit, after_commit, channels, event_key, moved_head, at \
                   FROM ref_transitions WHERE project = $1 AND repo = $2 AND ref_name = $3 \
                   ORDER BY transition DESC LIMIT $4";
        let decode = |row: &Row| {
            Ok(TransitionRow {
                transition: row.uint("transition")?,
                before: row.opt_text("before_commit")?,
                after: row.opt_text("after_commit")?,
                channels: row.json("channels")?,
                event: row.parse("event_key")?,
                moved_head: row.flag("moved_head")?,
                at: row.millis("at")?,
            })
        };
        let args: [Arg; 4] = [project.into(), repo.into(), ref_name.into(), bounded(limit).into()];
        let rows = self.readers().fetch(sql, args).await?;
        Ok(rows.iter().map(decode).collect::<Result<_>>()?)
    }
}
