//! The tree's kinds, limits and positions.

use super::*;

fn tree(source: &str) -> (Option<Node>, Vec<crate::Diagnostic>) {
    let mut report = Report::new(source);
    let node = parse(&mut report);
    (node, report.finish())
}

#[track_caller]
fn json(source: &str) -> Value {
    let (node, diagnostics) = tree(source);
    assert_eq!(diagnostics, [], "{source}");
    node.expect("a tree without diagnostics").to_json()
}

#[track_caller]
fn refused(source: &str, code: Code) {
    let (_, diagnostics) = tree(source);
    assert_eq!(diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), [code.as_str()], "{diagnostics:?}");
}

#[test]
fn plain_scalars_follow_the_core_schema() {
    assert_eq!(
        json("[1, -2, 0x1f, 0o17, 1.5, 1e-5, .5, true, ~, yes, on, 012, 1.2.3, 1_000, 'x', \"1\", !!str 5]"),
        serde_json::json!([
            1, -2, 31, 15, 1.5, 1e-5, 0.5, true, null, "yes", "on", 12, "1.2.3", "1_000", "x", "1", "5"
        ])
    );
}

#[test]
fn numbers_that_cannot_be_held_are_refused() {
    refused("a: 99999999999999999999", Code::BadValue);
    refused("a: .inf", Code::BadValue);
    refused("a: 1e999", Code::BadValue);
}

#[test]
fn aliases_are_expanded() {
    assert_eq!(json("a: &x [1, 2]\nb: *x\n"), serde_json::json!({"a": [1, 2], "b": [1, 2]}));
}

#[test]
fn a_bomb_is_one_quick_error() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let item = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [item.as_str(); 9].join(", ")));
    }
    refused(&bomb, Code::YamlLimit);
    refused(&format!("a: {}{}", "[".repeat(100), "]".repeat(100)), Code::YamlLimit);
    refused(&format!("a: {}", "[".repeat(100_000)), Code::YamlLimit);
    refused(&format!("a: '{}'", "x".repeat(MAX_FILE_BYTES)), Code::YamlLimit);
    refused(&format!("a: [{}]", "1,".repeat(MAX_NODES + 1)), Code::YamlLimit);
    refused("a: &x [*x]", Code::YamlFeature);
}

#[test]
fn what_yaml_has_and_we_do_not_is_refused() {
    refused("a: !thing 1", Code::YamlFeature);
    refused("a: {<<: {b: 1}}", Code::YamlFeature);
    refused("? [a]\n: b", Code::YamlFeature);
    refused("a: 1\n---\nb: 2", Code::YamlFeature);
    refused("a: [1\nb: 2", Code::YamlSyntax);
    refused("", Code::YamlSyntax);
    refused("a: 1\na: 2", Code::DuplicateKey);
}

#[track_caller]
fn located(source: &str, word: &str) {
    let (node, diagnostics) = tree(source);
    assert_eq!(diagnostics, []);
    let Some(Node { kind: Kind::Map(entries), .. }) = node else { panic!("a map") };
    let value = &entries[0].value;
    let text = value.text().expect("a text");
    let at = text.find(word).expect("the text holds the word");
    let span = value.span_within(source, at..at + word.len());
    assert_eq!(&source[span.clone()], word, "{source:?} {span:?}");
}

#[test]
fn a_word_of_a_text_is_found_in_the_file_however_it_is_written() {
    located("a: one two wörd three", "wörd");
    located("a: 'it''s ''a'' wörd'", "wörd");
    located("a: \"tab\\t \\\\ \\\" \\u00fc \\x41 wörd\"", "wörd");
    located("a: \"folded\n   over \\\n    lines wörd\"", "wörd");
    located("a: plain\n  folded\n  wörd", "wörd");
    located("a: |\n    first\n      second\n    third wörd here\n", "wörd");
    located("a: >-\n    first\n    second\n\n    third wörd here\n", "wörd");
}
