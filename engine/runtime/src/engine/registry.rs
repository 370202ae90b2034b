//! Workflows and repositories.

use std::{collections::BTreeMap, path::PathBuf};

use kickwheel_repos::{Binding, MirrorId, Origin, install_hook, remove_hook};
use kickwheel_schemas::{
    Millis,
    api::{AddRepo, ApplyWorkflow, Page, RepoView, WorkflowView},
};
use kickwheel_store::{
    Write,
    rows::RepoRow,
    write::{PutRepo, RemoveNamed, SetPaused},
};

use super::{
    AdhocError, Engine,
    polling::{self, MAX_POLL_MS, MIN_POLL_MS, PollState},
    read_failed, write_failed,
};
use crate::{
    ApiError,
    origins::{self, RepoAccess},
    registry::{self, Entry, EntryOrigin, compile_commit, compile_file},
    shared::DEFAULT_PROJECT,
    view,
};

impl Engine {
    /// The registry as it is, broken files included.
    pub async fn workflows(&self) -> Result<Page<WorkflowView>, ApiError> {
        let paused = self.shared.paused().await.map_err(read_failed)?;
        let mut items = Vec::new();
        for entry in &self.shared.registry().entries {
            items.push(self.workflow_view(entry, paused.contains(&entry.name)).await?);
        }
        Ok(Page { items, next: None })
    }

    async fn workflow_view(&self, entry: &Entry, paused: bool) -> Result<WorkflowView, ApiError> {
        let inputs = match &entry.plan {
            Some(plan) => view::inputs(&*self.shared.workflow(plan).await.map_err(read_failed)?),
            None => BTreeMap::new(),
        };
        Ok(view::workflow(entry, DEFAULT_PROJECT, paused, inputs))
    }

    /// Puts a file into the registry; a file with mistakes is refused with all of them.
    pub async fn apply_workflow(&self, apply: ApplyWorkflow) -> Result<WorkflowView, AdhocError> {
        self.refuse_when_draining()?;
        let present = self.shared.registry();
        // A workflow that was applied before is replaced; one from a repository is not to be shadowed in silence.
        let taken = present
            .entries
            .iter()
            .filter(|e| e.plan.is_some() && e.origin.repo().is_some())
            .map(|e| (e.name.clone(), format!("repository {}", e.origin.repo().unwrap_or_default())))
            .collect();
        let origin = EntryOrigin::Applied { file: apply.file };
        let (entry, put) = compile_file(&self.shared, origin, &apply.yaml, &taken);
        if entry.plan.is_none() {
            return Err(AdhocError::Diagnostics(entry.diagnostics));
        }
        let added = entry.clone();
        registry::update(&self.shared, put.into_iter().collect(), move |present| {
            let mut entries = present.entries.clone();
            entries.retain(|e| e.origin.repo().is_some() || e.name != added.name);
            entries.push(added);
            entries
        })
        .await
        .map_err(write_failed)?;
        let paused = self.shared.paused().await.map_err(read_failed)?;
        Ok(self.workflow_view(&entry, paused.contains(&entry.name)).await?)
    }

    /// Paused: events start nothing and their decision says so.
    pub async fn set_paused(&self, workflow: &str, paused: bool) -> Result<WorkflowView, ApiError> {
        let registry = self.shared.registry();
        let entry = registry.named(workflow).ok_or_else(|| ApiError::NotFound {
            code: "workflow_not_found",
            detail: format!("no workflow {workflow:?}; `kickwheel workflows ls` lists them"),
        })?;
        let set =
            SetPaused { project: DEFAULT_PROJECT.to_owned(), workflow: workflow.to_owned(), paused, at: Millis::now() };
        let mut known = self.shared.paused.write().await;
        // Also when it fails: it may have been done.
        *known = None;
        self.shared.store.write(vec![Write::SetPaused(set)]).await.map_err(write_failed)?;
        drop(known);
        self.workflow_view(entry, paused).await
    }

    /// All bound repositories.
    pub async fn repos(&self) -> Result<Page<RepoView>, ApiError> {
        let rows = self.shared.store.repos(Some(DEFAULT_PROJECT)).await.map_err(read_failed)?;
        Ok(Page { items: rows.iter().map(|r| self.repo_view(r)).collect(), next: None })
    }

