//! `tokens`: who may use the API beside the owner of the data folder.

use kickwheel_schemas::api::{CreateToken, CreatedToken, Page, TokenView};

use super::Session;
use crate::{
    args::Tokens,
    exit::{Exit, Outcome},
    output::{listing, say},
};

/// `tokens …`.
pub async fn tokens(session: &Session, tokens: Tokens) -> Outcome {
    let client = session.client()?;
    match tokens {
        Tokens::Create { name, role, project, expires } => {
            let expires_in_ms = expires.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
            let create = CreateToken { name, role, project, expires_in_ms };
            let created = client.post::<CreatedToken>(&["tokens"], &create).await?;
            if session.look.json {
                say(created.raw)?;
            } else {
                // Alone on stdout, so that it can be piped into where it is kept.
                say(&created.value.token)?;
                let view = &created.value.view;
                let until = view.expires_at.as_deref().map_or_else(String::new, |at| format!(" until {at}"));
                eprintln!("{} may act as {}{until}; this is the only time that it is shown", view.name, view.role);
            }
            Ok(Exit::Ok)
        }
        Tokens::Ls => {
            let page = client.get::<Page<TokenView>>(&["tokens"], &[]).await?;
            let rows = page.value.items.iter().map(|token| {
                vec![
                    token.id.clone(),
                    token.state.clone(),
                    token.name.clone(),
                    token.role.clone(),
                    token.project.clone().unwrap_or_else(|| "(all)".to_owned()),
                    token.created_at.clone(),
                    token.expires_at.clone().unwrap_or_default(),
                ]
            });
            let headings = ["TOKEN", "STATE", "NAME", "ROLE", "PROJECT", "CREATED", "EXPIRES"];
            let none = "no tokens; `kickwheel tokens create NAME --role viewer` makes one";
            listing(session.look, &page.raw, &headings, rows.collect(), none)
        }
        Tokens::Revoke { name } => {
            let revoked = client.delete_told::<TokenView>(&["tokens", &name]).await?;
            let view = &revoked.value;
            say(if session.look.json {
                revoked.raw.clone()
            } else {
                format!("{} ({}) opens nothing any more", view.name, view.id)
            })?;
            Ok(Exit::Ok)
        }
    }
}
