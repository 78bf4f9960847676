//! What a Serf event means to this box: (environment variables, payload) → [`Event`].
//!
//! Pure, and strict: the payload comes from the network. Serf's contract with a handler is
//! <https://www.serf.io/docs/agent/event-handlers.html>: `SERF_EVENT`, `SERF_USER_EVENT`, one `SERF_TAG_…` for each tag,
//! and the payload on stdin, to which the agent adds a newline.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, Visitor},
};

use crate::{
    names::{Environment, Place, Role, quoted},
    tags,
};

/// The longest payload, in bytes: Serf carries no more (name and payload together).
pub const LONGEST_PAYLOAD: usize = 512;

/// What a Serf event means to this box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// This box takes part.
    Ours(Place),
    /// For other boxes, or of another kind.
    Foreign,
    /// Not an event that anybody should have sent; the sentence says why.
    Bad(String),
}

impl Event {
    /// Reads an event; `env` looks an environment variable up.
    pub fn read(env: &dyn Fn(&str) -> Option<String>, payload: &[u8]) -> Self {
        let other = |name, ours| env(name).is_some_and(|value| value != ours);
        if other("SERF_EVENT", "user") || other("SERF_USER_EVENT", "deploy") {
            return Self::Foreign;
        }
        match place(payload) {
            Err(reason) => Self::Bad(reason),
            Ok(place) => {
                let tag = |name| env(name).unwrap_or_default();
                if tags::matches(&tag("SERF_TAG_IMAGES"), &tag("SERF_TAG_ENVIRONMENT"), &place) {
                    Self::Ours(place)
                } else {
                    Self::Foreign
                }
            }
        }
    }
}

/// The place that a payload names, or one sentence that says what is wrong with it.
pub fn place(payload: &[u8]) -> Result<Place, String> {
    let payload = payload.strip_suffix(b"\n").unwrap_or(payload);
    if payload.len() > LONGEST_PAYLOAD {
        return Err(format!("the payload has more than {LONGEST_PAYLOAD} bytes: send {EXAMPLE}"));
    }
    let text = std::str::from_utf8(payload).map_err(|_| format!("the payload is not UTF-8: send {EXAMPLE}"))?;
    if text.trim().is_empty() {
        return Err(format!("the payload is empty: send {EXAMPLE}"));
    }
    serde_json::from_str::<Payload>(text)
        .map(|payload| payload.0)
        .map_err(|error| format!("the payload {} is bad: {error}", quoted(text.trim_end())))
}

const EXAMPLE: &str = r#"{"role":"app","environment":"staging"}"#;

struct Payload(Place);

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PayloadVisitor)
    }
}

/// Serde ignores an unknown key that is given twice, and which of two values counts is a matter of
/// the reader; so keys are read one by one here.
struct PayloadVisitor;

