//! What a person sees: errors, colour, tables. Colour only on a terminal, and not where `NO_COLOR` is set
//! (<https://no-color.org>).

mod cause;
mod clock;
mod deploys;
mod live;
mod log;
mod progress;
mod promotions;
mod style;

use std::{
    env, fmt,
    io::{self, IsTerminal as _, Write as _},
};

pub use self::{
    cause::{causes, is_told, news, once},
    clock::{time, time_of},
    deploys::{age, boxes, counts, halt, headline, outcome, zones},
    live::Live,
    log::DeployLog,
    progress::{progress, progress_words},
    promotions::{promotion, promotion_waits},
    style::{Cell, Paint, Style, drop_empty_column},
};

/// One line that names the thing and the next act, then its causes, indented.
pub fn print_error(error: &anyhow::Error) {
    // Nothing is left to do when stderr is closed.
    let _ = io::stderr().lock().write_all(error_text(error).as_bytes());
}

fn error_text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for (depth, cause) in error.chain().enumerate() {
        let cause = printable(&cause.to_string());
        for (line, content) in cause.lines().filter(|line| !line.trim().is_empty()).enumerate() {
            text.push_str(match (depth, line) {
                (0, 0) => "deployctl: ",
                (_, 0) => "  ",
                _ => "    ",
            });
            text.push_str(content);
            text.push('\n');
        }
    }
    text
}

/// Prints lines on stdout. Fails with `BrokenPipe` when the reader has closed the pipe.
pub fn print<T: fmt::Display>(lines: impl IntoIterator<Item = T>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    lines.into_iter().try_for_each(|line| writeln!(stdout, "{line}"))?;
    stdout.flush()
}

/// `text` without control characters other than newlines, and without those that change the direction of writing: it may
/// come from a container, and colours, a moved cursor or a reordered line would be its doing.
#[must_use]
pub fn printable(text: &str) -> String {
    let kept = |c: &char| *c == '\n' || !(c.is_control() || is_direction(*c));
    text.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(kept).collect()
}

/// Whether a character changes the direction of writing ([UAX #9](https://www.unicode.org/reports/tr9/), 2.1 to 2.6).
fn is_direction(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// [`printable`] text in one line, without runs of spaces.
#[must_use]
pub fn one_line(text: &str) -> String {
    printable(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether stdout may be coloured and redrawn.
#[must_use]
pub fn is_terminal() -> bool {
    io::stdout().is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn causes_are_indented_below_their_error() {
        let error =
            anyhow!("exit code 1\n\n\u{1b}[31mno space left").context("docker pull").context("app cannot start");
        assert_eq!(
            error_text(&error),
            "deployctl: app cannot start\n  docker pull\n  exit code 1\n    [31mno space left\n"
        );
    }
}
