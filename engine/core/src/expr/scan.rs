//! Reading CEL source only as far as needed to know where its strings, brackets and end are.
//!
//! Two callers need that before, or without, parsing: the limit on nesting, and the search for the `}}` of a template.

/// One thing of the source that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// `(`, `[` or `{`.
    Open,
    /// `)`, `]` or `}`.
    Close(u8),
    /// A whole string literal, or any other byte.
    Other,
}

/// The token at `at`, and where the next one begins. A string that does not end reaches to the end.
pub(super) fn token(source: &[u8], at: usize) -> (Token, usize) {
    match source[at] {
        b'(' | b'[' | b'{' => (Token::Open, at + 1),
        close @ (b')' | b']' | b'}') => (Token::Close(close), at + 1),
        b'"' | b'\'' => (Token::Other, string_end(source, at)),
        _ => (Token::Other, at + 1),
    }
}

/// How deep brackets nest.
pub(super) fn bracket_depth(source: &str) -> usize {
    let source = source.as_bytes();
    let (mut at, mut depth, mut deepest) = (0, 0_usize, 0);
    while at < source.len() {
        let (token, next) = token(source, at);
        match token {
            Token::Open => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            Token::Close(_) => depth = depth.saturating_sub(1),
            Token::Other => {}
        }
        at = next;
    }
    deepest
}

/// The end of the string literal whose opening quote is at `at`: single or triple, raw if `r` stands before it.
fn string_end(source: &[u8], at: usize) -> usize {
    let quote = source[at];
    let triple = source[at..].starts_with(&[quote; 3]);
    let raw = is_raw(source, at);
    let mut next = at + if triple { 3 } else { 1 };
    while next < source.len() {
        match source[next] {
            b'\\' if !raw => next += 2,
            byte if byte == quote && !triple => return next + 1,
            byte if byte == quote && source[next..].starts_with(&[quote; 3]) => return next + 3,
            _ => next += 1,
        }
    }
    source.len()
}

/// Whether the quote at `at` has a prefix with `r`: `r`, `br` or `rb`, and not the end of a longer name.
fn is_raw(source: &[u8], at: usize) -> bool {
    let name_byte = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
    let prefix_len = source[..at].iter().rev().take_while(name_byte).count();
    let prefix = source[at - prefix_len..at].to_ascii_lowercase();
    matches!(prefix.as_slice(), b"r" | b"br" | b"rb")
}
