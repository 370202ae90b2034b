//! Reading one key at a time: each function takes a value of the expected type or reports what is there instead.

use std::{collections::BTreeSet, ops::Range};

use indexmap::IndexMap;
use kickwheel_core::expr::{Expr, Segment, Template, segments};
use serde_json::Value;

use crate::{
    PluginCatalog,
    diagnostic::{Code, MAX_DIAGNOSTICS, Report, list},
    expression::{Argument, MAX_EXPRESSIONS, Pending, Wanted},
    keys::Table,
    raw::{Entry, Kind, Node},
    values,
};

/// What the file is read with.
pub(crate) struct Reader<'s, 'p> {
    pub report: Report<'s>,
    pub plugins: &'p PluginCatalog,
    /// Every dataset that the file names.
    pub datasets: BTreeSet<String>,
    /// How many expressions were met.
    pub expressions: usize,
}

/// A map whose keys are known.
pub(crate) struct Fields<'n> {
    entries: &'n [Entry],
    /// Keys that are not there, but that a key which does not exist was probably meant to be.
    misspelt: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    pub fn get(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Whether the key stands there under a wrong name. That has been reported, and tells more than that it is missing.
    pub fn is_misspelt(&self, key: &str) -> bool {
        self.misspelt.contains(&key)
    }
}

impl Reader<'_, '_> {
    /// A map with the keys of a table. `owner` is where a missing key is reported.
    pub fn fields<'n>(&mut self, node: &'n Node, table: &'static Table, owner: &Range<usize>) -> Option<Fields<'n>> {
        let Kind::Map(entries) = &node.kind else {
            let keys: Vec<&str> = table.names().collect();
            self.report
                .error(
                    Code::WrongType,
                    node.span.clone(),
                    format!("{} must be a map, but is {}", table.what, node.describe()),
                )
                .help(format!("its keys: {}", list(&keys)));
            return None;
        };
        let mut misspelt = Vec::new();
        for entry in entries {
            if !table.names().any(|name| name == entry.key) && entry.key != "<<" {
                misspelt.extend(self.report.meant(&entry.key, table.names()));
                let help = self.report.suggest(&entry.key, "keys", table.names());
                self.report
                    .error(
                        Code::UnknownKey,
                        entry.key_span.clone(),
                        format!("{} has no key `{}`", table.what, entry.key),
                    )
                    .help(help);
            }
        }
        for key in table.keys.iter().filter(|key| key.required) {
            if !entries.iter().any(|entry| entry.key == key.name) && !misspelt.contains(&key.name) {
                self.report
                    .error(Code::MissingKey, owner.clone(), format!("{} must have the key `{}`", table.what, key.name))
                    .help(key.about);
            }
        }
        Some(Fields { entries, misspelt })
    }

