//! One mistake in a workflow file, and the collection of all of them.
//!
//! A diagnostic is data: code, message, help and where. Nothing is rendered here; the CLI and the UI do that.

use std::ops::Range;

use kickwheel_schemas::api::{self, DiagnosticView};

/// Most diagnostics that one file yields. What lies beyond is noise to a reader and a lever for a hostile file.
pub(crate) const MAX_DIAGNOSTICS: usize = 100;

/// From this many mistakes on, no nearest names are looked for.
const SUGGESTIONS_UNTIL: usize = 4 * MAX_DIAGNOSTICS;

/// Longest excerpt in characters; a generated file may be one enormous line.
const MAX_EXCERPT_CHARS: usize = 400;

/// Farthest that a suggested name may be from the written one, as a share of its length.
const NEAREST_DISTANCE_SHARE: usize = 3;

/// Similarity (Jaro-Winkler) from which a name is suggested although several letters differ.
const NEAREST_SIMILARITY: f64 = 0.85;

/// Whether a file with this diagnostic can be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but something in it has no effect.
    Warning,
}

/// A mistake in a workflow file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable, one of [`Code`]'s texts.
    pub code: &'static str,
    /// What is wrong, with the value that is wrong.
    pub message: String,
    /// What to do. Whatever the compiler finds has one.
    pub help: Option<String>,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// Bytes of the source that the message is about.
    pub span: Range<usize>,
    /// How bad it is.
    pub severity: Severity,
}

impl Diagnostic {
    /// The wire form, with the source line. `source` is the text that was compiled.
    pub fn view(&self, file: &str, source: &str) -> DiagnosticView {
        let start = floor_char_boundary(source, self.span.start);
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line = source[line_start..].lines().next().unwrap_or("");
        let excerpt = if line.chars().count() > MAX_EXCERPT_CHARS {
            line.chars().take(MAX_EXCERPT_CHARS).chain(['…']).collect()
        } else {
            line.to_owned()
        };
        DiagnosticView {
            file: file.to_owned(),
            line: self.line,
            column: self.column,
            severity: match self.severity {
                Severity::Error => api::Severity::Error,
                Severity::Warning => api::Severity::Warning,
            },
            code: self.code.to_owned(),
            message: self.message.clone(),
            help: self.help.clone(),
            excerpt,
        }
    }

    /// Says what to do.
    pub(crate) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }
}

/// What kind of mistake; the texts are stable and documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The text is not YAML.
    YamlSyntax,
    /// The file is too large, too deep, or expands to too much.
    YamlLimit,
    /// YAML that the workflow language leaves out: tags, merge keys, several documents.
    YamlFeature,
    /// A key is given twice in one map.
    DuplicateKey,
    /// A key that does not exist at this place.
    UnknownKey,
    /// A value of the wrong type.
    WrongType,
    /// A key that must be there is not.
    MissingKey,
    /// A name that is not allowed.
    BadName,
    /// `version` is not 1.
    BadVersion,
    /// A duration, size, number or text that cannot be used.
    BadValue,
    /// A path that is absolute or leaves its folder.
    BadPath,
    /// A glob that cannot be used.
    BadGlob,
    /// A kind of trigger that does not exist.
    UnknownTrigger,
    /// An event type of ours that does not exist.
    UnknownEventType,
    /// A step that is not exactly one of `run`, `image` + `command`, `uses`.
    StepKind,
    /// A key that has no meaning beside the others of its step.
    MisplacedKey,
    /// A step that does not exist.
    UnknownStep,
    /// A step that needs itself.
    SelfNeed,
    /// A step that needs or reads one of a phase that it cannot.
    CrossPhase,
    /// Steps that need each other.
    Cycle,
    /// A plugin that does not exist.
    UnknownPlugin,
    /// A key of `with` that the plugin does not have.
    UnknownArgument,
    /// A key of `with` that the plugin requires.
    MissingArgument,
    /// An input that has neither a default nor a value from a trigger.
    MissingInput,
    /// `${{ }}` where none is allowed.
    ExpressionForbidden,
    /// An expression that does not parse.
    ExpressionSyntax,
    /// An expression that gives a value of the wrong type, or operates on one.
    ExpressionType,
    /// A variable that does not exist here.
    UnknownVariable,
    /// A function that does not exist here.
    UnknownFunction,
    /// A field that does not exist.
    UnknownField,
    /// A field that may be missing for an event type which starts the workflow.
    UncertainField,
    /// An output that the step does not declare.
    UnknownOutput,
    /// An input that is not declared.
    UnknownInput,
    /// A matrix axis that is not declared.
    UnknownAxis,
    /// A matrix with more tasks than one step may have.
    MatrixTooLarge,
    /// An input that nothing reads.
    UnusedInput,
}

