//! `explain`: what an event meant for each workflow.

use kickwheel_schemas::api::{DecisionView, Explanation};

use super::Session;
use crate::{
    exit::{Exit, Outcome},
    output::{Look, Paint, say},
};

/// Changed paths that are listed; a repository's first push has them all.
const MAX_PATHS: usize = 20;

/// One block per workflow.
pub async fn explain(session: &Session, event: &str, workflow: Option<String>) -> Outcome {
    let mut query = vec![("event", event.to_owned())];
    query.extend(workflow.map(|w| ("workflow", w)));
    let answer = session.client()?.get::<Explanation>(&["explain"], &query).await?;
    say(if session.look.json { answer.raw } else { render(session.look, &answer.value) })?;
    Ok(Exit::Ok)
}

fn render(look: Look, explanation: &Explanation) -> String {
    let Explanation { event, changed_paths, changed_paths_unknown, decisions } = explanation;
    let mut lines = vec![format!(
        "event {}  {}  {}",
        event.id,
        look.paint(Paint::Strong, &event.event.ty),
        look.state(&event.state)
    )];
    let subject = event.event.subject.as_deref().map(|s| format!("  {s}")).unwrap_or_default();
    lines.push(format!("  from      {}{subject}", event.event.source));
    lines.push(format!("  received  {}", event.received_at));
    if let Some(reason) = &event.reason {
        lines.push(format!("  because   {reason}"));
    }
    if let Some(paths) = changed_paths {
        lines.push(format!("  changed   {}", listed(paths)));
    }
    if let Some(why) = changed_paths_unknown {
        lines.push(format!("  changed   unknown: {why}"));
    }
    if decisions.is_empty() {
        lines.push(String::new());
        lines.push(
            "no workflow was in the registry when it was decided; `kickwheel workflows ls` shows it now".to_owned(),
        );
    }
    for decision in decisions {
        lines.push(String::new());
        lines.extend(block(look, decision));
    }
    lines.join("\n")
}

fn block(look: Look, decision: &DecisionView) -> Vec<String> {
    let DecisionView { workflow, decision: what, clause, wanted, seen, reason, run } = decision;
    let mut lines = vec![format!("{}  {}", look.paint(Paint::Strong, workflow), look.state(what))];
    let rows = [("clause", clause), ("wanted", wanted), ("seen", seen), ("run", run)];
    if !reason.is_empty() {
        lines.push(format!("  because   {reason}"));
    }
    lines.extend(rows.iter().filter_map(|(name, value)| value.as_ref().map(|v| format!("  {name:<8}  {v}"))));
    lines
}

fn listed(paths: &[String]) -> String {
    let shown = paths.iter().take(MAX_PATHS).map(String::as_str).collect::<Vec<_>>().join(", ");
    match paths.len().saturating_sub(MAX_PATHS) {
        0 if paths.is_empty() => "nothing".to_owned(),
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use kickwheel_schemas::{CloudEvent, api::EventView};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_filtered_push_shows_the_clause_and_the_paths_that_were_seen() {
        let event = CloudEvent::new("file:///srv/churn.git", "e2", "dev.kickwheel.git.branch.updated", json!({}))
            .with_subject("refs/heads/main");
        let explanation = Explanation {
            event: EventView {
                id: "0190a1b2".to_owned(),
                state: "decided".to_owned(),
                event,
                received_at: "2026-01-31T12:00:00.000Z".to_owned(),
                reason: None,
                runs: vec!["0190ffff".to_owned()],
            },
            changed_paths: Some(vec!["docs/index.md".to_owned()]),
            changed_paths_unknown: None,
            decisions: vec![
                DecisionView {
                    workflow: "churn-retrain".to_owned(),
                    decision: "filtered".to_owned(),
                    clause: Some("paths".to_owned()),
                    wanted: Some("src/**, data/**".to_owned()),
                    seen: Some("docs/index.md".to_owned()),
                    reason: "no changed path matches".to_owned(),
                    run: None,
                },
                DecisionView {
                    workflow: "publish-docs".to_owned(),
                    decision: "started".to_owned(),
                    clause: None,
                    wanted: None,
                    seen: None,
                    reason: "docs/index.md matches docs/**".to_owned(),
                    run: Some("0190ffff".to_owned()),
                },
            ],
        };
        insta::assert_snapshot!(render(Look::PLAIN, &explanation));
    }

    #[test]
    fn long_lists_of_paths_are_cut_and_counted() {
        let paths: Vec<String> = (0..25).map(|n| format!("f{n}")).collect();
        assert!(listed(&paths).ends_with("f19 and 5 more"));
        assert_eq!(listed(&[]), "nothing");
    }
}
