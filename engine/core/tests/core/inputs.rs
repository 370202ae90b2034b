//! The inputs of a run: given, taken from the event, or by default.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use kickwheel_core::{
    filter::inputs_for,
    plan::{InputDecl, InputType},
};
use kickwheel_schemas::{CloudEvent, payload};
use serde_json::{Value, json};

use crate::plans::template;

fn input(ty: InputType, default: Option<Value>) -> InputDecl {
    InputDecl { ty, default, minimum: None, maximum: None, choices: Vec::new() }
}

fn declared() -> IndexMap<String, InputDecl> {
    let epochs = InputDecl { minimum: Some(1.0), maximum: Some(100.0), ..input(InputType::Integer, Some(json!(10))) };
    let stage =
        InputDecl { choices: vec![json!("dev"), json!("prod")], ..input(InputType::String, Some(json!("dev"))) };
    [
        ("epochs", epochs),
        ("stage", stage),
        ("branch", input(InputType::String, None)),
        ("rate", input(InputType::Number, Some(json!(0.1)))),
    ]
    .into_iter()
    .map(|(name, declaration)| (name.to_owned(), declaration))
    .collect()
}

/// `Ok` with the inputs, or every message.
fn resolve(with: Value, given: Value) -> Result<Value, Vec<String>> {
    let (Value::Object(with), Value::Object(given)) = (with, given) else { panic!("both are maps") };
    let with = with.iter().map(|(name, value)| (name.clone(), template(value))).collect();
    let given: BTreeMap<String, Value> = given.into_iter().collect();
    let event = CloudEvent::new("s", "1", payload::GIT_BRANCH_UPDATED, json!({"branch": "main", "n": 7}));
    inputs_for(&declared(), &with, &event, &given)
        .map(|inputs| json!(inputs))
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

#[test]
fn given_values_count_before_the_event_and_that_before_defaults() {
    assert_eq!(
        resolve(json!({"branch": "${{ event.data.branch }}", "epochs": "${{ event.data.n }}"}), json!({"epochs": 3})),
        Ok(json!({"epochs": 3, "stage": "dev", "branch": "main", "rate": 0.1}))
    );
    assert_eq!(
        resolve(json!({"branch": "b-${{ event.data.branch }}", "epochs": "${{ event.data.n }}"}), json!({})),
        Ok(json!({"epochs": 7, "stage": "dev", "branch": "b-main", "rate": 0.1}))
    );
}

#[test]
fn every_mistake_is_reported_at_once() {
    assert_eq!(
        resolve(json!({"rate": "${{ event.data.nope }}"}), json!({"epochs": 0, "stage": "test", "epoch": 1, "zzz": 1})),
        Err(vec![
            "take the input \"epoch\": the workflow declares none of that name; did you mean \"epochs\"?".to_owned(),
            "take the input \"zzz\": the workflow declares none of that name".to_owned(),
            "take 0 as the input \"epochs\": it must be at least 1".to_owned(),
            "take \"test\" as the input \"stage\": it must be one of [\"dev\",\"prod\"]".to_owned(),
            "start without the input \"branch\": it has no default, so give it a value".to_owned(),
            "take the input \"rate\" from the event: evaluate `event.data.nope`: there is no `nope`; test with `has(…)` \
             first, or give a default: `has(x.nope) ? x.nope : …`"
                .to_owned(),
        ])
    );
}

#[test]
fn types_are_kept_and_whole_numbers_may_be_written_with_a_point() {
    let one = |name: &str, value: Value| {
        let mut given = json!({"branch": "main"});
        given[name] = value;
        resolve(json!({}), given).map(|inputs| inputs[name].clone())
    };
    assert_eq!(one("epochs", json!(5.0)), Ok(json!(5)));
    assert_eq!(one("rate", json!(1)), Ok(json!(1)));
    assert_eq!(
        one("epochs", json!(5.5)),
        Err(vec!["take 5.5 as the input \"epochs\": it is a number, but a whole number is needed".to_owned()])
    );
    assert_eq!(
        one("epochs", json!("5")),
        Err(vec!["take \"5\" as the input \"epochs\": it is a text, but a whole number is needed".to_owned()])
    );
    assert_eq!(
        one("epochs", json!(101)),
        Err(vec!["take 101 as the input \"epochs\": it must be at most 100".to_owned()])
    );
    assert_eq!(one("stage", json!("prod")), Ok(json!("prod")));
}
