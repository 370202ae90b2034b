//! What somebody has to look at: inputs that could not become events, and events that could not be decided.
//!
//! The two have tables of their own and one list here. Whatever is done about one is done in a unit with what follows from
//! it, and doing it again changes nothing: a replayed input names the events that it became, an edited event has an id that
//! follows from its cause.
//!
//! Deliberately absent: what an HTTP delivery means. The door translates an input once more and hands the events in.

use std::collections::BTreeMap;

use kickwheel_schemas::{
    CloudEvent, Millis,
    api::{HeldKind, Page, QuarantineDetail, QuarantineView, Resolved},
};
use kickwheel_store::{
    EventKey, Write, WriteError,
    rows::{EventFilter, EventRow, EventState, InputFilter, InputRow, InputState, InputSummary},
    write::{DropEvent, PutQuarantine, Requeue, Resolution, ResolveQuarantine},
};
use serde_json::Value;

use super::{Engine, read_failed, write_failed};
use crate::{
    ApiError, bus, ingest,
    reserved::refuse_reserved_type,
    shared::{DEFAULT_PROJECT, entropy},
};

/// How events are marked that were made of what was held.
const CHANNEL: &str = "quarantine";
/// How the origin of an input begins that waited in the spool; its channel follows.
const SPOOL: &str = "spool:";
/// Longest reason that is kept, in characters.
const MAX_REASON_CHARS: usize = 1_000;

/// Input that could not become an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldInput {
    /// Its id.
    pub id: EventKey,
    /// Where it came from.
    pub origin: String,
    /// What became of it.
    pub state: InputState,
    /// Its headers, without credentials.
    pub headers: BTreeMap<String, String>,
    /// Its bytes.
    pub body: Vec<u8>,
    note: Option<String>,
}

/// Something that is held.
#[derive(Clone, Debug, PartialEq)]
pub enum Held {
    /// It never became an event.
    Input(HeldInput),
    /// It is an event.
    Event(Box<EventRow>),
}

impl Engine {
    /// Keeps input that could not become an event; answers with its id.
    pub async fn hold(
        &self,
        origin: &str,
        reason: &str,
        headers: BTreeMap<String, String>,
        body: Vec<u8>,
    ) -> Result<String, ApiError> {
        let at = Millis::now();
        let id = EventKey::new(at, entropy());
        let put = PutQuarantine {
            id,
            project: DEFAULT_PROJECT.to_owned(),
            origin: origin.to_owned(),
            reason: reason.chars().take(MAX_REASON_CHARS).collect(),
            headers: serde_json::to_value(headers).expect("headers have string keys only"),
            body,
            received_at: at,
        };
        self.shared.store.write(vec![Write::PutQuarantine(put)]).await.map_err(write_failed)?;
        Ok(id.to_string())
    }

    /// Newest first; with `resolved`, also inputs that somebody has dealt with.
    pub async fn quarantined(
        &self,
        limit: usize,
        cursor: Option<String>,
        resolved: bool,
    ) -> Result<Page<QuarantineView>, ApiError> {
        let before: Option<EventKey> = cursor.map(|c| c.parse()).transpose().map_err(|_| ApiError::Invalid {
            code: "bad_cursor",
            detail: "the cursor is not one of ours".to_owned(),
        })?;
        let limit = limit.clamp(1, 1000);
        let rows = u32::try_from(limit).unwrap_or(1000);
        let state = (!resolved).then_some(InputState::Held);
        let inputs = InputFilter { project: None, state, before, limit: rows };
        let events =
            EventFilter { state: Some(EventState::Quarantined), before, limit: rows, ..EventFilter::default() };
        let inputs = self.shared.store.quarantined_inputs(&inputs).await.map_err(read_failed)?;
        let events = self.shared.store.events(&events).await.map_err(read_failed)?;
        let mut items: Vec<QuarantineView> =
            inputs.iter().map(input_view).chain(events.iter().map(event_view)).collect();
        // Both ids begin with the time of receipt and have one form, so their texts are ordered as they are.
        items.sort_by(|a, b| b.id.cmp(&a.id));
        items.truncate(limit);
        let next = (items.len() == limit).then(|| items.last().map(|last| last.id.clone())).flatten();
        Ok(Page { items, next })
    }

