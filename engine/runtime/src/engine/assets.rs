//! Models, datasets and artifacts.

use std::path::Path;

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use kickwheel_artifacts::Artifacts;
use kickwheel_schemas::{
    ArtifactRef, CloudEvent, Digest, Manifest, Millis,
    api::{AddDataset, AssetView, Page},
    payload::{self, DatasetVersion},
};
use kickwheel_store::{
    Write, WriteError, Written,
    rows::{AssetKind, AssetRow, WatchRow},
    write::{PublishDataset, PutWatch, RemoveNamed},
};
use serde_json::Value;

use super::{Engine, read_failed, registry::check_name, write_failed};
use crate::{
    ApiError, bus,
    reserved::watched_source,
    shared::{DEFAULT_PROJECT, WatchTrouble},
    view,
};

impl Engine {
    /// All models, or all datasets, each with its newest version.
    pub async fn assets(&self, kind: AssetKind) -> Result<Page<AssetView>, ApiError> {
        let mut rows = self.shared.store.assets(DEFAULT_PROJECT, kind).await.map_err(read_failed)?;
        let watches = self.watches_of(kind).await?;
        for watch in &watches {
            if !rows.iter().any(|r| r.name == watch.name) {
                rows.push(unpublished(watch));
            }
        }
        let watched = |name: &str| watches.iter().find(|w| w.name == name).map(|w| (w, self.watch_trouble(name)));
        let items = rows.iter().map(|r| view::asset(r, watched(&r.name))).collect();
        Ok(Page { items, next: None })
    }

    /// One by name, with all versions.
    pub async fn asset(&self, kind: AssetKind, name: &str) -> Result<AssetView, ApiError> {
        let watches = self.watches_of(kind).await?;
        let watch = watches.iter().find(|w| w.name == name);
        let row = self.shared.store.asset(DEFAULT_PROJECT, kind, name).await.map_err(read_failed)?;
        match row.or_else(|| watch.map(unpublished)) {
            Some(row) => Ok(view::asset(&row, watch.map(|w| (w, self.watch_trouble(name))))),
            None => Err(ApiError::NotFound {
                code: "asset_not_found",
                detail: format!("no {} {name:?}; `kickwheel {}s ls` lists them", kind.as_str(), kind.as_str()),
            }),
        }
    }

    async fn watches_of(&self, kind: AssetKind) -> Result<Vec<WatchRow>, ApiError> {
        match kind {
            AssetKind::Model => Ok(Vec::new()),
            AssetKind::Dataset => self.shared.store.watches(Some(DEFAULT_PROJECT)).await.map_err(read_failed),
        }
    }

    /// Watches a folder or file.
    pub async fn add_dataset(&self, add: AddDataset) -> Result<AssetView, ApiError> {
        self.refuse_when_draining()?;
        check_name(&add.name)?;
        if !Path::new(&add.path).is_absolute() {
            return Err(ApiError::Invalid {
                code: "bad_path",
                detail: format!("{:?} is not absolute; give the path from the root", add.path),
            });
        }
        if let Err(e) = std::fs::metadata(&add.path) {
            return Err(ApiError::Invalid { code: "bad_path", detail: format!("{}: {e}; create it first", add.path) });
        }
        let watches = self.shared.store.watches(Some(DEFAULT_PROJECT)).await.map_err(read_failed)?;
        if let Some(other) = watches.iter().find(|w| w.name == add.name && w.path != add.path) {
            return Err(ApiError::Conflict {
                code: "dataset_watched",
                detail: format!(
                    "dataset {} is {} already; remove that first with `kickwheel datasets rm`",
                    add.name, other.path
                ),
            });
        }
        let state = watches.into_iter().find(|w| w.name == add.name).map_or(Value::Null, |w| w.state);
        let put = PutWatch {
            project: DEFAULT_PROJECT.to_owned(),
            name: add.name.clone(),
            path: add.path,
            settle_ms: add.settle_ms,
            state,
        };
        self.shared.store.write(vec![Write::PutWatch(put)]).await.map_err(write_failed)?;
        self.shared.configured.changed();
        self.asset(AssetKind::Dataset, &add.name).await
    }

    /// Stops watching; versions stay.
    pub async fn remove_dataset(&self, name: &str) -> Result<(), ApiError> {
        let remove = RemoveNamed { project: DEFAULT_PROJECT.to_owned(), name: name.to_owned() };
        self.shared.store.write(vec![Write::RemoveWatch(remove)]).await.map_err(write_failed)?;
        self.shared.configured.changed();
        self.watch_was(name, None);
        Ok(())
    }

    /// What the dataset trigger has to watch.
    pub async fn watches(&self) -> Result<Vec<WatchRow>, ApiError> {
        self.watches_of(AssetKind::Dataset).await
    }

