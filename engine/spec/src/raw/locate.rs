//! Where a piece of a text stands in the file.
//!
//! Quoting, escapes, folding and indentation make a text differ from its bytes. The two are aligned by walking them
//! side by side: what YAML changes is only white space and escapes, so every other character is met in order. A mistake
//! in white space puts a marker a few columns off, never on another word.

use std::ops::Range;

use serde_saphyr::granit_parser::ScalarStyle;

/// The bytes of `source` that hold `range` of `text`, whose scalar stands at `span`.
pub(super) fn span(
    source: &str,
    span: &Range<usize>,
    style: ScalarStyle,
    text: &str,
    range: Range<usize>,
) -> Range<usize> {
    let Some(written) = source.get(span.clone()) else { return span.clone() };
    let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
    let mut walk = Walk { written, at: usize::from(quoted), style };
    let mut start = None;
    for (offset, wanted) in text.char_indices() {
        let found = walk.find(wanted);
        if offset >= range.start && start.is_none() {
            start = Some(span.start + found.start);
        }
        if offset + wanted.len_utf8() >= range.end.max(range.start + 1) {
            let end = span.start + found.end;
            let start = start.unwrap_or(span.start);
            // A place between two characters is empty in the file, too.
            return if range.is_empty() { start..start } else { start..end.max(start) };
        }
    }
    // The end of the text, where a parser that wants more of it points.
    let end = span.start + walk.at.min(written.len());
    start.unwrap_or(end)..end
}

struct Walk<'s> {
    written: &'s str,
    at: usize,
    style: ScalarStyle,
}

impl Walk<'_> {
    /// The written form of the next character.
    fn find(&mut self, wanted: char) -> Range<usize> {
        loop {
            let rest = &self.written[self.at..];
            let Some(next) = rest.chars().next() else { return self.at..self.at };
            if next == '\\' && self.style == ScalarStyle::DoubleQuoted {
                match escape_length(rest) {
                    Escape::Character(length) => return self.step(length),
                    Escape::LineBreak(length) => {
                        self.step(length);
                        continue;
                    }
                }
            }
            if next == '\'' && self.style == ScalarStyle::SingleQuoted {
                return self.step(2);
            }
            if next == wanted {
                return self.step(next.len_utf8());
            }
            if !next.is_whitespace() {
                // A line break that was folded into `wanted` has been passed: it stands before this word.
                return self.at..self.at;
            }
            self.step(next.len_utf8());
        }
    }

    fn step(&mut self, bytes: usize) -> Range<usize> {
        let start = self.at;
        let mut end = (start + bytes).min(self.written.len());
        while !self.written.is_char_boundary(end) {
            end += 1;
        }
        self.at = end;
        start..end
    }
}

enum Escape {
    Character(usize),
    LineBreak(usize),
}

/// Length in bytes of the escape that `rest` begins with (YAML 1.2, section 5.7).
fn escape_length(rest: &str) -> Escape {
    match rest[1..].chars().next() {
        Some('x') => Escape::Character(4),
        Some('u') => Escape::Character(6),
        Some('U') => Escape::Character(10),
        Some('\n' | '\r') => Escape::LineBreak(2),
        Some(other) => Escape::Character(1 + other.len_utf8()),
        None => Escape::Character(1),
    }
}