impl Code {
    /// All of them, for the documentation.
    pub const ALL: &[Self] = &[
        Self::YamlSyntax,
        Self::YamlLimit,
        Self::YamlFeature,
        Self::DuplicateKey,
        Self::UnknownKey,
        Self::WrongType,
        Self::MissingKey,
        Self::BadName,
        Self::BadVersion,
        Self::BadValue,
        Self::BadPath,
        Self::BadGlob,
        Self::UnknownTrigger,
        Self::UnknownEventType,
        Self::StepKind,
        Self::MisplacedKey,
        Self::UnknownStep,
        Self::SelfNeed,
        Self::CrossPhase,
        Self::Cycle,
        Self::UnknownPlugin,
        Self::UnknownArgument,
        Self::MissingArgument,
        Self::MissingInput,
        Self::ExpressionForbidden,
        Self::ExpressionSyntax,
        Self::ExpressionType,
        Self::UnknownVariable,
        Self::UnknownFunction,
        Self::UnknownField,
        Self::UncertainField,
        Self::UnknownOutput,
        Self::UnknownInput,
        Self::UnknownAxis,
        Self::MatrixTooLarge,
        Self::UnusedInput,
    ];

    /// The stable text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::YamlSyntax => "yaml-syntax",
            Self::YamlLimit => "yaml-limit",
            Self::YamlFeature => "yaml-feature",
            Self::DuplicateKey => "duplicate-key",
            Self::UnknownKey => "unknown-key",
            Self::WrongType => "wrong-type",
            Self::MissingKey => "missing-key",
            Self::BadName => "bad-name",
            Self::BadVersion => "bad-version",
            Self::BadValue => "bad-value",
            Self::BadPath => "bad-path",
            Self::BadGlob => "bad-glob",
            Self::UnknownTrigger => "unknown-trigger",
            Self::UnknownEventType => "unknown-event-type",
            Self::StepKind => "step-kind",
            Self::MisplacedKey => "misplaced-key",
            Self::UnknownStep => "unknown-step",
            Self::SelfNeed => "self-need",
            Self::CrossPhase => "cross-phase",
            Self::Cycle => "cycle",
            Self::UnknownPlugin => "unknown-plugin",
            Self::UnknownArgument => "unknown-argument",
            Self::MissingArgument => "missing-argument",
            Self::MissingInput => "missing-input",
            Self::ExpressionForbidden => "expression-forbidden",
            Self::ExpressionSyntax => "expression-syntax",
            Self::ExpressionType => "expression-type",
            Self::UnknownVariable => "unknown-variable",
            Self::UnknownFunction => "unknown-function",
            Self::UnknownField => "unknown-field",
            Self::UncertainField => "uncertain-field",
            Self::UnknownOutput => "unknown-output",
            Self::UnknownInput => "unknown-input",
            Self::UnknownAxis => "unknown-axis",
            Self::MatrixTooLarge => "matrix-too-large",
            Self::UnusedInput => "unused-input",
        }
    }

    /// What to do about it where nothing better is known: a diagnostic never leaves a person without a next step.
    fn usual_help(self) -> &'static str {
        match self {
            Self::YamlSyntax => "look at the indentation, quotes and brackets at this place and just before it",
            Self::YamlLimit => "make the file smaller, for example by splitting the workflow into several",
            Self::YamlFeature => "write it out with plain maps, lists and texts",
            Self::DuplicateKey => "keep one of the two, or give one another name",
            Self::UnknownKey => "take it away, or use a key that exists at this place",
            Self::WrongType => "write a value of the type that the message names",
            Self::MissingKey => "add the key",
            Self::BadName => "choose another name",
            Self::BadVersion => "write `version: 1`",
            Self::BadValue => "write a value that the message allows, or leave the key out",
            Self::BadPath => "write a path relative to the work folder, for example `out/model.bin`",
            Self::BadGlob => "write a glob such as `src/**/*.py`",
            Self::UnknownTrigger => "use a trigger that exists",
            Self::UnknownEventType => "use an event type that exists",
            Self::StepKind => "give the step exactly one of `run`, `image` with `command`, or `uses`",
            Self::MisplacedKey => "take it away, or move it to where it has a meaning",
            Self::UnknownStep => "name a step of this workflow",
            Self::SelfNeed => "take the step's own name out of its needs",
            Self::CrossPhase => "name a step of the same section",
            Self::Cycle => "take one of these needs away",
            Self::UnknownPlugin => "use a plugin that exists",
            Self::UnknownArgument => "take it away, or use an argument that the plugin has",
            Self::MissingArgument => "add the argument to `with`",
            Self::MissingInput => "give the input a `default`, or a value in the trigger's `with`",
            Self::ExpressionForbidden => "write the value itself",
            Self::ExpressionSyntax => "write it as CEL, for example `${{ inputs.rate }}`",
            Self::ExpressionType => "write an expression that gives what is needed, or convert its value",
            Self::UnknownVariable => "use a variable that can be read here",
            Self::UnknownFunction => "use a function that exists here",
            Self::UnknownField => "read a field that exists",
            Self::UncertainField => "make sure with `has(…)` that it is there",
            Self::UnknownOutput => "declare the output at the step, or read one that it declares",
            Self::UnknownInput => "declare it under `inputs`",
            Self::UnknownAxis => "declare it under the step's `matrix`",
            Self::MatrixTooLarge => "give its axes fewer values",
            Self::UnusedInput => "read it, or remove it",
        }
    }
}

