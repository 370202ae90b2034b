//! Signatures over the raw bytes of a body, compared in constant time.
//!
//! Two secrets may be valid at once, so that one can be changed without losing a delivery. Every one of them is tried,
//! whatever the first says: how long it takes tells nothing.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use kickwheel_schemas::Millis;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq as _;

use super::{Headers, Refusal, headers::quoted};

/// A shared secret. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// From its bytes; a file's last line break is not part of a secret.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let mut bytes = bytes.into();
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        Self(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How requests prove where they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// They need not: the trigger says so, or somebody tries a payload.
    Unsigned,
    /// By a signature or token made with a shared secret.
    Secret {
        /// The secret.
        current: Secret,
        /// The one before, while it is being replaced.
        previous: Option<Secret>,
        /// Also a signature by HMAC-SHA1, where the sender gives no better one.
        legacy_sha1: bool,
    },
}

impl Verification {
    /// Whether a signature by HMAC-SHA1 counts where there is no better one.
    pub(super) fn takes_sha1(&self) -> bool {
        matches!(self, Self::Secret { legacy_sha1: true, .. })
    }

    /// The secrets that are valid; None when nothing is to be verified.
    pub(super) fn secrets(&self) -> Option<Vec<&Secret>> {
        match self {
            Self::Unsigned => None,
            Self::Secret { current, previous, legacy_sha1: _ } => Some([current].into_iter().chain(previous).collect()),
        }
    }
}

/// How a secret becomes the key of a Standard Webhooks signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// Base64, perhaps after `whsec_`.
    Encoded,
    /// The secret's own bytes.
    Raw,
}

/// Names of the headers of a Standard Webhooks signature, which some senders call otherwise.
#[derive(Clone, Copy, Debug)]
pub struct StandardHeaders {
    /// Of the delivery's id.
    pub id: &'static str,
    /// Of the time of signing, in seconds.
    pub timestamp: &'static str,
    /// Of the signatures.
    pub signature: &'static str,
}

/// As the Standard Webhooks specification has them.
pub const STANDARD_HEADERS: StandardHeaders =
    StandardHeaders { id: "webhook-id", timestamp: "webhook-timestamp", signature: "webhook-signature" };

/// How far the time of signing may be from ours, before or after.
pub const TOLERANCE_MS: u64 = 5 * 60 * 1000;
/// Most signatures of one request that are compared.
const MAX_SIGNATURES: usize = 16;

/// Verifies a Standard Webhooks signature (<https://www.standardwebhooks.com>): `v1,` and the base64 HMAC-SHA256 of
/// `{id}.{timestamp}.{body}`, one of a list separated by blanks.
pub fn verify_standard(
    names: StandardHeaders,
    form: KeyForm,
    secrets: &[&Secret],
    headers: &Headers,
    body: &[u8],
    now: Millis,
) -> Result<(), Refusal> {
    let header = |name: &'static str| {
        let value = headers.only(name).map_err(|reason| Refusal::unauthorized("signature_malformed", reason))?;
        value
            .filter(|value| !value.is_empty())
            .ok_or_else(|| Refusal::unauthorized("signature_missing", format!("there is no header {name}")))
    };
    let (signatures, id, timestamp) = (header(names.signature)?, header(names.id)?, header(names.timestamp)?);
    let seconds: i64 = timestamp.parse().map_err(|_| {
        Refusal::unauthorized("signature_malformed", format!("the header {} is no number of seconds", names.timestamp))
    })?;
    let signed_at = Millis(seconds.saturating_mul(1000));
    if now.since(signed_at).max(signed_at.since(now)) > TOLERANCE_MS {
        let reason = format!(
            "it was signed at {}, more than {} minutes from now",
            signed_at.to_rfc3339(),
            TOLERANCE_MS / 60_000
        );
        return Err(Refusal::unauthorized("signature_expired", reason));
    }
    let given: Vec<Vec<u8>> = signatures
        .split_ascii_whitespace()
        .take(MAX_SIGNATURES)
        .filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok())
        .collect();
    if given.is_empty() {
        let reason = format!("the header {} holds no signature of the form `v1,BASE64`", names.signature);
        return Err(Refusal::unauthorized("signature_malformed", reason));
    }
    let mut found = false;
    for secret in secrets {
        let key = match form {
            KeyForm::Encoded => standard_key(secret)?,
            KeyForm::Raw => secret.0.clone(),
        };
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes a key of any length");
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        let expected = mac.finalize().into_bytes();
        for given in &given {
            found |= bool::from(expected.as_slice().ct_eq(given));
        }
    }
    if found { Ok(()) } else { Err(wrong(names.signature)) }
}

/// The bytes of a `whsec_` secret.
fn standard_key(secret: &Secret) -> Result<Vec<u8>, Refusal> {
    let encoded = secret.0.strip_prefix(b"whsec_").unwrap_or(&secret.0);
    STANDARD.decode(encoded).map_err(|_| {
        let reason = "the trigger's secret is not base64 after `whsec_`, so nothing can be verified with it";
        Refusal::unauthorized("secret_unusable", reason)
    })
}

/// Verifies `sha256=` and the hex HMAC-SHA256 of the body in the header `name`; with `legacy`, the header of that name
/// with `sha1=` where the better one is absent.
pub fn verify_hub(
    name: &str,
    legacy: Option<&str>,
    secrets: &[&Secret],
    headers: &Headers,
    body: &[u8],
) -> Result<(), Refusal> {
    let only = |name: &str| headers.only(name).map_err(|reason| Refusal::unauthorized("signature_malformed", reason));
    match (only(name)?, legacy) {
        (Some(value), _) => {
            let given = hub_digest(name, value, "sha256=", 32)?;
            check(name, secrets, &given, |key| hmac_sha256(key, body))
        }
        (None, Some(legacy)) if headers.get(legacy).is_some() => {
            let given = hub_digest(legacy, only(legacy)?.unwrap_or_default(), "sha1=", 20)?;
            check(legacy, secrets, &given, |key| hmac_sha1(key, body))
        }
        (None, _) => Err(Refusal::unauthorized("signature_missing", format!("there is no header {name}"))),
    }
}

