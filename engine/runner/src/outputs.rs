//! What a job that ended well leaves behind: values written to `$KICKWHEEL_OUTPUT`, and declared paths.
//!
//! Of a folder, files are kept and symbolic links that stay inside it; one that leads out makes it malformed, and so do names
//! that are not UTF-8: paths of outputs stand in events and expressions.
//!
//! Only declared outputs exist. A missing or malformed one makes the attempt end as `BadOutput`, which is the user's
//! failure; a store that cannot be written to is the platform's, and is waited for a while first.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kickwheel_artifacts::{ArtifactError, Artifacts, beneath};
use kickwheel_schemas::{ArtifactRef, runner::JobSpec};
use serde_json::{Map, Value};

use crate::setup::{Layout, output_path};

/// Longest value, in bytes of JSON.
pub const VALUE_LIMIT: usize = 64 * 1024;

/// Longest `$KICKWHEEL_OUTPUT` file, in bytes.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;

/// How long a full disk or an absent store is waited for: finished work is not thrown away at once.
pub const STORE_PATIENCE: Duration = Duration::from_mins(10);

/// Between two attempts to store.
pub const STORE_RETRY: Duration = Duration::from_secs(1);

/// Everything that was declared.
#[derive(Debug, Default)]
pub struct Outputs {
    /// By output name.
    pub values: BTreeMap<String, Value>,
    /// By output name.
    pub artifacts: BTreeMap<String, ArtifactRef>,
    /// Names that were written but are not declared.
    pub undeclared: Vec<String>,
}

/// Why there are none.
#[derive(Debug)]
pub enum OutputsError {
    /// The user's.
    Bad(String),
    /// The platform's.
    Store(String),
}

/// Reads the values and stores the paths. What belongs to others than `owner` is refused, when the job is not ours.
pub async fn collect(
    layout: &Layout,
    spec: &JobSpec,
    artifacts: &Artifacts,
    owner: Option<u32>,
) -> Result<Outputs, OutputsError> {
    let mut outputs = Outputs::default();
    let mut written = read_values(&layout.output, owner).map_err(OutputsError::Bad)?;
    for name in &spec.output_values {
        let value = written.remove(name).ok_or_else(|| {
            OutputsError::Bad(format!(
                "output `{name}` is missing; write a line {{\"{name}\": …}} to the file named by $KICKWHEEL_OUTPUT"
            ))
        })?;
        let length = value.to_string().len();
        if length > VALUE_LIMIT {
            return Err(OutputsError::Bad(format!(
                "output `{name}` has {length} bytes and a value may have {VALUE_LIMIT}; write it to a path output"
            )));
        }
        outputs.values.insert(name.clone(), value);
    }
    outputs.undeclared = written.into_iter().map(|(name, _)| name).collect();
    for (name, declared) in &spec.output_paths {
        let stored = store_path(&layout.work, name, declared, artifacts, owner).await?;
        outputs.artifacts.insert(name.clone(), stored);
    }
    Ok(outputs)
}

/// Merges the objects in the file, later ones winning. They need not be one per line: a pretty-printed object is taken too.
fn read_values(path: &Path, owner: Option<u32>) -> Result<Map<String, Value>, String> {
    let bytes = beneath::read(path, FILE_LIMIT, owner)
        .map_err(|error| format!("$KICKWHEEL_OUTPUT cannot be read: {error}"))?
        .unwrap_or_default();
    let mut merged = Map::new();
    for item in serde_json::Deserializer::from_slice(&bytes).into_iter::<Map<String, Value>>() {
        merged.extend(item.map_err(|error| format!("$KICKWHEEL_OUTPUT holds no JSON objects: {error}"))?);
    }
    Ok(merged)
}

async fn store_path(
    work: &Path,
    name: &str,
    declared: &str,
    store: &Artifacts,
    owner: Option<u32>,
) -> Result<ArtifactRef, OutputsError> {
    let bad = |problem: String| OutputsError::Bad(format!("output `{name}` at {declared:?}: {problem}"));
    let path = output_path(declared).map_err(|error| bad(format!("failed to {error}")))?;
    let location = locate(work, path).map_err(bad)?;
    let deadline = Instant::now() + STORE_PATIENCE;
    loop {
        let stored = match open(work, &location, owner).map_err(bad)? {
            Opened::Folder(folder) => store.put_opened_folder(folder, &location, owner).await,
            Opened::File(file) => store.put_opened(file, &location).await,
        };
        match stored {
            Ok(stored) => return Ok(ArtifactRef { path: path.to_owned(), ..stored }),
            Err(error @ (ArtifactError::Path { .. } | ArtifactError::LinksLeave(_) | ArtifactError::Changed(_))) => {
                return Err(bad(format!("failed to {error}")));
            }
            Err(error) if !error.is_transient() || Instant::now() > deadline => {
                return Err(OutputsError::Store(format!("store output `{name}`: failed to {error}")));
            }
            Err(_) => tokio::time::sleep(STORE_RETRY).await,
        }
    }
}

