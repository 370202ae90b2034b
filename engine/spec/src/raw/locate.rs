//! Where each character of a text stands in the file.
//!
//! Quoting, escapes, folding and indentation make a text differ from its bytes. The two are aligned by walking them
//! side by side: what YAML changes is only white space and escapes, so every other character is met in order. A mistake
//! in white space puts a marker a few columns off, never on another word.

use std::ops::Range;

use serde_saphyr::granit_parser::ScalarStyle;

/// For every byte of a text the bytes of the file that its character is written with.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// Start and end, relative to the scalar. A file is far smaller than 4 GiB.
    of_byte: Vec<(u32, u32)>,
    /// Where the text has ended.
    end: u32,
}

impl Places {
    /// Aligns `text` with `written`, the scalar as it stands in the file.
    pub fn of(written: &str, style: ScalarStyle, text: &str) -> Self {
        let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
        let mut walk = Walk { written, at: usize::from(quoted).min(written.len()), style };
        let mut of_byte = Vec::with_capacity(text.len());
        for wanted in text.chars() {
            let found = walk.find(wanted);
            let place = (found.start as u32, found.end as u32);
            of_byte.extend(std::iter::repeat_n(place, wanted.len_utf8()));
        }
        Self { of_byte, end: walk.at as u32 }
    }

    /// The bytes, relative to the scalar, that hold `range` of the text. A place between two characters is empty.
    pub fn span(&self, range: Range<usize>) -> Range<usize> {
        let start = self.of_byte.get(range.start).map_or(self.end, |place| place.0) as usize;
        if range.is_empty() {
            return start..start;
        }
        let end = self.of_byte.get(range.end - 1).map_or(self.end, |place| place.1) as usize;
        start..end.max(start)
    }
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
