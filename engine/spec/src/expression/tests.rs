//! One expression at a time: what is certainly wrong with it and at which of its characters.

use kickwheel_core::expr::cel::{Context, ExecutionError, Program};

use super::functions::{MACROS, STANDARD};
use crate::tests::compiled;

/// Compiles `expression` as the `if` of the step `me`, between steps that it may read. `found` has one
/// `code column` for each diagnostic, columns counted from 1 within the expression.
fn found(on: &str, expression: &str) -> Vec<String> {
    let before = format!(
        "version: 1\nname: w\non: {on}\ninputs: {{n: {{type: integer, default: 1}}, s: {{type: string, default: x}}}}\nsteps:\n  \
         one: {{run: x, outputs: {{model: m, note: value}}}}\n  \
         many: {{run: x, matrix: {{x: [1, 2]}}, outputs: {{model: m}}}}\n  \
         train-big: {{run: x, env: {{I: '${{{{ inputs.n + size(inputs.s) }}}}'}}}}\n  \
         me:\n    run: x\n    if: >-\n      "
    );
    let source = format!("{before}{expression}\nfinally: {{last: {{run: x}}}}\n");
    compiled(&source).diagnostics.iter().map(|d| format!("{} {}", d.code, d.column - 6)).collect()
}

#[track_caller]
fn manual(expression: &str, expected: &[&str]) {
    assert_eq!(found("manual", expression), expected, "{expression}");
}

#[track_caller]
fn on(triggers: &str, expression: &str, expected: &[&str]) {
    assert_eq!(found(triggers, expression), expected, "{triggers} {expression}");
}

#[test]
fn what_is_right_passes() {
    for expression in [
        "true",
        "always() || failed()",
        "steps.one.outputs.model.size > 10",
        "steps[\"train-big\"].state == \"succeeded\"",
        "steps.one.outputs.note.anything[0] == 1",
        "steps.one.metrics.loss < 0.5",
        "steps.many.outputs.model[0].path.startsWith(\"m\")",
        "steps.many.outputs.model.exists(m, m.size > 1)",
        "steps.many.tasks.filter(t, t.state == \"succeeded\").map(t, t.metrics.loss)[0] < 1.0",
        "size(steps.many.tasks) > inputs.n",
        "datasets[\"a/b\"].files.all(f, f.size > 0)",
        "inputs.s in [\"x\", \"y\"] && inputs.s.matches(\"^x\")",
        "\"x\" in {\"x\": 1}",
        "string(inputs.n) + inputs.s == \"1x\"",
        "double(inputs.n) * 0.5 > 1.0",
        "timestamp(\"2024-01-01T00:00:00Z\").getFullYear() == inputs.n",
        "type(inputs.n) == int",
        "event.type == \"x\" ? true : inputs.n == 1",
        "run.project == \"p\" && run.url != \"\"",
    ] {
        manual(expression, &[]);
    }
}

#[test]
fn names_must_exist() {
    manual("inputss.n == 1", &["unknown-variable 1"]);
    manual("inputs.m == 1", &["unknown-input 8"]);
    manual("inputs[\"m\"] == 1", &["unknown-input 8"]);
    manual("matrix.x == 1", &["unknown-variable 1"]);
    manual("steps.on.state == \"x\"", &["unknown-step 7"]);
    manual("steps.me.state == \"x\"", &["self-need 7"]);
    manual("steps.last.state == \"x\"", &["cross-phase 7"]);
    manual("steps.one.outputs.mdel.size > 1", &["unknown-output 19"]);
    manual("steps.one.outptus.model.size > 1", &["unknown-field 11"]);
    manual("steps.one.outputs.model.sze > 1", &["unknown-field 25"]);
    manual("steps.many.best.metrics.loss > 1", &["unknown-field 12"]);
    manual("run.state == \"failed\"", &["unknown-field 5"]);
    manual("datasets[\"../x\"].size > 1", &["bad-name 10"]);
    manual("sizes(inputs.s) > 1", &["unknown-function 1"]);
    manual("inputs.s.startWith(\"x\")", &["unknown-function 10"]);
    manual("startsWith(inputs.s, \"x\")", &["unknown-function 1"]);
    manual("Thing{a: 1} == 1", &["unknown-function 6"]);
}

#[test]
fn a_dashed_step_is_suggested_with_brackets() {
    let source =
        "version: 1\nname: w\nsteps:\n  train-big: {run: x}\n  b: {run: x, if: 'steps.train-big.state == \"x\"'}\n";
    let help: Vec<_> =
        compiled(source).diagnostics.into_iter().filter(|d| d.code == "unknown-step").map(|d| d.help).collect();
    assert_eq!(help, [Some("did you mean `steps[\"train-big\"]`?".to_owned())]);
}

