//! Colour, and tables whose columns line up with and without it.

use std::{cmp::Ordering, env, fmt::Display};

use super::{Live, is_terminal};

/// What a text looks like on a terminal ([ECMA-48](https://ecma-international.org/publications-and-standards/standards/ecma-48/), SGR).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// As it is.
    Plain,
    /// Headings.
    Bold,
    /// Of less interest.
    Dim,
    /// Well.
    Green,
    /// Look here.
    Yellow,
    /// At work.
    Blue,
    /// Not well.
    Red,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Blue => "36",
            Self::Red => "31",
        }
    }
}

/// Whether there is colour, and how long a line may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    colour: bool,
    /// A terminal's width; lines in a log are whole.
    columns: Option<usize>,
}

impl Style {
    /// For stdout as it is.
    #[must_use]
    pub fn for_stdout() -> Self {
        let terminal = is_terminal();
        let colour = terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colour, columns: terminal.then(|| Live::size().1) }
    }

    /// Without colour, for a log.
    #[must_use]
    pub fn plain() -> Self {
        Self { colour: false, columns: None }
    }

    /// The same with lines of at most so many columns.
    #[must_use]
    pub fn with_columns(self, columns: usize) -> Self {
        Self { columns: Some(columns), ..self }
    }

    /// Whether it is for a terminal.
    #[must_use]
    pub fn is_for_terminal(self) -> bool {
        self.columns.is_some()
    }

    /// `line`, cut to the terminal's width.
    #[must_use]
    pub fn fit(self, line: &str) -> String {
        self.columns.map_or_else(|| line.to_owned(), |columns| cut(line, columns))
    }

    /// `text`, painted.
    #[must_use]
    pub fn paint(self, paint: Paint, text: &str) -> String {
        if self.colour && paint != Paint::Plain {
            format!("\u{1b}[{}m{text}\u{1b}[0m", paint.code())
        } else {
            text.to_owned()
        }
    }

    /// The rows as lines that fit, each column as wide as its widest cell; nothing behind the last one.
    #[must_use]
    pub fn table(self, rows: &[Vec<Cell>]) -> Vec<String> {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        rows.iter().map(|row| self.fit(&self.line(row, &widths))).collect()
    }

    fn line(self, row: &[Cell], widths: &[usize]) -> String {
        let used = row.iter().rposition(|cell| !cell.text.is_empty()).map_or(0, |last| last + 1);
        let mut line = String::new();
        for (column, (cell, width)) in row[..used].iter().zip(widths).enumerate() {
            line.push_str(&self.paint(cell.paint, &cell.text));
            if column + 1 < used {
                line.push_str(&" ".repeat(width - cell.width() + 2));
            }
        }
        line
    }
}

/// Leaves a column out of a table with headings where no row says anything in it.
pub fn drop_empty_column(table: &mut [Vec<Cell>], column: usize) {
    if table.iter().skip(1).all(|row| row[column].text.is_empty()) {
        for row in table {
            row.remove(column);
        }
    }
}

/// The first `width` columns of a line, with a mark where it is cut. Escape sequences take no column.
pub(super) fn cut(line: &str, width: usize) -> String {
    let length = columns(line);
    if length <= width {
        return line.to_owned();
    }
    let (mut cut, mut column, mut escape) = (String::new(), 0, false);
    for c in line.chars() {
        let visible = !escape && c != '\u{1b}';
        column += usize::from(visible);
        escape = c == '\u{1b}' || (escape && c != 'm');
        match column.cmp(&width) {
            Ordering::Equal if visible => cut.push('…'),
            // Colours end where the whole line would have ended them.
            Ordering::Greater if visible => {}
            _ => cut.push(c),
        }
    }
    cut
}

fn columns(line: &str) -> usize {
    let mut escape = false;
    let visible = |c: &char| {
        let visible = !escape && *c != '\u{1b}';
        escape = *c == '\u{1b}' || (escape && *c != 'm');
        visible
    };
    line.chars().filter(visible).count()
}

/// One cell of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    /// A painted cell. Line breaks and control characters would break the table: they are left out.
    pub fn new(paint: Paint, text: &(impl Display + ?Sized)) -> Self {
        let text =
            text.to_string().chars().map(|c| if c == '\n' { ' ' } else { c }).filter(|c| !c.is_control()).collect();
        Self { text, paint }
    }

    /// A cell as it is.
    pub fn plain(text: &(impl Display + ?Sized)) -> Self {
        Self::new(Paint::Plain, text)
    }

    /// A row of headings.
    #[must_use]
    pub fn headings(names: &[&str]) -> Vec<Self> {
        names.iter().map(|name| Self::new(Paint::Dim, *name)).collect()
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_with_and_without_colour() {
        let rows = [
            vec![Cell::plain("box-1"), Cell::new(Paint::Green, "done"), Cell::plain("")],
            vec![Cell::plain("b"), Cell::new(Paint::Red, "rolled_back"), Cell::plain("why\n\u{7}not")],
        ];
        assert_eq!(Style::plain().table(&rows), ["box-1  done", "b      rolled_back  why not"]);
        let coloured = Style { colour: true, columns: None }.table(&rows);
        assert_eq!(coloured[1], "b      \u{1b}[31mrolled_back\u{1b}[0m  why not");
    }

    #[test]
    fn a_long_line_is_cut_and_its_colour_ends() {
        assert_eq!(cut("abc\u{1b}[31mdef\u{1b}[0m", 4), "abc\u{1b}[31m…\u{1b}[0m");
        assert_eq!(cut("abcdef", 3), "ab…");
        for whole in ["abc", "\u{1b}[31mabc\u{1b}[0m"] {
            assert_eq!((cut(whole, 80), cut(whole, 3)), (whole.to_owned(), whole.to_owned()));
        }
    }
}