    /// In full, by id or unique prefix.
    pub async fn quarantined_detail(&self, id: &str) -> Result<QuarantineDetail, ApiError> {
        let row = match self.find_held(id).await? {
            Found::Input(row) => row,
            Found::Event(row) => {
                let text = serde_json::to_string_pretty(&row.event).expect("an event has string keys only");
                return Ok(QuarantineDetail {
                    view: event_view(&row),
                    headers: BTreeMap::new(),
                    text: Some(text),
                    hex: None,
                });
            }
        };
        let view = input_view(&row.summary);
        let headers = flat(&row.headers);
        let (text, hex) = match String::from_utf8(row.body) {
            Ok(text) => (Some(text), None),
            Err(e) => (None, Some(hex::encode(e.as_bytes()))),
        };
        Ok(QuarantineDetail { view, headers, text, hex })
    }

    /// What is held under this id, for who translates it again.
    pub async fn held(&self, id: &str) -> Result<Held, ApiError> {
        Ok(match self.find_held(id).await? {
            Found::Event(row) => Held::Event(row),
            Found::Input(row) => Held::Input(HeldInput {
                id: row.summary.id,
                origin: row.summary.origin,
                state: row.summary.state,
                headers: flat(&row.headers),
                body: row.body,
                note: row.summary.note,
            }),
        })
    }

    /// Puts a quarantined event back to the end of its lane as it is.
    pub async fn requeue(&self, row: &EventRow) -> Result<Resolved, ApiError> {
        self.refuse_when_draining()?;
        let resolved =
            || Resolved { id: row.key.to_string(), state: "replayed".to_owned(), events: vec![row.key.to_string()] };
        match row.state {
            // Somebody was faster, or it is asked twice.
            EventState::Undecided | EventState::Decided => return Ok(resolved()),
            EventState::Dropped => return Err(already(&row.key.to_string(), "dropped")),
            EventState::Quarantined => {}
        }
        let requeue = Requeue { key: row.key, at: Millis::now() };
        self.shared.store.write(vec![Write::Requeue(requeue)]).await.map_err(write_failed)?;
        self.shared.decider.notify_one();
        Ok(resolved())
    }

    /// The event in a record of a topic that is held, read once more, perhaps with another value: as its trigger reads
    /// records by now. What another's topic says does not become ours by being replayed.
    pub async fn record_event(&self, input: &HeldInput, value: Option<&[u8]>) -> Result<CloudEvent, ApiError> {
        let configured = self.shared.configured.sources(&self.shared.store).await.map_err(read_failed)?;
        let value = value.unwrap_or(&input.body).to_vec();
        bus::kept_record(&self.shared, &input.origin, &input.headers, value, &configured).await
    }

    /// The event that waited in the spool and that Kafka never took, perhaps as somebody has written it anew.
    pub fn spooled_event(&self, input: &HeldInput, value: Option<&[u8]>) -> Result<CloudEvent, ApiError> {
        let invalid = |reason: String| ApiError::Invalid { code: "event_invalid", detail: reason };
        let before: CloudEvent = serde_json::from_slice(&input.body)
            .map_err(|e| invalid(format!("what is kept of it cannot be read: {e}")))?;
        let Some(value) = value else { return Ok(before) };
        let mut event: CloudEvent =
            serde_json::from_slice(value).map_err(|e| invalid(format!("the new body is no CloudEvent: {e}")))?;
        keep_reserved(&mut event, &before);
        Ok(event)
    }

    /// Accepts what an input means by now, and says that it was dealt with: in one unit. With `edited`, the events get ids
    /// of their own that name their cause.
    pub async fn resolve_input(
        &self,
        input: &HeldInput,
        events: Vec<CloudEvent>,
        edited: bool,
    ) -> Result<Resolved, ApiError> {
        self.refuse_when_draining()?;
        let id = input.id.to_string();
        match input.state {
            InputState::Held => {}
            InputState::Resolved(Resolution::Replayed) => return Ok(replayed(id, input.note.as_deref())),
            InputState::Resolved(Resolution::Dropped) => return Err(already(&id, "dropped")),
        }
        let at = Millis::now();
        let mut unit = Vec::new();
        let mut ids = Vec::new();
        // What waited in the spool comes as it would have come, and keeps what led to it.
        let spooled_by = input.origin.strip_prefix(SPOOL);
        for mut event in events {
            if spooled_by.is_none() {
                for name in bus::RESERVED {
                    event.extensions.remove(name);
                }
            }
            if edited {
                event.extensions.insert(bus::CAUSE.to_owned(), Value::from(id.clone()));
                event.id = edited_id(&event.id);
            }
            check(&event)?;
            ids.push(event.id.clone());
            unit.push(bus::cause(&self.shared, DEFAULT_PROJECT, spooled_by.unwrap_or(CHANNEL), event, at));
        }
        let note = Some(ids.join(" "));
        let resolution = Resolution::Replayed;
        unit.push(Write::ResolveQuarantine(ResolveQuarantine { id: input.id, resolution, note, at }));
        match self.shared.store.write(unit).await {
            Ok(written) => {
                bus::caused(&self.shared, &written);
                Ok(Resolved { id, state: resolution.as_str().to_owned(), events: ids })
            }
            Err(WriteError::Stale { .. }) => self.resolved_meanwhile(&id).await,
            Err(e) => Err(write_failed(e)),
        }
    }

