//! Draws frames in place on a terminal.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Lines that are left free for what else the terminal shows.
const FREE_ROWS: usize = 2;
/// Height of a terminal that does not tell.
const DEFAULT_ROWS: usize = 24;

/// A block of lines at the bottom of the terminal.
pub struct Block {
    all: MultiProgress,
    lines: Vec<ProgressBar>,
    style: ProgressStyle,
}

impl Block {
    /// An empty block on stdout.
    pub fn new() -> Self {
        Self {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stdout()),
            lines: Vec::new(),
            style: ProgressStyle::with_template("{wide_msg}").expect("the template is a constant"),
        }
    }

    /// How many lines there is room for now.
    pub fn rows() -> usize {
        let rows = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(0, |size| usize::from(size.ws_row));
        if rows == 0 { DEFAULT_ROWS } else { rows.saturating_sub(FREE_ROWS).max(1) }
    }

    /// Replaces what is drawn.
    pub fn draw(&mut self, lines: Vec<String>) {
        while self.lines.len() > lines.len() {
            if let Some(line) = self.lines.pop() {
                self.all.remove(&line);
            }
        }
        for (at, text) in lines.into_iter().enumerate() {
            if at == self.lines.len() {
                let line = ProgressBar::no_length().with_style(self.style.clone());
                self.lines.push(self.all.add(line));
            }
            self.lines[at].set_message(text);
            self.lines[at].tick();
        }
    }

    /// Leaves what is drawn as it is; what follows is printed below.
    pub fn finish(self) {
        for line in &self.lines {
            line.abandon();
        }
    }
}

impl Default for Block {
    fn default() -> Self {
        Self::new()
    }
}
