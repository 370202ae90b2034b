//! `workflows`: the registry, pausing, applying files, and starting one by hand.

use std::path::Path;

use kickwheel_schemas::api::{ApplyWorkflow, DiagnosticView, Page, RunSummary, StartRun, WorkflowView};
use serde_json::Value;

use super::{Session, runs, validate};
use crate::{
    args::Workflows,
    check,
    client::{Client, Fetched},
    exit::{Exit, Failure, Outcome},
    inputs,
    output::{Look, Paint, listing, say, short},
};

/// `workflows …`.
pub async fn workflows(session: &Session, workflows: Workflows) -> Outcome {
    let client = session.client()?;
    match workflows {
        Workflows::Ls => ls(session, &client).await,
        Workflows::Get { name } => {
            let view = client.get::<WorkflowView>(&["workflows", &name], &[]).await?;
            say(if session.look.json { view.raw } else { render(session.look, &view.value) })?;
            Ok(Exit::Ok)
        }
        Workflows::Apply { files } => {
            let mut done = Vec::new();
            for file in &files {
                done.push(apply(session, &client, file).await?);
            }
            show(session, done, "applied")
        }
        Workflows::Pause { names } => set(session, &client, &names, "pause").await,
        Workflows::Resume { names } => set(session, &client, &names, "resume").await,
        Workflows::Start { name, inputs, watch } => start(session, client, &name, &inputs, watch).await,
    }
}

async fn ls(session: &Session, client: &Client) -> Outcome {
    let page = client.get::<Page<WorkflowView>>(&["workflows"], &[]).await?;
    let rows: Vec<Vec<String>> = page.value.items.iter().map(row).collect();
    let headings = ["WORKFLOW", "STATE", "ORIGIN", "COMMIT", "VERSION"];
    let exit = listing(
        session.look,
        &page.raw,
        &headings,
        rows,
        "no workflows; `kickwheel repos add` or `workflows apply` brings some",
    )?;
    if !session.look.json {
        for view in page.value.items.iter().filter(|w| !w.diagnostics.is_empty()) {
            say(format!("\n{}", diagnostics(session.look, view)))?;
        }
    }
    Ok(exit)
}

fn row(view: &WorkflowView) -> Vec<String> {
    let commit = view.commit.as_deref().unwrap_or_default().chars().take(8).collect();
    vec![view.id.clone(), view.state.clone(), view.origin.clone(), commit, short(&view.version)]
}

/// Its mistakes and warnings. The sign before its name is that of the worst: a workflow with warnings runs.
fn diagnostics(look: Look, view: &WorkflowView) -> String {
    let sign = |is_error: bool| if is_error { look.paint(Paint::Bad, "✗") } else { look.paint(Paint::Careful, "!") };
    let mut lines = vec![format!("{} {}", sign(view.diagnostics.iter().any(DiagnosticView::is_error)), view.id)];
    for d in &view.diagnostics {
        let word = if d.is_error() { "" } else { "warning: " };
        lines.push(format!("  {}:{}:{}: {word}{} [{}]", d.file, d.line, d.column, d.message, d.code));
        lines.push(format!("    {} {}", look.paint(Paint::Quiet, "│"), d.excerpt));
        lines.extend(d.help.iter().map(|help| format!("    {help}")));
    }
    lines.join("\n")
}

fn render(look: Look, view: &WorkflowView) -> String {
    let mut lines = vec![
        format!("workflow  {}", look.paint(Paint::Strong, &view.id)),
        format!("state     {}", look.state(&view.state)),
        format!("origin    {}", view.origin),
        format!("version   {}", view.version),
    ];
    lines.extend(view.commit.iter().map(|c| format!("commit    {c}")));
    lines.extend(view.inputs.iter().map(|(name, about)| format!("input     {name}: {about}")));
    if !view.diagnostics.is_empty() {
        lines.push(diagnostics(look, view));
    }
    lines.join("\n")
}