    /// Accepts an event in place of a quarantined one. Its id follows from the one that it replaces, so that doing it twice
    /// gives one event.
    pub async fn edit_event(&self, row: &EventRow, mut event: CloudEvent) -> Result<Resolved, ApiError> {
        self.refuse_when_draining()?;
        // Whatever it is by now, it may stay; but nothing is edited into the name of somebody else.
        if event.source != row.event.source {
            self.refuse_reserved(&event).await?;
        } else if event.ty != row.event.ty {
            refuse_reserved_type(&event.ty)
                .map_err(|reserved| ApiError::Forbidden { code: reserved.code(), detail: reserved.to_string() })?;
        }
        keep_reserved(&mut event, &row.event);
        event.id = edited_id(&row.event.id);
        event.extensions.insert(bus::CAUSE.to_owned(), Value::from(row.event.id.clone()));
        check(&event)?;
        let id = event.id.clone();
        let resolved = || Resolved { id: row.key.to_string(), state: "replayed".to_owned(), events: vec![id.clone()] };
        let became = format!("edited: it became {id}");
        match row.state {
            EventState::Quarantined => {}
            EventState::Dropped if row.reason.as_deref() == Some(&became) => return Ok(resolved()),
            EventState::Dropped | EventState::Undecided | EventState::Decided => {
                return Err(already(&row.key.to_string(), row.state.as_str()));
            }
        }
        let at = Millis::now();
        let dropped = DropEvent { key: row.key, reason: became, at };
        let unit = vec![bus::cause(&self.shared, &row.project, CHANNEL, event, at), Write::DropEvent(dropped)];
        let written = self.shared.store.write(unit).await.map_err(write_failed)?;
        bus::caused(&self.shared, &written);
        Ok(resolved())
    }

    /// Gives it up.
    pub async fn drop_held(&self, id: &str, reason: &str) -> Result<Resolved, ApiError> {
        self.refuse_when_draining()?;
        let at = Millis::now();
        let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
        let found = self.find_held(id).await?;
        let (id, write) = match &found {
            Found::Event(row) => match row.state {
                EventState::Quarantined => {
                    let reason = if reason.is_empty() { "dropped by hand".to_owned() } else { reason };
                    (row.key, Write::DropEvent(DropEvent { key: row.key, reason, at }))
                }
                EventState::Dropped => return Ok(dropped(row.key)),
                EventState::Undecided | EventState::Decided => {
                    return Err(already(&row.key.to_string(), row.state.as_str()));
                }
            },
            Found::Input(row) => match row.summary.state {
                InputState::Held => {
                    let note = (!reason.is_empty()).then_some(reason);
                    let id = row.summary.id;
                    let resolution = Resolution::Dropped;
                    (id, Write::ResolveQuarantine(ResolveQuarantine { id, resolution, note, at }))
                }
                InputState::Resolved(Resolution::Dropped) => return Ok(dropped(row.summary.id)),
                InputState::Resolved(Resolution::Replayed) => {
                    return Err(already(&row.summary.id.to_string(), "replayed"));
                }
            },
        };
        self.shared.store.write(vec![write]).await.map_err(write_failed)?;
        Ok(dropped(id))
    }

    async fn resolved_meanwhile(&self, id: &str) -> Result<Resolved, ApiError> {
        match self.find_held(id).await? {
            Found::Input(row) if row.summary.state == InputState::Resolved(Resolution::Replayed) => {
                Ok(replayed(id.to_owned(), row.summary.note.as_deref()))
            }
            Found::Input(row) => Err(already(id, row.summary.state.as_str())),
            Found::Event(row) => Err(already(id, row.state.as_str())),
        }
    }

