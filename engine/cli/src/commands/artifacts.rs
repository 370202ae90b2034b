//! `artifacts get`: the bytes, and the proof that they are the ones that were asked for.

use std::{io::Write as _, path::Path};

use kickwheel_schemas::Digest;
use sha2::{Digest as _, Sha256};

use super::Session;
use crate::{
    args::Artifacts,
    exit::{Exit, Failure, Outcome},
    output,
};

/// `artifacts …`.
pub async fn artifacts(session: &Session, artifacts: Artifacts) -> Outcome {
    match artifacts {
        Artifacts::Get { digest, output } => get(session, &digest, output.as_deref()).await,
    }
}

async fn get(session: &Session, digest: &str, output: Option<&Path>) -> Outcome {
    let wanted: Digest = digest.parse().map_err(|e| Failure::usage(format!("cannot {e}")))?;
    let mut response = session.client()?.stream(&["artifacts", wanted.as_str()], &[]).await?;
    let failed = |why: String| Failure::new(Exit::Refused, "artifact", format!("cannot fetch {wanted}: {why}"));
    // A file appears only once its bytes are proven; before that they lie beside it under another name.
    let folder = output.map(|path| path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")));
    let mut file = match folder {
        Some(folder) => Some(tempfile::NamedTempFile::new_in(folder).map_err(|e| failed(e.to_string()))?),
        None => None,
    };
    let mut hash = Sha256::new();
    let mut size: u64 = 0;
    while let Some(chunk) = response.chunk().await.map_err(|e| failed(format!("it broke off: {e}")))? {
        hash.update(&chunk);
        size += chunk.len() as u64;
        match &mut file {
            Some(file) => file.write_all(&chunk).map_err(|e| failed(e.to_string()))?,
            None => output::bytes(&chunk)?,
        }
    }
    let seen = Digest::from_hash(hash.finalize().into());
    if seen != wanted {
        return Err(Failure::new(Exit::Refused, "artifact_damaged", format!("the bytes of {wanted} hash to {seen}"))
            .help("the store is damaged; `kickwheel doctor` looks closer"));
    }
    if let (Some(file), Some(path)) = (file, output) {
        file.persist(path).map_err(|e| failed(e.error.to_string()))?;
        if session.look.json {
            output::say(serde_json::json!({"digest": wanted, "size": size, "path": path}).to_string())?;
        } else {
            output::say(format!("{} ({size} bytes) is {wanted}", path.display()))?;
        }
    }
    Ok(Exit::Ok)
}
