//! Triggers and where they stand.

use crate::{
    ReadError, Store,
    db::{Arg, Result, Row},
    rows::{TriggerRow, TriggerStateRow},
};

fn trigger_row(row: &Row) -> Result<TriggerRow> {
    Ok(TriggerRow {
        project: row.text("project")?,
        name: row.text("name")?,
        kind: row.text("kind")?,
        config: row.json("config")?,
        paused: row.flag("paused")?,
        created_at: row.millis("created_at")?,
    })
}

fn state_row(row: &Row) -> Result<TriggerStateRow> {
    Ok(TriggerStateRow { trigger: row.text("name")?, version: row.uint("version")?, state: row.json("state")? })
}

impl Store {
    /// Triggers by project and name; of all projects if none is given.
    pub async fn triggers(&self, project: Option<&str>) -> std::result::Result<Vec<TriggerRow>, ReadError> {
        let sql = "SELECT project, name, kind, config, paused, created_at FROM triggers \
                   WHERE $1 = '' OR project = $1 ORDER BY project, name";
        let rows = self.readers().fetch(sql, [Arg::from(project.unwrap_or_default())]).await?;
        Ok(rows.iter().map(trigger_row).collect::<Result<_>>()?)
    }

    /// A trigger.
    pub async fn trigger(&self, project: &str, name: &str) -> std::result::Result<Option<TriggerRow>, ReadError> {
        let sql = "SELECT project, name, kind, config, paused, created_at FROM triggers \
                   WHERE project = $1 AND name = $2";
        let row = self.readers().fetch_one(sql, [project.into(), name.into()]).await?;
        Ok(row.as_ref().map(trigger_row).transpose()?)
    }

    /// Where a trigger stands; none: version 0.
    pub async fn trigger_state(
        &self,
        project: &str,
        trigger: &str,
    ) -> std::result::Result<Option<TriggerStateRow>, ReadError> {
        let sql = "SELECT name, version, state FROM trigger_state WHERE project = $1 AND name = $2";
        let row = self.readers().fetch_one(sql, [project.into(), trigger.into()]).await?;
        Ok(row.as_ref().map(state_row).transpose()?)
    }

    /// Where all triggers of a project stand, by name; also what stands without a trigger.
    pub async fn trigger_states(&self, project: &str) -> std::result::Result<Vec<TriggerStateRow>, ReadError> {
        let sql = "SELECT name, version, state FROM trigger_state WHERE project = $1 ORDER BY name";
        let rows = self.readers().fetch(sql, [Arg::from(project)]).await?;
        Ok(rows.iter().map(state_row).collect::<Result<_>>()?)
    }
}