/// Verifies that the header `name` is nothing but the hex HMAC-SHA256 of the body.
pub fn verify_hex(name: &str, secrets: &[&Secret], headers: &Headers, body: &[u8]) -> Result<(), Refusal> {
    let value = headers.only(name).map_err(|reason| Refusal::unauthorized("signature_malformed", reason))?;
    let missing = || Refusal::unauthorized("signature_missing", format!("there is no header {name}"));
    let given = hub_digest(name, value.ok_or_else(missing)?, "", 32)?;
    check(name, secrets, &given, |key| hmac_sha256(key, body))
}

/// Verifies `<method>=` and the hex HMAC of the body by that method, as WebSub has it: SHA-256, SHA-384 or SHA-512, and
/// SHA-1 where `sha1` says so.
pub fn verify_websub(
    name: &str,
    sha1: bool,
    secrets: &[&Secret],
    headers: &Headers,
    body: &[u8],
) -> Result<(), Refusal> {
    let value = headers.only(name).map_err(|reason| Refusal::unauthorized("signature_malformed", reason))?;
    let missing = || Refusal::unauthorized("signature_missing", format!("there is no header {name} with a signature"));
    let value = value.filter(|value| !value.is_empty()).ok_or_else(missing)?;
    let Some((method, _)) = value.split_once('=') else {
        let reason = format!("the header {name} must be `<method>=` and hex digits");
        return Err(Refusal::unauthorized("signature_malformed", reason));
    };
    let prefix = format!("{method}=");
    match method.to_ascii_lowercase().as_str() {
        "sha256" => check(name, secrets, &hub_digest(name, value, &prefix, 32)?, |key| hmac_sha256(key, body)),
        "sha384" => check(name, secrets, &hub_digest(name, value, &prefix, 48)?, |key| hmac_sha384(key, body)),
        "sha512" => check(name, secrets, &hub_digest(name, value, &prefix, 64)?, |key| hmac_sha512(key, body)),
        "sha1" if sha1 => check(name, secrets, &hub_digest(name, value, &prefix, 20)?, |key| hmac_sha1(key, body)),
        _ => {
            let reason = format!("the header {name} is signed by {:?}: sha256 is wanted", quoted(method));
            Err(Refusal::unauthorized("signature_malformed", reason))
        }
    }
}

/// The bytes of `<method><hex>`. An empty value, or a method without digits, is what senders without a secret send.
fn hub_digest(name: &str, value: &str, method: &str, bytes: usize) -> Result<Vec<u8>, Refusal> {
    if value.is_empty() || value == method {
        return Err(Refusal::unauthorized(
            "signature_missing",
            format!("the header {name} is empty: the sender has no secret"),
        ));
    }
    let digest = value.strip_prefix(method).and_then(|digits| hex::decode(digits).ok());
    digest.filter(|digest| digest.len() == bytes).ok_or_else(|| {
        let reason = format!("the header {name} must be `{method}` and {} hex digits", 2 * bytes);
        Refusal::unauthorized("signature_malformed", reason)
    })
}

fn check(name: &str, secrets: &[&Secret], given: &[u8], expected: impl Fn(&[u8]) -> Vec<u8>) -> Result<(), Refusal> {
    let mut found = false;
    for secret in secrets {
        found |= bool::from(expected(&secret.0).ct_eq(given));
    }
    if found { Ok(()) } else { Err(wrong(name)) }
}

/// Verifies that a header is the secret itself, perhaps after a prefix such as `Bearer `.
pub fn verify_token(name: &str, prefix: &str, secrets: &[&Secret], headers: &Headers) -> Result<(), Refusal> {
    let value = headers.only(name).map_err(|reason| Refusal::unauthorized("signature_malformed", reason))?;
    let missing = || Refusal::unauthorized("signature_missing", format!("there is no header {name} with a token"));
    let value = value.filter(|value| !value.is_empty()).ok_or_else(missing)?;
    let begins = value.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
    let token = if begins { &value[prefix.len()..] } else { return Err(missing()) };
    if is_secret(secrets, token.as_bytes()) { Ok(()) } else { Err(wrong(name)) }
}

pub(super) fn wrong(name: &str) -> Refusal {
    let reason = format!("the header {name} does not fit the body and the trigger's secret");
    Refusal::unauthorized("signature_wrong", reason)
}

/// Whether a text is one of the secrets, in constant time.
pub(super) fn is_secret(secrets: &[&Secret], given: &[u8]) -> bool {
    let mut found = false;
    for secret in secrets {
        found |= bool::from(secret.0.ct_eq(given));
    }
    found
}

/// Whether `given` is the HMAC-SHA256 of `signed` under one of the secrets, in constant time.
pub(super) fn is_hmac_sha256(secrets: &[&Secret], signed: &[u8], given: &[u8]) -> bool {
    let mut found = false;
    for secret in secrets {
        found |= bool::from(hmac_sha256(&secret.0, signed).ct_eq(given));
    }
    found
}

fn hmac_sha256(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.chain_update(body).finalize().into_bytes().to_vec()
}

fn hmac_sha384(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha384>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.chain_update(body).finalize().into_bytes().to_vec()
}

fn hmac_sha512(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha512>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.chain_update(body).finalize().into_bytes().to_vec()
}

fn hmac_sha1(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.chain_update(body).finalize().into_bytes().to_vec()
}
