//! `events quarantine`: what could not become an event, or could not be decided, and what is done about it.

use std::{fs, io, io::Read as _, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kickwheel_schemas::{
    Millis,
    api::{DropHeld, EditHeld, HeldKind, QuarantineDetail, QuarantineView, Resolved},
};

use super::Session;
use crate::{
    args::Quarantine,
    client::{Client, Fetched},
    exit::{Exit, Failure, Outcome},
    output::{Look, listing, say},
    times,
};

/// `events quarantine …`.
pub async fn quarantine(session: &Session, client: &Client, quarantine: Quarantine) -> Outcome {
    match quarantine {
        Quarantine::Ls { limit, all } => ls(session, client, limit, all).await,
        Quarantine::Show { id } => {
            let held = client.get::<QuarantineDetail>(&["quarantine", &id], &[]).await?;
            say(if session.look.json { held.raw } else { render(session.look, &held.value) })?;
            Ok(Exit::Ok)
        }
        Quarantine::Edit { id, body } => {
            let edit = EditHeld { body_base64: STANDARD.encode(read(&body)?) };
            told(session, client.post::<Resolved>(&["quarantine", &id, "edit"], &edit).await?)
        }
        Quarantine::Replay { id } => {
            told(session, client.post::<Resolved>(&["quarantine", &id, "replay"], &serde_json::json!({})).await?)
        }
        Quarantine::Drop { id, reason } => {
            told(session, client.post::<Resolved>(&["quarantine", &id, "drop"], &DropHeld { reason }).await?)
        }
    }
}

async fn ls(session: &Session, client: &Client, limit: usize, all: bool) -> Outcome {
    if limit == 0 {
        return Err(Failure::usage("--limit 0 lists nothing; give a number from 1"));
    }
    let query = [("resolved", all.to_string())];
    let page = client.list::<QuarantineView>(&["quarantine"], &query, limit).await?;
    let now = Millis::now();
    let rows = page.value.items.iter().map(|held| {
        vec![
            held.id.clone(),
            held.state.clone(),
            kind(held.what).to_owned(),
            held.origin.clone(),
            times::ago(&held.received_at, now),
            held.reason.clone(),
        ]
    });
    let headings = ["ID", "STATE", "WHAT", "ORIGIN", "RECEIVED", "REASON"];
    listing(session.look, &page.raw, &headings, rows.collect(), "nothing is in quarantine")
}

fn kind(what: HeldKind) -> &'static str {
    match what {
        HeldKind::Input => "input",
        HeldKind::Event => "event",
    }
}

fn render(look: Look, held: &QuarantineDetail) -> String {
    let view = &held.view;
    let mut lines = vec![
        format!("{:<9} {}", kind(view.what), view.id),
        format!("state     {}", look.state(&view.state)),
        format!("origin    {}", view.origin),
        format!("received  {}", view.received_at),
        format!("because   {}", view.reason),
    ];
    lines.extend(view.note.iter().map(|note| format!("became    {note}")));
    lines.extend(held.headers.iter().map(|(name, value)| format!("header    {name}: {value}")));
    lines.push(String::new());
    match (&held.text, &held.hex) {
        (Some(text), _) => lines.push(text.clone()),
        (None, Some(hex)) => lines.push(format!("{} bytes that are no text, in hex:\n{hex}", view.size)),
        (None, None) => {}
    }
    lines.join("\n")
}

fn told(session: &Session, resolved: Fetched<Resolved>) -> Outcome {
    let Resolved { id, state, events } = &resolved.value;
    say(if session.look.json {
        resolved.raw.clone()
    } else if events.is_empty() {
        format!("{id} is {state}")
    } else {
        format!("{id} is {state}: {}", events.join(" "))
    })?;
    Ok(Exit::Ok)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let read = if file == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(file)
    };
    read.map_err(|e| Failure::usage(format!("cannot read {}: {e}", file.display())))
}
