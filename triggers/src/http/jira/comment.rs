//! A comment, told as itself or as a change of its issue.

use kickwheel_schemas::{
    CloudEvent,
    payload::{self, JiraComment},
};
use serde_json::Value;

use super::{Delivery, Refusal, Told, body, changelog::Changelog, forge, person};

/// What happened to a comment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Created,
    Updated,
    Deleted,
}

/// Whether a change of an issue is nothing but a comment's.
pub(super) fn twin(payload: &Value) -> Result<Option<Verb>, Refusal> {
    let changelog = Changelog::read(payload)?;
    if !changelog.is_of_comment() {
        return Ok(None);
    }
    let there = body::at(payload, "comment").is_some();
    Ok(match body::maybe_text(payload, "issue_event_type_name")? {
        Some("issue_comment_deleted") if there || changelog.comment_before().is_some() => Some(Verb::Deleted),
        _ if !there => None,
        Some("issue_comment_edited") => Some(Verb::Updated),
        Some("issue_commented") => Some(Verb::Created),
        // Older servers do not say.
        _ if body::at(payload, "comment.created") == body::at(payload, "comment.updated") => Some(Verb::Created),
        _ => Some(Verb::Updated),
    })
}

pub(super) fn told(delivery: &Delivery<'_>, verb: Verb) -> Result<Told, Refusal> {
    let payload = delivery.payload;
    let link = body::shown(payload, "comment.self").and_then(of_link);
    let comment_id = match body::id(payload, "comment.id") {
        Some(id) => Some(id),
        None => Changelog::read(payload)?.comment_before(),
    };
    let comment_id = comment_id.or_else(|| link.clone().map(|(_, comment)| comment));
    let comment_id = comment_id.ok_or_else(|| Refusal::shape("comment.id", "a text or a number"))?;
    let issue_id = body::id(payload, "issue.id").or_else(|| link.map(|(issue, _)| issue));
    let issue_id = issue_id.ok_or_else(|| Refusal::shape("comment.self", "a link that names the issue's id"))?;
    let people: &[&str] = match verb {
        Verb::Created => &["user", "comment.author"],
        Verb::Updated => &["user", "comment.updateAuthor"],
        // Who wrote it is not who took it away.
        Verb::Deleted => &["user"],
    };
    let actor = people.iter().find_map(|path| person(payload, path));
    let (ty, id) = match verb {
        Verb::Created => (payload::JIRA_COMMENT_CREATED, format!("comment:{comment_id}:created")),
        // It may be edited again and again.
        Verb::Updated => {
            let at = body::at(payload, "comment.updated").and_then(forge::moment);
            let at = at.unwrap_or_else(|| delivery.id.clone());
            (payload::JIRA_COMMENT_UPDATED, format!("comment:{comment_id}:updated:{at}"))
        }
        Verb::Deleted => (payload::JIRA_COMMENT_DELETED, format!("comment:{comment_id}:deleted")),
    };
    let data = JiraComment {
        issue_id: issue_id.clone(),
        issue_key: body::maybe_text(payload, "issue.key")?.map(str::to_owned),
        comment_id,
        body: body::at(payload, "comment.body").and_then(text),
        actor: actor.clone(),
    };
    let data = serde_json::to_value(data).expect("the payload has string keys only");
    let mut event = CloudEvent::new(delivery.site(), id, ty, data).with_subject(issue_id);
    event.time = delivery.time();
    Ok(Told { event, actor })
}

/// The ids of the issue and the comment in `…/issue/10013/comment/10082`.
fn of_link(link: &str) -> Option<(String, String)> {
    let (_, rest) = link.rsplit_once("/issue/")?;
    let (issue, comment) = rest.split_once("/comment/")?;
    let plain = |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    (plain(issue) && plain(comment)).then(|| (issue.to_owned(), comment.to_owned()))
}

/// A comment as text: it is one, or a document of Atlassian's (ADF), whose texts are joined.
fn text(value: &Value) -> Option<String> {
    fn collect(node: &Value, into: &mut String) {
        if let Some(text) = node.get("text").and_then(Value::as_str) {
            into.push_str(text);
        }
        for child in node.get("content").and_then(Value::as_array).into_iter().flatten() {
            collect(child, into);
        }
        let ends = ["paragraph", "heading", "hardBreak", "codeBlock"];
        if node.get("type").and_then(Value::as_str).is_some_and(|ty| ends.contains(&ty)) && !into.ends_with('\n') {
            into.push('\n');
        }
    }
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(_) => {
            let mut joined = String::new();
            collect(value, &mut joined);
            Some(joined.trim_end().to_owned())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    }
}
