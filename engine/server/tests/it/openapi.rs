//! The document against the router and against the committed copy.

use std::{collections::BTreeSet, fs, path::Path};

use kickwheel_server::openapi::{Document, text};
use utoipa::OpenApi as _;

#[test]
fn the_committed_document_is_what_the_handlers_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/json/openapi.json");
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        fs::write(&path, text()).expect("it can be written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text(), "run this test with UPDATE_SCHEMAS=1 and commit {}", path.display());
}

fn documented() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for (path, item) in Document::openapi().paths.paths {
        for (method, there) in [
            ("get", item.get.is_some()),
            ("post", item.post.is_some()),
            ("put", item.put.is_some()),
            ("delete", item.delete.is_some()),
            ("options", item.options.is_some()),
        ] {
            if there {
                found.insert((method.to_owned(), path.clone()));
            }
        }
    }
    found
}

/// The table as it is written: axum cannot be asked for its routes.
fn routed() -> BTreeSet<(String, String)> {
    let source = include_str!("../../src/routes.rs");
    let mut found = BTreeSet::new();
    let table = &source[source.find("pub fn router(").expect("it is there")..];
    let (front, api) = table.split_at(table.find("fn api() ").expect("it is there"));
    for (text, prefix) in [(front, ""), (api, "/api/v1")] {
        for entry in text.split(".route(").skip(1) {
            let path = entry.split('"').nth(1).expect("a route begins with its path");
            for method in ["get", "post", "put", "delete", "options"] {
                let called = |begin: &str| entry.contains(&format!("{begin}{method}("));
                if called(" ") || called(".") || called("\n") {
                    found.insert((method.to_owned(), format!("{prefix}{path}")));
                }
            }
        }
    }
    found
}

#[test]
fn every_route_is_documented_and_nothing_else() {
    let routed = routed();
    assert!(routed.len() > 50, "the table is read: {routed:?}");
    // A page and a metric under a second name are for people and scrapers, not for clients of the API.
    let plain = ["/", "/runs/{id}", "/metrics"].map(|path| ("get".to_owned(), path.to_owned()));
    let expected: BTreeSet<_> = routed.into_iter().filter(|route| !plain.contains(route)).collect();
    let documented = documented();
    let missing: Vec<_> = expected.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&expected).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "not documented: {missing:?}; not routed: {unknown:?}");
}