    async fn find_held(&self, id: &str) -> Result<Found, ApiError> {
        let store = &self.shared.store;
        let inputs = store.quarantined_by_prefix(id).await.map_err(read_failed)?;
        let mut events = store.events_by_prefix(id).await.map_err(read_failed)?;
        // An event that nobody ever held has no business here, but one that was dealt with has: to say so.
        events.retain(|row| row.state != EventState::Decided || row.key.to_string() == id);
        match (inputs.as_slice(), events.len()) {
            ([input], 0) => {
                let row = store.quarantined_input(input.id).await.map_err(read_failed)?;
                row.map(Found::Input).ok_or_else(|| missing(id))
            }
            ([], 1) => Ok(Found::Event(Box::new(events.remove(0)))),
            ([], 0) => Err(missing(id)),
            _ => Err(ApiError::Invalid {
                code: "ambiguous",
                detail: format!("{id:?} begins several ids; give more of it"),
            }),
        }
    }
}

enum Found {
    Input(InputRow),
    Event(Box<EventRow>),
}

/// Nobody but us says what led to an event; what did stays, so that an edited one cannot go round for ever.
fn keep_reserved(event: &mut CloudEvent, before: &CloudEvent) {
    for name in bus::RESERVED {
        event.extensions.remove(name);
        event.extensions.extend(before.extensions.get(name).map(|value| (name.to_owned(), value.clone())));
    }
}

fn check(event: &CloudEvent) -> Result<(), ApiError> {
    event.check().map_err(|e| ApiError::Invalid { code: "event_invalid", detail: format!("cannot {e}") })?;
    let size = serde_json::to_vec(event).map_or(usize::MAX, |bytes| bytes.len());
    if size > ingest::MAX_EVENT_BYTES {
        return Err(ApiError::Invalid {
            code: "event_too_large",
            detail: format!("the event has {size} bytes; at most {} are taken", ingest::MAX_EVENT_BYTES),
        });
    }
    Ok(())
}

fn missing(id: &str) -> ApiError {
    ApiError::NotFound {
        code: "quarantine_not_found",
        detail: format!("nothing is in quarantine as {id:?}; `kickwheel events quarantine ls` lists what is"),
    }
}

fn already(id: &str, state: &str) -> ApiError {
    ApiError::Conflict { code: "quarantine_resolved", detail: format!("{id} is {state} already; nothing was changed") }
}

fn dropped(id: EventKey) -> Resolved {
    Resolved { id: id.to_string(), state: Resolution::Dropped.as_str().to_owned(), events: Vec::new() }
}

fn replayed(id: String, note: Option<&str>) -> Resolved {
    let events = note.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    Resolved { id, state: Resolution::Replayed.as_str().to_owned(), events }
}

/// `<id>+edit1`; of an id that has such an end already, the next number.
fn edited_id(id: &str) -> String {
    let numbered = id.rsplit_once("+edit").and_then(|(base, n)| Some((base, n.parse::<u32>().ok()?)));
    match numbered {
        Some((base, n)) => format!("{base}+edit{}", n.saturating_add(1)),
        None => format!("{id}+edit1"),
    }
}

/// Headers as they are shown: a text each. Lists, which a Kafka record may have, are joined.
fn flat(headers: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let Value::Object(members) = headers else { return BTreeMap::new() };
    members.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

fn input_view(row: &InputSummary) -> QuarantineView {
    QuarantineView {
        id: row.id.to_string(),
        state: row.state.as_str().to_owned(),
        what: HeldKind::Input,
        project: row.project.clone(),
        origin: row.origin.clone(),
        reason: row.reason.clone(),
        size: row.size,
        received_at: row.received_at.to_rfc3339(),
        note: row.note.clone(),
    }
}

fn event_view(row: &EventRow) -> QuarantineView {
    let state = match row.state {
        EventState::Quarantined => "held",
        EventState::Undecided | EventState::Decided => "replayed",
        EventState::Dropped => "dropped",
    };
    QuarantineView {
        id: row.key.to_string(),
        state: state.to_owned(),
        what: HeldKind::Event,
        project: row.project.clone(),
        origin: row.event.source.clone(),
        reason: row.reason.clone().unwrap_or_default(),
        size: serde_json::to_vec(&row.event).map_or(0, |bytes| bytes.len() as u64),
        received_at: row.received_at.to_rfc3339(),
        note: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_id_names_its_cause_and_counts_on() {
        assert_eq!(edited_id("a"), "a+edit1");
        assert_eq!(edited_id("a+edit1"), "a+edit2");
        assert_eq!(edited_id("a+editor"), "a+editor+edit1");
    }
}
