//! Expressions: CEL inside `${{ }}`, in `if:` and in `where:`.
//!
//! An [`Expr`] is its source text (that is what is stored) and, lazily, its compiled program. A [`Template`] is a YAML
//! value in which texts may hold expressions.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A CEL expression. Serialises as its source; compiled at most once per instance.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Expr {
    source: String,
    #[serde(skip)]
    program: OnceLock<Result<Arc<cel::Program>, String>>,
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expr({:?})", self.source)
    }
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// A value with expressions in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", content = "v", rename_all = "snake_case")]
pub enum Template {
    /// Without any expression.
    Literal(Value),
    /// The whole text was one `${{ }}`: keeps the type of its value. Null is an error.
    Expr(Expr),
    /// Text around expressions; gives a text. Null is an error.
    Text(Vec<TextPart>),
    /// A list whose items hold expressions.
    List(Vec<Template>),
    /// A map whose values hold expressions.
    Map(IndexMap<String, Template>),
}

/// A piece of a [`Template::Text`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", content = "v", rename_all = "snake_case")]
pub enum TextPart {
    /// As it stands.
    Literal(String),
    /// Evaluated and written as text.
    Expr(Expr),
}

/// Variables that an expression may read: `event`, `inputs`, `matrix`, `steps`, `datasets`, `run`.
pub type Scope = BTreeMap<String, Value>;

/// Why an expression gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExprError {
    /// It does not parse.
    #[error("parse the expression `{source_text}`: {message}")]
    Parse {
        /// The expression.
        source_text: String,
        /// What the parser says.
        message: String,
    },
    /// It parses, but these values give no result.
    #[error("evaluate `{source_text}`: {message}")]
    Evaluate {
        /// The expression.
        source_text: String,
        /// What is wrong.
        message: String,
    },
    /// It gives null, which is never a value here.
    #[error("use `{source_text}`: it is null; give a default, for example `has(x.y) ? x.y : 0`")]
    Null {
        /// The expression.
        source_text: String,
    },
    /// It gives a value of the wrong type.
    #[error("use `{source_text}`: it gives {found}, but {wanted} is needed")]
    Type {
        /// The expression.
        source_text: String,
        /// What is needed, with its article.
        wanted: &'static str,
        /// What it gives.
        found: String,
    },
}

impl Expr {
    /// An expression from its source; it is not parsed yet.
    pub fn new(source: impl Into<String>) -> Self {
        Self { source: source.into(), program: OnceLock::new() }
    }

    /// Its source text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Parses it (once).
    pub fn check(&self) -> Result<&cel::Program, ExprError> {
        todo!()
    }

    /// Its value in a scope. Numbers keep whether they are whole.
    pub fn evaluate(&self, scope: &Scope) -> Result<Value, ExprError> {
        let _ = scope;
        todo!()
    }

    /// Its value, which must be a boolean.
    pub fn evaluate_bool(&self, scope: &Scope) -> Result<bool, ExprError> {
        let _ = scope;
        todo!()
    }

    /// Names of the scope's variables that it reads.
    pub fn variables(&self) -> Vec<String> {
        todo!()
    }

    /// Names `X` in `steps.X…` and `steps["X"]…` that it reads, for inferred needs.
    pub fn step_references(&self) -> Vec<String> {
        todo!()
    }

    /// Names `X` in `datasets["X"]` that it reads, for pinning.
    pub fn dataset_references(&self) -> Vec<String> {
        todo!()
    }
}

impl Template {
    /// Its value in a scope.
    pub fn evaluate(&self, scope: &Scope) -> Result<Value, ExprError> {
        let _ = scope;
        todo!()
    }

    /// Every expression in it.
    pub fn expressions(&self) -> Vec<&Expr> {
        todo!()
    }
}
