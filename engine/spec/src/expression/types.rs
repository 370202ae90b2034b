//! Shapes of what expressions read, as far as they are known before a run.

use std::rc::Rc;

use kickwheel_core::plan::InputType;
use kickwheel_schemas::catalog::{self, Shape};

/// The shape of a value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Type {
    /// Not known: everything may be done with it.
    Any,
    /// Of an empty list's items: fits everywhere.
    Nothing,
    Null,
    Boolean,
    /// Certainly whole.
    Integer,
    /// Certainly not stored as a whole number: CEL does not mix the two in arithmetic.
    Double,
    /// One or the other.
    Number,
    Text,
    List(Rc<Type>),
    /// Any keys.
    Map(Rc<Type>),
    /// Known fields only.
    Record(Rc<Record>),
    /// `event` or a part of it, for each event type that may start the workflow.
    Variants(Rc<Vec<(String, Type)>>),
    /// `steps`: its members are steps, which the checker looks up.
    Steps,
    /// `datasets`: its members are whatever is named.
    Datasets,
}

/// A value with known fields.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub owner: Owner,
    pub members: Vec<Member>,
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    pub name: String,
    pub ty: Type,
    /// May be missing or null.
    pub optional: bool,
}

/// Whose fields they are: decides what a wrong one is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Value,
    Inputs,
    Matrix,
    Step,
    ArrayStep,
    Outputs,
}

/// Kinds of values that are never equal to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Boolean,
    Number,
    Text,
    List,
    Map,
}

impl Type {
    pub fn list(item: Self) -> Self {
        Self::List(Rc::new(item))
    }

    pub fn record(owner: Owner, members: impl IntoIterator<Item = (impl Into<String>, Self)>) -> Self {
        let members = members.into_iter().map(|(name, ty)| Member { name: name.into(), ty, optional: false }).collect();
        Self::Record(Rc::new(Record { owner, members }))
    }

    /// Its class, when that is certain.
    pub fn class(&self) -> Option<Class> {
        match self {
            Self::Any | Self::Nothing | Self::Null => None,
            Self::Boolean => Some(Class::Boolean),
            Self::Integer | Self::Double | Self::Number => Some(Class::Number),
            Self::Text => Some(Class::Text),
            Self::List(_) => Some(Class::List),
            Self::Map(_) | Self::Record(_) | Self::Steps | Self::Datasets => Some(Class::Map),
            Self::Variants(variants) => {
                let mut classes = variants.iter().map(|(_, ty)| ty.class());
                let first = classes.next()??;
                classes.all(|class| class == Some(first)).then_some(first)
            }
        }
    }

    /// For messages, with its article.
    pub fn describe(&self) -> &'static str {
        match (self, self.class()) {
            (Self::Null, _) => "null",
            (Self::Integer, _) => "a whole number",
            (_, None) => "a value of unknown type",
            (_, Some(Class::Boolean)) => "a boolean",
            (_, Some(Class::Number)) => "a number",
            (_, Some(Class::Text)) => "a text",
            (_, Some(Class::List)) => "a list",
            (_, Some(Class::Map)) => "a map",
        }
    }

    /// An expression that stands for "none of it", for suggestions.
    pub fn default_text(&self) -> &'static str {
        match self.class() {
            Some(Class::Boolean) => "false",
            Some(Class::Number) => "0",
            Some(Class::Text) => "\"\"",
            Some(Class::List) => "[]",
            Some(Class::Map) => "{}",
            None => "…",
        }
    }

    /// What is known of a value that is either this or that.
    pub fn join(&self, other: &Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a.clone(),
            (Self::Nothing | Self::Null, ty) | (ty, Self::Nothing | Self::Null) => ty.clone(),
            (Self::Integer | Self::Double | Self::Number, Self::Integer | Self::Double | Self::Number) => Self::Number,
            (Self::List(a), Self::List(b)) => Self::list(a.join(b)),
            (Self::Map(a), Self::Map(b)) => Self::Map(Rc::new(a.join(b))),
            (Self::Record(a), Self::Record(b)) if a.owner == Owner::Value && b.owner == Owner::Value => {
                Self::Record(Rc::new(a.join(b)))
            }
            _ => Self::Any,
        }
    }
}

impl Record {
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    fn join(&self, other: &Self) -> Self {
        let mut members: Vec<Member> = self
            .members
            .iter()
            .map(|mine| match other.member(&mine.name) {
                Some(theirs) => Member {
                    name: mine.name.clone(),
                    ty: mine.ty.join(&theirs.ty),
                    optional: mine.optional || theirs.optional,
                },
                None => Member { optional: true, ..mine.clone() },
            })
            .collect();
        let more = other.members.iter().filter(|theirs| self.member(&theirs.name).is_none());
        members.extend(more.map(|theirs| Member { optional: true, ..theirs.clone() }));
        Self { owner: Owner::Value, members }
    }
}

/// The shape of `event` when one of these event types may start the workflow.
pub(crate) fn event<'t>(types: impl IntoIterator<Item = &'t str>) -> Type {
    let mut variants: Vec<(String, Type)> = Vec::new();
    for ty in types {
        if variants.iter().all(|(known, _)| known != ty) {
            variants.push((ty.to_owned(), from_shape(&catalog::event_shape(ty))));
        }
    }
    Type::Variants(Rc::new(variants))
}

fn from_shape(shape: &Shape) -> Type {
    match shape {
        Shape::Any => Type::Any,
        Shape::String => Type::Text,
        Shape::Integer => Type::Integer,
        Shape::Number => Type::Number,
        Shape::Boolean => Type::Boolean,
        Shape::List(item) => Type::list(from_shape(item)),
        Shape::Map(value) => Type::Map(Rc::new(from_shape(value))),
        Shape::Record(fields) => {
            let member = |field: &catalog::Field| Member {
                name: field.name.to_owned(),
                ty: from_shape(&field.shape),
                optional: field.optional,
            };
            Type::Record(Rc::new(Record { owner: Owner::Value, members: fields.iter().map(member).collect() }))
        }
    }
}

/// The shape of an input.
pub(crate) fn input(ty: InputType) -> Type {
    match ty {
        InputType::String => Type::Text,
        InputType::Integer => Type::Integer,
        InputType::Number => Type::Number,
        InputType::Boolean => Type::Boolean,
        InputType::List => Type::list(Type::Any),
    }
}

/// The shape of an output that is a file or folder, and of a dataset's files.
pub(crate) fn artifact() -> Type {
    let fields = [("digest", Type::Text), ("size", Type::Integer), ("path", Type::Text), ("folder", Type::Boolean)];
    Type::record(Owner::Value, fields)
}

/// The shape of `datasets["NAME"]`.
pub(crate) fn dataset() -> Type {
    Type::record(
        Owner::Value,
        [
            ("name", Type::Text),
            ("version", Type::Integer),
            ("digest", Type::Text),
            ("size", Type::Integer),
            ("files", Type::list(artifact())),
        ],
    )
}

/// The shape of `steps.NAME.tasks[i]`.
pub(crate) fn task(outputs: Type) -> Type {
    Type::record(
        Owner::Value,
        [
            ("index", Type::Integer),
            ("state", Type::Text),
            ("matrix", Type::Any),
            ("outputs", outputs),
            ("metrics", Type::Map(Rc::new(Type::Number))),
        ],
    )
}
