//! YAML as a tree in which every value knows its bytes.
//!
//! The tree is generic on purpose: deserialising into structs stops at the first mistake, and we report all of them. The
//! parser's events are turned into [`Node`]s here and nowhere else; which plain text is a number is decided in
//! [`scalar`], and where a piece of a text stands in the file in [`locate`].
//!
//! Left out of YAML: tags other than `!!str`, merge keys, keys that are not scalars, more than one document. A file is
//! refused when it is larger, deeper, or expands (through aliases) to more than the limits below: a bomb gives one
//! quick error.

mod locate;
mod scalar;

use std::{cell::OnceCell, collections::HashMap, ops::Range};

use locate::Places;
use serde_json::Value;
use serde_saphyr::granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span, Tag};

use crate::diagnostic::{Code, Report};

/// Largest workflow file, in bytes.
pub(crate) const MAX_FILE_BYTES: usize = 512 * 1024;
/// Deepest nesting of maps and lists, aliases expanded.
pub(crate) const MAX_DEPTH: usize = 64;
/// Most values in a file, aliases expanded.
pub(crate) const MAX_NODES: usize = 50_000;
/// Most values that aliases may add.
pub(crate) const MAX_ALIASED_NODES: usize = 10_000;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Bytes of the source. An absent value (`key:`) has its key's; a block's span is where it begins.
    pub span: Range<usize>,
    pub kind: Kind,
    /// Values in it, itself included.
    size: usize,
    /// Levels of nesting in it, itself included.
    height: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Text),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A text, and how it was written: that is needed to find a character of it again in the file.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub value: String,
    style: ScalarStyle,
    /// Computed when the first mistake in it is found, and kept: a text may hold thousands.
    places: OnceCell<Places>,
}

/// A key and its value. Keys are taken as they were written: `1:` is the text `1`.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub key_span: Range<usize>,
    pub value: Node,
}

impl Node {
    /// What it is, with an article, for messages.
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Int(_) => "a whole number",
            Kind::Float(_) => "a number",
            Kind::Text(_) => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(&text.value),
            Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Null)
    }

    /// As JSON, texts as they stand.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Int(value) => Value::from(*value),
            Kind::Float(value) => Value::from(*value),
            Kind::Text(text) => Value::String(text.value.clone()),
            Kind::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Kind::Map(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect())
            }
        }
    }

    /// The bytes of the source that hold `range` of this text.
    pub fn span_within(&self, source: &str, range: Range<usize>) -> Range<usize> {
        match &self.kind {
            Kind::Text(text) => {
                let written = source.get(self.span.clone()).unwrap_or_default();
                let span = text.places.get_or_init(|| Places::of(written, text.style, &text.value)).span(range);
                self.span.start + span.start..self.span.start + span.end
            }
            Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::List(_) | Kind::Map(_) => {
                self.span.clone()
            }
        }
    }

    fn leaf(span: Range<usize>, kind: Kind) -> Self {
        Self { span, kind, size: 1, height: 1 }
    }
}

/// The tree of a file; nothing after an error that leaves none.
pub(crate) fn parse(report: &mut Report<'_>) -> Option<Node> {
    let source = report.source();
    if source.len() > MAX_FILE_BYTES {
        report
            .error(Code::YamlLimit, 0..0, format!("the file has {} bytes, the limit is {MAX_FILE_BYTES}", source.len()))
            .help("move scripts and data into files of the repository");
        return None;
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(source) {
        match event {
            Ok((event, span)) => {
                if let Err(Stop) = builder.take(event, &span, report) {
                    return None;
                }
            }
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or(source.len());
                if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
                    too_deep(at..at, report);
                } else {
                    report.error(Code::YamlSyntax, at..at, format!("this is not YAML: {}", error.info()));
                }
                return None;
            }
        }
    }
    if builder.root.is_none() {
        report
            .error(Code::YamlSyntax, 0..0, "the file is empty")
            .help("a workflow begins with `version: 1`, `name:` and `steps:`");
    }
    builder.root
}

/// The tree cannot be built; what is wrong has been reported.
struct Stop;

