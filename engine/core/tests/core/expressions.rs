//! CEL as workflows meet it: values, errors that help, references, limits.

use kickwheel_core::expr::{
    Bindings, Expr, ExprError, MAX_BRACKETS, MAX_COMPREHENSIONS, MAX_DEPTH, MAX_SOURCE_BYTES, Scope, functions,
};
use serde_json::{Value, json};

fn scope() -> Scope {
    let Value::Object(scope) = json!({
        "event": {"type": "t", "data": {"branch": "main", "count": 3, "ratio": 1.0, "forced": null, "paths": ["a", "b"]}},
        "inputs": {"epochs": 10, "big": 18_446_744_073_709_551_615_u64},
        "steps": {"a": {"outputs": {"x": 1}}, "b-c": {"metrics": {"loss": [0.5, null, 0.25]}}},
    }) else {
        unreachable!("the literal is a map")
    };
    scope.into_iter().collect()
}

fn check(source: &str, expected: Value) {
    assert_eq!(Expr::new(source).evaluate(&scope()), Ok(expected), "{source}");
}

/// The error as a person reads it after "failed to".
fn check_error(source: &str, expected: &str) {
    let error = Expr::new(source).evaluate(&scope()).expect_err(source);
    assert_eq!(error.to_string(), expected, "{source}");
}

#[test]
fn values_keep_their_types() {
    check("event.data.branch", json!("main"));
    check("event.data.count", json!(3));
    check("event.data.ratio", json!(1.0));
    check("inputs.big", json!(18_446_744_073_709_551_615_u64));
    check("event.data", scope()["event"]["data"].clone());
    check("event.data.count + 1", json!(4));
    check("event.data.ratio / 4.0", json!(0.25));
    check("double(event.data.count) * 0.5", json!(1.5));
    check("int(event.data.ratio)", json!(1));
    check("{'a': [1, 2.0, 'x', true, null]}", json!({"a": [1, 2.0, "x", true, null]}));
    check("steps['b-c'].metrics.loss", json!([0.5, null, 0.25]));
    check("event.data.paths.map(p, p + '.py')", json!(["a.py", "b.py"]));
    check("timestamp('2026-01-02T03:04:05Z')", json!("2026-01-02T03:04:05+00:00"));
    assert!(!json!(1.0).eq(&json!(1)), "the comparisons above tell whole numbers from others");
}

#[test]
fn numbers_of_different_types_compare_but_do_not_add_up() {
    check("event.data.count > 2.5", json!(true));
    check("event.data.ratio == 1", json!(true));
    check("inputs.big > 1", json!(true));
    check_error(
        "event.data.count + event.data.ratio",
        "evaluate `event.data.count + event.data.ratio`: `+` does not take int and double; arithmetic does not mix whole \
         and other numbers: convert one with `double(…)` or `int(…)`",
    );
}

#[test]
fn errors_say_what_to_do() {
    check_error(
        "event.data.nope.x",
        "evaluate `event.data.nope.x`: there is no `nope`; test with `has(…)` first, or give a default: `has(x.nope) ? \
         x.nope : …`",
    );
    check_error("nothing", "evaluate `nothing`: `nothing` is not known here");
    check_error("frobnicate(1)", "evaluate `frobnicate(1)`: `frobnicate` is not known here");
    check_error("always()", "evaluate `always()`: `always()` can only be used in a step's `if`");
    check_error("event.data.paths[7]", "evaluate `event.data.paths[7]`: index 7 is out of bounds");
    check_error("1 / 0", "evaluate `1 / 0`: it divides by zero");
    check_error(
        "9223372036854775807 + 1",
        "evaluate `9223372036854775807 + 1`: a number becomes too large for 64 bits",
    );
    check_error("'a' + 1", "evaluate `'a' + 1`: `+` does not take string and int");
    check_error("'a'.b", "evaluate `'a'.b`: a value of type string has no fields");
    check_error("1.map(x, x)", "evaluate `1.map(x, x)`: it has a value of type int where iterable is needed");
    check_error("size(1)", "evaluate `size(1)`: `size` does not take (int)");
    check_error(
        "0.0 / 0.0",
        "use `0.0 / 0.0`: it gives a double that is NaN, but a value that JSON can hold is needed",
    );
    check_error("b'x'", "use `b'x'`: it gives a bytes, but a value that JSON can hold is needed");
    check_error(
        "event.data.forced",
        "use `event.data.forced`: it is null; give a default, for example `has(x.y) ? x.y : 0`",
    );
    let error = Expr::new("event.data.count").evaluate_bool(&scope()).expect_err("a number is no boolean");
    assert_eq!(error.to_string(), "use `event.data.count`: it gives a whole number, but a boolean is needed");
}

#[test]
fn a_mistake_has_its_place() {
    let place = |source: &str| match Expr::new(source).check() {
        Err(ExprError::Parse { offset, message, .. }) => (offset, message),
        other => panic!("{source} parses: {other:?}"),
    };
    assert_eq!(place("event.data. == 1").0, Some(12));
    assert_eq!(place("'é' +\n  )").0, Some(9), "bytes, not characters, and over lines");
    assert_eq!(place("a b").0, Some(2));
    assert_eq!(place("  ").1, "it is empty");
    let message = |source: &str| place(source).1;
    assert_eq!(message("1 +"), "it ends too early");
    assert_eq!(message("a b"), "`b` is not expected here");
    assert_eq!(message("inputs.null"), "`.null` is not expected here");
    assert_eq!(message("inputs.x = 1"), "`=` is no operator; compare with `==`");
    assert_eq!(message("a & b"), "`&` is no operator; write `&&`");
    assert_eq!(message("'abc"), "the text that begins with 'abc is not closed");
    assert_eq!(message("a ? b"), "`a ? b : c` is not complete");
}

