//! `models` and `datasets`: names, versions, stages, and which folders are watched.

use kickwheel_schemas::{
    Millis,
    api::{AddDataset, AssetView, Page},
};

use super::Session;
use crate::{
    args::{Datasets, Models},
    exit::{Exit, Failure, Outcome},
    output::{Look, Paint, listing, say, table},
    progress::number,
    times,
};

/// `models …`.
pub async fn models(session: &Session, models: Models) -> Outcome {
    match models {
        Models::Ls => ls(session, "models", "no models; a step that returns a promotion registers one").await,
        Models::Get { name } => get(session, "models", &name).await,
    }
}

/// `datasets …`.
pub async fn datasets(session: &Session, datasets: Datasets) -> Outcome {
    match datasets {
        Datasets::Ls => {
            ls(session, "datasets", "no datasets; `kickwheel datasets add NAME PATH` watches a folder").await
        }
        Datasets::Get { name } => get(session, "datasets", &name).await,
        Datasets::Add { name, path, settle } => {
            let path = std::fs::canonicalize(&path)
                .map_err(|e| Failure::usage(format!("cannot watch {}: {e}", path.display())))?;
            let Some(path) = path.to_str().map(str::to_owned) else {
                return Err(Failure::usage(format!("cannot watch {}: its path is not UTF-8", path.display())));
            };
            let settle_ms = u64::try_from(settle.as_millis()).unwrap_or(u64::MAX);
            let added =
                session.client()?.post::<AssetView>(&["datasets"], &AddDataset { name, path, settle_ms }).await?;
            say(if session.look.json {
                added.raw
            } else {
                format!("watching {} as {}", added.value.path.as_deref().unwrap_or("it"), added.value.id)
            })?;
            Ok(Exit::Ok)
        }
        Datasets::Rm { name } => {
            session.client()?.delete(&["datasets", &name]).await?;
            if !session.look.json {
                say(format!("{name} is watched no longer; its versions stay"))?;
            }
            Ok(Exit::Ok)
        }
    }
}

async fn ls(session: &Session, kind: &str, none: &str) -> Outcome {
    let page = session.client()?.get::<Page<AssetView>>(&[kind], &[]).await?;
    let now = Millis::now();
    let rows = page.value.items.iter().map(|asset| {
        let newest = asset.versions.first();
        vec![
            asset.id.clone(),
            asset.state.clone(),
            newest.map(|v| v.version.to_string()).unwrap_or_default(),
            stages(asset),
            newest.map(|v| times::ago(&v.created_at, now)).unwrap_or_default(),
            asset.path.clone().unwrap_or_default(),
            asset.reason.clone().unwrap_or_default(),
        ]
    });
    let headings = ["NAME", "STATE", "VERSION", "STAGES", "CREATED", "PATH", "REASON"];
    listing(session.look, &page.raw, &headings, rows.collect(), none)
}

fn stages(asset: &AssetView) -> String {
    asset.stages.iter().map(|(stage, version)| format!("{stage}={version}")).collect::<Vec<_>>().join(" ")
}

async fn get(session: &Session, kind: &str, name: &str) -> Outcome {
    let asset = session.client()?.get::<AssetView>(&[kind, name], &[]).await?;
    say(if session.look.json { asset.raw } else { render(session.look, &asset.value) })?;
    Ok(Exit::Ok)
}

fn render(look: Look, asset: &AssetView) -> String {
    let mut lines = vec![format!("{}  {}", look.paint(Paint::Strong, &asset.id), look.state(&asset.state))];
    lines.extend(asset.path.iter().map(|p| format!("  path    {p}")));
    lines.extend(asset.reason.iter().map(|r| format!("  reason  {r}")));
    if !asset.stages.is_empty() {
        lines.push(format!("  stages  {}", stages(asset)));
    }
    let rows = asset.versions.iter().map(|v| {
        let metrics = v.metrics.iter().map(|(name, value)| format!("{name}={}", number(*value)));
        vec![
            v.version.to_string(),
            v.artifact.digest.to_string(),
            v.artifact.size.to_string(),
            metrics.collect::<Vec<_>>().join(" "),
            v.created_at.clone(),
            v.task.clone().unwrap_or_default(),
        ]
    });
    lines.push(String::new());
    lines.push(table(look, &["VERSION", "DIGEST", "BYTES", "METRICS", "CREATED", "TASK"], rows));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kickwheel_schemas::{ArtifactRef, Digest, api::AssetVersionView};

    use super::*;

    #[test]
    fn a_model_shows_its_stages_and_versions() {
        let asset = AssetView {
            id: "churn".to_owned(),
            state: "active".to_owned(),
            project: "default".to_owned(),
            versions: vec![AssetVersionView {
                version: 2,
                artifact: ArtifactRef {
                    digest: Digest::of(b"m"),
                    size: 1,
                    path: "model.bin".to_owned(),
                    folder: false,
                },
                metrics: BTreeMap::from([("accuracy".to_owned(), 0.9625)]),
                task: Some("0190a1b2/train[3]".to_owned()),
                created_at: "2026-01-31T12:00:00.000Z".to_owned(),
            }],
            stages: BTreeMap::from([("production".to_owned(), 2)]),
            path: None,
            reason: None,
        };
        insta::assert_snapshot!(render(Look::PLAIN, &asset));
    }
}
