//! What a person sees on standard error: lines, and while pages are written a bar on a terminal.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// Without a terminal, at most this many lines tell of the pages.
const LINES: usize = 10;

/// Writes a line to standard error. Nobody there to read it is no reason to stop.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The pages being written.
#[derive(Debug)]
pub struct PageProgress {
    bar: Option<ProgressBar>,
    pages: usize,
    written: usize,
}

impl PageProgress {
    /// Starts with nothing written.
    pub fn new(pages: usize) -> Self {
        Self::on_terminal(pages).unwrap_or(Self {
            bar: None,
            pages,
            written: 0,
        })
    }

    /// The same, where there is a terminal. A log takes no lines of ours.
    pub fn on_terminal(pages: usize) -> Option<Self> {
        io::stderr().is_terminal().then(|| Self {
            bar: Some(ProgressBar::new(pages as u64).with_style(style())),
            pages,
            written: 0,
        })
    }

    /// One more page is in Redis.
    pub fn wrote_page(&mut self) {
        self.written += 1;
        match &self.bar {
            Some(bar) => bar.inc(1),
            None if self.is_worth_a_line() => {
                say(&format!("wrote page {} of {}", self.written, self.pages));
            }
            None => (),
        }
    }

    fn is_worth_a_line(&self) -> bool {
        let step = self.pages.div_ceil(LINES).max(1);
        self.written.is_multiple_of(step) || self.written == self.pages
    }
}

impl Drop for PageProgress {
    /// However it ended, a line takes the place of the bar.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            say(&format!("wrote {} of {} pages", self.written, self.pages));
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("writing pages [{bar:40}] {pos}/{len} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