/// Collects what is found in one source text.
pub(crate) struct Report<'s> {
    source: &'s str,
    line_starts: Vec<usize>,
    found: Vec<Diagnostic>,
}

impl<'s> Report<'s> {
    pub(crate) fn new(source: &'s str) -> Self {
        let line_starts = std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { source, line_starts, found: Vec::new() }
    }

    pub(crate) fn source(&self) -> &'s str {
        self.source
    }

    pub(crate) fn error(&mut self, code: Code, span: Range<usize>, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Severity::Error, code, span, message.into())
    }

    pub(crate) fn warning(&mut self, code: Code, span: Range<usize>, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Severity::Warning, code, span, message.into())
    }

    /// The one of `known` that was probably meant. A file with very many mistakes gets no more of it: comparing every name
    /// with every other is what a hostile file would want.
    pub(crate) fn meant<'k>(&self, written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
        if self.found.len() > SUGGESTIONS_UNTIL { None } else { nearest(written, known) }
    }

    /// Help that names the nearest of `known`, or all of them: `what` is their plural, for example `steps`.
    pub(crate) fn suggest<'k>(&self, written: &str, what: &str, known: impl IntoIterator<Item = &'k str>) -> String {
        if self.found.len() > SUGGESTIONS_UNTIL {
            return format!("use one of the {what} that exist");
        }
        let known: Vec<&str> = known.into_iter().collect();
        match nearest(written, known.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None if known.is_empty() => format!("there are no {what}"),
            None => format!("known {what}: {}", list(&known)),
        }
    }

    /// How much was found so far, to be compared with a later count.
    pub(crate) fn count(&self) -> usize {
        self.found.len()
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.found.iter().any(|d| d.severity == Severity::Error)
    }

    /// All that was found, by position. The same mistake is kept once: an alias leads to one place from many.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by(|a, b| {
            (a.span.start, a.severity, a.code, &a.message).cmp(&(b.span.start, b.severity, b.code, &b.message))
        });
        self.found.dedup_by(|a, b| a.span.start == b.span.start && a.code == b.code && a.message == b.message);
        self.found.truncate(MAX_DIAGNOSTICS);
        self.found
    }

    fn add(&mut self, severity: Severity, code: Code, span: Range<usize>, message: String) -> &mut Diagnostic {
        let start = floor_char_boundary(self.source, span.start);
        let end = floor_char_boundary(self.source, span.end.max(start));
        let line = self.line_starts.partition_point(|&at| at <= start).max(1) - 1;
        let column = self.source[self.line_starts[line]..start].chars().count() + 1;
        self.found.push(Diagnostic {
            code: code.as_str(),
            message,
            help: Some(code.usual_help().to_owned()),
            line: u32::try_from(line + 1).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
            span: start..end,
            severity,
        });
        self.found.last_mut().expect("a diagnostic was pushed on the line above")
    }
}

/// The name among `known` that was probably meant by `written`.
pub(crate) fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let lower = written.to_lowercase();
    let close = |name: &&str| {
        let name = name.to_lowercase();
        let longest = name.chars().count().max(lower.chars().count());
        strsim::damerau_levenshtein(&lower, &name) <= longest / NEAREST_DISTANCE_SHARE
            || strsim::jaro_winkler(&lower, &name) >= NEAREST_SIMILARITY
    };
    known.into_iter().filter(close).min_by_key(|name| strsim::damerau_levenshtein(&lower, &name.to_lowercase()))
}

/// Names as a readable list, cut where it would bury its message.
pub(crate) fn list(names: &[&str]) -> String {
    const MOST: usize = 30;
    let mut text = names.iter().take(MOST).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > MOST {
        text.push_str(", …");
    }
    text
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_words_with_dashes() {
        let mut texts: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert!(texts.iter().all(|text| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Code::ALL.len());
        assert_eq!(Code::ALL.last(), Some(&Code::UnusedInput));
        assert_eq!(Code::ALL.len(), Code::UnusedInput as usize + 1, "each variant is listed");
    }

    #[test]
    fn the_nearest_name_is_near() {
        let known = ["retry", "timeout", "resources", "needs"];
        assert_eq!(nearest("retires", known), Some("retry"));
        assert_eq!(nearest("TimeOut", known), Some("timeout"));
        assert_eq!(nearest("need", known), Some("needs"));
        assert_eq!(nearest("xyz", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn a_place_counts_characters_and_its_excerpt_is_the_line() {
        let source = "a: 1\r\nö: ü x\n";
        let mut report = Report::new(source);
        let at = source.find('x').expect("the source has an x");
        report.error(Code::BadValue, at..at + 1, "no");
        let found = report.finish();
        assert_eq!((found[0].line, found[0].column), (2, 6));
        assert_eq!(found[0].view("f", source).excerpt, "ö: ü x");
    }
}