    /// A map with any keys.
    pub fn named<'n>(&mut self, entry: &'n Entry, what: &str) -> &'n [Entry] {
        match &entry.value.kind {
            Kind::Map(entries) => entries,
            _ => {
                self.wrong_type(entry, what);
                &[]
            }
        }
    }

    pub fn wrong_type(&mut self, entry: &Entry, what: &str) {
        let message = format!("`{}` must be {what}, but is {}", entry.key, entry.value.describe());
        let help = how_to_write(&entry.key, what, &entry.value);
        self.report.error(Code::WrongType, entry.value.span.clone(), message).help(help);
    }

    pub fn bad_name(&mut self, span: &Range<usize>, name: &str, what: &str) {
        self.report.error(Code::BadName, span.clone(), format!("`{name}` cannot be the name of {what}")).help(format!(
            "a name begins with a letter and goes on with letters, digits, `-` and `_`, {} at most",
            values::MAX_NAME_CHARS
        ));
    }

    /// A text, whatever it holds.
    pub fn text<'n>(&mut self, entry: &'n Entry) -> Option<&'n str> {
        let text = entry.value.text();
        if text.is_none() {
            self.wrong_type(entry, "a text");
        }
        text
    }

    /// A text without expressions that is not empty.
    pub fn plain_text<'n>(&mut self, entry: &'n Entry) -> Option<&'n str> {
        let text = self.text(entry)?;
        if text.trim().is_empty() {
            self.report.error(Code::BadValue, entry.value.span.clone(), format!("`{}` is empty", entry.key));
            return None;
        }
        if self.holds_expression(&entry.value, text, &entry.key, "write the text itself") {
            return None;
        }
        Some(text)
    }

    /// Reports each `${{` of a text that may hold none.
    pub fn holds_expression(&mut self, node: &Node, text: &str, key: &str, help: &str) -> bool {
        const OPEN: &str = "${{";
        let mut found = false;
        let unescaped = text.match_indices(OPEN).filter(|(at, _)| !text[..*at].ends_with('$'));
        for (at, _) in unescaped.take(MAX_DIAGNOSTICS) {
            found = true;
            let end = text[at..].find("}}").map_or(at + OPEN.len(), |length| at + length + 2);
            let span = node.span_within(self.report.source(), at..end);
            self.report.error(Code::ExpressionForbidden, span, format!("`{key}` cannot hold an expression")).help(help);
        }
        found
    }

    /// One text or a list of them, each with its value.
    pub fn texts<'n>(&mut self, entry: &'n Entry) -> Vec<(&'n str, &'n Node)> {
        match &entry.value.kind {
            Kind::Text(_) => self.plain_text(entry).map(|text| (text, &entry.value)).into_iter().collect(),
            Kind::List(items) => {
                let mut texts = Vec::new();
                for item in items {
                    match item.text() {
                        Some(text) => {
                            if !self.holds_expression(item, text, &entry.key, "write the text itself") {
                                texts.push((text, item));
                            }
                        }
                        None => {
                            let message =
                                format!("an item of `{}` must be a text, but is {}", entry.key, item.describe());
                            self.report.error(Code::WrongType, item.span.clone(), message).help("quote it");
                        }
                    }
                }
                texts
            }
            _ => {
                self.wrong_type(entry, "a text or a list of texts");
                Vec::new()
            }
        }
    }

    /// As [`Self::texts`], but an empty list is a mistake: it reads as "none" and would mean "any".
    pub fn some_texts<'n>(&mut self, entry: &'n Entry) -> Vec<(&'n str, &'n Node)> {
        if matches!(&entry.value.kind, Kind::List(items) if items.is_empty()) {
            self.report
                .error(Code::BadValue, entry.value.span.clone(), format!("`{}` is an empty list", entry.key))
                .help("leave the key out to allow any");
        }
        self.texts(entry)
    }

    pub fn boolean(&mut self, entry: &Entry) -> Option<bool> {
        match entry.value.kind {
            Kind::Bool(value) => Some(value),
            _ => {
                self.wrong_type(entry, "true or false");
                None
            }
        }
    }

    /// A whole number from 0 to `most`.
    pub fn count(&mut self, entry: &Entry, most: u32) -> Option<u32> {
        let Kind::Int(value) = entry.value.kind else {
            self.wrong_type(entry, "a whole number");
            return None;
        };
        match u32::try_from(value).ok().filter(|value| *value <= most) {
            Some(value) => Some(value),
            None => {
                let message = format!("`{}` must be from 0 to {most}, but is {value}", entry.key);
                self.report.error(Code::BadValue, entry.value.span.clone(), message);
                None
            }
        }
    }

    pub fn number(&mut self, entry: &Entry) -> Option<f64> {
        match entry.value.kind {
            Kind::Int(value) => Some(value as f64),
            Kind::Float(value) => Some(value),
            _ => {
                self.wrong_type(entry, "a number");
                None
            }
        }
    }

    /// Milliseconds, more than 0.
    pub fn duration(&mut self, entry: &Entry) -> Option<u64> {
        let Some(text) = entry.value.text() else {
            self.wrong_type(entry, "a duration such as `90s` or `1h30m`");
            return None;
        };
        let read = values::duration_ms(text)
            .and_then(|ms| if ms > 0 { Ok(ms) } else { Err(format!("`{}` must be longer than nothing", entry.key)) });
        self.valued(entry, read)
    }

    /// The value, or its problem reported where it stands.
    pub fn valued<T>(&mut self, entry: &Entry, read: Result<T, String>) -> Option<T> {
        read.map_err(|message| {
            self.report.error(Code::BadValue, entry.value.span.clone(), message);
        })
        .ok()
    }

    pub fn path(&mut self, span: &Range<usize>, path: &str) {
        if let Some(problem) = values::path_problem(path) {
            self.report
                .error(Code::BadPath, span.clone(), format!("the path `{path}` {problem}"))
                .help("write it relative to the work folder, for example `out/model.bin`");
        }
    }

    /// Globs; with `excludes`, those that begin with `!` take away.
    pub fn globs(&mut self, entry: &Entry, excludes: bool) -> Vec<String> {
        let texts = self.some_texts(entry);
        for (text, node) in &texts {
            let glob = match text.strip_prefix('!') {
                Some(glob) if excludes => glob,
                Some(_) => {
                    let message = format!("`{}` cannot exclude with `!`", entry.key);
                    self.report.error(Code::BadGlob, node.span.clone(), message).help("name what is to be there");
                    continue;
                }
                None => text,
            };
            if let Some(problem) = values::glob_problem(glob) {
                self.report.error(
                    Code::BadGlob,
                    node.span.clone(),
                    format!("the glob `{glob}` cannot be used: {problem}"),
                );
            }
        }
        texts.into_iter().map(|(text, _)| text.to_owned()).collect()
    }

    /// A dataset's name, which is then pinned by every run if `pin`.
    pub fn dataset(&mut self, span: &Range<usize>, name: &str, pin: bool) {
        if !values::is_dataset_name(name) {
            self.report
                .error(Code::BadName, span.clone(), format!("`{name}` cannot be the name of a dataset"))
                .help("letters, digits, `.`, `-` and `_`, in parts separated by `/`, for example `churn/raw`");
        } else if pin {
            self.datasets.insert(name.to_owned());
        }
    }

    /// A condition: CEL, with or without `${{ }}` around it.
    pub fn condition<'n>(&mut self, entry: &'n Entry, pending: &mut Vec<Pending<'n>>) -> Option<Expr> {
        let text = match &entry.value.kind {
            Kind::Bool(value) => return Some(Expr::new(value.to_string())),
            Kind::Text(text) => text.value.as_str(),
            _ => {
                self.wrong_type(entry, "a condition, that is a text");
                return None;
            }
        };
        let range = match segments(text) {
            Ok(segments) => match segments.as_slice() {
                [Segment::Expr(range)] => range.clone(),
                segments if segments.iter().any(|segment| matches!(segment, Segment::Expr(_))) => {
                    trimmed_expression(text, segments).or_else(|| {
                        self.report
                            .error(
                                Code::ExpressionSyntax,
                                entry.value.span.clone(),
                                format!("`{}` is one expression, but this is text around expressions", entry.key),
                            )
                            .help("write the whole condition without `${{ }}`");
                        None
                    })?
                }
                _ => trimmed(text),
            },
            Err(error) => {
                self.template_error(&entry.value, &error);
                return None;
            }
        };
        let expr = Expr::new(&text[range.clone()]);
        self.pend(pending, Pending { expr: expr.clone(), node: &entry.value, range, wanted: Wanted::Boolean });
        Some(expr)
    }

    /// A value in which texts may hold expressions.
    pub fn template<'n>(&mut self, node: &'n Node, wanted: Wanted, pending: &mut Vec<Pending<'n>>) -> Template {
        match &node.kind {
            Kind::Null => {
                self.report
                    .error(Code::WrongType, node.span.clone(), "there is no value")
                    .help("give one, or leave the key out");
                Template::Literal(Value::Null)
            }
            Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) => Template::Literal(node.to_json()),
            Kind::Text(text) => self.text_template(node, &text.value, wanted, pending),
            Kind::List(items) => {
                let items: Vec<Template> =
                    items.iter().map(|item| self.template(item, Wanted::Anything, pending)).collect();
                match literals(&items) {
                    Some(values) => Template::Literal(Value::Array(values)),
                    None => Template::List(items),
                }
            }
            Kind::Map(entries) => {
                let mut items = IndexMap::new();
                for entry in entries {
                    items.insert(entry.key.clone(), self.template(&entry.value, Wanted::Anything, pending));
                }
                match literals(items.values()) {
                    Some(values) => Template::Literal(Value::Object(items.into_keys().zip(values).collect())),
                    None => Template::Map(items),
                }
            }
        }
    }

    fn text_template<'n>(
        &mut self,
        node: &'n Node,
        text: &str,
        wanted: Wanted,
        pending: &mut Vec<Pending<'n>>,
    ) -> Template {
        let read = segments(text).and_then(|segments| Ok((segments, Template::parse(text)?)));
        let (segments, template) = match read {
            Ok(read) => read,
            Err(error) => {
                self.template_error(node, &error);
                return Template::Literal(Value::Null);
            }
        };
        let whole = matches!(segments.as_slice(), [Segment::Expr(_)]);
        for segment in segments {
            let Segment::Expr(range) = segment else { continue };
            let wanted = if whole { wanted } else { Wanted::Scalar };
            self.pend(pending, Pending { expr: Expr::new(&text[range.clone()]), node, range, wanted });
        }
        template
    }

    fn template_error(&mut self, node: &Node, error: &kickwheel_core::expr::TemplateError) {
        let span = node.span_within(self.report.source(), error.offset..error.offset + "${{".len());
        self.report.error(Code::ExpressionSyntax, span, format!("this `${{{{` cannot be read: {}", error.message));
    }

    fn pend<'n>(&mut self, pending: &mut Vec<Pending<'n>>, one: Pending<'n>) {
        self.expressions += 1;
        if self.expressions == MAX_EXPRESSIONS + 1 {
            let message = format!("the file has more than {MAX_EXPRESSIONS} expressions");
            self.report.error(Code::YamlLimit, one.node.span.clone(), message);
        }
        if self.expressions <= MAX_EXPRESSIONS {
            pending.push(one);
        }
    }

    /// Variables of the environment.
    pub fn env<'n>(&mut self, entry: &'n Entry, pending: &mut Vec<Pending<'n>>) -> IndexMap<String, Template> {
        let mut env = IndexMap::new();
        for variable in self.named(entry, "a map of names to values") {
            if !values::is_identifier(&variable.key) {
                self.report
                    .error(
                        Code::BadName,
                        variable.key_span.clone(),
                        format!("`{}` cannot be the name of a variable", variable.key),
                    )
                    .help("letters, digits and `_`, not beginning with a digit");
            } else if variable.key.starts_with(RESERVED_ENV) {
                self.report.error(
                    Code::BadName,
                    variable.key_span.clone(),
                    format!("names that begin with `{RESERVED_ENV}` are ours: `{}`", variable.key),
                );
            }
            let template = self.template(&variable.value, Wanted::Scalar, pending);
            self.literal(&variable.value, &template, Wanted::Scalar, &variable.key);
            env.insert(variable.key.clone(), template);
        }
        env
    }

    /// Checks a value without expressions against what its place takes.
    pub fn literal(&mut self, node: &Node, template: &Template, wanted: Wanted, key: &str) {
        let what = match (&node.kind, wanted) {
            // A missing value has been reported, and inputs have a check of their own, with their limits.
            (Kind::Null, _) | (_, Wanted::Anything | Wanted::Argument(Argument::Any) | Wanted::Input(_)) => return,
            (Kind::Text(_), _) if matches!(template, Template::Expr(_)) => return,
            (Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Text(_), Wanted::Scalar)
            | (Kind::Text(_), Wanted::Argument(Argument::Text | Argument::Reference))
            | (Kind::Int(_) | Kind::Float(_), Wanted::Argument(Argument::Number))
            | (Kind::Bool(_), Wanted::Argument(Argument::Boolean))
            | (Kind::List(_), Wanted::Argument(Argument::List) | Wanted::List)
            | (Kind::Map(_), Wanted::Argument(Argument::Map))
            | (Kind::Text(_) | Kind::List(_), Wanted::Artifact) => return,
            (_, Wanted::Boolean | Wanted::Argument(Argument::Boolean)) => "true or false",
            (_, Wanted::Scalar) => "a text, number or boolean",
            (_, Wanted::List | Wanted::Argument(Argument::List)) => "a list",
            (_, Wanted::Artifact) => "an expression or `dataset:NAME`",
            (_, Wanted::Argument(Argument::Text)) => "a text",
            (_, Wanted::Argument(Argument::Reference)) => "a text such as `model:NAME@STAGE`",
            (_, Wanted::Argument(Argument::Number)) => "a number",
            (_, Wanted::Argument(Argument::Map)) => "a map",
        };
        let message = format!("`{key}` must be {what}, but is {}", node.describe());
        let help = format!("{}, or one `${{{{ }}}}` that gives it", how_to_write(key, what, node));
        self.report.error(Code::WrongType, node.span.clone(), message).help(help);
    }
}

