//! `secrets`: values that are kept encrypted. One goes in from a file or stdin, never as an argument, and never comes out.

use std::{
    fs,
    io::{self, IsTerminal as _, Read as _},
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kickwheel_schemas::api::{Page, Rekey, Rekeyed, SecretView, SetSecret};

use super::Session;
use crate::{
    args::Secrets,
    exit::{Exit, Failure, Outcome},
    output::{listing, say},
};

/// More than the server takes: for a file that was named by mistake.
const MAX_READ_BYTES: u64 = 1024 * 1024;

/// `secrets …`.
pub async fn secrets(session: &Session, secrets: Secrets) -> Outcome {
    let client = session.client()?;
    match secrets {
        Secrets::Set { name, from_file, refs } => {
            let value = read(from_file.as_deref())?;
            let set = SetSecret { value_base64: STANDARD.encode(value), refs };
            let kept = client.put::<SecretView>(&["secrets", &name], &set).await?;
            say(if session.look.json {
                kept.raw
            } else {
                format!("{} is kept, sealed with the key {}", name, kept.value.key_id)
            })?;
            Ok(Exit::Ok)
        }
        Secrets::Ls => {
            let page = client.get::<Page<SecretView>>(&["secrets"], &[]).await?;
            let rows = page.value.items.iter().map(|secret| {
                vec![
                    secret.id.clone(),
                    secret.state.clone(),
                    secret.key_id.clone(),
                    secret.updated_at.clone(),
                    if secret.refs.is_empty() { "(any run)".to_owned() } else { secret.refs.join(" ") },
                ]
            });
            let headings = ["SECRET", "STATE", "KEY", "CHANGED", "REFS"];
            let none = "no secrets; `kickwheel secrets set NAME` keeps one";
            listing(session.look, &page.raw, &headings, rows.collect(), none)
        }
        Secrets::Rm { name } => {
            client.delete(&["secrets", &name]).await?;
            if !session.look.json {
                say(format!("{name} is forgotten"))?;
            }
            Ok(Exit::Ok)
        }
        Secrets::Rekey { new_key_file } => {
            let new_key = new_key_file.as_deref().map(key).transpose()?;
            let rekeyed = client.post::<Rekeyed>(&["rekey"], &Rekey { new_key }).await?;
            if session.look.json {
                say(rekeyed.raw)?;
            } else {
                say(format!("{} secrets are sealed with the key {} now", rekeyed.value.secrets, rekeyed.value.key_id))?;
                if let Some(note) = &rekeyed.value.note {
                    eprintln!("still to do: {note}");
                }
            }
            Ok(Exit::Ok)
        }
    }
}

fn read(file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    let (name, read) = match file {
        Some(path) => {
            let opened = fs::File::open(path).and_then(|file| file.take(MAX_READ_BYTES).read_to_end(&mut value));
            (path.display().to_string(), opened)
        }
        None => {
            if io::stdin().is_terminal() {
                eprintln!("type the value, then Ctrl-D on a line of its own (it is shown while you type)");
            }
            ("stdin".to_owned(), io::stdin().lock().take(MAX_READ_BYTES).read_to_end(&mut value))
        }
    };
    read.map_err(|e| Failure::usage(format!("cannot read the value from {name}: {e}")))?;
    Ok(value)
}

fn key(path: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|e| Failure::usage(format!("cannot read the new key from {}: {e}", path.display())))?;
    Ok(text.trim().to_owned())
}
