//! Compiles workflow files as the engine would, for `validate` and `run`.

use std::{fs, path::Path};

use kickwheel_spec::{Compiled, PluginCatalog, PluginInfo, compile};

use crate::exit::{Exit, Failure};

/// A larger file is no workflow; it is refused before it is read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The text of a workflow file.
pub fn read(file: &Path) -> Result<String, Failure> {
    let failed = |exit, why: String| Failure::new(exit, "file", format!("cannot read {}: {why}", file.display()));
    let meta = fs::metadata(file).map_err(|e| {
        failed(Exit::Usage, e.to_string()).help("name a workflow file; those of a repository are in `.kickwheel/`")
    })?;
    if !meta.is_file() || meta.len() > MAX_FILE_BYTES {
        return Err(failed(Exit::Usage, format!("it is no file of at most {MAX_FILE_BYTES} bytes")));
    }
    let bytes = fs::read(file).map_err(|e| failed(Exit::Usage, e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| failed(Exit::Failed, format!("it is not UTF-8: {e}")))
}

/// Compiles with the plugins that are built in.
pub fn check(yaml: &str) -> Compiled {
    let plugins = kickwheel_wasm::builtin_catalog()
        .into_iter()
        .map(|(name, (digest, manifest))| (name, PluginInfo { digest, manifest }))
        .collect();
    compile(yaml, &PluginCatalog(plugins))
}
