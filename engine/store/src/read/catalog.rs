//! What is configured: plans, the registry, repositories, watches; and reports that are due.

use std::collections::BTreeSet;

use kickwheel_schemas::{Digest, Millis};

use super::bounded;
use crate::{
    ReadError, Store,
    db::{Arg, Result, Row},
    rows::{PlanRow, RegistryRow, RepoRow, ReportRow, WatchRow},
};

fn plan_row(row: &Row) -> Result<PlanRow> {
    Ok(PlanRow {
        project: row.text("project")?,
        plan_digest: row.parse("plan_digest")?,
        source_digest: row.parse("source_digest")?,
        name: row.text("name")?,
        yaml: row.text("yaml")?,
        compiled: row.json("compiled")?,
        at: row.millis("at")?,
    })
}

fn repo_row(row: &Row) -> Result<RepoRow> {
    Ok(RepoRow {
        project: row.text("project")?,
        name: row.text("name")?,
        url: row.text("url")?,
        default_branch: row.opt_text("default_branch")?,
        hook: row.flag("hook")?,
        reason: row.opt_text("reason")?,
        secret: row.opt_text("secret")?,
        poll_ms: row.opt_int("poll_ms")?.map(|ms| ms.max(0) as u64),
        access: row.json("access")?,
    })
}

fn watch_row(row: &Row) -> Result<WatchRow> {
    Ok(WatchRow {
        project: row.text("project")?,
        name: row.text("name")?,
        path: row.text("path")?,
        settle_ms: row.uint("settle_ms")?,
        state: row.json("state")?,
    })
}

impl Store {
    /// A compiled workflow.
    pub async fn plan(&self, project: &str, plan_digest: &Digest) -> std::result::Result<Option<PlanRow>, ReadError> {
        let sql = "SELECT project, plan_digest, source_digest, name, yaml, compiled, at FROM plans WHERE project = $1 \
                   AND plan_digest = $2";
        let row = self.readers().fetch_one(sql, [project.into(), plan_digest.as_str().into()]).await?;
        Ok(row.as_ref().map(plan_row).transpose()?)
    }

    /// Every version of a workflow that was ever compiled, newest first.
    pub async fn plan_versions(&self, project: &str, name: &str) -> std::result::Result<Vec<PlanRow>, ReadError> {
        let sql = "SELECT project, plan_digest, source_digest, name, yaml, compiled, at FROM plans WHERE project = $1 \
                   AND name = $2 ORDER BY at DESC, plan_digest";
        let rows = self.readers().fetch(sql, [project.into(), name.into()]).await?;
        Ok(rows.iter().map(plan_row).collect::<Result<_>>()?)
    }

    /// A revision of a project's registry, or the newest.
    pub async fn registry(
        &self,
        project: &str,
        revision: Option<i64>,
    ) -> std::result::Result<Option<RegistryRow>, ReadError> {
        // Revisions count from 1.
        let sql = "SELECT revision, body, at FROM registry WHERE project = $1 AND ($2 = 0 OR revision = $2) \
                   ORDER BY revision DESC LIMIT 1";
        let row = self.readers().fetch_one(sql, [project.into(), revision.unwrap_or(0).into()]).await?;
        let decode = |row: Row| {
            Ok::<_, sqlx::Error>(RegistryRow {
                revision: row.int("revision")?,
                body: row.json("body")?,
                at: row.millis("at")?,
            })
        };
        Ok(row.map(decode).transpose()?)
    }

    /// Names of the paused workflows of a project.
    pub async fn paused(&self, project: &str) -> std::result::Result<BTreeSet<String>, ReadError> {
        let sql = "SELECT workflow FROM paused WHERE project = $1";
        let rows = self.readers().fetch(sql, [Arg::from(project)]).await?;
        Ok(rows.iter().map(|row| row.text("workflow")).collect::<Result<_>>()?)
    }

    /// Bound repositories by project and name; of all projects if none is given.
    pub async fn repos(&self, project: Option<&str>) -> std::result::Result<Vec<RepoRow>, ReadError> {
        let sql = "SELECT project, name, url, default_branch, hook, reason, secret, poll_ms, access FROM repos \
                   WHERE $1 = '' OR project = $1 ORDER BY project, name";
        let rows = self.readers().fetch(sql, [Arg::from(project.unwrap_or_default())]).await?;
        Ok(rows.iter().map(repo_row).collect::<Result<_>>()?)
    }

    /// A bound repository.
    pub async fn repo(&self, project: &str, name: &str) -> std::result::Result<Option<RepoRow>, ReadError> {
        let sql = "SELECT project, name, url, default_branch, hook, reason, secret, poll_ms, access FROM repos \
                   WHERE project = $1 AND name = $2";
        let row = self.readers().fetch_one(sql, [project.into(), name.into()]).await?;
        Ok(row.as_ref().map(repo_row).transpose()?)
    }

    /// Watched datasets by project and name; of all projects if none is given.
    pub async fn watches(&self, project: Option<&str>) -> std::result::Result<Vec<WatchRow>, ReadError> {
        let sql = "SELECT project, name, path, settle_ms, state FROM watches WHERE $1 = '' OR project = $1 \
                   ORDER BY project, name";
        let rows = self.readers().fetch(sql, [Arg::from(project.unwrap_or_default())]).await?;
        Ok(rows.iter().map(watch_row).collect::<Result<_>>()?)
    }

    /// Reports that are due at `now`, those that are due longest first.
    pub async fn reports_due(&self, now: Millis, limit: u32) -> std::result::Result<Vec<ReportRow>, ReadError> {
        let sql = "SELECT run, project, due_at, body, attempts, reason FROM reports WHERE due_at <= $1 \
                   ORDER BY due_at, run LIMIT $2";
        let decode = |row: &Row| {
            Ok(ReportRow {
                project: row.text("project")?,
                run: row.parse("run")?,
                due_at: row.millis("due_at")?,
                body: row.json("body")?,
                attempts: row.uint("attempts")? as u32,
                reason: row.opt_text("reason")?,
            })
        };
        let rows = self.readers().fetch(sql, [now.into(), bounded(limit).into()]).await?;
        Ok(rows.iter().map(decode).collect::<Result<_>>()?)
    }

    /// When the next report is due.
    pub async fn next_report(&self) -> std::result::Result<Option<Millis>, ReadError> {
        let row = self.readers().fetch_one("SELECT due_at FROM reports ORDER BY due_at LIMIT 1", []).await?;
        Ok(row.map(|row| row.millis("due_at")).transpose()?)
    }

    /// A value of the whole installation.
    pub async fn meta(&self, key: &str) -> std::result::Result<Option<String>, ReadError> {
        let row = self.readers().fetch_one("SELECT value FROM meta WHERE key = $1", [Arg::from(key)]).await?;
        Ok(row.map(|row| row.text("value")).transpose()?)
    }
}
