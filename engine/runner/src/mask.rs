//! Hiding secret values in the log, however they are cut into pieces.
//!
//! Every value is looked for, each line of one that has several, and its base64 form; what is shorter than
//! [`SHORTEST_BYTES`] is not, because it would black out ordinary text. One Knuth-Morris-Pratt automaton per pattern reads
//! the stream byte by byte. Its state is how much of the pattern the stream ends with, and the greatest state is exactly
//! how much has to be held back: usually nothing, so that a live log stays live, and never more than the longest pattern.
//! All occurrences count, overlapping ones too.
//!
//! This guards against accidents, not against a job that wants to show its secrets: it may write them backwards.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use kickwheel_schemas::sealed::Secrets;

/// Values and lines with fewer bytes are not looked for. Fewer held bytes than this tell little and may be shown when the
/// stream pauses; the rest of the value is hidden all the same when it comes.
pub const SHORTEST_BYTES: usize = 6;

/// Stands for a value, and for several that touch.
const MASK: &[u8] = b"***";

/// Reads a stream and gives it back with the values hidden.
#[derive(Debug, Default)]
pub struct Masker {
    patterns: Vec<Pattern>,
    /// What was read and not yet given back.
    held: Vec<u8>,
    /// Which of these bytes belong to a value.
    covered: Vec<bool>,
    /// Whether the last byte given back belongs to a value.
    masking: bool,
}

#[derive(Debug)]
struct Pattern {
    bytes: Vec<u8>,
    /// For each length of a matched beginning, the longest proper end of it that is a beginning too.
    fallback: Vec<usize>,
    matched: usize,
}

impl Masker {
    /// For these values.
    pub fn new(secrets: &Secrets) -> Self {
        let mut patterns = Vec::new();
        for (_, value) in secrets.iter() {
            let trimmed = value.trim_ascii_end();
            patterns.push(trimmed.to_vec());
            patterns.extend(value.split(|byte| *byte == b'\n').map(|line| line.trim_ascii().to_vec()));
            if trimmed.len() >= SHORTEST_BYTES {
                // The form of a value with something after it is the same up to the last whole group of three bytes.
                for part in [value, trimmed, &trimmed[..trimmed.len() / 3 * 3]] {
                    patterns.push(STANDARD_NO_PAD.encode(part).into_bytes());
                    patterns.push(URL_SAFE_NO_PAD.encode(part).into_bytes());
                }
            }
        }
        patterns.retain(|pattern| pattern.len() >= SHORTEST_BYTES);
        patterns.sort();
        patterns.dedup();
        Self { patterns: patterns.into_iter().map(Pattern::new).collect(), ..Self::default() }
    }

    /// Whether there is nothing to hide.
    pub fn is_idle(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether something is held back.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Reads on; what can be shown is added to `shown`.
    pub fn push(&mut self, chunk: &[u8], shown: &mut Vec<u8>) {
        let mut open = 0;
        for byte in chunk {
            self.held.push(*byte);
            self.covered.push(false);
            open = 0;
            for pattern in &mut self.patterns {
                if pattern.advance(*byte) {
                    let from = self.covered.len().saturating_sub(pattern.bytes.len());
                    self.covered[from..].fill(true);
                }
                open = open.max(pattern.matched);
            }
        }
        if !chunk.is_empty() {
            self.show(self.held.len().saturating_sub(open), shown);
        }
    }

    /// The stream pauses: shows what is held back if it is too short to tell anything.
    pub fn pause(&mut self, shown: &mut Vec<u8>) {
        if self.held.len() < SHORTEST_BYTES {
            self.show(self.held.len(), shown);
        }
    }

    /// The stream has ended. What looks like the beginning of a value stays hidden.
    pub fn finish(&mut self, shown: &mut Vec<u8>) {
        if self.held.len() >= SHORTEST_BYTES {
            self.covered.fill(true);
        }
        self.show(self.held.len(), shown);
    }

    fn show(&mut self, count: usize, shown: &mut Vec<u8>) {
        for (byte, covered) in self.held.drain(..count).zip(self.covered.drain(..count)) {
            if !covered {
                shown.push(byte);
            } else if !self.masking {
                shown.extend_from_slice(MASK);
            }
            self.masking = covered;
        }
    }
}

impl Pattern {
    fn new(bytes: Vec<u8>) -> Self {
        let mut fallback = vec![0; bytes.len() + 1];
        let mut length = 0;
        for position in 1..bytes.len() {
            while length > 0 && bytes[position] != bytes[length] {
                length = fallback[length];
            }
            if bytes[position] == bytes[length] {
                length += 1;
            }
            fallback[position + 1] = length;
        }
        Self { bytes, fallback, matched: 0 }
    }

