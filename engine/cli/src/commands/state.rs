//! `doctor` and `health`.

use kickwheel_schemas::api::Health;

use super::Session;
use crate::{
    client::Fetched,
    exit::{Exit, Outcome},
    output::{Look, Paint, say},
};

/// Every check; 1 if one failed.
pub async fn doctor(session: &Session) -> Outcome {
    let client = session.client()?;
    let health = client.get::<Health>(&["doctor"], &[]).await?;
    show(session, &health)?;
    let failed = health.value.checks.iter().any(|c| c.state == "failed") || health.value.state != "ok";
    Ok(if failed { Exit::Failed } else { Exit::Ok })
}

/// Whether it is up; 1 if it is paused or draining.
pub async fn health(session: &Session) -> Outcome {
    let health = session.client()?.get::<Health>(&["health"], &[]).await?;
    show(session, &health)?;
    Ok(if health.value.state == "ok" { Exit::Ok } else { Exit::Failed })
}

fn show(session: &Session, health: &Fetched<Health>) -> Result<(), crate::exit::Failure> {
    say(if session.look.json { health.raw.clone() } else { render(session.look, &health.value) })
}

fn render(look: Look, health: &Health) -> String {
    let mut lines = vec![format!("kickwheel {}  {}", health.version, look.state(&health.state))];
    for check in &health.checks {
        let (paint, symbol) = match check.state.as_str() {
            "ok" => (Paint::Good, "✓"),
            "warning" => (Paint::Careful, "!"),
            _ => (Paint::Bad, "✗"),
        };
        lines.push(format!("  {} {}: {}", look.paint(paint, symbol), check.id, check.message));
        lines.extend(check.help.iter().map(|help| format!("      {help}")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use kickwheel_schemas::api::Check;

    use super::*;

    #[test]
    fn each_check_that_is_not_ok_says_what_to_do() {
        let check = |id: &str, state: &str, message: &str, help: Option<&str>| Check {
            id: id.to_owned(),
            state: state.to_owned(),
            message: message.to_owned(),
            help: help.map(str::to_owned),
        };
        let health = Health {
            state: "paused".to_owned(),
            version: "0.1.0".to_owned(),
            checks: vec![
                check("pool", "ok", "2 of 8 cpu used", None),
                check(
                    "database",
                    "failed",
                    "the disk is full",
                    Some("free some space; the engine carries on by itself"),
                ),
            ],
        };
        insta::assert_snapshot!(render(Look::PLAIN, &health));
    }
}
