//! Why a deploy breaks, said once. The deploy, its release and each of its boxes tell it in words of their own; what one
//! of them has told already is no news of another.

use super::one_line;
use crate::api::{BoxRow, Deploy, LAST_WORDS, Phase, STAYS_OUT, State};

/// Why the deploy goes on, or why it ended so, each on a line of its own: what somebody gave as the reason, and what
/// several boxes say ended their part.
#[must_use]
pub fn causes(deploy: &Deploy) -> Vec<String> {
    let label = match deploy.state {
        State::Queued | State::Rolling | State::Deployed => "reason",
        State::Broken | State::Cancelled | State::Failed => "cause",
    };
    let reason = deploy.reason.as_deref().map(one_line).filter(|reason| !reason.is_empty());
    let shared = shared(deploy).filter(|shared| reason.as_ref().is_none_or(|reason| left(reason, shared).is_some()));
    let line = |label: &str, text| format!("{label}: {text}");
    reason.map(|text| line(label, text)).into_iter().chain(shared.map(|text| line("cause", text))).collect()
}

/// What a box has to say beyond the causes of the whole deploy.
#[must_use]
pub fn news(deploy: &Deploy, row: &BoxRow) -> Option<String> {
    let detail = row.detail.as_deref().map(one_line).filter(|detail| !detail.is_empty())?;
    let reason = deploy.reason.as_deref().map(one_line).filter(|reason| !reason.is_empty());
    let known = reason.into_iter().chain(shared(deploy)).map(|known| without_box(deploy, &known));
    known.into_iter().try_fold(detail, |detail, known| left(&known, &detail))
}

/// Of a break that is under way: what more than one box says.
fn shared(deploy: &Deploy) -> Option<String> {
    let over = |row: &&BoxRow| matches!(row.phase, Phase::Failed | Phase::RolledBack | Phase::Cancelled);
    let details: Vec<String> =
        deploy.boxes.iter().filter(over).filter_map(|row| row.detail.as_deref().map(one_line)).collect();
    let said_again = |detail: &&String| details.iter().filter(|other| other.contains(detail.as_str())).count() > 1;
    details.iter().filter(|detail| !detail.is_empty()).filter(said_again).min_by_key(|detail| detail.len()).cloned()
}

/// `box-1: exit code 1` without the box, which another one would not name.
fn without_box(deploy: &Deploy, cause: &str) -> String {
    let named = |(name, _): &(&str, &str)| deploy.boxes.iter().any(|row| row.name.as_str() == *name);
    cause.split_once(": ").filter(named).map_or(cause, |(_, rest)| rest).to_owned()
}

/// What of `text` is left where `known` has been said: nothing where one tells the other, or what follows it.
fn left(known: &str, text: &str) -> Option<String> {
    if let Some(rest) = text.strip_prefix(known).and_then(|rest| rest.strip_prefix("; ")) {
        return Some(rest.to_owned());
    }
    match text.split_once(STAYS_OUT) {
        Some((cause, why)) if is_told(known, cause) => Some(format!("{}{why}", STAYS_OUT.trim_start_matches("; "))),
        _ => (!is_told(known, text)).then(|| text.to_owned()),
    }
}

/// Whether one of two causes tells the other. How long it took, and at which of its restarts a container was seen, makes
/// no other cause of it where its last words are the same.
#[must_use]
pub fn is_told(known: &str, text: &str) -> bool {
    let (known, text) = (without_durations(known), without_durations(text));
    let one_tells = |a: &str, b: &str| a.contains(b) || b.contains(a);
    one_tells(&known, &text)
        || known.split_once(LAST_WORDS).zip(text.split_once(LAST_WORDS)).is_some_and(|(a, b)| one_tells(a.1, b.1))
}

fn without_durations(text: &str) -> String {
    let bare = |word: &str| word.trim_end_matches([',', ';', ':']).len();
    let words = text.split(' ').map(|word| if is_duration(&word[..bare(word)]) { &word[bare(word)..] } else { word });
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Whether a word is one of those that [`crate::config::duration::display`] writes.
fn is_duration(word: &str) -> bool {
    let unit = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    unit.len() < word.len() && matches!(unit, "ms" | "s" | "m" | "h")
}

/// The lines of a log, those that are repeated once. A container that is restarted says the same again each time.
#[must_use]
pub fn once(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().collect();
    let mut told = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let rest = &lines[at..];
        let (block, times) = repeated(rest);
        told.extend(rest[..block].iter().map(|line| (*line).to_owned()));
        if times > 1 {
            let what = if block == 1 { "this line".to_owned() } else { format!("these {block} lines") };
            told.push(format!("({what} {times} times)"));
        }
        at += block * times;
    }
    told
}