    /// Says what the dataset trigger met at its latest look, for those who ask; nothing when all was well.
    pub fn watch_was(&self, dataset: &str, trouble: Option<WatchTrouble>) {
        let mut troubles = self.shared.watch_troubles.lock().expect("no holder of this lock panics");
        match trouble {
            Some(trouble) => _ = troubles.insert(dataset.to_owned(), trouble),
            None => _ = troubles.remove(dataset),
        }
    }

    fn watch_trouble(&self, dataset: &str) -> Option<WatchTrouble> {
        self.shared.watch_troubles.lock().expect("no holder of this lock panics").get(dataset).cloned()
    }

    /// The artifact store, for triggers that bring bytes in.
    pub fn artifacts(&self) -> &Artifacts {
        &self.shared.artifacts
    }

    /// The newest version's files of a dataset, if it has one.
    pub async fn newest_manifest(&self, dataset: &str) -> Result<Option<(u64, Digest, Manifest)>, ApiError> {
        let row = self
            .shared
            .store
            .asset_version(DEFAULT_PROJECT, AssetKind::Dataset, dataset, None)
            .await
            .map_err(read_failed)?;
        let Some(row) = row else { return Ok(None) };
        let manifest = self.shared.artifacts.manifest(&row.artifact.digest).await.map_err(|e| ApiError::Conflict {
            code: "stored_data",
            detail: format!("version {} of dataset {dataset}: {e}", row.version),
        })?;
        Ok(Some((row.version, row.artifact.digest, manifest)))
    }

    /// Publishes what a watched path holds now as the next version, with its event and the watcher's state, all or
    /// nothing. The same bytes as the newest version publish nothing. False when somebody else was quicker: look again.
    pub async fn publish_watched(
        &self,
        watch: &WatchRow,
        artifact: ArtifactRef,
        previous: Option<u64>,
        change: (Vec<String>, Vec<String>),
    ) -> Result<bool, ApiError> {
        self.refuse_when_draining()?;
        let at = Millis::now();
        let version = previous.unwrap_or(0) + 1;
        let data = DatasetVersion {
            dataset: watch.name.clone(),
            version,
            previous,
            digest: artifact.digest.clone(),
            data_changed: true,
            added: change.0,
            removed: change.1,
        };
        let source = watched_source(&watch.path);
        let id = format!("{}@{version}", watch.name);
        let data = serde_json::to_value(data).expect("payloads have string keys only");
        let mut event =
            CloudEvent::new(source, id, payload::DATASET_VERSION_PUBLISHED, data).with_subject(watch.name.clone());
        event.time = Some(at.to_rfc3339());
        let unit = vec![
            Write::PublishDataset(PublishDataset {
                project: DEFAULT_PROJECT.to_owned(),
                name: watch.name.clone(),
                artifact,
                task: None,
                expected_previous: Some(previous),
                at,
            }),
            bus::cause(&self.shared, DEFAULT_PROJECT, "dataset", event, at),
            Write::PutWatch(watch.clone()),
        ];
        match self.shared.store.write(unit).await {
            Ok(written) => {
                bus::caused(&self.shared, &written);
                Ok(written.iter().any(|w| matches!(w, Written::Version { unchanged: false, .. })))
            }
            Err(WriteError::Conflict { .. }) => Ok(false),
            Err(e) => Err(write_failed(e)),
        }
    }

    /// Keeps a watcher's state.
    pub async fn keep_watch(&self, watch: WatchRow) -> Result<(), ApiError> {
        self.shared.store.write(vec![Write::PutWatch(watch)]).await.map_err(write_failed)?;
        Ok(())
    }

    /// The bytes of an artifact.
    pub async fn artifact(&self, digest: &str) -> Result<BoxStream<'static, Result<Bytes, std::io::Error>>, ApiError> {
        let digest: Digest =
            digest.parse().map_err(|e| ApiError::Invalid { code: "bad_digest", detail: format!("failed to {e}") })?;
        let stream = self.shared.artifacts.read(&digest).await.map_err(|e| {
            if e.is_transient() {
                ApiError::Unavailable { code: "artifact_unavailable", detail: e.to_string() }
            } else {
                ApiError::NotFound { code: "artifact_not_found", detail: e.to_string() }
            }
        })?;
        Ok(stream.map(|piece| piece.map_err(std::io::Error::other)).boxed())
    }
}

/// A watched dataset before its first version.
fn unpublished(watch: &WatchRow) -> AssetRow {
    AssetRow {
        project: watch.project.clone(),
        kind: AssetKind::Dataset,
        name: watch.name.clone(),
        versions: Vec::new(),
        stages: std::collections::BTreeMap::new(),
    }
}