#[test]
fn types_must_fit_where_they_are_certain() {
    manual("inputs.n", &["expression-type 1"]);
    manual("inputs.s + \"x\"", &["expression-type 1"]);
    manual("inputs.n == \"1\"", &["expression-type 10"]);
    manual("inputs.n && true", &["expression-type 1"]);
    manual("!inputs.s", &["expression-type 2"]);
    manual("inputs.n ? true : false", &["expression-type 1"]);
    manual("inputs.s + inputs.n == \"x\"", &["expression-type 10"]);
    manual("inputs.n * 0.5 > 1.0", &["expression-type 10"]);
    manual("\"a\" in inputs.s", &["expression-type 5"]);
    manual("inputs.s.size == 1", &["expression-type 10"]);
    manual("inputs.s[0] == \"x\"", &["expression-type 10"]);
    manual("steps.many.outputs.model.size > 1", &["expression-type 26"]);
    manual("steps.many.outputs.model[\"x\"] == 1", &["expression-type 26"]);
    manual("size(steps) > 1", &["expression-type 6"]);
    manual("steps[inputs.s].state == \"x\"", &["expression-type 7"]);
    manual("inputs.n.exists(x, true)", &["expression-type 1"]);
    manual("inputs.s.exists(true)", &["expression-type 10"]);
    manual("size(1, 2) == 1", &["expression-type 1"]);
    manual("always(1)", &["expression-type 1"]);
}

#[test]
fn what_does_not_parse_is_shown_at_its_place() {
    manual("inputs.n ==", &["expression-syntax 12"]);
    manual("inputs.n == == 1", &["expression-syntax 13"]);
    manual("(inputs.n == 1", &["expression-syntax 15"]);
    manual("${{ inputs.n == 1 }} && ${{ true }}", &["expression-syntax 1"]);
    manual("${{ inputs.n == 1", &["expression-syntax 1"]);
}

const PUSH_AND_DATASET: &str = "{git.push: {}, dataset.changed: {}}";

#[test]
fn an_event_field_must_be_there_for_every_event_that_starts_the_workflow() {
    on("git.push", "event.data.branch == \"main\"", &[]);
    on(PUSH_AND_DATASET, "event.data.branch == \"main\"", &["uncertain-field 12"]);
    on(PUSH_AND_DATASET, "has(event.data.branch) && event.data.branch == \"main\"", &[]);
    on(PUSH_AND_DATASET, "!has(event.data.branch) || event.data.branch == \"main\"", &[]);
    on(PUSH_AND_DATASET, "has(event.data.branch) ? event.data.branch == \"main\" : true", &[]);
    on(PUSH_AND_DATASET, "has(event.data.branch) || event.data.branch == \"main\"", &["uncertain-field 38"]);
    on(PUSH_AND_DATASET, "has(event.data.branch) ? true : event.data.branch == \"main\"", &["uncertain-field 44"]);
    on(
        PUSH_AND_DATASET,
        "event.type == \"dev.kickwheel.dataset.version.published\" ? event.data.version > 1 : event.data.branch == \"x\"",
        &[],
    );
    on("git.push", "event.data.before != \"\"", &["uncertain-field 12"]);
    on("git.push", "event.type != \"dev.kickwheel.git.branch.created\" && event.data.before != \"\"", &[]);
    on("git.push", "event.data.brunch == \"main\"", &["unknown-field 12"]);
    on("git.push", "has(event.data.brunch)", &["unknown-field 16"]);
    on("git.push", "event.data.branch > 1", &["expression-type 19"]);
    on("git.push", "event.subjct == \"x\"", &["unknown-field 7"]);
    on("{event: {type: com.example.any}}", "event.data.anything.at.all == 1", &[]);
    on("{event: {type: com.example.any}, git.push: {}}", "event.data.anything == 1", &["uncertain-field 12"]);
}

#[test]
fn the_uncertain_field_names_the_event_types_and_a_way_out() {
    let source = "version: 1\nname: w\non: [git.push, manual]\nsteps: {a: {run: x, env: {B: '${{ event.data.branch }}', C: '${{ event.data.actor }}'}}}\n";
    let said: Vec<_> =
        compiled(source).diagnostics.into_iter().map(|d| (d.message, d.help.unwrap_or_default())).collect();
    assert_eq!(
        said[0],
        (
            "`event.data.branch` is not always there: dev.kickwheel.manual.started has no such field".to_owned(),
            "write `has(event.data.branch) ? event.data.branch : \"\"`, or make sure of it with `has(event.data.branch)` in `if`".to_owned()
        )
    );
    assert!(said[1].0.contains("may be missing or null in dev.kickwheel.git.branch.created and "), "{said:?}");
    assert_eq!(said.len(), 2);
}