/// How many lines a block has that the lines begin with, and how often it stands there in a row.
fn repeated(lines: &[&str]) -> (usize, usize) {
    let again = |block: usize| lines.chunks_exact(block).take_while(|chunk| *chunk == &lines[..block]).count();
    (1..=lines.len() / 2).map(|block| (block, again(block))).find(|(_, times)| *times > 1).unwrap_or((1, 1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deploy(state: &str, reason: Option<&str>, rows: &[(&str, &str, &str)]) -> Deploy {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, phase, detail)| {
                json!({"box": name, "phase": phase, "since": "2026-01-01T00:00:00Z", "detail": detail})
            })
            .collect();
        serde_json::from_value(json!({
            "id": "x", "role": "app", "environment": "staging", "tag": "v2", "kind": "deploy", "state": state,
            "size": 3, "locks": 1, "remaining": 3, "by": "ci", "started_at": "2026-01-01T00:00:00Z",
            "reason": reason, "boxes": rows,
        }))
        .unwrap()
    }

    fn said(deploy: &Deploy) -> Vec<Option<String>> {
        deploy.boxes.iter().map(|row| news(deploy, row)).collect()
    }

    #[test]
    fn the_cause_of_an_end_is_no_news_of_a_box() {
        let rows = [
            ("a", "rolled_back", "exit code 1"),
            ("b", "cancelled", "the release is broken: a: exit code 1 (by a)"),
            ("c", "rolled_back", "exit code 1 and restarts"),
            ("d", "failed", "exit code 1; stays out of service: no previous tag"),
            ("e", "failed", "no space left"),
        ];
        let deploy = deploy("broken", Some("a: exit code 1"), &rows);
        assert_eq!(causes(&deploy), ["cause: a: exit code 1"]);
        let own = |text: &str| Some(text.to_owned());
        assert_eq!(
            said(&deploy),
            [None, None, None, own("stays out of service: no previous tag"), own("no space left")]
        );
    }

    #[test]
    fn boxes_that_see_the_same_crash_at_other_times_have_one_cause() {
        let rows = [
            ("a", "rolled_back", "app ended and was restarted after 798ms, its last words: no database"),
            ("b", "rolled_back", "app exited with code 3 after 1.2s, its last words: no database"),
            ("c", "failed", "app ended and was restarted after 4s; stays out of service: no previous tag"),
            ("d", "failed", "app exited with code 3 after 1m 2s, its last words: no space left"),
        ];
        let reason = "a: app ended and was restarted after 798ms, its last words: no database";
        let said = said(&deploy("broken", Some(reason), &rows));
        assert_eq!(said[..3], [None, None, Some("stays out of service: no previous tag".to_owned())]);
        assert!(said[3].as_ref().is_some_and(|said| said.ends_with("no space left")), "{said:?}");
        assert!(!is_told("exit code 1", "exit code 3"));
    }

    #[test]
    fn while_it_breaks_what_boxes_share_is_said_above_them() {
        let rows = [
            ("a", "rolled_back", "exit code 1"),
            ("b", "cancelled", "the release is broken: a: exit code 1 (by a)"),
            ("c", "waiting", "1 of 1 lock: a"),
            ("d", "waiting", "1 of 1 lock: a"),
        ];
        let breaking = deploy("rolling", Some("the tea fix"), &rows);
        assert_eq!(causes(&breaking), ["reason: the tea fix", "cause: exit code 1"]);
        assert_eq!(said(&breaking)[..2], [None, None]);
        assert!(said(&breaking)[2].is_some(), "what it waits for is no cause");
        let alone = deploy("rolling", None, &rows[..1]);
        assert_eq!((causes(&alone), said(&alone)), (Vec::new(), vec![Some("exit code 1".to_owned())]));
    }

    #[test]
    fn a_log_tells_once_what_every_restart_says() {
        let log = "boot\nno database\nexit\nboot\nno database\nexit\nboot\nno database\nexit\nkilled";
        assert_eq!(once(log), ["boot", "no database", "exit", "(these 3 lines 3 times)", "killed"]);
        assert_eq!(once("a\na\na\nb"), ["a", "(this line 3 times)", "b"]);
        assert_eq!(once("a\nb\nc"), ["a", "b", "c"]);
        assert!(once("").is_empty());
    }
}