#[test]
fn has_asks_without_failing() {
    check("has(event.data.nope)", json!(false));
    check("has(event.data.branch) && event.data.branch == 'main'", json!(true));
    check("has(steps.a.outputs.x) ? steps.a.outputs.x : 0", json!(1));
    check("has(steps.a.outputs.y) ? steps.a.outputs.y : 0", json!(0));
}

#[test]
fn references_are_found_in_every_form() {
    let steps = |source: &str| Expr::new(source).step_references();
    assert_eq!(steps("steps.a.outputs.x + steps['b-c'].x + size(steps.a.tasks)"), ["a", "b-c"]);
    assert_eq!(steps("has(steps.a.outputs.x) || [1].exists(i, i == steps.b.n)"), ["a", "b"]);
    assert_eq!(steps("{'k': steps.a}[inputs.k] == [steps.b]"), ["a", "b"]);
    assert_eq!(steps("inputs.steps.a + event.steps"), Vec::<String>::new());
    assert_eq!(Expr::new("datasets['churn/raw'].digest").dataset_references(), ["churn/raw"]);
    assert_eq!(Expr::new("event.data.x + inputs.y + event.z").variables(), ["event", "inputs"]);
    assert_eq!(
        Expr::new("event.data.x == 1 && has(event.data.y)").paths("event"),
        [vec!["data", "x"], vec!["data", "y"]]
    );
    assert!(Expr::new("steps[inputs.x]").members("steps").whole);
    assert!(!Expr::new("steps.a").members("steps").whole);
}

#[test]
fn names_bound_by_a_comprehension_are_no_references() {
    let expr = Expr::new("inputs.list.map(steps, steps.a)");
    assert_eq!((expr.step_references(), expr.variables()), (vec![], vec!["inputs".to_owned()]));
    // The range is outside of what it is bound in.
    assert_eq!(Expr::new("steps.a.list.filter(steps, steps.b)").step_references(), ["a"]);
    assert_eq!(Expr::new("[1].exists(x, x == 1) && x.y").variables(), ["x"]);
}

#[test]
fn failure_functions_are_recognised_and_work_in_conditions() {
    assert!(Expr::new("always()").handles_failure());
    assert!(Expr::new("inputs.x && !failed()").handles_failure());
    assert!(!Expr::new("inputs.failed").handles_failure());
    assert_eq!(functions().iter().map(|function| function.name).collect::<Vec<_>>(), ["always", "failed"]);
    let mut bindings = Bindings::of(&scope());
    bindings.allow_failure_functions(true);
    assert_eq!(Expr::new("failed() && always()").evaluate_bool_in(&bindings), Ok(true));
    bindings.allow_failure_functions(false);
    assert_eq!(Expr::new("failed() && always()").evaluate_bool_in(&bindings), Ok(false));
}

#[test]
fn hostile_sources_are_refused_rather_than_crash() {
    let refused = |source: String, why: &str| {
        let error = Expr::new(source.clone()).check().expect_err(why).to_string();
        assert!(error.contains(why), "{source:.60}…: {error}");
    };
    let nested = |open: &str, close: &str, times: usize| format!("{}1{}", open.repeat(times), close.repeat(times));
    refused(format!("1{}", "+1".repeat(MAX_SOURCE_BYTES)), "bytes long");
    for (open, close) in [("(", ")"), ("[", "]"), ("{1:", "}"), ("f(", ")")] {
        refused(nested(open, close, MAX_BRACKETS + 1), "brackets nest");
        refused(nested(open, close, 1000), "brackets nest");
        Expr::new(nested(open, close, MAX_BRACKETS / 2)).check().expect("half of it is fine");
    }
    refused(format!("1{}", "+1".repeat(2000)), "levels deep");
    refused(format!("1{}", "<1".repeat(2000)), "levels deep");
    refused(format!("a{}", ".a".repeat(2000)), "levels deep");
    refused(format!("a{}", "[0]".repeat(1300)), "levels deep");
    refused(format!("a{}", ".f()".repeat(1000)), "levels deep");
    refused(format!("{}1", "a?1:".repeat(1000)), "parse");
    let comprehensions = |times: usize| format!("{}1{}", "[1].map(x,".repeat(times), ")".repeat(times));
    refused(comprehensions(MAX_COMPREHENSIONS + 1), "map, filter, all or exists nest");
    Expr::new(comprehensions(MAX_COMPREHENSIONS)).check().expect("the limit itself is allowed");
    let chain = "[1].filter(x, x > 0).map(x, x).filter(x, x > 0).exists(x, x == 1)";
    Expr::new(chain).check().expect("one after another is not nested");
}

#[test]
fn the_deepest_expression_that_is_allowed_can_be_evaluated() {
    let operands = MAX_DEPTH - 1;
    check(&format!("1{}", "+1".repeat(operands)), json!(operands + 1));
    check(&format!("{}true", "!".repeat(1000)), json!(true));
    check(&format!("true{}", "&&true".repeat(600)), json!(true));
}

#[test]
fn an_expression_is_stored_as_its_source() {
    let expr = Expr::new("inputs.epochs > 1");
    expr.check().expect("it parses");
    assert_eq!(serde_json::to_value(&expr).expect("it serialises"), json!("inputs.epochs > 1"));
    let read: Expr = serde_json::from_value(json!("inputs.epochs > 1")).expect("it is read");
    assert_eq!((read.evaluate_bool(&scope()), read), (Ok(true), expr));
}
