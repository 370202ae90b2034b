//! `triggers translate`: what a request would become, judged here and now, without a server.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use kickwheel_schemas::Millis;
use kickwheel_triggers::http::{self, Headers, MAX_BODY_BYTES, Secret, SourceConfig, Verification};

use crate::{
    args::Translate,
    exit::{Exit, Failure, Outcome},
    output::say,
};

/// Largest file of headers that is read; servers take far less.
const MAX_HEADERS_BYTES: usize = 1024 * 1024;

/// Prints the events as JSON lines; a refusal is a failure that names the status which the sender would get.
pub fn translate(request: &Translate) -> Outcome {
    let headers = match &request.headers {
        Some(file) => headers(file)?,
        None => Headers::default(),
    };
    let headers = headers.with_query(request.query.as_deref());
    let body = read(&request.body, MAX_BODY_BYTES)?;
    let mut config = SourceConfig::unverified(Millis::now());
    if let Some(secret) = &request.secret {
        let current = Secret::new(secret.as_bytes());
        // As at the door.
        config.verification = Verification::Secret { current, previous: None, legacy_sha1: true };
    }
    let events = http::translate(request.provider, &config, &headers, &body).map_err(|refusal| {
        Failure::new(Exit::Failed, refusal.code, format!("HTTP {}: {}", refusal.status, refusal.reason))
    })?;
    for event in events {
        say(serde_json::to_string(&event).expect("an event has string keys only"))?;
    }
    Ok(Exit::Ok)
}

fn headers(file: &Path) -> Result<Headers, Failure> {
    let bytes = read(file, MAX_HEADERS_BYTES)?;
    let wrong = |why: String| {
        Failure::usage(format!("cannot take {} as headers: {why}", file.display()))
            .help("write a JSON object such as {\"X-GitHub-Event\": \"push\"}")
    };
    let value = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
    Headers::from_json(&value).map_err(wrong)
}

/// A file, or stdin as `-`: one byte more than the limit at most, so that what is too large is seen to be.
fn read(file: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut take = |from: &mut dyn Read| from.take(limit as u64 + 1).read_to_end(&mut bytes);
    let done = if file == Path::new("-") {
        take(&mut io::stdin().lock())
    } else {
        File::open(file).and_then(|mut f| take(&mut f))
    };
    done.map_err(|e| Failure::usage(format!("cannot read {}: {e}", file.display())))?;
    Ok(bytes)
}
