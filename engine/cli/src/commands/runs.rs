//! `runs`: list, show, watch, cancel, retry.

use std::io::{self, BufRead as _, IsTerminal as _};

use kickwheel_schemas::{
    Millis,
    api::{CancelRun, Page, RunDetail, RunPhase, RunSummary},
};
use serde_json::Value;

use super::Session;
use crate::{
    args::{RunFilter, Runs, Select},
    client::Client,
    exit::{Exit, Failure, Outcome},
    output::{Look, Paint, listing, say, short, table},
    progress::{Wheel, ending, follow, label, matrix, metrics},
    signals::Signals,
    times,
};

/// Most runs that one `cancel` or `retry` touches.
const MAX_SELECTED: usize = 10_000;
/// Characters of a commit that are shown.
const SHORT_COMMIT: usize = 8;

/// `runs …`.
pub async fn runs(session: &Session, runs: Runs) -> Outcome {
    let client = session.client()?;
    match runs {
        Runs::Ls { filter, limit } => ls(session, &client, &filter, limit).await,
        Runs::Get { id, watch: false } => get(session, &client, &id).await,
        Runs::Get { id, watch: true } => watch(session, client, &id).await,
        Runs::Cancel { select, reason } => {
            let open = ["queued", "running", "waiting"];
            each(session, &client, &select, &open, Doing::Cancel { reason }).await
        }
        Runs::Retry { select } => each(session, &client, &select, &["failed", "cancelled"], Doing::Retry).await,
    }
}

async fn ls(session: &Session, client: &Client, filter: &RunFilter, limit: usize) -> Outcome {
    if limit == 0 {
        return Err(Failure::usage("--limit 0 lists nothing; give a number from 1"));
    }
    let page = client.list::<RunSummary>(&["runs"], &query(filter)?, limit).await?;
    let now = Millis::now();
    let rows = page.value.items.iter().map(|run| row(run, now)).collect();
    listing(session.look, &page.raw, &HEADINGS, rows, "no runs; `kickwheel explain` says what the latest event meant")
}

const HEADINGS: [&str; 7] = ["RUN", "STATE", "WORKFLOW", "BRANCH", "COMMIT", "CREATED", "TOOK"];

fn row(run: &RunSummary, now: Millis) -> Vec<String> {
    let commit: String = run.commit.as_deref().unwrap_or_default().chars().take(SHORT_COMMIT).collect();
    vec![
        run.id.clone(),
        run.state.as_str().to_owned(),
        run.workflow.clone(),
        run.branch.clone().unwrap_or_default(),
        commit,
        times::ago(&run.created_at, now),
        took(&run.created_at, run.ended_at.as_deref()),
    ]
}

fn took(began: &str, ended: Option<&str>) -> String {
    match (times::read(began), ended.and_then(times::read)) {
        (Some(began), Some(ended)) => times::brief(ended.since(began)),
        _ => String::new(),
    }
}

fn query(filter: &RunFilter) -> Result<Vec<(&'static str, String)>, Failure> {
    let now = Millis::now();
    let time = |option: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => times::point(text, now)
            .map(|at| Some(at.to_rfc3339()))
            .map_err(|e| Failure::usage(format!("--{option}: {e}"))),
    };
    let parameters = [
        ("workflow", filter.workflow.clone()),
        ("state", Some(filter.state.join(",")).filter(|s| !s.is_empty())),
        ("branch", filter.branch.clone()),
        ("since", time("since", &filter.since)?),
        ("until", time("until", &filter.until)?),
    ];
    Ok(parameters.into_iter().filter_map(|(name, value)| value.map(|v| (name, v))).collect())
}

async fn get(session: &Session, client: &Client, id: &str) -> Outcome {
    let run = client.get::<RunDetail>(&["runs", id], &[]).await?;
    say(if session.look.json { run.raw } else { render(session.look, &run.value) })?;
    Ok(Exit::Ok)
}

