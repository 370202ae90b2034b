//! Versions of datasets that another system keeps: what such systems have in common.

use kickwheel_schemas::{
    CloudEvent,
    payload::{self, ForeignVersion},
};

use super::SourceConfig;

/// What became known of a dataset.
pub(super) enum Told {
    /// A version that others should use now.
    Version { previous: Option<String> },
    /// A branch or tag that came into being.
    Ref,
}

/// The event. `name` is the dataset as the sender calls it: the trigger's own name for it goes first.
pub(super) fn event(
    config: &SourceConfig,
    (uri, id): (String, &str),
    name: &str,
    told: Told,
    version: &str,
    operation: &str,
) -> CloudEvent {
    let dataset = config.dataset.clone().unwrap_or_else(|| name.to_owned());
    let (ty, previous, data_changed) = match told {
        Told::Version { previous } => (payload::DATASET_VERSION_PUBLISHED, previous, true),
        Told::Ref => (payload::DATASET_REF_CREATED, None, false),
    };
    let data = ForeignVersion {
        dataset: dataset.clone(),
        version: version.to_owned(),
        previous,
        operation: Some(operation.to_owned()),
        data_changed,
        added: Vec::new(),
        removed: Vec::new(),
    };
    let data = serde_json::to_value(data).expect("the payload has string keys only");
    CloudEvent::new(config.source.clone().unwrap_or(uri), id, ty, data).with_subject(dataset)
}
