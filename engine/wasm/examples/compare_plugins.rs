//! Compares two builds of the plugins by what they do: `compare_plugins PLUGINS OLD NEW`.
//!
//! Every call recorded in `PLUGINS/<name>/calls.json` is made to both `OLD/<name>.wasm` and `NEW/<name>.wasm`; results and
//! logs must be the same. Bytes and fuel are not compared: they depend on the compiler.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use kickwheel_schemas::plugin::{PluginCall, PluginManifest};
use kickwheel_wasm::{CallReport, Host, HostConfig, Limits, Plugin};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Recorded {
    case: String,
    with: BTreeMap<String, Value>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [plugins, old, new] = arguments.as_slice() else { anyhow::bail!("usage: compare_plugins PLUGINS OLD NEW") };
    let host = Host::new(HostConfig { max_concurrent: 1, ..HostConfig::default() })?;
    let (mut calls, mut different) = (0, 0);
    for name in names(Path::new(new))? {
        let folder = Path::new(plugins).join(&name);
        let manifest: PluginManifest = read(&folder.join("plugin.json"))?;
        let recorded: Vec<Recorded> = read(&folder.join("calls.json"))?;
        anyhow::ensure!(!recorded.is_empty(), "{name} has no recorded calls");
        let old = load(&host, &Path::new(old).join(format!("{name}.wasm")), &manifest)?;
        let new = load(&host, &Path::new(new).join(format!("{name}.wasm")), &manifest)?;
        let same = if old.digest() == new.digest() { "byte for byte the same" } else { "different bytes" };
        println!("{name}: {} calls, {same}", recorded.len());
        for Recorded { case, with } in recorded {
            calls += 1;
            let call = PluginCall { with, task: format!("0190/{name}[0]") };
            let before = host.call(&old, &call, &Limits::default()).await;
            let after = host.call(&new, &call, &Limits::default()).await;
            if behaviour(&before) != behaviour(&after) {
                different += 1;
                println!("  differs: {case}\n    committed: {before:?}\n    rebuilt:   {after:?}");
            }
        }
    }
    anyhow::ensure!(calls > 0, "no plugins in {new}");
    anyhow::ensure!(
        different == 0,
        "{different} of {calls} calls differ: run `plugins/build.sh --update` if that is meant"
    );
    println!("{calls} calls, none differs");
    Ok(())
}

fn behaviour(report: &CallReport) -> impl PartialEq {
    (report.result.clone(), report.logs.clone())
}

fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            names.push(stem.with_context(|| format!("use the file name {}", path.display()))?.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
}

fn load(host: &Host, path: &Path, manifest: &PluginManifest) -> anyhow::Result<Plugin> {
    let component = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(host.load(&component, manifest.clone())?)
}
