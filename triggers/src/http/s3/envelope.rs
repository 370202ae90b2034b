//! What is around a notification: SNS, SQS and Lambda put JSON as text into JSON, in layers.

use serde_json::Value;

use super::{
    super::{Refusal, body, objects::Change},
    record,
};

/// Most envelopes within each other. SNS in SQS in Lambda are three.
const MAX_LAYERS: usize = 6;

/// The records of one message; those that mean nothing keep their place, so that the others' numbers stay what they are.
pub(super) struct Message {
    /// The message's own id where its envelope has one, else that of what is around it.
    pub id: String,
    pub records: Vec<Option<Change>>,
}

/// Collects the messages of a payload.
pub(super) fn open(payload: &Value, id: &str, layer: usize, found: &mut Vec<Message>) -> Result<(), Refusal> {
    if layer > MAX_LAYERS {
        return Ok(());
    }
    if let Value::Array(items) = payload {
        return each(items, id, layer, found);
    }
    if let Some(records) = body::at(payload, "Records") {
        let records = records.as_array().ok_or_else(|| Refusal::shape("Records", "a list"))?;
        let (messages, own): (Vec<&Value>, Vec<&Value>) = records.iter().partition(|record| inner(record).is_some());
        if !own.is_empty() {
            let records = own.into_iter().map(record::notification).collect::<Result<_, _>>()?;
            found.push(Message { id: id.to_owned(), records });
        }
        return each(messages, id, layer, found);
    }
    if let Some(Value::Array(messages)) = body::at(payload, "Messages") {
        return each(messages, id, layer, found);
    }
    if body::at(payload, "detail-type").is_some() {
        let id = body::id(payload, "id").unwrap_or_else(|| id.to_owned());
        found.push(Message { id, records: vec![record::event_bridge(payload)?] });
        return Ok(());
    }
    match inner(payload) {
        Some(text) => nested(payload, text, id, layer, found),
        // A test, a confirmation, or something that is not for us.
        None => Ok(()),
    }
}

fn each<'v>(
    items: impl IntoIterator<Item = &'v Value>,
    id: &str,
    layer: usize,
    found: &mut Vec<Message>,
) -> Result<(), Refusal> {
    for (index, item) in items.into_iter().enumerate() {
        let id = format!("{id}#{index}");
        match inner(item) {
            Some(text) => nested(item, text, &id, layer, found)?,
            None if item.is_object() => open(item, &id, layer + 1, found)?,
            None => return Err(Refusal::kept("shape_invalid", "a list of messages must hold JSON objects")),
        }
    }
    Ok(())
}

/// The text that an envelope holds: of SQS as Lambda and as its API write it, of SNS as itself and Lambda write it.
fn inner(envelope: &Value) -> Option<&str> {
    ["body", "Body", "Message", "Sns.Message"].iter().find_map(|path| body::shown(envelope, path))
}

fn nested(envelope: &Value, text: &str, id: &str, layer: usize, found: &mut Vec<Message>) -> Result<(), Refusal> {
    if matches!(body::shown(envelope, "Type"), Some("SubscriptionConfirmation" | "UnsubscribeConfirmation")) {
        return Ok(());
    }
    let own = ["messageId", "MessageId", "Sns.MessageId"].iter().find_map(|path| body::id(envelope, path));
    let id = own.unwrap_or_else(|| id.to_owned());
    // An envelope around something else is none of our business.
    let Ok(payload) = body::json(text.as_bytes()) else { return Ok(()) };
    if !payload.is_object() && !payload.is_array() {
        return Ok(());
    }
    open(&payload, &id, layer + 1, found)
}
