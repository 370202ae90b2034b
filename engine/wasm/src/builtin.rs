//! The plugins that ship inside the binary.
//!
//! Their small components are committed under `plugins/dist`, so that building Kickwheel needs no WASM toolchain;
//! `./dev plugins` rebuilds them and compares how both behave. They are loaded like any other plugin.

use std::{collections::BTreeMap, sync::LazyLock};

use kickwheel_schemas::{Digest, plugin::PluginManifest};

/// A plugin that ships inside the binary.
#[derive(Clone, Copy, Debug)]
pub struct Builtin {
    /// The name used in `uses:`; the same as in the manifest.
    pub name: &'static str,
    /// Its `plugin.json`.
    pub manifest_json: &'static str,
    /// The component's bytes.
    pub component: &'static [u8],
}

impl Builtin {
    /// The manifest, read.
    pub fn manifest(&self) -> PluginManifest {
        serde_json::from_str(self.manifest_json).expect("a test reads every built-in manifest")
    }

    /// Digest of the component.
    pub fn digest(&self) -> Digest {
        Digest::of(self.component)
    }
}

macro_rules! shipped {
    ($name:literal) => {
        Builtin {
            name: $name,
            manifest_json: include_str!(concat!("../../../plugins/", $name, "/plugin.json")),
            component: include_bytes!(concat!("../../../plugins/dist/", $name, ".wasm")),
        }
    };
}

static BUILTIN: [Builtin; 3] = [shipped!("best-of"), shipped!("metrics-gate"), shipped!("model-promote")];

/// The plugins that ship inside the binary, by name.
pub fn builtin() -> &'static [Builtin] {
    &BUILTIN
}

/// What the workflow checker needs of them: name to digest and manifest.
pub fn builtin_catalog() -> BTreeMap<String, (Digest, PluginManifest)> {
    static CATALOG: LazyLock<BTreeMap<String, (Digest, PluginManifest)>> =
        LazyLock::new(|| BUILTIN.iter().map(|p| (p.name.to_owned(), (p.digest(), p.manifest()))).collect());
    CATALOG.clone()
}
