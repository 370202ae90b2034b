//! `${{ }}` in texts, lists and maps.

use kickwheel_core::expr::{Expr, Scope, Segment, Template, TemplateError, TextPart, segments};
use serde_json::{Value, json};

use crate::plans::template;

fn check(text: &str, expected: Value) {
    let scope = Scope::from([("inputs".to_owned(), json!({"n": 3, "r": 0.5, "list": [1], "empty": null, "t": true}))]);
    assert_eq!(Template::parse(text).expect(text).evaluate(&scope), Ok(expected), "{text}");
}

#[test]
fn a_whole_text_keeps_the_type_and_a_mixed_one_is_text() {
    check("plain", json!("plain"));
    check("", json!(""));
    check("${{ inputs.n }}", json!(3));
    check("${{inputs.list}}", json!([1]));
    check("${{ inputs.n }} ", json!("3 "));
    check("n=${{ inputs.n }} r=${{ inputs.r }} t=${{ inputs.t }}", json!("n=3 r=0.5 t=true"));
    check("${{ inputs.n }}${{ inputs.n }}", json!("33"));
    check("$5 and $$ and ${x} and {{ y }}", json!("$5 and $$ and ${x} and {{ y }}"));
}

#[test]
fn a_second_dollar_escapes() {
    check("$${{ inputs.n }}", json!("${{ inputs.n }}"));
    check("a $${{ x }} b ${{ inputs.n }}", json!("a ${{ x }} b 3"));
    check("$$${{ x }}", json!("$${{ x }}"));
    check("é$${{", json!("é${{"));
}

#[test]
fn the_end_is_not_sought_in_strings_and_maps() {
    check("${{ '}}' }}", json!("}}"));
    check("${{ \"a}}\\\"}}\" + 'b' }}", json!("a}}\"}}b"));
    check("${{ r'\\' + '}}' }}", json!("\\}}"));
    check("${{ '''it's }} here''' }}!", json!("it's }} here!"));
    check("${{ {'a': {'b': 1}} }}", json!({"a": {"b": 1}}));
    check("${{ {'a': {'b': 1}}}}", json!({"a": {"b": 1}}));
    check("${{ {'a': 1}.a }}-${{ {'b': {'c': 2}}.b.c }}", json!("1-2"));
}

#[test]
fn segments_tell_where_expressions_stand() {
    let text = "é ${{  inputs.n }}!";
    let found = segments(text).expect("it is well-formed");
    let Segment::Expr(range) = &found[1] else { panic!("the second piece is the expression") };
    assert_eq!(&text[range.clone()], "inputs.n");
    assert_eq!((&found[0], &found[2]), (&Segment::Literal("é ".to_owned()), &Segment::Literal("!".to_owned())));
}

#[test]
fn what_is_not_closed_is_an_error_with_its_place() {
    let error = |text: &str| Template::parse(text).expect_err(text);
    assert_eq!(error("ab ${{ inputs.n }").offset, 3);
    assert_eq!(error("${{ x }} ${{ 'a }}").offset, 9);
    assert_eq!(error("${{ {'a': 1} }").offset, 0);
    let TemplateError { offset, message } = error("a ${{   }} b");
    assert_eq!(offset, 2);
    assert!(message.starts_with("there is no expression in it"), "{message}");
}

#[test]
fn null_lists_and_maps_do_not_become_text() {
    let scope = Scope::from([("inputs".to_owned(), json!({"list": [1], "empty": null}))]);
    let error = |text: &str| Template::parse(text).expect(text).evaluate(&scope).expect_err(text).to_string();
    assert_eq!(
        error("x${{ inputs.list }}"),
        "use `inputs.list`: it gives a list, but a text, number or boolean is needed"
    );
    assert!(error("x${{ inputs.empty }}").starts_with("use `inputs.empty`: it is null"));
    assert!(error("${{ inputs.empty }}").starts_with("use `inputs.empty`: it is null"));
}

#[test]
fn expressions_are_found_at_any_depth() {
    let nested = template(&json!({"a": ["x", "${{ inputs.n }}", {"b": "n: ${{ inputs.m }}"}], "c": 1}));
    let sources: Vec<&str> = nested.expressions().into_iter().map(Expr::source).collect();
    assert_eq!(sources, ["inputs.n", "inputs.m"]);
    let scope = Scope::from([("inputs".to_owned(), json!({"n": 1, "m": 2}))]);
    assert_eq!(nested.evaluate(&scope), Ok(json!({"a": ["x", 1, {"b": "n: 2"}], "c": 1})));
}

#[test]
fn a_template_is_stored_and_read_back() {
    let stored = Template::Text(vec![TextPart::Literal("n=".to_owned()), TextPart::Expr(Expr::new("inputs.n"))]);
    let text = serde_json::to_string(&stored).expect("it serialises");
    assert_eq!(serde_json::from_str::<Template>(&text).expect("it is read"), stored);
}
