//! Who may do what, and what is kept from everybody: API tokens and secrets.
//!
//! A token is 256 random bits; only its SHA-256 is stored, which needs no salt and no slow hash because nobody can guess
//! the bits. Whether a role suffices for a request is the door's to say (`engine/server`); here it is said whose a token is.

use kickwheel_schemas::{
    Millis,
    api::{Check, CreateToken, CreatedToken, Page, Rekey, Rekeyed, Role, SecretView, SetSecret, TokenView},
};
use kickwheel_store::{
    Write,
    rows::{InputFilter, InputState, SecretRow, TokenRow},
    write::{PutToken, RemoveNamed, RevokeToken},
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Engine, read_failed, write_failed};
use crate::{
    ApiError,
    folder::random_hex,
    secrets::{OpenError, PutError, RekeyError, decode_value},
    shared::DEFAULT_PROJECT,
};

/// How every token begins, so that people and scanners recognise one.
pub const TOKEN_PREFIX: &str = "kw_";
/// Bytes of randomness of a token.
const TOKEN_BYTES: usize = 32;
/// Longest that a token may be valid: 10 years, in milliseconds.
const MAX_VALIDITY_MS: u64 = 10 * 365 * 24 * 3600 * 1000;
/// A token whose end is nearer than this is worth a word of `doctor`.
const EXPIRES_SOON_MS: u64 = 7 * 24 * 3600 * 1000;
/// Longest name of a token, in characters.
const MAX_TOKEN_NAME: usize = 100;

/// Inputs in quarantine that `doctor` counts.
const HELD_LOOK: u32 = 1000;

/// Whose a live token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The token's id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Only there; none: everywhere.
    pub project: Option<String>,
    /// From when on it is no longer accepted.
    pub expires_at: Option<Millis>,
}

impl Engine {
    /// Makes a token. The answer is the only place where it is ever shown.
    pub async fn create_token(&self, create: CreateToken) -> Result<CreatedToken, ApiError> {
        self.refuse_when_draining()?;
        let printable = create.name.chars().all(|c| !c.is_control());
        if create.name.trim().is_empty() || create.name.chars().count() > MAX_TOKEN_NAME || !printable {
            return Err(ApiError::Invalid {
                code: "bad_name",
                detail: format!("{:?} is no name of a token; say what it is for, in one line", create.name),
            });
        }
        if let Some(project) = create.project.as_deref().filter(|p| *p != DEFAULT_PROJECT) {
            return Err(ApiError::NotFound {
                code: "project_not_found",
                detail: format!("no project {project:?}; `kickwheel projects ls` lists them"),
            });
        }
        if let Some(ms) = create.expires_in_ms.filter(|ms| !(1..=MAX_VALIDITY_MS).contains(ms)) {
            return Err(ApiError::Invalid {
                code: "expiry_invalid",
                detail: format!("a token cannot be valid for {ms} ms; give a time up to ten years, such as 30d"),
            });
        }
        let secret = Zeroizing::new(hex::encode(rand::random::<[u8; TOKEN_BYTES]>()));
        let token = format!("{TOKEN_PREFIX}{}", secret.as_str());
        let now = Millis::now();
        let put = PutToken {
            id: format!("tok-{}", random_hex::<6>()),
            project: create.project,
            name: create.name,
            hash: token_hash(&token),
            role: create.role.as_str().to_owned(),
            created_at: now,
            expires_at: create.expires_in_ms.map(|ms| now.plus(ms)),
        };
        let row = TokenRow {
            id: put.id.clone(),
            project: put.project.clone(),
            name: put.name.clone(),
            role: put.role.clone(),
            created_at: put.created_at,
            expires_at: put.expires_at,
            revoked_at: None,
        };
        self.shared.store.write(vec![Write::PutToken(put)]).await.map_err(write_failed)?;
        Ok(CreatedToken { view: view(&row, now), token })
    }

    /// All tokens, also those that are over, in the order in which they were made.
    pub async fn tokens(&self) -> Result<Page<TokenView>, ApiError> {
        let now = Millis::now();
        let rows = self.shared.store.tokens().await.map_err(read_failed)?;
        Ok(Page { items: rows.iter().map(|row| view(row, now)).collect(), next: None })
    }