/// A map or list whose end has not come.
struct Open {
    span: Range<usize>,
    anchor: usize,
    content: Content,
    size: usize,
    height: usize,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        positions: HashMap<String, Range<usize>>,
        /// The key whose value comes next.
        key: Option<(String, Range<usize>)>,
    },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    anchored: usize,
    aliased: usize,
    documents: usize,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: &Span, report: &mut Report<'_>) -> Result<(), Stop> {
        let bytes = bytes(span, report.source());
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    report
                        .error(Code::YamlFeature, bytes, "a second document begins here; a file holds one workflow")
                        .help("put each workflow into a file of its own");
                    return Err(Stop);
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let node = scalar_node(&text, style, tag.as_deref(), bytes, report);
                self.remember(anchor, &node, report)?;
                self.add(node, report)
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), &bytes, report);
                self.begin(bytes, anchor, Content::List(Vec::new()), report)
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), &bytes, report);
                let content = Content::Map { entries: Vec::new(), positions: HashMap::new(), key: None };
                self.begin(bytes, anchor, content, report)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(report),
            Event::Alias(anchor) => self.alias(anchor, bytes, report),
            // Where the stream and its documents end, comments, and events that we never ask for. The enum is the parser's
            // and open.
            _ => Ok(()),
        }
    }

    fn begin(
        &mut self,
        span: Range<usize>,
        anchor: usize,
        content: Content,
        report: &mut Report<'_>,
    ) -> Result<(), Stop> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(span, report));
        }
        self.open.push(Open { span, anchor, content, size: 1, height: 1 });
        Ok(())
    }

    fn end(&mut self, report: &mut Report<'_>) -> Result<(), Stop> {
        let open = self.open.pop().expect("the parser ends only what it began");
        let kind = match open.content {
            Content::List(items) => Kind::List(items),
            Content::Map { entries, .. } => Kind::Map(entries),
        };
        let node = Node { span: open.span, kind, size: open.size, height: open.height };
        self.remember(open.anchor, &node, report)?;
        self.add(node, report)
    }

    /// Keeps a copy of what an anchor names. Copies count: anchors inside of anchors would multiply them.
    fn remember(&mut self, anchor: usize, node: &Node, report: &mut Report<'_>) -> Result<(), Stop> {
        if anchor == 0 {
            return Ok(());
        }
        self.anchored += node.size;
        if self.anchored > MAX_NODES {
            let message = format!("anchors name more than {MAX_NODES} values; write out what is needed");
            report.error(Code::YamlLimit, node.span.clone(), message);
            return Err(Stop);
        }
        self.anchors.insert(anchor, node.clone());
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Range<usize>, report: &mut Report<'_>) -> Result<(), Stop> {
        let Some(node) = self.anchors.get(&anchor) else {
            report.error(Code::YamlFeature, span, "this alias stands inside of what it refers to");
            return Err(Stop);
        };
        self.aliased += node.size;
        if self.aliased > MAX_ALIASED_NODES {
            report.error(
                Code::YamlLimit,
                span,
                format!("aliases expand to more than {MAX_ALIASED_NODES} values; write out what is needed"),
            );
            return Err(Stop);
        }
        if self.open.len() + node.height > MAX_DEPTH {
            return Err(too_deep(span, report));
        }
        let node = node.clone();
        self.add(node, report)
    }

    /// Puts a finished value where it belongs: a key, a key's value, a list's item or the document itself.
    fn add(&mut self, node: Node, report: &mut Report<'_>) -> Result<(), Stop> {
        self.nodes += 1;
        if self.nodes + self.aliased > MAX_NODES {
            report.error(Code::YamlLimit, node.span, format!("the file has more than {MAX_NODES} values"));
            return Err(Stop);
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.size += node.size;
        parent.height = parent.height.max(node.height + 1);
        match &mut parent.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, positions, key } => match key.take() {
                None => *key = Some(key_of(node, report)?),
                Some((name, key_span)) => {
                    if let Some(first) = positions.get(&name) {
                        let line = report.source()[..first.start].matches('\n').count() + 1;
                        report
                            .error(
                                Code::DuplicateKey,
                                key_span,
                                format!("the key `{name}` is already given in line {line}"),
                            )
                            .help("keep one of the two");
                        return Ok(());
                    }
                    positions.insert(name.clone(), key_span.clone());
                    let value = if node.span.is_empty() && node.is_null() {
                        Node { span: key_span.clone(), ..node }
                    } else {
                        node
                    };
                    entries.push(Entry { key: name, key_span, value });
                }
            },
        }
        Ok(())
    }
}

fn too_deep(span: Range<usize>, report: &mut Report<'_>) -> Stop {
    report.error(Code::YamlLimit, span, format!("values are nested more than {MAX_DEPTH} levels deep"));
    Stop
}

fn key_of(node: Node, report: &mut Report<'_>) -> Result<(String, Range<usize>), Stop> {
    let name = match &node.kind {
        Kind::Text(text) => text.value.clone(),
        Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) => {
            report.source().get(node.span.clone()).unwrap_or_default().trim().to_owned()
        }
        Kind::List(_) | Kind::Map(_) => {
            let message = format!("a key must be a text, but this is {}", node.describe());
            report.error(Code::YamlFeature, node.span, message);
            return Err(Stop);
        }
    };
    if name == "<<" {
        report
            .error(Code::YamlFeature, node.span.clone(), "merge keys (`<<`) are not part of the workflow language")
            .help("refer to a whole value with an alias, or write the keys out");
    }
    Ok((name, node.span))
}

fn scalar_node(text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Range<usize>, report: &mut Report<'_>) -> Node {
    let is_text = match tag {
        Some(tag) if tag.core_suffix() == Some("str") => true,
        tag => {
            refuse_tag(tag, &span, report);
            style != ScalarStyle::Plain
        }
    };
    let as_text = || Kind::Text(Text { value: text.to_owned(), style, places: OnceCell::new() });
    let kind = if is_text {
        as_text()
    } else {
        match scalar::resolve(text) {
            Ok(Some(kind)) => kind,
            Ok(None) => as_text(),
            Err(message) => {
                report.error(Code::BadValue, span.clone(), message).help("quote it if it is meant as a text");
                Kind::Int(0)
            }
        }
    };
    Node::leaf(span, kind)
}

fn refuse_tag(tag: Option<&Tag>, span: &Range<usize>, report: &mut Report<'_>) {
    if let Some(tag) = tag {
        report
            .error(
                Code::YamlFeature,
                span.clone(),
                format!("the tag `{}{}` is not part of the workflow language", tag.original_handle(), tag.suffix()),
            )
            .help("leave the tag out; `!!str` is the only one that is known");
    }
}

fn bytes(span: &Span, source: &str) -> Range<usize> {
    // The parser knows byte offsets for every text that is given as a whole, as ours is.
    let start = span.start.byte_offset().unwrap_or(0).min(source.len());
    let end = span.end.byte_offset().unwrap_or(start).clamp(start, source.len());
    start..end
}

#[cfg(test)]
mod tests;