    fn repo_view(&self, row: &RepoRow) -> RepoView {
        let every = polling::poll_every(&self.shared, row);
        RepoView {
            id: row.name.clone(),
            state: if row.reason.is_none() { "active" } else { "unreachable" }.to_owned(),
            project: row.project.clone(),
            url: row.url.clone(),
            default_branch: row.default_branch.clone(),
            hook: polling::tells(&self.shared, row),
            poll_ms: every.map(|every| u64::try_from(every.as_millis()).unwrap_or(u64::MAX)),
            secret: row.secret.clone(),
            reason: row.reason.clone(),
        }
    }

    /// Binds a repository, reads its workflows, and installs the hook of a local one, which calls `binary`. Binding it
    /// again changes what is said now and keeps the rest.
    pub async fn add_repo(&self, add: AddRepo, binary: Option<PathBuf>) -> Result<RepoView, ApiError> {
        self.refuse_when_draining()?;
        check_name(&add.name)?;
        let (mut row, is_new) = self.binding(&add).await?;
        let mirror = origins::mirror_of(&self.shared, &row).await.map_err(|e| refused(&e))?;
        self.shared.mirrors.fetch(&mirror, &[]).await.map_err(|e| refused(&e))?;
        let head = self.shared.mirrors.head(&mirror).await.map_err(|e| refused(&e))?;
        row.default_branch = head.as_ref().map(|h| h.branch.clone());
        let mut writes = vec![Write::PutRepo(row.clone())];
        if is_new {
            writes.push(self.first_position(&mirror).await?);
        }
        let mut entries = Vec::new();
        if let Some(head) = head {
            let tree = self.shared.mirrors.tree(&mirror, &head.commit).await.map_err(|e| refused(&e))?;
            let files = self.shared.mirrors.workflow_files(&mirror, &head.commit).await.map_err(|e| refused(&e))?;
            let present = self.shared.registry();
            let others = present.entries.iter().filter(|e| e.origin.repo() != Some(add.name.as_str()));
            let compiled = compile_commit(&self.shared, &add.name, &head.commit, &tree, &files, others);
            writes.extend(compiled.plans);
            entries = compiled.entries;
        }
        // The binding is durable before the hook can call us: no push may find its repository unknown.
        registry::update(&self.shared, writes, |present| present.overlaid(&add.name, &entries))
            .await
            .map_err(write_failed)?;
        self.shared.configured.changed();
        // Hooks are for repositories on this machine; all others are polled.
        if let (Some(binary), Some(path)) = (binary, mirror.origin().local_path()) {
            let binding = Binding { binary, repo: add.name, data: self.shared.folder.path("") };
            let path = path.to_owned();
            let installed = tokio::task::spawn_blocking(move || install_hook(&path, &binding)).await;
            match installed.map_err(|e| refused(&e))? {
                Ok(_) => row.hook = true,
                Err(e) => row.reason = Some(format!("{}: {e}", origins::NO_HOOK)),
            }
            self.shared.store.write(vec![Write::PutRepo(row.clone())]).await.map_err(write_failed)?;
        }
        self.shared.repos_changed.notify_one();
        Ok(self.repo_view(&row))
    }

    /// The binding that is asked for, and whether there is none yet.
    async fn binding(&self, add: &AddRepo) -> Result<(PutRepo, bool), ApiError> {
        let rows = self.shared.store.repos(Some(DEFAULT_PROJECT)).await.map_err(read_failed)?;
        if let Some(other) = rows.iter().find(|r| (r.url == add.url) != (r.name == add.name)) {
            return Err(ApiError::Conflict {
                code: "repo_bound",
                detail: format!(
                    "{} is bound as {:?} already; remove that binding first with `kickwheel repos rm {}`",
                    other.url, other.name, other.name
                ),
            });
        }
        let known = rows.into_iter().find(|r| r.name == add.name);
        let is_new = known.is_none();
        let mut row = known.unwrap_or_else(|| PutRepo {
            project: DEFAULT_PROJECT.to_owned(),
            name: add.name.clone(),
            url: add.url.clone(),
            default_branch: None,
            hook: false,
            reason: None,
            secret: None,
            poll_ms: None,
            access: serde_json::json!({}),
        });
        row.reason = None;
        row.secret = add.secret.clone().or(row.secret);
        row.poll_ms = add.poll_ms.or(row.poll_ms);
        let mut access: RepoAccess = serde_json::from_value(row.access.clone()).unwrap_or_default();
        access.username = add.username.clone().or(access.username);
        if add.known_hosts.is_some() || add.accept_new_host_key {
            access.known_hosts.clone_from(&add.known_hosts);
            access.accept_new_host_key = add.accept_new_host_key;
        }
        let origin = Origin::parse(&row.url).map_err(|e| refused(&e))?;
        origins::check(&origin, row.secret.as_deref(), &access).map_err(|e| refused(&e))?;
        if let Some(ms) = row.poll_ms.filter(|ms| *ms != 0 && !(MIN_POLL_MS..=MAX_POLL_MS).contains(ms)) {
            return Err(refused(&format!(
                "it cannot be polled every {ms} ms; give a time from {} s to {} h, or `off`",
                MIN_POLL_MS / 1000,
                MAX_POLL_MS / 3_600_000
            )));
        }
        row.access = serde_json::to_value(&access).expect("it has string keys only");
        Ok((row, is_new))
    }