    /// Ends a token before its time, by its id, or by its name if only one that lives has it. Again changes nothing.
    pub async fn revoke_token(&self, named: &str) -> Result<TokenView, ApiError> {
        let now = Millis::now();
        let mut rows = self.shared.store.tokens().await.map_err(read_failed)?;
        rows.retain(|row| row.id == named || row.name == named);
        if let Some(row) = rows.iter().find(|row| row.id == named) {
            rows = vec![row.clone()];
        } else if rows.iter().any(|row| row.is_live(now)) {
            rows.retain(|row| row.is_live(now));
        }
        let row = match rows.as_slice() {
            [] => {
                return Err(ApiError::NotFound {
                    code: "token_not_found",
                    detail: format!("no token {named:?}; `kickwheel tokens ls` lists them"),
                });
            }
            [row] => row.clone(),
            several => {
                let ids: Vec<&str> = several.iter().map(|row| row.id.as_str()).collect();
                return Err(ApiError::Invalid {
                    code: "ambiguous",
                    detail: format!("{named:?} is the name of several tokens; give one of {}", ids.join(", ")),
                });
            }
        };
        let revoke = RevokeToken { id: row.id.clone(), at: now };
        self.shared.store.write(vec![Write::RevokeToken(revoke)]).await.map_err(write_failed)?;
        Ok(view(&TokenRow { revoked_at: row.revoked_at.or(Some(now)), ..row }, now))
    }

    /// Whose the token is; none if it is unknown, over or revoked.
    pub async fn bearer(&self, token: &str) -> Result<Option<Bearer>, ApiError> {
        // What cannot be a token of ours is not worth a question to the database.
        let well_formed = token
            .strip_prefix(TOKEN_PREFIX)
            .is_some_and(|rest| rest.len() == 2 * TOKEN_BYTES && rest.bytes().all(|b| b.is_ascii_hexdigit()));
        if !well_formed {
            return Ok(None);
        }
        let row = self.shared.store.token_by_hash(&token_hash(token)).await.map_err(read_failed)?;
        let Some(row) = row.filter(|row| row.is_live(Millis::now())) else { return Ok(None) };
        // A role of a newer version grants nothing.
        let Some(role) = Role::parse(&row.role) else { return Ok(None) };
        Ok(Some(Bearer { id: row.id, name: row.name, role, project: row.project, expires_at: row.expires_at }))
    }

    /// How many tokens are accepted now.
    pub async fn live_tokens(&self) -> Result<u64, ApiError> {
        self.shared.store.live_tokens(Millis::now()).await.map_err(read_failed)
    }

    /// Secrets without their values, by name.
    pub async fn secrets(&self) -> Result<Page<SecretView>, ApiError> {
        let rows = self.shared.store.secrets(Some(DEFAULT_PROJECT)).await.map_err(read_failed)?;
        Ok(Page { items: rows.iter().map(|row| self.secret_view(row)).collect(), next: None })
    }

    fn secret_view(&self, row: &SecretRow) -> SecretView {
        let readable = self.shared.secrets.key_ids().contains(&row.key_id);
        SecretView {
            id: row.name.clone(),
            state: if readable { "active" } else { "unreadable" }.to_owned(),
            project: row.project.clone(),
            key_id: row.key_id.clone(),
            refs: row.refs.clone(),
            updated_at: row.updated_at.to_rfc3339(),
        }
    }

    /// Keeps a secret, or replaces it.
    pub async fn set_secret(&self, name: &str, set: SetSecret) -> Result<SecretView, ApiError> {
        self.refuse_when_draining()?;
        let invalid = |detail| ApiError::Invalid { code: "secret_invalid", detail };
        let encoded = Zeroizing::new(set.value_base64);
        let value = decode_value(&encoded).map_err(invalid)?;
        let (secrets, store) = (&self.shared.secrets, &self.shared.store);
        secrets.put(store, DEFAULT_PROJECT, name, &value, set.refs).await.map_err(|e| match e {
            PutError::Invalid(detail) => invalid(detail),
            PutError::Key(e) => {
                ApiError::Conflict { code: "secrets_key", detail: format!("the secret is not kept: cannot {e}") }
            }
            e @ PutError::NotInForce { .. } => {
                ApiError::Conflict { code: "secrets_key", detail: format!("cannot {e}") }
            }
            PutError::Read(e) => read_failed(e),
            PutError::Write(e) => write_failed(e),
        })?;
        let rows = store.secrets(Some(DEFAULT_PROJECT)).await.map_err(read_failed)?;
        let row = rows.iter().find(|row| row.name == name).ok_or_else(|| secret_missing(name))?;
        Ok(self.secret_view(row))
    }