    /// Reads one byte; whether the stream now ends with the pattern. `matched` is then what another occurrence could
    /// already have begun with.
    fn advance(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.fallback[self.matched];
        }
        if self.bytes[self.matched] == byte {
            self.matched += 1;
        }
        let complete = self.matched == self.bytes.len();
        if complete {
            self.matched = self.fallback[self.matched];
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masker(values: &[&[u8]]) -> Masker {
        Masker::new(&values.iter().enumerate().map(|(index, value)| (index.to_string(), *value)).collect())
    }

    fn check(values: &[&str], text: &str, expected: &str) {
        let values: Vec<_> = values.iter().map(|value| value.as_bytes()).collect();
        // In one piece, and byte by byte.
        for size in [text.len(), 1] {
            let (mut masker, mut shown) = (masker(&values), Vec::new());
            text.as_bytes().chunks(size).for_each(|chunk| masker.push(chunk, &mut shown));
            masker.finish(&mut shown);
            assert_eq!(String::from_utf8_lossy(&shown), expected, "{values:?} in pieces of {size}");
        }
    }

    #[test]
    fn values_lines_and_base64_are_hidden() {
        check(&["hunter22"], "it is hunter22.", "it is ***.");
        check(&["hunter22\n"], "it is hunter22.", "it is ***.");
        check(&["hunter22"], "hunter2 hunter22hunter22", "hunter2 ***");
        check(&["first line\nsecond line"], "second line, first line", "***, ***");
        check(&["hunter22"], "aHVudGVyMjI= and with an end of line aHVudGVyMjIK", "***= and with an end of line ***K");
        check(&["short"], "short", "short");
        check(&["abcdef", "defghi"], "-abcdefghi-", "-***-");
        check(&["aabaab"], "aabaabaab", "***");
    }

    #[test]
    fn only_what_may_become_a_value_is_held_back() {
        let (mut masker, mut shown) = (masker(&[b"hunter22"]), Vec::new());
        masker.push(b"plain text, then hun", &mut shown);
        assert_eq!(shown, b"plain text, then ");
        // Three bytes tell nothing, and the rest is hidden when it comes.
        masker.pause(&mut shown);
        masker.push(b"ter22!", &mut shown);
        assert_eq!(shown, b"plain text, then hun***!");
        shown.clear();
        masker.push(b"hunter2", &mut shown);
        masker.pause(&mut shown);
        assert!(shown.is_empty() && masker.is_holding(), "seven of eight bytes tell much");
        masker.finish(&mut shown);
        assert_eq!(shown, b"***");
    }

    fn letters(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(proptest::sample::select(b"abc\n".to_vec()), length)
    }

    proptest! {
        #[test]
        fn no_split_and_no_pause_shows_a_value(
            values in proptest::collection::vec(letters(6..12), 1..4),
            parts in proptest::collection::vec((letters(0..12), any::<prop::sample::Index>()), 1..12),
            cuts in proptest::collection::vec((1_usize..9, any::<bool>()), 1..40),
        ) {
            let mut text = Vec::new();
            for (noise, index) in &parts {
                text.extend_from_slice(noise);
                let value: &Vec<u8> = index.get(&values);
                text.extend_from_slice(value);
            }
            let borrowed: Vec<_> = values.iter().map(Vec::as_slice).collect();
            let run = |pauses: bool| {
                let (mut masker, mut shown, mut rest) = (masker(&borrowed), Vec::new(), text.as_slice());
                for (size, pause) in cuts.iter().cycle() {
                    if rest.is_empty() {
                        break;
                    }
                    let (chunk, after) = rest.split_at((*size).min(rest.len()));
                    masker.push(chunk, &mut shown);
                    if pauses && *pause {
                        masker.pause(&mut shown);
                    }
                    rest = after;
                }
                masker.finish(&mut shown);
                shown
            };
            let (split, paused) = (run(false), run(true));
            for value in &borrowed {
                let value = value.trim_ascii_end();
                if value.len() >= SHORTEST_BYTES {
                    for shown in [&split, &paused] {
                        prop_assert!(!shown.windows(value.len()).any(|window| window == value), "{:?}", shown);
                    }
                }
            }
            // Where the text is cut makes no difference.
            let (mut whole, mut shown) = (masker(&borrowed), Vec::new());
            whole.push(&text, &mut shown);
            whole.finish(&mut shown);
            prop_assert_eq!(shown, split);
        }

        #[test]
        fn text_without_values_passes_unchanged(text in "[A-Z \n]{0,200}", size in 1_usize..50) {
            let (mut masker, mut shown) = (masker(&[b"hunter22", b"abcdefg"]), Vec::new());
            for chunk in text.as_bytes().chunks(size) {
                masker.push(chunk, &mut shown);
            }
            masker.finish(&mut shown);
            prop_assert_eq!(shown, text.into_bytes());
        }
    }
}
