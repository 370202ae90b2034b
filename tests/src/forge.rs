//! A forge somewhere else, as far as we see one: signed webhook deliveries in GitHub's format.

use std::fs;

use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{api::Answer, harness::Engine};

/// Stands for *absent*.
const ZEROS: &str = "0000000000000000000000000000000000000000";

/// One webhook at the forge, and our trigger for it.
#[derive(Clone, Debug)]
pub struct Forge {
    /// The trigger.
    pub trigger: String,
    secret: String,
}

/// A move of a ref; none stands for absent.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    /// In full.
    pub reference: &'a str,
    /// The commit before.
    pub before: Option<&'a str>,
    /// The commit after.
    pub after: Option<&'a str>,
}

impl Forge {
    /// Sets the secret and the trigger up for a repository that is bound under this name.
    pub fn set_up(engine: &Engine, trigger: &str, repo: &str) -> Self {
        let (name, secret) = (format!("{trigger}-secret"), format!("shared by {trigger}"));
        let file = engine.folder().join(&name);
        fs::write(&file, &secret).expect("a file can be written");
        let said = engine.cli(&["secrets", "set", &name, "--from-file", &file.to_string_lossy()]);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let config = json!({"kind": "github", "repo": repo, "secrets": [name], "rate_per_minute": 6000});
        engine.api().post("triggers", &json!({"name": trigger, "config": config}));
        Self { trigger: trigger.to_owned(), secret }
    }

    /// Tells of a push. `delivery` is its identity; `commits` is what the forge announces of it.
    pub fn tell(&self, engine: &Engine, delivery: &str, push: Push<'_>, commits: &Value) -> Result<Answer, String> {
        let body = json!({
            "ref": push.reference,
            "before": push.before.unwrap_or(ZEROS),
            "after": push.after.unwrap_or(ZEROS),
            "created": push.before.is_none(),
            "deleted": push.after.is_none(),
            "forced": false,
            "commits": commits,
            "head_commit": null,
            "repository": {"full_name": "team/wheel", "default_branch": "main"},
            "pusher": {"name": "ada"},
            "sender": {"login": "ada"},
        })
        .to_string();
        let signature = format!("sha256={}", self.signature(&body));
        let headers = [
            ("x-github-event", "push"),
            ("x-github-delivery", delivery),
            ("x-hub-signature-256", &signature),
            ("content-type", "application/json"),
        ];
        engine.api().send_raw(&format!("/hooks/{}", self.trigger), &headers, body)
    }

    fn signature(&self, body: &str) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).expect("any length fits");
        hex::encode(mac.chain_update(body).finalize().into_bytes())
    }
}
