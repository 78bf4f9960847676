//! A channel of Slack, by an [incoming webhook](https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks/).

use anyhow::{Result, bail};
use serde_json::json;

use super::{
    post::{Call, Refused},
    text::{how_far, short},
};
use crate::{
    api::Turn,
    config::{Slack, is_in_clear, secret_file},
    secret::Secret,
};

/// The longest line, and the longest reason, in characters. Slack cuts a message off at 40,000.
const LINE: usize = 300;
const REASON: usize = 1000;

/// The address of the channel. It is read each time, so that another one needs no restart.
pub fn address(slack: &Slack) -> Result<Secret> {
    let (key, file) = ("url_file", &slack.url_file);
    let url = secret_file(key, file)?;
    let text = url.expose();
    let is_web = ["https://", "http://"].iter().any(|scheme| text.starts_with(scheme));
    if !is_web || is_in_clear(text) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("{key}: {} holds no https:// address: write there the one that Slack shows", file.display());
    }
    Ok(url)
}

/// Tells the channel.
pub fn send(slack: &Slack, turn: &Turn) -> Result<(), Refused> {
    let url = address(slack)?;
    let body = json!({"text": message(turn), "unfurl_links": false, "unfurl_media": false}).to_string();
    Call { method: "POST", url: url.expose(), headers: &[], body: Some(&body), secret: &url }.make().map(drop)
}

/// What, where, who, how far, why, and where to look.
fn message(turn: &Turn) -> String {
    let plain = |text: &str, most| escaped(&short(text, most));
    let who = turn.by.as_ref().map(|by| format!("by {}", plain(by, LINE)));
    let facts: Vec<String> = [who, how_far(turn)].into_iter().flatten().collect();
    let link = |url: &String, name: &str| format!("<{}|{name}>", escaped(url));
    let compare = turn.deploy.as_ref().and_then(|deploy| deploy.compare.as_ref());
    let addresses =
        [turn.url.as_ref().map(|url| link(url, "the page")), compare.map(|url| link(url, "what it changes"))];
    let lines = [
        Some(format!("*{}*", plain(&turn.text, LINE))),
        Some(facts.join(", ")),
        turn.reason.as_ref().map(|reason| plain(reason, REASON)),
        Some(addresses.into_iter().flatten().collect::<Vec<_>>().join(" · ")),
    ];
    lines.into_iter().flatten().filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// As Slack wants [what is no markup](https://docs.slack.dev/messaging/formatting-message-text/#escaping): so nothing that
/// somebody wrote mentions a channel or makes a link.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_says_what_who_how_far_why_and_where_to_look() {
        let turn: Turn = serde_json::from_value(json!({
            "id": "app.production.1:broken", "turn": "broken", "at": "", "environment": "production", "role": "app",
            "tag": "v2", "by": "box-1 <!channel>", "reason": "exited & <said>\nso", "done": 12, "out": 2,
            "text": "app in production: v2 is broken", "url": "https://deploys.internal/deploys/app.production.1",
            "deploy": {
                "id": "app.production.1", "role": "app", "environment": "production", "tag": "v2", "kind": "deploy",
                "state": "rolling", "size": 60, "locks": 20, "remaining": 48, "by": "ci", "started_at": "",
                "compare": "https://github.com/o/n/compare/a...b",
            },
        }))
        .unwrap();
        let expected = "*app in production: v2 is broken*\n\
            by box-1 &lt;!channel&gt;, 12 of 60 boxes, 2 out\n\
            exited &amp; &lt;said&gt; so\n\
            <https://deploys.internal/deploys/app.production.1|the page> · \
            <https://github.com/o/n/compare/a...b|what it changes>";
        assert_eq!(message(&turn), expected);
        let long = Turn { reason: Some("x".repeat(100_000)), ..turn };
        assert!(message(&long).len() < 3000);
    }
}