enum Opened {
    File(File),
    Folder(OwnedFd),
}

/// Opens what was located. A program outside the job that was handed the folder could put a link in its place meanwhile,
/// and we may read more than it: so no link is followed on the way.
fn open(work: &Path, location: &Path, owner: Option<u32>) -> Result<Opened, String> {
    let work = work.canonicalize().map_err(|error| error.to_string())?;
    let below = location.strip_prefix(&work).ok().and_then(Path::to_str).ok_or("its path is not UTF-8; rename it")?;
    let components: Vec<&str> = below.split('/').filter(|name| !name.is_empty()).collect();
    let root = File::open(&work).map_err(|error| error.to_string())?;
    let opened = if location.is_dir() {
        beneath::folder_at(&root, &components).map(Opened::Folder)
    } else {
        beneath::open_at(&root, &components).and_then(|file| beneath::owned(file, owner)).map(Opened::File)
    };
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::Other => "it is neither a regular file nor a folder".to_owned(),
        _ => error.to_string(),
    })
}

/// The place of an output, which exists and lies inside the work folder even when folders on the way are links.
fn locate(work: &Path, path: &str) -> Result<PathBuf, String> {
    let location = work.join(path);
    let kind = match fs::symlink_metadata(&location) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err("the job has written nothing there".to_owned());
        }
        Err(error) => return Err(error.to_string()),
    };
    if kind.is_symlink() {
        return Err("it is a symbolic link; write a regular file or folder there".to_owned());
    }
    let real = location.canonicalize().map_err(|error| error.to_string())?;
    let work = work.canonicalize().map_err(|error| error.to_string())?;
    if !real.starts_with(work) {
        return Err("a symbolic link leads it out of the work folder".to_owned());
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_merged_and_anything_else_is_refused() {
        let check = |text: &str, expected: Option<Value>| {
            let file = tempfile::NamedTempFile::new().expect("temporary files can be made");
            fs::write(file.path(), text).expect("it can be written");
            assert_eq!(read_values(file.path(), None).ok().map(Value::Object), expected, "{text:?}");
        };
        check("", Some(serde_json::json!({})));
        check("{\"a\": 1}\n{\"a\": 2, \"b\": [3]}\n", Some(serde_json::json!({"a": 2, "b": [3]})));
        check("{\n  \"a\": 1\n}", Some(serde_json::json!({"a": 1})));
        check("a=1\n", None);
        check("{\"a\": 1", None);
        check("[1]", None);
    }

    #[test]
    fn an_output_reached_through_a_link_out_of_the_work_folder_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folders can be made");
        let (work, outside) = (folder.path().join("work"), folder.path().join("outside"));
        fs::create_dir_all(&work).expect("it can be made");
        fs::create_dir_all(&outside).expect("it can be made");
        fs::write(outside.join("secret"), "s").expect("it can be written");
        fs::write(work.join("own"), "o").expect("it can be written");
        std::os::unix::fs::symlink(&outside, work.join("link")).expect("links can be made");
        std::os::unix::fs::symlink("own", work.join("alias")).expect("links can be made");
        let own = locate(&work, "own").expect("it is inside");
        assert!(matches!(open(&work, &own, None), Ok(Opened::File(_))));
        // What was a file when it was located is a link when it is opened.
        fs::remove_file(&own).expect("it is there");
        std::os::unix::fs::symlink(outside.join("secret"), &own).expect("links can be made");
        assert!(open(&work, &own, None).is_err());
        fs::remove_file(&own).expect("it is there");
        fs::write(&own, "o").expect("it can be written");
        let itself = rustix::process::geteuid().as_raw();
        assert!(open(&work, &own, Some(itself)).is_ok());
        assert!(open(&work, &own, Some(itself + 1)).is_err_and(|problem| problem.contains("belongs to user")));
        for bad in ["link/secret", "link", "alias", "absent"] {
            assert!(locate(&work, bad).is_err(), "{bad}");
        }
    }
}
