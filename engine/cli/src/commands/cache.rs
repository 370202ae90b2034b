//! `cache why`: the parts of a task's key, and which of them differ.

use kickwheel_schemas::api::CacheWhy;

use super::Session;
use crate::{
    args::Cache,
    exit::{Exit, Failure, Outcome},
    output::{Look, Paint, say, table},
};

/// `cache …`.
pub async fn cache(session: &Session, cache: Cache) -> Outcome {
    match cache {
        Cache::Why { task } => {
            let asked = session.client()?.get::<CacheWhy>(&["cache", "why"], &[("task", task)]).await;
            // The server knows what names a task; that this one does not is a fault of the command line.
            let why = asked.map_err(|failure| match failure.code.as_str() {
                "bad_task" => Failure { exit: Exit::Usage, ..failure },
                _ => failure,
            })?;
            say(if session.look.json { why.raw } else { render(session.look, &why.value) })?;
            Ok(Exit::Ok)
        }
    }
}

fn render(look: Look, why: &CacheWhy) -> String {
    let CacheWhy { task, result, key, compared_with, differs, reason } = why;
    let mut lines = vec![format!("{}  {}", look.paint(Paint::Strong, task), look.state(result))];
    lines.push(format!("  because   {reason}"));
    lines.extend(key.iter().map(|k| format!("  key       {k}")));
    lines.extend(compared_with.iter().map(|c| format!("  compared  {c}")));
    if !differs.is_empty() {
        let rows = differs.iter().map(|d| vec![d.part.clone(), d.before.clone(), d.now.clone()]);
        lines.push(String::new());
        lines.push(table(look, &["DIFFERS", "BEFORE", "NOW"], rows));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use kickwheel_schemas::api::CacheDifference;

    use super::*;

    #[test]
    fn a_miss_shows_what_differs() {
        let why = CacheWhy {
            task: "0190a1b2/prepare[1]".to_owned(),
            result: "miss".to_owned(),
            key: Some("sha256:aa".to_owned()),
            compared_with: Some("0190a1b0/prepare[1]".to_owned()),
            differs: vec![CacheDifference {
                part: "files.raw".to_owned(),
                before: "sha256:01".to_owned(),
                now: "sha256:02".to_owned(),
            }],
            reason: "files.raw has other bytes".to_owned(),
        };
        insta::assert_snapshot!(render(Look::PLAIN, &why));
    }
}
