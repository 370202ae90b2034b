//! `events`: what was received, what became of it, and sending one.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use kickwheel_schemas::{
    CloudEvent, Millis,
    api::{Accepted, EventView},
};

use super::{Session, quarantine};
use crate::{
    args::Events,
    client::Client,
    exit::{Exit, Failure, Outcome},
    output::{Look, Paint, listing, say},
    times,
};

/// `events …`.
pub async fn events(session: &Session, events: Events) -> Outcome {
    let client = session.client()?;
    match events {
        Events::Ls { limit } => ls(session, &client, limit).await,
        Events::Get { id } => {
            let event = client.get::<EventView>(&["events", &id], &[]).await?;
            say(if session.look.json { event.raw } else { render(session.look, &event.value) })?;
            Ok(Exit::Ok)
        }
        Events::Send { file } => send(session, &client, &file).await,
        Events::Quarantine(held) => quarantine::quarantine(session, &client, held).await,
    }
}

async fn ls(session: &Session, client: &Client, limit: usize) -> Outcome {
    if limit == 0 {
        return Err(Failure::usage("--limit 0 lists nothing; give a number from 1"));
    }
    let page = client.list::<EventView>(&["events"], &[], limit).await?;
    let now = Millis::now();
    let rows = page.value.items.iter().map(|event| {
        vec![
            event.id.clone(),
            event.state.clone(),
            event.event.ty.clone(),
            event.event.subject.clone().unwrap_or_else(|| event.event.source.clone()),
            times::ago(&event.received_at, now),
            event.runs.len().to_string(),
        ]
    });
    let headings = ["EVENT", "STATE", "TYPE", "SUBJECT", "RECEIVED", "RUNS"];
    listing(
        session.look,
        &page.raw,
        &headings,
        rows.collect(),
        "no events yet; `kickwheel repos add` binds a repository",
    )
}

fn render(look: Look, view: &EventView) -> String {
    let mut lines = vec![
        format!("event     {}", view.id),
        format!("state     {}", look.state(&view.state)),
        format!("received  {}", view.received_at),
    ];
    lines.extend(view.reason.iter().map(|r| format!("because   {r}")));
    lines.extend(view.runs.iter().map(|r| format!("run       {r}")));
    let event = serde_json::to_string_pretty(&view.event).expect("an event is JSON");
    lines.push(String::new());
    lines.push(event);
    if view.runs.is_empty() {
        lines.push(String::new());
        lines.push(look.paint(Paint::Quiet, &format!("why no run: kickwheel explain {}", view.id)));
    }
    lines.join("\n")
}

async fn send(session: &Session, client: &Client, file: &Path) -> Outcome {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    let text = text.map_err(|e| Failure::usage(format!("cannot read {}: {e}", file.display())))?;
    let event: CloudEvent = serde_json::from_str(&text).map_err(|e| {
        Failure::new(Exit::Failed, "event_invalid", format!("{} holds no CloudEvent: {e}", file.display()))
            .help("write one JSON object with specversion, id, source, type and data")
    })?;
    let accepted = client.post::<Accepted>(&["events"], &event).await?;
    say(if session.look.json { accepted.raw } else { told(&accepted.value, &event) })?;
    Ok(Exit::Ok)
}

fn told(accepted: &Accepted, event: &CloudEvent) -> String {
    let id = &accepted.id;
    if accepted.duplicate {
        let CloudEvent { id: own, source, .. } = event;
        return format!(
            "nothing new: event {own} of {source} was seen before, as event {id}; kickwheel explain {id} says what it meant"
        );
    }
    format!("event {id} is recorded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_was_sent_before_is_not_told_as_new() {
        let event = CloudEvent::new("/shop", "order-1", "com.example.order", serde_json::Value::Null);
        let answer = |duplicate| Accepted { id: "0190".to_owned(), duplicate };
        assert_eq!(told(&answer(false), &event), "event 0190 is recorded");
        assert_eq!(
            told(&answer(true), &event),
            "nothing new: event order-1 of /shop was seen before, as event 0190; kickwheel explain 0190 says what it meant"
        );
    }
}
