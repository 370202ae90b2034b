//! Input that could not become an event. Quarantined events are listed like all others.

use super::{Query, prefix_end};
use crate::{
    EventKey, ReadError, Store,
    db::{Arg, Result, Row, undecodable},
    rows::{InputFilter, InputRow, InputState, InputSummary},
    write::Resolution,
};

/// A statement that reads [`InputSummary`]s. Statements are constants, and only a macro puts constants together.
macro_rules! summary_where {
    ($rest:literal) => {
        concat!(
            "SELECT id, project, origin, reason, CAST(length(body) AS bigint) AS size, received_at, state, resolution, ",
            "resolved_at FROM quarantine ",
            $rest
        )
    };
}

const STATES: [InputState; 3] =
    [InputState::Held, InputState::Resolved(Resolution::Replayed), InputState::Resolved(Resolution::Dropped)];

fn summary(row: &Row) -> Result<InputSummary> {
    let state = row.text("state")?;
    let state = STATES
        .into_iter()
        .find(|known| known.as_str() == state)
        .ok_or_else(|| undecodable("quarantine.state", &format!("{state:?} is not known")))?;
    Ok(InputSummary {
        id: row.parse("id")?,
        project: row.text("project")?,
        origin: row.text("origin")?,
        reason: row.text("reason")?,
        size: row.uint("size")?,
        received_at: row.millis("received_at")?,
        state,
        note: row.opt_text("resolution")?,
        resolved_at: row.opt_millis("resolved_at")?,
    })
}

impl Store {
    /// Quarantined inputs without their bytes, newest first.
    pub async fn quarantined_inputs(&self, filter: &InputFilter) -> std::result::Result<Vec<InputSummary>, ReadError> {
        let mut query = Query::new(summary_where!(""));
        query.compare("project =", filter.project.as_ref().map(Arg::from));
        query.compare("id <", filter.before.map(Arg::show));
        if let Some(state) = filter.state {
            // A constant of ours, in the text so that the small index of held inputs is used.
            query.condition(&format!("state = '{}'", state.as_str()));
        }
        let (sql, args) = query.finish("id DESC", filter.limit);
        let rows = self.readers().fetch_text(sql, args).await?;
        Ok(rows.iter().map(summary).collect::<Result<_>>()?)
    }

    /// Up to two inputs whose ids begin with `prefix`: one means that it is unique.
    pub async fn quarantined_by_prefix(&self, prefix: &str) -> std::result::Result<Vec<InputSummary>, ReadError> {
        let sql = summary_where!("WHERE id >= $1 AND id < $2 ORDER BY id LIMIT 2");
        let rows = self.readers().fetch(sql, [prefix.into(), prefix_end(prefix).into()]).await?;
        Ok(rows.iter().map(summary).collect::<Result<_>>()?)
    }

    /// A quarantined input with its bytes.
    pub async fn quarantined_input(&self, id: EventKey) -> std::result::Result<Option<InputRow>, ReadError> {
        let sql = "SELECT id, project, origin, reason, CAST(length(body) AS bigint) AS size, received_at, state, \
                   resolution, resolved_at, headers, body FROM quarantine WHERE id = $1";
        let row = self.readers().fetch_one(sql, [Arg::show(id)]).await?;
        let decode = |row: Row| {
            Ok::<_, sqlx::Error>(InputRow {
                summary: summary(&row)?,
                headers: row.json("headers")?,
                body: row.blob("body")?,
            })
        };
        Ok(row.map(decode).transpose()?)
    }
}