async fn apply(session: &Session, client: &Client, file: &Path) -> Result<Fetched<WorkflowView>, Failure> {
    let yaml = check::read(file)?;
    let body = ApplyWorkflow { file: file.display().to_string(), yaml: yaml.clone() };
    let applied = client.post(&["workflows"], &body).await;
    if applied.as_ref().is_err_and(|f| f.code == "workflow_has_mistakes") && !session.look.json {
        // The server's verdict counts; the same compiler is here, and can mark the places.
        let compiled = check::check(&yaml);
        say(validate::render(session.look, file, &yaml, &compiled.diagnostics))?;
    }
    applied
}

async fn set(session: &Session, client: &Client, names: &[String], verb: &str) -> Outcome {
    let mut done = Vec::new();
    for name in names {
        done.push(client.post(&["workflows", name, verb], &serde_json::json!({})).await?);
    }
    show(session, done, if verb == "pause" { "paused" } else { "resumed" })
}

fn show(session: &Session, done: Vec<Fetched<WorkflowView>>, word: &str) -> Outcome {
    if session.look.json {
        // One is shown as the API gave it, several as a listing.
        let text = match done.as_slice() {
            [one] => one.raw.clone(),
            many => format!(r#"{{"items":[{}]}}"#, many.iter().map(|f| f.raw.as_str()).collect::<Vec<_>>().join(",")),
        };
        say(text)?;
    } else {
        for view in done {
            say(format!("{} {word} ({})", view.value.id, short(&view.value.version)))?;
        }
    }
    Ok(Exit::Ok)
}

async fn start(session: &Session, client: Client, name: &str, given: &[String], watch: bool) -> Outcome {
    let declared = if given.is_empty() {
        None
    } else {
        Some(client.get::<WorkflowView>(&["workflows", name], &[]).await?.value.inputs)
    };
    let inputs = inputs::read(given, |input| declared_type(declared.as_ref()?.get(input)?))?;
    // The client chooses the id, so that a request that is repeated starts nothing twice.
    let start = StartRun { inputs, event_id: Some(uuid::Uuid::now_v7().to_string()) };
    let run = client.post::<RunSummary>(&["workflows", name, "runs"], &start).await?;
    if watch {
        return runs::watch(session, client, &run.value.id).await;
    }
    say(if session.look.json {
        run.raw
    } else {
        format!("run {} is started; follow it with kickwheel runs get {} --watch", run.value.id, run.value.id)
    })?;
    Ok(Exit::Ok)
}

fn declared_type(about: &Value) -> Option<String> {
    about.get("type")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kickwheel_schemas::api::Severity;

    use super::*;

    fn view(state: &str, severities: &[Severity]) -> WorkflowView {
        let found = |severity: &Severity| DiagnosticView {
            file: "w.yaml".to_owned(),
            line: 3,
            column: 10,
            severity: *severity,
            code: "a-code".to_owned(),
            message: "nothing reads it".to_owned(),
            help: Some("remove it".to_owned()),
            excerpt: "inputs: {x: 1}".to_owned(),
        };
        WorkflowView {
            id: "w".to_owned(),
            state: state.to_owned(),
            project: "default".to_owned(),
            version: "blake3:00".to_owned(),
            origin: "applied w.yaml".to_owned(),
            commit: None,
            diagnostics: severities.iter().map(found).collect(),
            inputs: BTreeMap::new(),
        }
    }

    #[test]
    fn a_warning_of_an_active_workflow_does_not_look_like_a_mistake() {
        let warned = diagnostics(Look::PLAIN, &view("active", &[Severity::Warning]));
        assert_eq!(
            warned,
            "! w\n  w.yaml:3:10: warning: nothing reads it [a-code]\n    │ inputs: {x: 1}\n    remove it"
        );
        let broken = diagnostics(Look::PLAIN, &view("broken", &[Severity::Warning, Severity::Error]));
        assert!(broken.starts_with("✗ w\n  w.yaml:3:10: warning: nothing"), "{broken}");
        assert!(broken.contains("\n  w.yaml:3:10: nothing reads it [a-code]"), "{broken}");
    }
}