    /// Where the refs of a repository stand that is bound just now: only what moves from here on is told.
    async fn first_position(&self, mirror: &MirrorId) -> Result<Write, ApiError> {
        let refs = self.shared.mirrors.heads(mirror).await.map_err(|e| refused(&e))?;
        let store = &self.shared.store;
        let recorded = store.ref_heads(DEFAULT_PROJECT, &mirror.name).await.map_err(read_failed)?;
        let position = polling::position_name(&mirror.name);
        let kept = store.trigger_state(DEFAULT_PROJECT, &position).await.map_err(read_failed)?;
        let state = PollState::beginning(refs.into_iter().map(|r| (r.name, r.target)), &recorded);
        Ok(state.as_write(&mirror.name, kept.map_or(0, |kept| kept.version)))
    }

    /// Unbinds it and removes the hook.
    pub async fn remove_repo(&self, name: &str) -> Result<(), ApiError> {
        let row = self.shared.store.repo(DEFAULT_PROJECT, name).await.map_err(read_failed)?.ok_or_else(|| {
            ApiError::NotFound {
                code: "repo_not_found",
                detail: format!("no repository {name:?}; `kickwheel repos ls` lists them"),
            }
        })?;
        let refused = |e: &dyn std::fmt::Display| ApiError::Conflict { code: "repo_refused", detail: e.to_string() };
        // Not asked, so no credentials: a secret that is gone must not keep its repository bound.
        let mirror = self.shared.mirrors.mirror(DEFAULT_PROJECT, name, &row.url).await.map_err(|e| refused(&e))?;
        if let Some(path) = mirror.origin().local_path() {
            let (path, data, owned) = (path.to_owned(), self.shared.folder.path(""), name.to_owned());
            let removed = tokio::task::spawn_blocking(move || remove_hook(&path, &owned, &data)).await;
            if let Err(e) = removed.map_err(|e| refused(&e))? {
                // A repository that is gone has no hook that could be removed.
                tracing::warn!(repo = name, "the hook is not removed: {e}");
            }
        }
        let named = |name: String| RemoveNamed { project: DEFAULT_PROJECT.to_owned(), name };
        let remove =
            vec![Write::RemoveRepo(named(name.to_owned())), Write::RemoveTrigger(named(polling::position_name(name)))];
        registry::update(&self.shared, remove, |present| present.overlaid(name, &[])).await.map_err(write_failed)?;
        self.shared.configured.changed();
        self.shared.repos_changed.notify_one();
        self.shared.mirrors.remove(&mirror).await.map_err(|e| refused(&e))
    }
}

fn refused(e: &dyn std::fmt::Display) -> ApiError {
    ApiError::Invalid { code: "repo_refused", detail: e.to_string() }
}

/// A name that fits into filters, paths and tables.
pub(super) fn check_name(name: &str) -> Result<(), ApiError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if !name.is_empty()
        && name.len() <= 200
        && name.chars().all(fits)
        && !name.split('/').any(|p| p.is_empty() || p.starts_with('.'))
    {
        return Ok(());
    }
    Err(ApiError::Invalid {
        code: "bad_name",
        detail: format!("{name:?} is no name; use letters, digits, `-`, `_`, `.` and `/` between parts"),
    })
}