    /// Forgets a secret.
    pub async fn remove_secret(&self, name: &str) -> Result<(), ApiError> {
        let rows = self.shared.store.secrets(Some(DEFAULT_PROJECT)).await.map_err(read_failed)?;
        if !rows.iter().any(|row| row.name == name) {
            return Err(secret_missing(name));
        }
        let users = self.users_of_secret(name).await?;
        if !users.is_empty() {
            return Err(ApiError::Conflict {
                code: "secret_in_use",
                detail: format!(
                    "the secret {name:?} is used by {}; to change it, set it again; to remove it, first give them another \
                     or remove them",
                    users.join(", ")
                ),
            });
        }
        let named = RemoveNamed { project: DEFAULT_PROJECT.to_owned(), name: name.to_owned() };
        self.shared.store.write(vec![Write::RemoveSecret(named)]).await.map_err(write_failed)?;
        Ok(())
    }

    /// Triggers and repositories that cannot work without this secret.
    async fn users_of_secret(&self, name: &str) -> Result<Vec<String>, ApiError> {
        let mut users = Vec::new();
        for trigger in self.triggers().await? {
            if trigger.config.is_ok_and(|config| config.secrets().contains(&name)) {
                users.push(format!("trigger {}", trigger.name));
            }
        }
        for repo in self.shared.store.repos(Some(DEFAULT_PROJECT)).await.map_err(read_failed)? {
            if repo.secret.as_deref() == Some(name) {
                users.push(format!("repository {}", repo.name));
            }
        }
        Ok(users)
    }

    /// Seals all secrets with another key. After an interruption, repeating it or the next start goes on.
    pub async fn rekey(&self, rekey: Rekey) -> Result<Rekeyed, ApiError> {
        self.refuse_when_draining()?;
        let key = rekey.new_key.map(Zeroizing::new);
        let changed = self.shared.secrets.rekey(&self.shared.store, key.as_deref().map(String::as_str)).await;
        let changed = changed.map_err(|e| match e {
            RekeyError::Key(e) => ApiError::Conflict { code: "secrets_key", detail: format!("cannot {e}") },
            e @ RekeyError::NotInForce { .. } => {
                ApiError::Conflict { code: "secrets_key", detail: format!("cannot {e}") }
            }
            RekeyError::Open(e) => secret_refused(e),
            RekeyError::Read(e) => read_failed(e),
            RekeyError::Write(e) => write_failed(e),
            e @ RekeyError::Busy(_) => ApiError::Unavailable { code: "paused", detail: format!("cannot {e}") },
        })?;
        Ok(Rekeyed { key_id: changed.key_id, secrets: changed.secrets, note: changed.note })
    }

    /// A secret's value for the engine's own use: to verify a signature, or to log in somewhere. Never for a run.
    pub async fn secret_for_engine(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, ApiError> {
        let (secrets, store) = (&self.shared.secrets, &self.shared.store);
        secrets.open_for_engine(store, DEFAULT_PROJECT, name).await.map_err(secret_refused)
    }
}

fn secret_missing(name: &str) -> ApiError {
    ApiError::NotFound {
        code: "secret_not_found",
        detail: format!("no secret {name:?}; `kickwheel secrets ls` lists them"),
    }
}

fn secret_refused(e: OpenError) -> ApiError {
    let detail = format!("cannot {e}");
    match e {
        OpenError::Missing { name } => secret_missing(&name),
        OpenError::Ref { .. } => ApiError::Conflict { code: "secret_protected", detail },
        OpenError::Key { .. } => ApiError::Conflict { code: "secrets_key", detail },
        OpenError::Damaged { .. } => ApiError::Conflict { code: "secret_damaged", detail },
        OpenError::Unavailable { .. } => ApiError::Unavailable { code: "paused", detail },
    }
}

/// How a token is stored and looked up.
pub fn token_hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

fn view(row: &TokenRow, now: Millis) -> TokenView {
    let state = match (row.is_live(now), row.revoked_at) {
        (true, _) => "active",
        (false, Some(_)) => "revoked",
        (false, None) => "expired",
    };
    TokenView {
        id: row.id.clone(),
        state: state.to_owned(),
        name: row.name.clone(),
        role: row.role.clone(),
        project: row.project.clone(),
        created_at: row.created_at.to_rfc3339(),
        expires_at: row.expires_at.map(|at| at.to_rfc3339()),
        revoked_at: row.revoked_at.map(|at| at.to_rfc3339()),
    }
}

impl Engine {
    /// What `doctor` says about tokens, secrets and the quarantine.
    pub async fn access_checks(&self) -> Vec<Check> {
        let mut checks = vec![self.check_tokens().await, self.check_secrets().await, self.check_held().await];
        checks.extend(self.check_triggers().await);
        checks
    }

