//! Lines that are drawn again in their place.

use std::io::{self, Write as _};

use super::style::cut;

/// A part of the terminal, at the cursor, that is drawn again and again.
#[derive(Debug, Default)]
pub struct Live {
    drawn: usize,
}

/// How many lines and columns a terminal has that does not say so.
const USUAL: (usize, usize) = (24, 80);

impl Live {
    /// Lines and columns of the terminal.
    #[must_use]
    pub fn size() -> (usize, usize) {
        match rustix::termios::tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
            _ => USUAL,
        }
    }

    /// Draws `lines` over those that were drawn before.
    pub fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        let (height, width) = Self::size();
        let lines = &lines[..lines.len().min(height.saturating_sub(1))];
        let text = redrawn(self.drawn, lines, width);
        self.drawn = lines.len();
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    /// Takes away what was drawn.
    pub fn clear(&mut self) -> io::Result<()> {
        self.draw(&[])
    }
}

/// Up to the first line drawn, clear what is below, draw. One text, so that it is one write and does not flicker.
fn redrawn(drawn: usize, lines: &[String], width: usize) -> String {
    let mut text = if drawn > 0 { format!("\u{1b}[{drawn}A\r") } else { String::new() };
    text.push_str("\u{1b}[J");
    for line in lines {
        text.push_str(&cut(line, width));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_drawn_over_those_before() {
        let lines = ["a".to_owned(), "b".to_owned()];
        assert_eq!(redrawn(0, &lines, 80), "\u{1b}[Ja\nb\n");
        assert_eq!(redrawn(2, &lines[..1], 80), "\u{1b}[2A\r\u{1b}[Ja\n");
    }
}
