//! Asks the store and the mirror what `pushes` wants to know in order to tell whether a push was told before.

use std::sync::Arc;

use kickwheel_schemas::payload;
use kickwheel_store::{ReadError, Write, rows::EventRow, write::ReportRef};
use serde_json::Value;

use crate::{
    lookup::Enrichment,
    pushes::{Ancestry, Push, Tip, Transition, Verdict, WINDOW, judge, questions, wants_tip},
    shared::{DEFAULT_PROJECT, Shared},
};

/// Extension attribute of what a poll saw: the newest transition that was recorded when it looked.
pub const KNOWN_TRANSITION: &str = "kickwheeltransition";

/// Whether this event tells a push that was told before. Everything but a move of a ref is new.
pub async fn look(shared: &Arc<Shared>, row: &EventRow, enrichment: &Enrichment) -> Result<Verdict, ReadError> {
    let (Some(repo), Some(ref_name)) = (&enrichment.repo, &row.event.subject) else { return Ok(Verdict::New) };
    if !is_move(&row.event.ty) {
        return Ok(Verdict::New);
    }
    let text = |name: &str| row.event.data.get(name).and_then(Value::as_str);
    let mut push = Push {
        before: text("before"),
        after: text("after"),
        channel: &row.channel,
        since: row.event.extensions.get(KNOWN_TRANSITION).and_then(Value::as_u64).unwrap_or(0),
        tip: Tip::Unknown,
    };
    let rows = shared.store.transitions(DEFAULT_PROJECT, repo, ref_name, WINDOW).await?;
    let chain: Vec<Transition> = rows
        .into_iter()
        .rev()
        .map(|t| Transition {
            number: t.transition,
            before: t.before,
            after: t.after,
            channels: t.channels,
            event: t.event,
            moved_head: t.moved_head,
        })
        .collect();
    let mirror = async || shared.mirrors.mirror(DEFAULT_PROJECT, repo, &row.event.source).await.ok();
    let standing;
    if wants_tip(&chain, &push)
        && let Some(mirror) = mirror().await
        && let Ok(refs) = shared.mirrors.heads(&mirror).await
    {
        standing = refs.into_iter().find(|r| r.name == *ref_name);
        push.tip = standing.as_ref().map_or(Tip::Gone, |found| Tip::At(&found.target));
    }
    let asked = questions(&chain, &push);
    let mut ancestry = Ancestry::default();
    if !asked.is_empty()
        && let Some(mirror) = mirror().await
    {
        // A mirror that cannot be read knows no order: the push is then taken as new, which loses nothing.
        let answers = shared.mirrors.ancestry(&mirror, asked.clone()).await.unwrap_or_default();
        for ((older, newer), holds) in asked.into_iter().zip(answers) {
            ancestry.learn(older, newer, holds);
        }
    }
    Ok(judge(&chain, &push, &ancestry))
}

fn is_move(ty: &str) -> bool {
    [
        payload::GIT_BRANCH_CREATED,
        payload::GIT_BRANCH_UPDATED,
        payload::GIT_BRANCH_DELETED,
        payload::GIT_TAG_CREATED,
        payload::GIT_TAG_UPDATED,
        payload::GIT_TAG_DELETED,
    ]
    .contains(&ty)
}

/// Notes that the event's channel has told these transitions now.
pub fn report(row: &EventRow, enrichment: &Enrichment, transitions: Vec<u64>) -> Vec<Write> {
    let (Some(repo), Some(ref_name)) = (&enrichment.repo, &row.event.subject) else { return Vec::new() };
    let told = |transition| {
        Write::ReportRef(ReportRef {
            project: DEFAULT_PROJECT.to_owned(),
            repo: repo.clone(),
            ref_name: ref_name.clone(),
            transition,
            channel: row.channel.clone(),
        })
    };
    transitions.into_iter().map(told).collect()
}
