//! An issue that was made, changed, moved or deleted.

use kickwheel_schemas::{
    CloudEvent,
    payload::{self, JiraIssue},
};

use super::{Delivery, Refusal, Told, body, changelog::Changelog, person};

/// What happened, as far as the delivery's name says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Created,
    /// The changelog says how.
    Changed,
    /// A transition that is told while it happens: the issue still has the old status.
    PostFunction,
    Deleted,
}

pub(super) fn told(delivery: &Delivery<'_>, verb: Verb) -> Result<Told, Refusal> {
    let issue = delivery.issue();
    let issue_id = body::id(issue, "id").ok_or_else(|| Refusal::shape("issue.id", "a text or a number"))?;
    let issue_key = body::maybe_text(issue, "key")?.map(str::to_owned);
    let changelog = Changelog::read(delivery.payload)?;
    let of_key = || issue_key.as_deref()?.rsplit_once('-').map(|(project, _)| project.to_owned());
    let [labels_added, labels_removed] = changelog.labels();
    let actor = person(delivery.payload, "user");
    let mut data = JiraIssue {
        site: delivery.site(),
        issue_id,
        project: body::shown(issue, "fields.project.key").map(str::to_owned).or_else(of_key),
        issue_key: issue_key.clone(),
        issue_type: body::shown(issue, "fields.issuetype.name").map(str::to_owned),
        resolution_to: changelog.resolution_to(),
        changelog_id: body::id(delivery.payload, "changelog.id"),
        fields: changelog.fields(),
        labels_added,
        labels_removed,
        actor: actor.clone(),
        ..JiraIssue::default()
    };
    let status = changelog.status();
    let transitioned = status.is_some();
    if let Some([(from_id, from), (to_id, to)]) = status {
        (data.status_from_id, data.status_from) = (from_id, from);
        (data.status_to_id, data.status_to) = (to_id, to);
    }
    let ty = match verb {
        Verb::Created => payload::JIRA_ISSUE_CREATED,
        Verb::Deleted => payload::JIRA_ISSUE_DELETED,
        Verb::PostFunction => {
            post_function(delivery, &mut data)?;
            payload::JIRA_ISSUE_TRANSITIONED
        }
        Verb::Changed => {
            data.moved = changelog.moved();
            match (&data.moved, transitioned) {
                (Some(_), _) => payload::JIRA_ISSUE_MOVED,
                (None, true) => payload::JIRA_ISSUE_TRANSITIONED,
                (None, false) => payload::JIRA_ISSUE_UPDATED,
            }
        }
    };
    let (source, subject) = (data.site.clone(), data.issue_id.clone());
    let data = serde_json::to_value(data).expect("the payload has string keys only");
    let mut event = CloudEvent::new(source, &delivery.id, ty, data).with_subject(subject);
    event.time = delivery.time();
    Ok(Told { event, actor })
}

/// Names of the two statuses. The id of the one before is that of the issue, which does not have the new one yet.
fn post_function(delivery: &Delivery<'_>, data: &mut JiraIssue) -> Result<(), Refusal> {
    let name = |name: &str| body::maybe_text(delivery.payload, &format!("transition.{name}"));
    let to = name("to_status")?.ok_or_else(|| Refusal::shape("transition.to_status", "a text"))?;
    data.status_to = Some(to.to_owned());
    data.status_from = name("from_status")?.map(str::to_owned);
    let present = body::shown(delivery.issue(), "fields.status.name").map(str::to_owned);
    if present.is_some() && present == data.status_from {
        data.status_from_id = body::id(delivery.issue(), "fields.status.id");
    }
    if !data.fields.iter().any(|field| field == "status") {
        data.fields.push("status".to_owned());
    }
    Ok(())
}
