//! What reaches the terminal: colours when somebody looks, tables, and JSON as the API gave it.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};

use crate::{
    args::Global,
    exit::{Exit, Failure},
};

/// How to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// JSON rather than text.
    pub json: bool,
    /// Colours are wanted and stdout shows them.
    pub color: bool,
    /// stdout is a terminal.
    pub terminal: bool,
}

impl Look {
    /// From the options, the environment and what stdout is.
    pub fn of(global: &Global) -> Self {
        let terminal = io::stdout().is_terminal();
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let no_color = global.no_color || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self { json: global.json, color: terminal && !dumb && !no_color, terminal }
    }

    /// Plain text, as in a file; for tests and logs.
    pub const PLAIN: Self = Self { json: false, color: false, terminal: false };

    /// `text` in a colour, if there are colours.
    pub fn paint(self, paint: Paint, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Good => "32",
            Paint::Bad => "31",
            Paint::Busy => "36",
            Paint::Careful => "33",
            Paint::Quiet => "2",
            Paint::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// `text` in the colour of a state.
    pub fn state(self, state: &str) -> String {
        Paint::of(state).map_or_else(|| state.to_owned(), |paint| self.paint(paint, state))
    }
}

/// What a colour means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// It worked.
    Good,
    /// It failed.
    Bad,
    /// It is going on.
    Busy,
    /// It waits or deserves a look.
    Careful,
    /// It matters less.
    Quiet,
    /// It matters more.
    Strong,
}

impl Paint {
    /// The colour of a state, whatever it is the state of. Unknown words have none: they come from a newer server.
    pub fn of(state: &str) -> Option<Self> {
        match state {
            "succeeded" | "ok" | "active" | "decided" | "started" | "hit" | "watched" => Some(Self::Good),
            "failed" | "broken" | "quarantined" | "unreachable" | "unreadable" => Some(Self::Bad),
            "running" => Some(Self::Busy),
            "waiting" | "queued" | "backoff" | "paused" | "warning" | "undecided" | "draining" | "ready" | "miss" => {
                Some(Self::Careful)
            }
            "cancelled" | "skipped" | "filtered" | "duplicate" | "off" => Some(Self::Quiet),
            _ => None,
        }
    }
}

/// Rows below headings; cells under `STATE`, `RESULT` and `DECISION` have their state's colour.
pub fn table(look: Look, headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    // Only a terminal has a width to fit into; in a file or a pipe a row stays on one line.
    table.set_content_arrangement(if look.terminal {
        ContentArrangement::Dynamic
    } else {
        ContentArrangement::Disabled
    });
    if look.color {
        table.enforce_styling()
    } else {
        table.force_no_tty()
    };
    table.set_header(headings.iter().map(|h| Cell::new(h).add_attribute(comfy_table::Attribute::Bold)));
    for row in rows {
        let cells = row.into_iter().enumerate().map(|(at, text)| {
            let stateful = matches!(headings.get(at), Some(&("STATE" | "RESULT" | "DECISION")));
            match Paint::of(&text).filter(|_| stateful) {
                Some(paint) => Cell::new(text).fg(foreground(paint)),
                None => Cell::new(text),
            }
        });
        table.add_row(cells);
    }
    table.trim_fmt()
}

fn foreground(paint: Paint) -> Color {
    match paint {
        Paint::Good => Color::DarkGreen,
        Paint::Bad => Color::DarkRed,
        Paint::Busy => Color::DarkCyan,
        Paint::Careful => Color::DarkYellow,
        Paint::Quiet => Color::DarkGrey,
        Paint::Strong => Color::Reset,
    }
}

/// Writes a text and a line end to stdout. A reader that has gone (`| head`) is no failure.
pub fn say(text: impl AsRef<str>) -> Result<(), Failure> {
    let text = text.as_ref().trim_end_matches('\n');
    bytes(text.as_bytes())?;
    bytes(b"\n")
}

/// Writes bytes to stdout as they are.
pub fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(i32::from(Exit::Ok.code())),
        Err(e) => Err(Failure::new(Exit::Refused, "stdout", format!("cannot write the output: {e}"))),
        Ok(()) => Ok(()),
    }
}

/// A listing: the API's JSON, or a table; `none` when there is nothing.
pub fn listing(look: Look, raw: &str, headings: &[&str], rows: Vec<Vec<String>>, none: &str) -> Result<Exit, Failure> {
    if look.json {
        say(raw)?;
    } else if rows.is_empty() {
        // On stderr, so that a script that counts lines counts none.
        eprintln!("{none}");
    } else {
        say(table(look, headings, rows))?;
    }
    Ok(Exit::Ok)
}

/// The first characters of an id: enough to type, and unique in practice.
pub fn short(id: &str) -> String {
    id.chars().take(SHORT_ID).collect()
}

/// Ids begin with 48 bits of milliseconds; these 18 characters (with two hyphens) hold them and 12 random bits and more.
const SHORT_ID: usize = 18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_without_terminal_has_no_escapes_and_keeps_rows_on_one_line() {
        let wide = "x".repeat(300);
        let text = table(Look::PLAIN, &["ID", "STATE"], [vec![wide.clone(), "failed".to_owned()]]);
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\x1b') && text.contains(&wide));
    }

    #[test]
    fn a_state_is_painted_only_where_colours_are_shown() {
        assert_eq!(Look::PLAIN.state("failed"), "failed");
        let color = Look { color: true, ..Look::PLAIN };
        assert_eq!(color.state("failed"), "\x1b[31mfailed\x1b[0m");
        assert_eq!(color.state("a word of a newer server"), "a word of a newer server");
    }
}
