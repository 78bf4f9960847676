//! What can go wrong with an outside program, in one line for a person.

use std::{io, time::Duration};

use super::{Output, Program};
use crate::config::duration;

/// How many lines of a program's last words, and how many characters, stand in an error.
const LINES: usize = 3;
const CHARACTERS: usize = 400;

/// Why a program gave no answer. Its `Display` is one line: the command, shortened, and its last words.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no such program.
    #[error("{}", missing(program))]
    NotFound {
        /// The program.
        program: String,
    },
    /// It took too long; its process group has been killed.
    #[error("{command}: no answer in {}{}", duration::display(*after), output.after_colon())]
    TimedOut {
        /// The command.
        command: String,
        /// How long it was given.
        after: Duration,
        /// What it had said.
        output: Output,
    },
    /// The caller was interrupted; its process group has been killed.
    #[error("{command}: interrupted{}", output.after_colon())]
    Interrupted {
        /// The command.
        command: String,
        /// What it had said.
        output: Output,
    },
    /// It ended, and not well.
    #[error("{command}: {}{}", ending(*code, *signal), output.after_colon())]
    Exit {
        /// The command.
        command: String,
        /// Its exit code; none when a signal ended it.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// What it said.
        output: Output,
    },
    /// It could not be started or waited for.
    #[error("{command}: {reason}")]
    Io {
        /// The command.
        command: String,
        /// Why. Not a `source`: the line says it already.
        reason: io::Error,
    },
}

impl Failure {
    pub(super) fn at_start(program: &Program, error: io::Error) -> Self {
        match (program.argv.first(), error.kind()) {
            (Some(name), io::ErrorKind::NotFound) => Self::NotFound { program: name.clone() },
            _ => Self::Io { command: command_line(&program.argv), reason: error },
        }
    }

    /// What it wrote to its standard error; empty when it never ran.
    #[must_use]
    pub fn stderr(&self) -> &str {
        self.output().map_or("", |output| &output.stderr)
    }

    /// What it wrote to its standard output; empty when it never ran.
    #[must_use]
    pub fn stdout(&self) -> &str {
        self.output().map_or("", |output| &output.stdout)
    }

    /// Its exit code, when it ended by itself.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        if let Self::Exit { code, .. } = self { *code } else { None }
    }

    fn output(&self) -> Option<&Output> {
        match self {
            Self::TimedOut { output, .. } | Self::Interrupted { output, .. } | Self::Exit { output, .. } => {
                Some(output)
            }
            Self::NotFound { .. } | Self::Io { .. } => None,
        }
    }

    /// The last lines it wrote: to its standard error, else to its standard output. One line, without control characters.
    #[must_use]
    pub fn last_words(&self) -> String {
        self.output().map(Output::last_words).unwrap_or_default()
    }
}

fn missing(program: &str) -> String {
    if program.contains('/') {
        return format!("there is no program {program}");
    }
    format!("{program} is not installed, or not on PATH")
}

fn ending(code: Option<i32>, signal: Option<i32>) -> String {
    match (code, signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "failed".to_owned(),
    }
}

impl Output {
    fn last_words(&self) -> String {
        match last_lines(&self.stderr) {
            words if words.is_empty() => last_lines(&self.stdout),
            words => words,
        }
    }

    /// The last words as the end of a line.
    fn after_colon(&self) -> String {
        match self.last_words() {
            words if words.is_empty() => words,
            words => format!(": {words}"),
        }
    }
}

/// An argument list for people: quoted where needed, long arguments and long lists cut.
#[must_use]
pub fn command_line(argv: &[String]) -> String {
    let shown = argv.iter().map(|argument| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,:/@%+".contains(c);
        let short: String = argument.chars().take(100).collect();
        let more = if short.len() < argument.len() { "…" } else { "" };
        if !short.is_empty() && short.chars().all(plain) { short + more } else { format!("{short:?}{more}") }
    });
    cut(&shown.collect::<Vec<_>>().join(" "))
}

/// What a program said last: at most three lines in one, without control characters; empty when it said nothing. A line
/// that each of its restarts repeats stands there once.
#[must_use]
pub fn last_lines(text: &str) -> String {
    let clean = without_escapes(text);
    let mut lines: Vec<&str> = Vec::new();
    for line in clean.lines().map(str::trim).filter(|line| !line.is_empty()).rev() {
        if lines.len() < LINES && !lines.contains(&line) {
            lines.insert(0, line);
        }
    }
    let last = lines.join(" | ");
    let over = last.chars().count().saturating_sub(CHARACTERS);
    if over == 0 { last } else { format!("…{}", last.chars().skip(over).collect::<String>()) }
}

fn cut(text: &str) -> String {
    let short: String = text.chars().take(CHARACTERS).collect();
    if short.len() < text.len() { short + "…" } else { short }
}

/// Terminal colours and cursor movements go, other control characters but the end of a line become spaces.
fn without_escapes(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if c == '\u{1b}' && characters.next_if_eq(&'[').is_some() {
            while characters.next().is_some_and(|c| !c.is_ascii_alphabetic()) {}
        } else if c == '\r' {
            clean.push('\n');
        } else {
            clean.push(if c.is_control() && c != '\n' { ' ' } else { c });
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(stderr: &str) -> Failure {
        let output = Output { stdout: "something else".to_owned(), stderr: stderr.to_owned() };
        Failure::Exit { command: "docker-compose up -d".to_owned(), code: Some(1), signal: None, output }
    }

    #[test]
    fn an_error_is_one_line_with_the_last_words() {
        let stderr = "one\ntwo\n\u{1b}[31mthree\u{1b}[0m\n\n four \u{7}\r\n";
        assert_eq!(exit(stderr).to_string(), "docker-compose up -d: exit code 1: two | three | four");
        let restarts = "app starts\nno database\n".repeat(4);
        assert_eq!(exit(&restarts).to_string(), "docker-compose up -d: exit code 1: app starts | no database");
        assert_eq!(exit("").to_string(), "docker-compose up -d: exit code 1: something else");
        let long = exit(&"x".repeat(10_000)).to_string();
        assert!(long.contains(": …xxx") && long.chars().count() < 450, "{long}");
    }

    #[test]
    fn a_command_line_is_quoted_and_cut() {
        let argv = ["sh", "-c", "echo \"a\nb\"", "", "--filter=name=app"].map(str::to_owned);
        assert_eq!(command_line(&argv), r#"sh -c "echo \"a\nb\"" "" --filter=name=app"#);
        let long = command_line(&["x".repeat(5_000), "y".to_owned()]);
        assert!(long.ends_with("… y") && long.len() < 200, "{long}");
    }
}
