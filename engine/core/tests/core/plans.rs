//! Plans and run contexts, written briefly.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use kickwheel_core::{
    Plan,
    event::{PinnedDataset, PinnedSource, RunContext, RunRef},
    expr::{Expr, Template},
    plan::{Action, Condition, ContainerLimits, Matrix, OutputDecl, PLAN_FORMAT, Phase, Resources, Retry, Step},
};
use kickwheel_schemas::{ArtifactRef, Digest};
use serde_json::{Value, json};

/// A step by name; what it needs is also named.
pub struct Draft {
    step: Step,
    needs: Vec<&'static str>,
}

/// A script step of the main phase, called `name`.
pub fn step(name: &str) -> Draft {
    Draft {
        needs: Vec::new(),
        step: Step {
            name: name.to_owned(),
            phase: Phase::Main,
            needs: Vec::new(),
            condition: None,
            matrix: None,
            action: Action::Script { script: "true".to_owned(), image: None },
            env: IndexMap::new(),
            files: IndexMap::new(),
            outputs: IndexMap::new(),
            retry: Retry::default(),
            timeout_ms: None,
            cache: false,
            source: Vec::new(),
            secrets: IndexMap::new(),
            container: ContainerLimits::default(),
            resources: Resources::default(),
        },
    }
}

/// A YAML value as a template: texts may hold `${{ }}`.
pub fn template(value: &Value) -> Template {
    match value {
        Value::String(text) => Template::parse(text).expect("tests write templates well"),
        Value::Array(items) => Template::List(items.iter().map(template).collect()),
        Value::Object(fields) => {
            Template::Map(fields.iter().map(|(name, value)| (name.clone(), template(value))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Template::Literal(value.clone()),
    }
}

impl Draft {
    pub fn needs(mut self, needs: &[&'static str]) -> Self {
        self.needs.extend(needs);
        self
    }

    pub fn on_failure(mut self) -> Self {
        self.step.phase = Phase::OnFailure;
        self
    }

    pub fn finally(mut self) -> Self {
        self.step.phase = Phase::Finally;
        self
    }

    /// `if:`
    pub fn condition(mut self, source: &str) -> Self {
        let expr = Expr::new(source);
        let handles_failure = expr.handles_failure();
        self.step.condition = Some(Condition { expr, handles_failure });
        self
    }

    /// Adds an axis.
    pub fn axis(mut self, name: &str, values: Value) -> Self {
        let matrix = self.step.matrix.get_or_insert_with(|| Matrix { axes: IndexMap::new() });
        matrix.axes.insert(name.to_owned(), template(&values));
        self
    }

    /// `max` further attempts, one second before the second, doubling.
    pub fn retry(mut self, max: u32) -> Self {
        self.step.retry = Retry { max, initial_ms: 1000, factor: 2.0, max_ms: 60_000 };
        self
    }

    pub fn env(mut self, name: &str, value: Value) -> Self {
        self.step.env.insert(name.to_owned(), template(&value));
        self
    }

    pub fn file(mut self, path: &str, value: Value) -> Self {
        self.step.files.insert(path.to_owned(), template(&value));
        self
    }

    pub fn output(mut self, name: &str) -> Self {
        self.step.outputs.insert(name.to_owned(), OutputDecl::Value);
        self
    }

    pub fn container(mut self, command: Value) -> Self {
        let Template::List(command) = template(&command) else { panic!("a command is a list") };
        self.step.action = Action::Container { image: "python:3.12".to_owned(), command };
        self
    }

    pub fn plugin(mut self, with: Value) -> Self {
        let Template::Map(with) = template(&with) else { panic!("`with` is a map") };
        self.step.action = Action::Plugin {
            name: "metrics-gate".to_owned(),
            digest: Digest::of(b"component"),
            with,
            references: vec!["baseline".to_owned()],
            outputs: vec!["better".to_owned()],
        };
        self
    }
}

/// A plan of these steps, which are given in an order in which needs come first.
pub fn plan(drafts: impl IntoIterator<Item = Draft>) -> Plan {
    let mut steps: Vec<Step> = Vec::new();
    for Draft { mut step, needs } in drafts {
        for need in needs {
            let found = steps.iter().position(|earlier| earlier.name == need);
            step.needs.push(found.unwrap_or_else(|| panic!("`{need}` does not come before `{}`", step.name)));
        }
        steps.push(step);
    }
    Plan {
        format: PLAN_FORMAT,
        workflow: "churn".to_owned(),
        inputs: IndexMap::new(),
        datasets: vec!["raw".to_owned(), "unborn".to_owned()],
        steps,
    }
}

/// What every test's run is started with.
pub fn context() -> RunContext {
    let file = |path: &str| ArtifactRef {
        digest: Digest::of(path.as_bytes()),
        size: 10,
        path: path.to_owned(),
        folder: false,
    };
    RunContext {
        reference: RunRef::Unrecorded,
        run: "run-1".to_owned(),
        project: "default".to_owned(),
        event: json!({"type": "dev.kickwheel.git.branch.updated", "data": {"branch": "main", "commit_count": 3}}),
        inputs: BTreeMap::from([("epochs".to_owned(), json!(10)), ("none".to_owned(), json!([]))]),
        datasets: BTreeMap::from([
            (
                "raw".to_owned(),
                Some(PinnedDataset {
                    name: "raw".to_owned(),
                    version: 4,
                    digest: Digest::of(b"manifest"),
                    size: 20,
                    files: vec![file("a.csv"), file("b.csv")],
                }),
            ),
            ("unborn".to_owned(), None),
        ]),
        source: Some(PinnedSource { repo: "churn".to_owned(), commit: "c".repeat(40), tree: "d".repeat(40) }),
        url: "http://127.0.0.1/runs/run-1".to_owned(),
    }
}
