//! The headers of a request.

use std::fmt;

use serde_json::Value;

/// Most characters of a foreign text that a reason repeats.
const MAX_QUOTED_CHARS: usize = 80;

/// What comes before a body: headers in their order, whose names are compared without regard to case, and the query of the
/// URL, where some senders show the secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    pairs: Vec<(String, String)>,
    query: Option<String>,
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither values nor the query: they hold secrets.
        f.debug_set().entries(self.pairs.iter().map(|(name, _)| name)).finish_non_exhaustive()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { pairs, query: None }
    }
}

impl Headers {
    /// From a JSON object of names with a text, or a list of texts, each.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        let Value::Object(members) = value else { return Err("headers are a JSON object".to_owned()) };
        let mut pairs = Vec::new();
        for (name, value) in members {
            let wrong = || format!("the header {:?} must be a text or a list of texts", quoted(name));
            match value {
                Value::String(text) => pairs.push((name.clone(), text.clone())),
                Value::Array(items) => {
                    for item in items {
                        pairs.push((name.clone(), item.as_str().ok_or_else(wrong)?.to_owned()));
                    }
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return Err(wrong()),
            }
        }
        Ok(Self { pairs, query: None })
    }

    /// With the query of the request's URL, as it came. It is never kept with a body.
    #[must_use]
    pub fn with_query(self, query: Option<&str>) -> Self {
        Self { query: query.map(str::to_owned), ..self }
    }

    /// The query of the request's URL.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Whether there is none: then the body is judged alone.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a header, blanks around it taken off; the first one where it occurs more than once.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// As [`Self::get`], for what must be unambiguous: twice is an error that names the header.
    pub fn only(&self, name: &str) -> Result<Option<&str>, String> {
        let mut found =
            self.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
        let first = found.next();
        if found.next().is_some() { Err(format!("the header {name} occurs more than once")) } else { Ok(first) }
    }

    /// The media type of the body without its parameters, in lower case; None where no header says it.
    pub fn media_type(&self) -> Option<String> {
        let essence = self.get("content-type")?.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        (!essence.is_empty()).then_some(essence)
    }
}

/// A foreign text as a reason may repeat it: short, and without control characters.
pub(super) fn quoted(text: &str) -> String {
    let clean: String =
        text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(MAX_QUOTED_CHARS).collect();
    if clean.chars().count() < text.chars().count() { format!("{clean}…") } else { clean }
}