impl<'de> Visitor<'de> for PayloadVisitor {
    type Value = Payload;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object such as {EXAMPLE}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Payload, A::Error> {
        let (mut role, mut environment) = (None, None);
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "role" if role.is_none() => role = Some(map.next_value::<Role>()?),
                "environment" if environment.is_none() => environment = Some(map.next_value::<Environment>()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
            if seen.contains(&key) {
                return Err(de::Error::custom(format_args!("the key {} is given twice", quoted(&key))));
            }
            seen.insert(key);
        }
        let role = role.ok_or_else(|| de::Error::missing_field("role"))?;
        let environment = environment.ok_or_else(|| de::Error::missing_field("environment"))?;
        Ok(Payload(Place { environment, role }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &[u8] = EXAMPLE.as_bytes();

    fn read(tags: [&str; 2], payload: &[u8]) -> Event {
        read_with(&[("SERF_TAG_IMAGES", tags[0]), ("SERF_TAG_ENVIRONMENT", tags[1])], payload)
    }

    fn read_with(env: &[(&str, &str)], payload: &[u8]) -> Event {
        Event::read(&|name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()), payload)
    }

    fn bad(payload: impl AsRef<[u8]>) -> String {
        place(payload.as_ref()).expect_err(&String::from_utf8_lossy(payload.as_ref()))
    }

    #[test]
    fn an_event_is_ours_where_both_tags_match() {
        let ours = Event::Ours(Place { environment: "staging".parse().unwrap(), role: "app".parse().unwrap() });
        assert_eq!(read(["web,app", "staging"], GOOD), ours);
        assert_eq!(read(["web", "staging"], GOOD), Event::Foreign);
        assert_eq!(read(["app", "production"], GOOD), Event::Foreign);
        assert_eq!(read_with(&[], GOOD), Event::Foreign);
    }

    #[test]
    fn other_events_are_foreign_whatever_they_carry() {
        for env in [("SERF_EVENT", "member-join"), ("SERF_USER_EVENT", "restart")] {
            assert_eq!(read_with(&[env, ("SERF_TAG_IMAGES", "app")], b"box1\t127.0.0.1"), Event::Foreign);
        }
    }

    #[test]
    fn a_bad_payload_is_bad_on_every_box() {
        assert!(matches!(read(["web", "production"], b"{}"), Event::Bad(_)));
    }

    #[test]
    fn what_is_not_an_object_with_both_names_is_refused() {
        for shape in ["", " ", "\n", "{", "{}", "[]", "null", "\"app\"", "1", "app staging", "{\"role\":\"app\"}"] {
            bad(shape);
        }
        bad(r#"{"role":"app","environment":"staging"} {}"#);
        bad(r#"{"role":["app"],"environment":"staging"}"#);
        bad(r#"{"role":null,"environment":"staging"}"#);
        assert!(bad(r#"{"environment":"staging"}"#).contains("missing field `role`"));
        assert!(bad(b"{\"role\":\"\xff\",\"environment\":\"staging\"}").contains("UTF-8"));
    }

    #[test]
    fn hostile_names_are_refused() {
        for name in ["../x", "app;rm", ".*", "app\\n", "App", "\u{430}pp", "", "app\\u0000", "a b", &"a".repeat(64)] {
            let error = bad(format!(r#"{{"role":"{name}","environment":"staging"}}"#));
            assert!(error.contains("is not a role"), "{error}");
            let error = bad(format!(r#"{{"role":"app","environment":"{name}"}}"#));
            assert!(error.contains("is not an environment") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_doubled_key_is_refused_and_an_extra_one_ignored() {
        for doubled in [
            r#"{"role":"app","role":"app","environment":"staging"}"#,
            r#"{"role":"app","environment":"staging","r\u006fle":"web"}"#,
            r#"{"role":"app","environment":"staging","x":1,"x":2}"#,
        ] {
            assert!(bad(doubled).contains("twice"));
        }
        assert!(place(br#"{"x":{"role":"../"},"role":"app","environment":"staging","by":"ci"}"#).is_ok());
    }

    #[test]
    fn a_payload_has_at_most_512_bytes_beside_the_newline_of_the_agent() {
        let padded = |length: usize| format!("{EXAMPLE}{}", " ".repeat(length - EXAMPLE.len()));
        assert!(place(padded(512).as_bytes()).is_ok());
        assert!(place(format!("{}\n", padded(512)).as_bytes()).is_ok());
        assert!(bad(padded(513)).contains("more than 512 bytes"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_in_one_line(payload in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Err(reason) = place(&payload) {
                prop_assert!(!reason.chars().any(char::is_control), "{reason:?}");
            }
        }

        #[test]
        fn any_pair_of_texts_is_a_place_only_if_both_are_names(role in ".{0,40}", environment in "[a-z0-9_.A-Z-]{0,5}") {
            let payload = serde_json::json!({"role": role, "environment": environment}).to_string();
            let names = role.parse::<Role>().is_ok() && environment.parse::<Environment>().is_ok();
            prop_assert_eq!(place(payload.as_bytes()).is_ok(), names);
        }
    }
}