#[test]
fn what_the_condition_made_sure_of_holds_for_the_step() {
    let source = "version: 1\nname: w\non: [git.push, manual]\nsteps: {a: {run: x, if: has(event.data.branch), env: {B: '${{ event.data.branch }}'}}}\n";
    assert_eq!(compiled(source).diagnostics, []);
}

#[test]
fn a_filter_reads_only_its_own_events() {
    let source = |on: &str| format!("version: 1\nname: w\non: {on}\nsteps: {{a: {{run: x}}}}\n");
    let codes = |on: &str| compiled(&source(on)).diagnostics.into_iter().map(|d| d.code).collect::<Vec<_>>();
    assert_eq!(codes("{git.push: {where: 'event.data.branch == \"x\"'}, manual: {}}"), Vec::<&str>::new());
    assert_eq!(codes("{dataset.changed: {where: 'event.data.branch == \"x\"'}, git.push: {}}"), ["unknown-field"]);
    assert_eq!(codes("{git.push: {where: 'inputs.x == 1'}}"), ["unknown-variable"]);
    assert_eq!(codes("{git.push: {where: 'always()'}}"), ["unknown-function"]);
    assert_eq!(codes("{git.push: {where: 'event.data.branch'}}"), ["expression-type"]);
}

#[test]
fn the_matrix_can_be_read_by_the_tasks_only() {
    let codes = |step: &str| {
        let source = format!("version: 1\nname: w\nsteps: {{a: {{run: x, {step}}}}}\n");
        compiled(&source).diagnostics.into_iter().map(|d| d.code).collect::<Vec<_>>()
    };
    assert_eq!(codes("matrix: {x: [1]}, env: {A: '${{ matrix.x }}'}"), Vec::<&str>::new());
    assert_eq!(codes("matrix: {x: [1]}, env: {A: '${{ matrix.y }}'}"), ["unknown-axis"]);
    assert_eq!(codes("matrix: {x: [1]}, if: matrix.x == 1"), ["unknown-variable"]);
    assert_eq!(codes("matrix: {x: [1], y: '${{ [matrix.x] }}'}"), ["unknown-variable"]);
    assert_eq!(codes("matrix: {x: [{k: 1}, {k: 2, l: 3}]}, env: {A: '${{ matrix.x.l }}'}"), ["uncertain-field"]);
    assert_eq!(codes("matrix: {x: [{k: 1}]}, env: {A: '${{ matrix.x.m }}'}"), ["unknown-field"]);
    assert_eq!(codes("matrix: {x: [{k: 1}]}, env: {A: '${{ matrix.x }}'}"), ["expression-type"]);
    assert_eq!(codes("env: {A: '${{ always() }}'}"), ["unknown-function"]);
}

#[test]
fn files_take_artifacts() {
    let codes = |value: &str| {
        let source = format!(
            "version: 1\nname: w\ninputs: {{s: {{type: string, default: x}}}}\nenv: {{S: '${{{{ inputs.s }}}}'}}\nsteps:\n  \
             many: {{run: x, matrix: {{x: [1]}}, outputs: {{m: m}}}}\n  a: {{run: x, files: {{f: '{value}'}}}}\n"
        );
        compiled(&source).diagnostics.into_iter().map(|d| d.code).collect::<Vec<_>>()
    };
    assert_eq!(codes("${{ steps.many.outputs.m[0] }}"), Vec::<&str>::new());
    assert_eq!(codes("${{ steps.many.outputs.m }}"), Vec::<&str>::new(), "a list becomes a folder");
    assert_eq!(codes("${{ inputs.s }}"), ["expression-type"]);
    assert_eq!(codes("dataset:${{ inputs.s }}"), ["expression-type"]);
    assert_eq!(codes("churn/raw"), ["bad-value"]);
}

#[test]
fn every_listed_function_exists() {
    let context = Context::default();
    for function in STANDARD {
        let arguments = vec!["\"1\""; function.arguments[0]].join(", ");
        let call = if function.on_value {
            format!("\"1\".{}({arguments})", function.name)
        } else {
            format!("{}({arguments})", function.name)
        };
        let result = Program::compile(&call).unwrap_or_else(|error| panic!("{call}: {error}")).execute(&context);
        let unknown = matches!(&result, Err(ExecutionError::UndeclaredReference(_)));
        assert!(!unknown, "{call} gives {result:?}");
    }
    let unknown = Program::compile("nothing(1)").expect("it parses").execute(&context);
    assert!(matches!(unknown, Err(ExecutionError::UndeclaredReference(_))), "{unknown:?}");
    for (name, _, _) in MACROS {
        assert!(STANDARD.iter().all(|function| function.name != *name));
    }
}
