//! Named models and datasets: the rows that effects name, locked and compared in the transaction that accepts them.

use kickwheel_schemas::{ArtifactRef, Millis};

use super::{Applied, Refusal, Tx, stale};
use crate::{
    Write, WriteError, Written,
    db::Arg,
    rows::AssetKind,
    write::{PublishDataset, RegisterModel},
};

/// A name whose row is locked until the commit.
struct Locked<'a> {
    project: &'a str,
    kind: AssetKind,
    name: &'a str,
    newest: i64,
}

impl Locked<'_> {
    fn key(&self) -> [Arg; 3] {
        [self.project.into(), self.kind.as_str().into(), self.name.into()]
    }

    fn key_and(&self, more: impl IntoIterator<Item = Arg>) -> Vec<Arg> {
        let mut args = self.key().to_vec();
        args.extend(more);
        args
    }
}

async fn lock<'a>(tx: &mut Tx<'_>, project: &'a str, kind: AssetKind, name: &'a str) -> Applied<Locked<'a>> {
    let key = || [Arg::from(project), Arg::from(kind.as_str()), Arg::from(name)];
    tx.conn
        .execute(
            "INSERT INTO assets (project, kind, name, newest) VALUES ($1, $2, $3, 0) \
             ON CONFLICT (project, kind, name) DO NOTHING",
            key(),
        )
        .await?;
    let row = tx
        .conn
        .fetch_one("SELECT newest FROM assets WHERE project = $1 AND kind = $2 AND name = $3 {for_update}", key())
        .await?
        .ok_or_else(|| stale(format!("{}:{name} was being removed", kind.as_str())))?;
    Ok(Locked { project, kind, name, newest: row.int("newest")? })
}

/// The version that a task made of this name, if it has.
async fn version_of_task(tx: &mut Tx<'_>, asset: &Locked<'_>, task: Option<&String>) -> Applied<Option<u64>> {
    let Some(task) = task else { return Ok(None) };
    let row = tx
        .conn
        .fetch_one(
            "SELECT version FROM asset_versions WHERE project = $1 AND kind = $2 AND name = $3 AND task = $4",
            asset.key_and([task.into()]),
        )
        .await?;
    Ok(row.map(|row| row.uint("version")).transpose()?)
}

/// The version of a name that a task has made.
pub async fn made_by(tx: &mut Tx<'_>, project: &str, kind: AssetKind, name: &str, task: &str) -> Applied<Option<u64>> {
    let asset = Locked { project, kind, name, newest: 0 };
    version_of_task(tx, &asset, Some(&task.to_owned())).await
}

async fn stage_version(tx: &mut Tx<'_>, asset: &Locked<'_>, stage: &str) -> Applied<Option<u64>> {
    let row = tx
        .conn
        .fetch_one(
            "SELECT version FROM asset_stages WHERE project = $1 AND kind = $2 AND name = $3 AND stage = $4",
            asset.key_and([stage.into()]),
        )
        .await?;
    Ok(row.map(|row| row.uint("version")).transpose()?)
}

/// Adds the next version.
async fn add_version(
    tx: &mut Tx<'_>,
    asset: &Locked<'_>,
    artifact: &ArtifactRef,
    metrics: &std::collections::BTreeMap<String, f64>,
    task: Option<&String>,
    at: Millis,
) -> Applied<u64> {
    let version = asset.newest + 1;
    tx.conn
        .execute(
            "INSERT INTO asset_versions (project, kind, name, version, digest, artifact, metrics, task, at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            asset.key_and([
                version.into(),
                artifact.digest.as_str().into(),
                Arg::json(artifact),
                Arg::json(metrics),
                Arg::Text(task.cloned()),
                at.into(),
            ]),
        )
        .await?;
    tx.conn
        .execute(
            "UPDATE assets SET newest = $4 WHERE project = $1 AND kind = $2 AND name = $3",
            asset.key_and([version.into()]),
        )
        .await?;
    Ok(version as u64)
}

fn shown(version: Option<u64>) -> String {
    version.map_or_else(|| "none".to_owned(), |n| format!("version {n}"))
}

