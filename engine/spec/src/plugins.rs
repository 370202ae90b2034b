//! The plugins that `uses:` may name. Who loads them is not this crate's business.

use std::collections::BTreeMap;

use kickwheel_schemas::{Digest, plugin::PluginManifest};

/// Every plugin of a project, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginCatalog(pub BTreeMap<String, PluginInfo>);

/// What a workflow's checker knows about a plugin without running it.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginInfo {
    /// Digest of the component: what a plan pins.
    pub digest: Digest,
    /// Its inputs and outputs.
    pub manifest: PluginManifest,
}
