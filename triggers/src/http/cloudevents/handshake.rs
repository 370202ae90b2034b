//! The question a sender asks by OPTIONS before it sends: may it?
//!
//! Source: "HTTP 1.1 Web Hooks for Event Delivery" 1.0.2, section 4. Without the answer a careful sender sends nothing, so
//! that nobody can be flooded with events by registering an address that is not theirs.

use super::{Headers, Refusal};

/// Longest origin that is answered.
const MAX_ORIGIN_BYTES: usize = 253;

/// What is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The origin that asked.
    pub origin: String,
    /// Requests per minute; None: as many as it likes.
    pub rate: Option<u32>,
}

impl Granted {
    /// The headers of the answer, which is 200.
    pub fn headers(&self) -> [(&'static str, String); 3] {
        let rate = self.rate.map_or_else(|| "*".to_owned(), |rate| rate.to_string());
        [("Allow", "POST".to_owned()), ("WebHook-Allowed-Origin", self.origin.clone()), ("WebHook-Allowed-Rate", rate)]
    }
}

/// Answers the request's `WebHook-Request-Origin` and `WebHook-Request-Rate`. `limit` is the trigger's own, in requests per
/// minute: no more is granted, and no more than was asked for.
pub fn handshake(headers: &Headers, limit: Option<u32>) -> Result<Granted, Refusal> {
    let invalid = |reason: &str| Refusal::new(400, "handshake_invalid", reason);
    let only = |name: &str| headers.only(name).map_err(|reason| invalid(&reason));
    let origin = only("WebHook-Request-Origin")?.unwrap_or_default();
    // It is sent back in a header, so nothing may be in it that could end one.
    let well_formed =
        origin.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'/'));
    if origin.is_empty() || origin.len() > MAX_ORIGIN_BYTES || !well_formed {
        return Err(invalid("there is no header WebHook-Request-Origin with the name of a host"));
    }
    let asked = match only("WebHook-Request-Rate")? {
        None | Some("" | "*") => None,
        Some(rate) => {
            let rate = rate.parse::<u32>().ok().filter(|rate| *rate > 0);
            Some(rate.ok_or_else(|| invalid("the header WebHook-Request-Rate must be a number above 0"))?)
        }
    };
    let rate = match (asked, limit) {
        (Some(asked), Some(limit)) => Some(asked.min(limit)),
        (rate, None) | (None, rate) => rate,
    };
    Ok(Granted { origin: origin.to_owned(), rate })
}