/// What is wrong with a stage, if it does not point where the plugin saw it.
async fn stage_conflict(tx: &mut Tx<'_>, asset: &Locked<'_>, model: &RegisterModel) -> Applied<Option<String>> {
    let Some(stage) = &model.stage else { return Ok(None) };
    let now = stage_version(tx, asset, stage).await?;
    if now == model.expected_version {
        return Ok(None);
    }
    let (now, seen) = (shown(now), shown(model.expected_version));
    Ok(Some(format!("model:{}@{stage} is now {now}, the plugin saw {seen}", model.name)))
}

/// Registers a version of a model and moves its stage.
pub async fn register_model(tx: &mut Tx<'_>, model: &RegisterModel) -> Applied<Written> {
    let asset = lock(tx, &model.project, AssetKind::Model, &model.name).await?;
    if let Some(version) = version_of_task(tx, &asset, model.task.as_ref()).await? {
        return Ok(Written::Version { version, unchanged: true });
    }
    if let Some(what) = stage_conflict(tx, &asset, model).await? {
        return Err(WriteError::Conflict { what: vec![what] }.into());
    }
    let version = add_version(tx, &asset, &model.artifact, &model.metrics, model.task.as_ref(), model.at).await?;
    if let Some(stage) = &model.stage {
        tx.conn
            .execute(
                "INSERT INTO asset_stages (project, kind, name, stage, version, at) VALUES ($1, $2, $3, $4, $5, $6) \
                 ON CONFLICT (project, kind, name, stage) DO UPDATE SET version = excluded.version, at = excluded.at",
                asset.key_and([stage.into(), version.into(), model.at.into()]),
            )
            .await?;
    }
    Ok(Written::Version { version, unchanged: false })
}

fn dataset_conflict(asset: &Locked<'_>, dataset: &PublishDataset) -> Option<String> {
    let expected = dataset.expected_previous?;
    let newest = (asset.newest > 0).then_some(asset.newest as u64);
    if newest == expected {
        return None;
    }
    Some(format!("dataset:{} is now {}, expected was {}", dataset.name, shown(newest), shown(expected)))
}

/// Publishes a version of a dataset, unless the newest has the same bytes.
pub async fn publish_dataset(tx: &mut Tx<'_>, dataset: &PublishDataset) -> Applied<Written> {
    let asset = lock(tx, &dataset.project, AssetKind::Dataset, &dataset.name).await?;
    if let Some(version) = version_of_task(tx, &asset, dataset.task.as_ref()).await? {
        return Ok(Written::Version { version, unchanged: true });
    }
    let newest = tx
        .conn
        .fetch_one(
            "SELECT digest FROM asset_versions WHERE project = $1 AND kind = $2 AND name = $3 AND version = $4",
            asset.key_and([asset.newest.into()]),
        )
        .await?;
    if let Some(row) = newest
        && row.text("digest")? == dataset.artifact.digest.as_str()
    {
        return Ok(Written::Version { version: asset.newest as u64, unchanged: true });
    }
    if let Some(what) = dataset_conflict(&asset, dataset) {
        return Err(WriteError::Conflict { what: vec![what] }.into());
    }
    let none = std::collections::BTreeMap::new();
    let version = add_version(tx, &asset, &dataset.artifact, &none, dataset.task.as_ref(), dataset.at).await?;
    Ok(Written::Version { version, unchanged: false })
}

/// Completes a conflict with those of the unit's remaining effects, so that the plugin hears of all of them at once.
pub async fn all_conflicts(tx: &mut Tx<'_>, mut what: Vec<String>, rest: &[Write]) -> Result<WriteError, Refusal> {
    for write in rest {
        let conflict = match write {
            Write::RegisterModel(model) => {
                let asset = lock(tx, &model.project, AssetKind::Model, &model.name).await?;
                stage_conflict(tx, &asset, model).await?
            }
            Write::PublishDataset(dataset) => {
                let asset = lock(tx, &dataset.project, AssetKind::Dataset, &dataset.name).await?;
                dataset_conflict(&asset, dataset)
            }
            // Only effects have expectations of the world.
            _ => None,
        };
        what.extend(conflict);
    }
    Ok(WriteError::Conflict { what })
}