    async fn check_tokens(&self) -> Check {
        let now = Millis::now();
        let rows = match self.shared.store.tokens().await {
            Ok(rows) => rows,
            Err(e) => return check("tokens", "failed", e.to_string(), None),
        };
        let live: Vec<&TokenRow> = rows.iter().filter(|row| row.is_live(now)).collect();
        let ends_soon = |row: &&&TokenRow| row.expires_at.is_some_and(|at| at.since(now) < EXPIRES_SOON_MS);
        let ending: Vec<String> = live
            .iter()
            .filter(ends_soon)
            .map(|row| format!("{} ({})", row.name, row.expires_at.map(Millis::to_rfc3339).unwrap_or_default()))
            .collect();
        if ending.is_empty() {
            return check("tokens", "ok", format!("{} are accepted", live.len()), None);
        }
        let help = "make new ones with `kickwheel tokens create`, and revoke these once nobody uses them";
        check("tokens", "warning", format!("about to expire: {}", ending.join(", ")), Some(help.to_owned()))
    }

    async fn check_secrets(&self) -> Check {
        let rows = match self.shared.store.secrets(None).await {
            Ok(rows) => rows,
            Err(e) => return check("secrets", "failed", e.to_string(), None),
        };
        let known = self.shared.secrets.key_ids();
        let lost: Vec<String> = rows
            .iter()
            .filter(|row| !known.contains(&row.key_id))
            .map(|row| format!("{} (key {})", row.name, row.key_id))
            .collect();
        if !lost.is_empty() {
            let help = "put the key that they need into `secrets.key.old` in the data folder and restart: they are sealed \
                        with the one in force then; or remove them and set them again";
            return check("secrets", "failed", format!("cannot be opened: {}", lost.join(", ")), Some(help.to_owned()));
        }
        match self.shared.secrets.note() {
            Some(note) => check("secrets", "warning", "the key was changed".to_owned(), Some(note)),
            None => check("secrets", "ok", format!("{} can be opened", rows.len()), None),
        }
    }

    /// Triggers that cannot take anything: what they need is gone, or cannot be understood.
    async fn check_triggers(&self) -> Vec<Check> {
        let (triggers, secrets, repos) = tokio::join!(
            self.triggers(),
            self.shared.store.secrets(Some(DEFAULT_PROJECT)),
            self.shared.store.repos(Some(DEFAULT_PROJECT)),
        );
        let (Ok(triggers), Ok(secrets), Ok(repos)) = (triggers, secrets, repos) else {
            // The checks of the database say why.
            return Vec::new();
        };
        let mut checks = Vec::new();
        for trigger in triggers {
            let lacks = match &trigger.config {
                Err(e) => vec![format!("its configuration cannot be read: {e}")],
                Ok(config) => {
                    let secret = |name: &&str| !secrets.iter().any(|row| row.name == *name);
                    let lost =
                        config.secrets().into_iter().filter(secret).map(|name| format!("the secret {name} is gone"));
                    let repo = config.repo().filter(|name| !repos.iter().any(|row| row.name == *name));
                    lost.chain(repo.map(|name| format!("the repository {name} is bound no more"))).collect()
                }
            };
            if !lacks.is_empty() {
                let help = "give it what it lacks (`kickwheel secrets set`, `kickwheel repos add`), add it again, or remove \
                            it (`kickwheel triggers rm`)";
                let subject = format!("trigger {}", trigger.name);
                checks.push(check(&subject, "failed", lacks.join("; "), Some(help.to_owned())));
            }
        }
        checks
    }

    async fn check_held(&self) -> Check {
        let filter = InputFilter { state: Some(InputState::Held), limit: HELD_LOOK, ..InputFilter::default() };
        match self.shared.store.quarantined_inputs(&filter).await {
            Ok(rows) if rows.is_empty() => check("quarantine", "ok", "holds no input".to_owned(), None),
            Ok(rows) => {
                let more = if rows.len() == HELD_LOOK as usize { " or more" } else { "" };
                check(
                    "quarantine",
                    "warning",
                    format!("{}{more} inputs could not become events", rows.len()),
                    Some("`kickwheel events quarantine ls` shows why; edit, replay or drop them".to_owned()),
                )
            }
            Err(e) => check("quarantine", "failed", e.to_string(), None),
        }
    }
}

fn check(id: &str, state: &str, message: String, help: Option<String>) -> Check {
    Check { id: id.to_owned(), state: state.to_owned(), message, help }
}
