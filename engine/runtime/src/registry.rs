//! The registry: which workflows there are, and from where.
//!
//! It holds the `.kickwheel/` files at each bound repository's default head, plus files put there with `apply`. Every
//! change is a new revision, kept as long as events are, so that `explain` sees what the decision saw. A file with mistakes
//! is an entry too: it disables only itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};

use kickwheel_core::plan::Workflow;
use kickwheel_repos::WorkflowFiles;
use kickwheel_schemas::{
    Digest, Millis,
    api::{DiagnosticView, Severity},
    payload,
};
use kickwheel_spec::compile;
use kickwheel_store::{
    ReadError, Write, WriteError,
    write::{PutPlan, PutRegistry},
};
use serde::{Deserialize, Serialize};

use crate::{
    chain,
    shared::{DEFAULT_PROJECT, Shared},
};

/// One workflow file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The workflow's name; for a file too broken to say it, the file's path.
    pub name: String,
    /// Where it comes from.
    pub origin: EntryOrigin,
    /// Digest of the file's content.
    pub source: Digest,
    /// Names the compiled workflow; none for a broken file.
    pub plan: Option<Digest>,
    /// Its mistakes and warnings.
    pub diagnostics: Vec<DiagnosticView>,
}

impl Entry {
    /// The first thing that keeps the file from being run.
    pub fn first_mistake(&self) -> Option<&DiagnosticView> {
        self.diagnostics.iter().find(|diagnostic| diagnostic.is_error())
    }
}

/// Where a workflow file comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum EntryOrigin {
    /// `kickwheel workflows apply`.
    Applied {
        /// As it was called there.
        file: String,
    },
    /// A commit of a bound repository.
    Repo {
        /// The repository's name.
        repo: String,
        /// Path in the tree.
        path: String,
        /// Full hex commit.
        commit: String,
        /// Full hex tree.
        tree: String,
    },
}

impl EntryOrigin {
    /// The repository, if it comes from one.
    pub fn repo(&self) -> Option<&str> {
        match self {
            Self::Applied { .. } => None,
            Self::Repo { repo, .. } => Some(repo),
        }
    }

    /// The file, for messages.
    pub fn file(&self) -> &str {
        match self {
            Self::Applied { file } => file,
            Self::Repo { path, .. } => path,
        }
    }
}

/// A revision of the registry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Registry {
    /// 0 before the first change.
    pub revision: i64,
    /// In the order in which they came; the first of two of one name wins.
    pub entries: Vec<Entry>,
}

impl Registry {
    /// The entries with those of `repo` replaced: what applies to a push to it.
    pub fn overlaid(&self, repo: &str, entries: &[Entry]) -> Vec<Entry> {
        let others = self.entries.iter().filter(|e| e.origin.repo() != Some(repo));
        others.chain(entries).cloned().collect()
    }

    /// The usable workflow of that name.
    pub fn named(&self, name: &str) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|e| e.name == name && e.plan.is_some())
            .or_else(|| self.entries.iter().find(|e| e.name == name))
    }
}

/// Compiled files, and the rows that make them durable.
#[derive(Debug, Default)]
pub struct CompiledFiles {
    /// One per file.
    pub entries: Vec<Entry>,
    /// Plans that the entries name.
    pub plans: Vec<Write>,
}

/// Compiles one file. `taken` are the names of other files' workflows.
pub fn compile_file(
    shared: &Shared,
    origin: EntryOrigin,
    yaml: &str,
    taken: &BTreeMap<String, String>,
) -> (Entry, Option<Write>) {
    let compiled = compile(yaml, &shared.catalog);
    let file = origin.file().to_owned();
    let mut diagnostics: Vec<DiagnosticView> = compiled.diagnostics.iter().map(|d| d.view(&file, yaml)).collect();
    let source = Digest::of(yaml.as_bytes());
    let name = compiled.name.unwrap_or_else(|| file.clone());
    let mut workflow = compiled.workflow;
    if let Some(other) = taken.get(&name) {
        workflow = None;
        diagnostics.push(DiagnosticView {
            file: file.clone(),
            line: 1,
            column: 1,
            severity: Severity::Error,
            code: "name_taken".to_owned(),
            message: format!("the workflow name {name:?} is taken by {other}"),
            help: Some("give this workflow another `name`".to_owned()),
            excerpt: yaml.lines().next().unwrap_or_default().to_owned(),
        });
    }
    let Some(workflow) = workflow else {
        return (Entry { name, origin, source, plan: None, diagnostics }, None);
    };
    let compiled = serde_json::to_value(&workflow).expect("workflows have string keys only");
    let digest = Digest::of(compiled.to_string().as_bytes());
    let put = Write::PutPlan(PutPlan {
        project: DEFAULT_PROJECT.to_owned(),
        plan_digest: digest.clone(),
        source_digest: source.clone(),
        name: name.clone(),
        yaml: yaml.to_owned(),
        compiled,
        at: Millis::now(),
    });
    shared.remember(digest.clone(), workflow);
    (Entry { name, origin, source, plan: Some(digest), diagnostics }, Some(put))
}

