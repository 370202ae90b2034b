//! Whole files: what is right compiles to the expected plan, what is wrong gives exactly the expected diagnostics.

mod broken;
mod hostile;
mod valid;

use kickwheel_schemas::{Digest, plugin::PluginManifest};

use crate::{Compiled, PluginCatalog, PluginInfo, compile};

/// The built-in plugins, by their own manifests.
pub(crate) fn plugins() -> PluginCatalog {
    let manifests = [
        include_str!("../../../plugins/best-of/plugin.json"),
        include_str!("../../../plugins/metrics-gate/plugin.json"),
        include_str!("../../../plugins/model-promote/plugin.json"),
    ];
    let plugin = |text: &str| {
        let manifest: PluginManifest = serde_json::from_str(text).expect("a built-in manifest can be read");
        (manifest.name.clone(), PluginInfo { digest: Digest::of(manifest.name.as_bytes()), manifest })
    };
    PluginCatalog(manifests.into_iter().map(plugin).collect())
}

pub(crate) fn compiled(source: &str) -> Compiled {
    compile(source, &plugins())
}

/// Each diagnostic as `code line:column`.
pub(crate) fn found(source: &str) -> Vec<String> {
    compiled(source).diagnostics.iter().map(|d| format!("{} {}:{}", d.code, d.line, d.column)).collect()
}

/// Asserts exactly these diagnostics, and a workflow only if none is an error.
#[track_caller]
pub(crate) fn check(source: &str, expected: &[&str]) {
    let compiled = compiled(source);
    let errors = compiled.diagnostics.iter().any(|d| d.severity == crate::Severity::Error);
    assert_eq!(found(source), expected, "{source}\n{:#?}", compiled.diagnostics);
    let helps = |d: &crate::Diagnostic| d.help.as_ref().is_some_and(|help| !help.trim().is_empty());
    assert!(compiled.diagnostics.iter().all(helps), "each says what to do: {:#?}", compiled.diagnostics);
    assert_eq!(compiled.workflow.is_some(), !errors, "a workflow comes exactly without errors");
}

/// A workflow with one step, whose further lines are given, indented by four.
pub(crate) fn with_step(lines: &str) -> String {
    let lines: Vec<String> = lines.lines().map(|line| format!("    {line}")).collect();
    format!("version: 1\nname: w\nsteps:\n  a:\n{}\n", lines.join("\n"))
}

/// The message and help of the only diagnostic.
#[track_caller]
pub(crate) fn only(source: &str) -> (String, String) {
    let diagnostics = compiled(source).diagnostics;
    let [one] = diagnostics.as_slice() else { panic!("one diagnostic expected: {diagnostics:#?}") };
    (one.message.clone(), one.help.clone().unwrap_or_default())
}
