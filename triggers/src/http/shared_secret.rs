//! Senders that do not sign bodies: they show the secret, or a token made with it.
//!
//! Looked for in this order; the first that is there decides, so that who shows a wrong one never gets another try:
//! `Authorization` (`Bearer` with the secret or, where it has the form of one, a JSON Web Token signed with it; `Basic` with
//! the secret as the password), `X-Webhook-Secret`, and `secret=` or `token=` in the URL's query.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use kickwheel_schemas::Millis;
use serde_json::Value;

use super::{
    Headers, Refusal, SourceConfig, body,
    signature::{Secret, is_hmac_sha256, is_secret, wrong},
};

/// The header that shows the secret in plain.
pub const HEADER: &str = "X-Webhook-Secret";
/// The parameters of a URL that do.
const PARAMETERS: [&str; 2] = ["secret", "token"];
/// How far our clock may be from that of who made a token.
const LEEWAY_MS: u64 = 60 * 1000;
/// Longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Verifies a request by what it shows.
pub fn verify(config: &SourceConfig, headers: &Headers) -> Result<(), Refusal> {
    let Some(secrets) = config.verification.secrets() else { return Ok(()) };
    let only = |name: &str| headers.only(name).map_err(|reason| Refusal::unauthorized("signature_malformed", reason));
    if let Some(value) = only("Authorization")? {
        return authorization(value, &secrets, config.now);
    }
    if let Some(value) = only(HEADER)? {
        return plain(HEADER, value, &secrets);
    }
    let query = headers.query().unwrap_or_default();
    let mut shown = url::form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| PARAMETERS.contains(&name.as_ref()))
        .map(|(_, value)| value);
    match (shown.next(), shown.next()) {
        (Some(value), None) => plain("secret (of the URL)", &value, &secrets),
        (Some(_), Some(_)) => Err(Refusal::unauthorized("signature_malformed", "the URL shows more than one secret")),
        (None, _) => Err(Refusal::unauthorized(
            "signature_missing",
            format!(
                "the request shows no secret: give the sender the header {HEADER}, a bearer token, or `?secret=` in the URL"
            ),
        )),
    }
}

fn plain(name: &str, value: &str, secrets: &[&Secret]) -> Result<(), Refusal> {
    if value.is_empty() {
        return Err(Refusal::unauthorized("signature_missing", format!("the header {name} is empty")));
    }
    if is_secret(secrets, value.as_bytes()) { Ok(()) } else { Err(wrong(name)) }
}

fn authorization(value: &str, secrets: &[&Secret], now: Millis) -> Result<(), Refusal> {
    let malformed = || {
        let reason = "the header Authorization must be `Bearer` with a token, or `Basic`";
        Refusal::unauthorized("signature_malformed", reason)
    };
    if value.is_empty() {
        return Err(Refusal::unauthorized("signature_missing", "the header Authorization is empty"));
    }
    if value.len() > MAX_TOKEN_BYTES {
        return Err(malformed());
    }
    let (scheme, token) = value.split_once(' ').ok_or_else(malformed)?;
    let token = token.trim();
    match scheme.to_ascii_lowercase().as_str() {
        // Atlassian's older apps write `JWT`.
        "bearer" | "jwt" if is_secret(secrets, token.as_bytes()) => Ok(()),
        "bearer" | "jwt" if token.split('.').count() == 3 => json_web_token(token, secrets, now),
        "bearer" => Err(wrong("Authorization")),
        "basic" => {
            let pair = STANDARD.decode(token).map_err(|_| malformed())?;
            let colon = pair.iter().position(|byte| *byte == b':').ok_or_else(malformed)?;
            let password = &pair[colon + 1..];
            if is_secret(secrets, password) || is_secret(secrets, &pair) { Ok(()) } else { Err(wrong("Authorization")) }
        }
        _ => Err(malformed()),
    }
}

/// A JSON Web Token by HS256 (RFC 7519): no other method is taken, least of all `none`. `exp` and `nbf` are kept to where
/// they are there.
fn json_web_token(token: &str, secrets: &[&Secret], now: Millis) -> Result<(), Refusal> {
    let malformed = |what: &str| {
        Refusal::unauthorized("signature_malformed", format!("the token in the header Authorization {what}"))
    };
    let (signed, signature) = token.rsplit_once('.').ok_or_else(|| malformed("has not three parts"))?;
    let (head, claims) = signed.split_once('.').ok_or_else(|| malformed("has not three parts"))?;
    let part = |text: &str| -> Option<Value> {
        let value = body::json(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        value.is_object().then_some(value)
    };
    let head = part(head).ok_or_else(|| malformed("has no header"))?;
    if body::shown(&head, "alg") != Some("HS256") {
        return Err(malformed("is not signed by HS256"));
    }
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed("has no signature"))?;
    if !is_hmac_sha256(secrets, signed.as_bytes(), &signature) {
        return Err(wrong("Authorization"));
    }
    let claims = part(claims).ok_or_else(|| malformed("has no claims"))?;
    let time = |name: &str| -> Result<Option<Millis>, Refusal> {
        match body::at(&claims, name) {
            None => Ok(None),
            Some(value) => {
                let seconds = value.as_f64().ok_or_else(|| malformed("has a time that is no number"))?;
                Ok(Some(Millis((seconds * 1000.0) as i64)))
            }
        }
    };
    let (expires, from) = (time("exp")?, time("nbf")?);
    let expired = expires.is_some_and(|at| now.since(at) > LEEWAY_MS);
    let early = from.is_some_and(|at| at.since(now) > LEEWAY_MS);
    if expired || early {
        let reason = "the token in the header Authorization is not valid at this time";
        return Err(Refusal::unauthorized("signature_expired", reason));
    }
    Ok(())
}