/// Compiles what a commit has below `.kickwheel/`. `others` are entries that are not of this repository.
pub fn compile_commit<'a>(
    shared: &Shared,
    repo: &str,
    commit: &str,
    tree: &str,
    files: &WorkflowFiles,
    others: impl Iterator<Item = &'a Entry>,
) -> CompiledFiles {
    let mut taken: BTreeMap<String, String> =
        others.filter(|e| e.plan.is_some()).map(|e| (e.name.clone(), describe(&e.origin))).collect();
    let mut out = CompiledFiles::default();
    let origin = |path: &str| EntryOrigin::Repo {
        repo: repo.to_owned(),
        path: path.to_owned(),
        commit: commit.to_owned(),
        tree: tree.to_owned(),
    };
    for file in &files.files {
        let Ok(yaml) = std::str::from_utf8(&file.bytes) else {
            out.entries.push(refused(origin(&file.path), "it is not UTF-8; save it as UTF-8", &file.bytes));
            continue;
        };
        let (entry, put) = compile_file(shared, origin(&file.path), yaml, &taken);
        if entry.plan.is_some() {
            taken.insert(entry.name.clone(), describe(&entry.origin));
        }
        out.entries.push(entry);
        out.plans.extend(put);
    }
    for file in &files.refused {
        out.entries.push(refused(origin(&file.path), &file.reason, file.path.as_bytes()));
    }
    out
}

fn refused(origin: EntryOrigin, reason: &str, content: &[u8]) -> Entry {
    let file = origin.file().to_owned();
    let diagnostic = DiagnosticView {
        file: file.clone(),
        line: 1,
        column: 1,
        severity: Severity::Error,
        code: "file_refused".to_owned(),
        message: reason.to_owned(),
        help: Some("correct the file and push it".to_owned()),
        excerpt: String::new(),
    };
    Entry { name: file, origin, source: Digest::of(content), plan: None, diagnostics: vec![diagnostic] }
}

fn describe(origin: &EntryOrigin) -> String {
    match origin {
        EntryOrigin::Applied { file } => format!("{file} (applied)"),
        EntryOrigin::Repo { repo, path, .. } => format!("{path} of repository {repo}"),
    }
}

/// The registry as the store has it.
pub async fn load(shared: &Shared, revision: Option<i64>) -> Result<Registry, ReadError> {
    let Some(row) = shared.store.registry(DEFAULT_PROJECT, revision).await? else { return Ok(Registry::default()) };
    let mut registry: Registry = serde_json::from_value(row.body)
        .map_err(|e| ReadError::Corrupt { message: format!("revision {} of the registry: {e}", row.revision) })?;
    registry.revision = row.revision;
    Ok(registry)
}

/// Replaces the registry by `change` of it, with `more` in the same unit. Nothing is written if nothing changes and
/// there is nothing more.
pub async fn update(
    shared: &Shared,
    more: Vec<Write>,
    change: impl FnOnce(&Registry) -> Vec<Entry>,
) -> Result<Arc<Registry>, WriteError> {
    let _one = shared.registry_change.lock().await;
    let present = shared.registry();
    let entries = change(&present);
    let mut unit = more;
    let next = if entries == present.entries {
        Arc::clone(&present)
    } else {
        let next = Registry { revision: present.revision + 1, entries };
        unit.push(Write::PutRegistry(PutRegistry {
            project: DEFAULT_PROJECT.to_owned(),
            revision: next.revision,
            body: serde_json::to_value(&next).expect("registries have string keys only"),
            at: Millis::now(),
        }));
        Arc::new(next)
    };
    if !unit.is_empty()
        && let Err(e) = shared.store.write(unit).await
    {
        // Perhaps it was written and only the answer was lost: what is in memory must not stay behind.
        if let (WriteError::Stale { .. } | WriteError::Unknown { .. }, Ok(found)) = (&e, load(shared, None).await) {
            install(shared, Arc::new(found)).await;
        }
        return Err(e);
    }
    install(shared, Arc::clone(&next)).await;
    Ok(next)
}

/// Puts a registry in force.
pub async fn install(shared: &Shared, registry: Arc<Registry>) {
    let found = workflows(shared, &registry.entries).await;
    *shared.registry.write().expect("no holder of this lock panics") = registry;
    shared.schedules_changed.notify_one();
    // When in doubt, ends of runs are told: an event that nobody waits for costs little, one that is missing a run.
    let awaited =
        found.map_or(true, |all| all.iter().any(|(_, workflow)| chain::listens(workflow, payload::RUN_FINISHED)));
    shared.runs_are_awaited.store(awaited, Ordering::Relaxed);
}

/// The compiled workflows of entries, broken ones left out.
pub async fn workflows(shared: &Shared, entries: &[Entry]) -> Result<Vec<(Entry, Arc<Workflow>)>, ReadError> {
    let (mut found, mut names) = (Vec::new(), BTreeSet::new());
    for entry in entries {
        let Some(plan) = &entry.plan else { continue };
        if names.insert(entry.name.clone()) {
            found.push((entry.clone(), shared.workflow(plan).await?));
        }
    }
    Ok(found)
}