/// Follows a run to its end. Ctrl-C ends the watching, not the run.
pub async fn watch(session: &Session, client: Client, id: &str) -> Outcome {
    let mut signals = Signals::catch()?;
    let wheel = Wheel::Server(client);
    let run = tokio::select! {
        run = follow(session.look, &wheel, id) => run?,
        () = signals.next() => {
            eprintln!("no longer watching; the run goes on. To end it: kickwheel runs cancel {id}");
            return Ok(Exit::Interrupted);
        }
    };
    if session.look.json {
        say(serde_json::to_string(&run).expect("a run is JSON"))?;
    } else {
        let failed = ending::failed(&wheel, &run).await;
        let more = |label: &str| format!("kickwheel logs {} '{label}'", run.summary.id);
        say(ending::ending(session.look, &run, &failed, more))?;
    }
    Ok(if run.summary.state == RunPhase::Succeeded { Exit::Ok } else { Exit::Failed })
}

fn render(look: Look, run: &RunDetail) -> String {
    let RunDetail { summary, inputs, decision, cancel, images, steps, first_task_ms } = run;
    let mut facts = vec![
        ("run", summary.id.clone()),
        ("state", look.state(summary.state.as_str())),
        ("workflow", format!("{} ({})", summary.workflow, summary.workflow_version)),
        ("cause", summary.cause.clone()),
        ("decision", decision.clone()),
        ("created", summary.created_at.clone()),
    ];
    if let Some(ended) = &summary.ended_at {
        facts.push(("ended", format!("{ended}, after {}", took(&summary.created_at, Some(ended)))));
    }
    facts.extend(summary.branch.clone().map(|b| ("branch", b)));
    facts.extend(summary.commit.clone().map(|c| ("commit", c)));
    facts.extend(cancel.clone().map(|c| ("cancel", c)));
    facts.extend(images.iter().map(|(name, digest)| ("image", format!("{name} is {digest}"))));
    facts.extend(first_task_ms.map(|ms| ("first task", format!("{ms} ms after the event"))));
    let given: Vec<String> =
        inputs.iter().map(|(name, value)| format!("{name}={}", crate::progress::plain(value))).collect();
    if !given.is_empty() {
        facts.push(("inputs", given.join(" ")));
    }
    let mut lines: Vec<String> = facts.into_iter().map(|(name, value)| format!("{name:<10}  {value}")).collect();
    let rows = steps.iter().flat_map(|step| {
        let without_tasks = step.tasks.is_empty().then(|| {
            vec![step.name.clone(), step.state.clone(), String::new(), step.reason.clone().unwrap_or_default()]
        });
        let tasks = step.tasks.iter().map(|task| {
            let cached = task.cached_from.as_ref().map(|from| format!("cached from {from}"));
            let about =
                [matrix(task), metrics(task), cached.unwrap_or_default(), task.reason.clone().unwrap_or_default()];
            vec![
                label(step, task),
                task.state.clone(),
                task.started_at.as_deref().map_or_else(String::new, |began| took(began, task.ended_at.as_deref())),
                about.into_iter().filter(|a| !a.is_empty()).collect::<Vec<_>>().join("  "),
            ]
        });
        without_tasks.into_iter().chain(tasks).collect::<Vec<_>>()
    });
    lines.push(String::new());
    lines.push(table(look, &["TASK", "STATE", "TOOK", "ABOUT"], rows));
    lines.join("\n")
}

/// What is done to many runs.
enum Doing {
    Cancel { reason: String },
    Retry,
}

impl Doing {
    fn word(&self) -> &'static str {
        match self {
            Self::Cancel { .. } => "cancel",
            Self::Retry => "retry",
        }
    }
}

