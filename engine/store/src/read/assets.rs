//! Named models and datasets, and the cache.

use std::collections::BTreeMap;

use kickwheel_schemas::RunId;

use super::bounded;
use crate::{
    ReadError, Store,
    db::{Arg, Result, Row, undecodable},
    rows::{AssetKind, AssetRow, AssetVersionRow, CacheRecordRow, CacheRow},
    write::CacheResult,
};

const CACHE_RESULTS: [CacheResult; 3] = [CacheResult::Hit, CacheResult::Miss, CacheResult::Off];

fn version_row(row: &Row) -> Result<AssetVersionRow> {
    Ok(AssetVersionRow {
        version: row.uint("version")?,
        artifact: row.json("artifact")?,
        metrics: row.json("metrics")?,
        task: row.opt_text("task")?,
        at: row.millis("at")?,
    })
}

fn record_row(row: &Row) -> Result<CacheRecordRow> {
    let result = row.text("result")?;
    let result = CACHE_RESULTS
        .into_iter()
        .find(|known| known.as_str() == result)
        .ok_or_else(|| undecodable("cache_records.result", &format!("{result:?} is not known")))?;
    Ok(CacheRecordRow {
        task: row.text("task")?,
        key: row.opt_text("key")?,
        parts: row.json("parts")?,
        result,
        at: row.millis("at")?,
    })
}

impl Store {
    /// A named model or dataset with its versions.
    pub async fn asset(
        &self,
        project: &str,
        kind: AssetKind,
        name: &str,
    ) -> std::result::Result<Option<AssetRow>, ReadError> {
        let key = || [Arg::from(project), Arg::from(kind.as_str()), Arg::from(name)];
        let sql = "SELECT version, artifact, metrics, task, at FROM asset_versions WHERE project = $1 AND kind = $2 \
                   AND name = $3 ORDER BY version DESC";
        let rows = self.readers().fetch(sql, key()).await?;
        let versions = rows.iter().map(version_row).collect::<Result<Vec<_>>>()?;
        if versions.is_empty() {
            return Ok(None);
        }
        let sql = "SELECT stage, version FROM asset_stages WHERE project = $1 AND kind = $2 AND name = $3";
        let mut stages = BTreeMap::new();
        for row in self.readers().fetch(sql, key()).await? {
            stages.insert(row.text("stage")?, row.uint("version")?);
        }
        Ok(Some(AssetRow { project: project.to_owned(), kind, name: name.to_owned(), versions, stages }))
    }

    /// All models or datasets of a project by name, each with its newest version only.
    pub async fn assets(&self, project: &str, kind: AssetKind) -> std::result::Result<Vec<AssetRow>, ReadError> {
        let sql = "SELECT assets.name, version, artifact, metrics, task, at FROM assets JOIN asset_versions \
                   ON asset_versions.project = assets.project AND asset_versions.kind = assets.kind \
                   AND asset_versions.name = assets.name AND asset_versions.version = assets.newest \
                   WHERE assets.project = $1 AND assets.kind = $2 ORDER BY assets.name";
        let rows = self.readers().fetch(sql, [project.into(), kind.as_str().into()]).await?;
        let mut assets = Vec::with_capacity(rows.len());
        for row in &rows {
            let (name, versions) = (row.text("name")?, vec![version_row(row)?]);
            assets.push(AssetRow { project: project.to_owned(), kind, name, versions, stages: BTreeMap::new() });
        }
        let sql = "SELECT name, stage, version FROM asset_stages WHERE project = $1 AND kind = $2";
        for row in self.readers().fetch(sql, [project.into(), kind.as_str().into()]).await? {
            let name = row.text("name")?;
            if let Ok(n) = assets.binary_search_by(|asset| asset.name.as_str().cmp(&name)) {
                assets[n].stages.insert(row.text("stage")?, row.uint("version")?);
            }
        }
        Ok(assets)
    }

    /// One version, or the newest.
    pub async fn asset_version(
        &self,
        project: &str,
        kind: AssetKind,
        name: &str,
        version: Option<u64>,
    ) -> std::result::Result<Option<AssetVersionRow>, ReadError> {
        let sql = "SELECT version, artifact, metrics, task, at FROM asset_versions WHERE project = $1 AND kind = $2 \
                   AND name = $3 AND ($4 = 0 OR version = $4) ORDER BY version DESC LIMIT 1";
        // Versions count from 1.
        let args: [Arg; 4] = [project.into(), kind.as_str().into(), name.into(), version.unwrap_or(0).into()];
        let row = self.readers().fetch_one(sql, args).await?;
        Ok(row.as_ref().map(version_row).transpose()?)
    }

    /// The version that a stage of a model points at.
    pub async fn stage(
        &self,
        project: &str,
        name: &str,
        stage: &str,
    ) -> std::result::Result<Option<AssetVersionRow>, ReadError> {
        let sql = "SELECT v.version, v.artifact, v.metrics, v.task, v.at FROM asset_stages AS s JOIN asset_versions AS v \
                   ON v.project = s.project AND v.kind = s.kind AND v.name = s.name AND v.version = s.version \
                   WHERE s.project = $1 AND s.kind = $2 AND s.name = $3 AND s.stage = $4";
        let args: [Arg; 4] = [project.into(), AssetKind::Model.as_str().into(), name.into(), stage.into()];
        let row = self.readers().fetch_one(sql, args).await?;
        Ok(row.as_ref().map(version_row).transpose()?)
    }

    /// A result kept under a content key.
    pub async fn cache_get(
        &self,
        project: &str,
        scope: &str,
        key: &str,
    ) -> std::result::Result<Option<CacheRow>, ReadError> {
        let sql = "SELECT task, output, at FROM cache WHERE project = $1 AND scope = $2 AND key = $3";
        let row = self.readers().fetch_one(sql, [project.into(), scope.into(), key.into()]).await?;
        let decode = |row: Row| {
            Ok::<_, sqlx::Error>(CacheRow {
                task: row.text("task")?,
                output: row.json("output")?,
                at: row.millis("at")?,
            })
        };
        Ok(row.map(decode).transpose()?)
    }

    /// How a task's content key was made up.
    pub async fn cache_record(&self, task: &str) -> std::result::Result<Option<CacheRecordRow>, ReadError> {
        let sql = "SELECT task, key, parts, result, at FROM cache_records WHERE task = $1";
        let row = self.readers().fetch_one(sql, [Arg::from(task)]).await?;
        Ok(row.as_ref().map(record_row).transpose()?)
    }

    /// Records of the same step from runs before `before`, newest first: what a miss can be compared with.
    pub async fn earlier_cache_records(
        &self,
        project: &str,
        workflow: &str,
        step: &str,
        before: RunId,
        limit: u32,
    ) -> std::result::Result<Vec<CacheRecordRow>, ReadError> {
        // A task's name begins with its run's id, and ids are ordered by time.
        let sql = "SELECT task, key, parts, result, at FROM cache_records WHERE project = $1 AND workflow = $2 \
                   AND step = $3 AND task < $4 ORDER BY task DESC LIMIT $5";
        let args: [Arg; 5] = [project.into(), workflow.into(), step.into(), Arg::show(before), bounded(limit).into()];
        let rows = self.readers().fetch(sql, args).await?;
        Ok(rows.iter().map(record_row).collect::<Result<_>>()?)
    }
}