/// How a value of the wrong type is put right: `what` names the right one.
fn how_to_write(key: &str, what: &str, node: &Node) -> String {
    match &node.kind {
        Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) if what.contains("a text") => "quote it".to_owned(),
        Kind::Text(_) if what.contains("number") || what.contains("true or false") => {
            format!(
                "write {what} without quotes, such as `{key}: {}`",
                if what.contains("number") { "3" } else { "true" }
            )
        }
        _ => format!("write {what} after `{key}:`"),
    }
}

/// Prefix of the variables that the runner sets.
const RESERVED_ENV: &str = "KICKWHEEL_";

fn literals<'t>(templates: impl IntoIterator<Item = &'t Template>) -> Option<Vec<Value>> {
    templates
        .into_iter()
        .map(|template| match template {
            Template::Literal(value) => Some(value.clone()),
            Template::Expr(_) | Template::Text(_) | Template::List(_) | Template::Map(_) => None,
        })
        .collect()
}

/// The one expression of a text that has only blanks around it.
fn trimmed_expression(text: &str, segments: &[Segment]) -> Option<Range<usize>> {
    let mut expression = None;
    for segment in segments {
        match segment {
            Segment::Literal(literal) if literal.trim().is_empty() => {}
            Segment::Expr(range) if expression.is_none() => expression = Some(range.clone()),
            Segment::Literal(_) | Segment::Expr(_) => return None,
        }
    }
    expression.filter(|range| range.end <= text.len())
}

fn trimmed(text: &str) -> Range<usize> {
    let start = text.len() - text.trim_start().len();
    start..start + text.trim().len()
}