/// Does it to each run that is selected; one that cannot be done does not keep the others from it.
async fn each(session: &Session, client: &Client, select: &Select, states: &[&str], doing: Doing) -> Outcome {
    let ids = selected(client, select, states, doing.word()).await?;
    if ids.is_empty() {
        if session.look.json {
            say(r#"{"items":[]}"#)?;
        } else {
            eprintln!("no run matches; nothing to {}", doing.word());
        }
        return Ok(Exit::Ok);
    }
    let mut items: Vec<Value> = Vec::new();
    let mut first_failure = None;
    for id in &ids {
        let answer = match &doing {
            Doing::Cancel { reason } => {
                let body = CancelRun { reason: reason.clone() };
                client.post::<Value>(&["runs", id, "cancel"], &body).await
            }
            Doing::Retry => client.post::<Value>(&["runs", id, "retry"], &serde_json::json!({})).await,
        };
        match answer {
            Ok(done) => items.push(done.value),
            Err(failure) if ids.len() == 1 => return Err(failure),
            Err(failure) => {
                eprintln!("{}: {failure}", look_id(session.look, id));
                first_failure.get_or_insert(failure.exit);
            }
        }
    }
    let page = Page { items, next: None };
    if session.look.json {
        say(serde_json::to_string(&page).expect("a page of JSON is JSON"))?;
    } else {
        let now = Millis::now();
        let runs = page.items.into_iter().filter_map(|v| serde_json::from_value::<RunSummary>(v).ok());
        say(table(session.look, &HEADINGS, runs.map(|run| row(&run, now))))?;
    }
    Ok(first_failure.unwrap_or(Exit::Ok))
}

fn look_id(look: Look, id: &str) -> String {
    look.paint(Paint::Strong, &short(id))
}

async fn selected(client: &Client, select: &Select, states: &[&str], word: &str) -> Result<Vec<String>, Failure> {
    if !select.ids.is_empty() {
        return Ok(select.ids.clone());
    }
    let mut query = query(&select.filter)?;
    if query.is_empty() && !select.all {
        return Err(Failure::usage(format!("nothing says which runs to {word}"))
            .help("give ids, or a filter such as --workflow or --state, or --all"));
    }
    if select.filter.state.is_empty() {
        query.push(("state", states.join(",")));
    }
    let page = client.list::<RunSummary>(&["runs"], &query, MAX_SELECTED).await?;
    let ids: Vec<String> = page.value.items.into_iter().map(|run| run.id).collect();
    if !ids.is_empty() && !select.yes && !confirmed(word, ids.len())? {
        return Err(Failure::new(
            Exit::Interrupted,
            "not_confirmed",
            format!("not confirmed: no run to {word} was touched"),
        ));
    }
    Ok(ids)
}

/// Asks on a terminal; without one nobody can answer, and a filter may match more than was meant.
fn confirmed(word: &str, count: usize) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("there is no terminal to ask whether to {word} what matches ({count})"))
            .help("add --yes to do it without being asked"));
    }
    eprint!("{word} {count} run{}? [y/N] ", if count == 1 { "" } else { "s" });
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|e| Failure::usage(format!("cannot read the answer: {e}")))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::samples::{RunSample, run};

    #[test]
    fn a_run_is_shown_with_all_its_tasks() {
        insta::assert_snapshot!(render(Look::PLAIN, &run(RunSample::Failed)));
    }

    #[test]
    fn the_list_shows_whole_ids_so_that_they_can_be_copied() {
        let run = run(RunSample::Succeeded).summary;
        let text = table(Look::PLAIN, &HEADINGS, [row(&run, Millis(1_700_000_072_340))]);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn filters_become_parameters_and_bad_times_usage_errors() {
        let filter = RunFilter {
            workflow: Some("churn".to_owned()),
            state: vec!["failed".to_owned(), "running".to_owned()],
            since: Some("2026-01-31T12:00:00Z".to_owned()),
            ..RunFilter::default()
        };
        let expected = [("workflow", "churn"), ("state", "failed,running"), ("since", "2026-01-31T12:00:00.000Z")];
        let query = query(&filter).expect("it is fine");
        assert_eq!(query.iter().map(|(n, v)| (*n, v.as_str())).collect::<Vec<_>>(), expected);
        let bad = RunFilter { until: Some("soon".to_owned()), ..RunFilter::default() };
        assert_eq!(super::query(&bad).expect_err("refused").exit, Exit::Usage);
    }
}
