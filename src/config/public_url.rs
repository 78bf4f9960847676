//! `service.public_url`: where people reach the page.

use serde::Deserialize;

/// A scheme, a host and maybe a port: `https://deploys.internal`. Plain HTTP only on this host: elsewhere a session would
/// travel in clear.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PublicUrl {
    /// Whether browsers come by TLS, which a proxy in front ends.
    pub https: bool,
    /// The host, and the port unless it is the scheme's own, in lower case: what browsers send as `Host`.
    pub authority: String,
}

impl PublicUrl {
    /// What browsers send as `Origin`.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.https { "https" } else { "http" }, self.authority)
    }
}

impl TryFrom<String> for PublicUrl {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let bad = |what: &str| format!("{text:?} {what}: write https://HOST or https://HOST:PORT");
        let lower = text.trim_end_matches('/').to_ascii_lowercase();
        let (https, authority) = match (lower.strip_prefix("https://"), lower.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(bad("has no scheme")),
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        if authority.is_empty() || !authority.chars().all(is_host) {
            return Err(bad("is no address of a host"));
        }
        let authority = authority.strip_suffix(if https { ":443" } else { ":80" }).unwrap_or(authority);
        if !https && !is_loopback(authority) {
            return Err(bad("would send sessions in clear"));
        }
        Ok(Self { https, authority: authority.to_owned() })
    }
}

/// Whether a `Host` names this host itself, whatever the port: `localhost`, `127.0.0.1`, `[::1]`. No name that somebody
/// else may choose does ([DNS rebinding](https://en.wikipedia.org/wiki/DNS_rebinding)).
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = host.rsplit_once(':').filter(|(_, digits)| port(digits)).map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost") || matches!(name, "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Result<String, String> {
        PublicUrl::try_from(text.to_owned()).map(|url| url.origin())
    }

    #[test]
    fn an_address_is_what_browsers_make_of_it() {
        for (written, meant) in [
            ("https://Deploys.internal/", "https://deploys.internal"),
            ("https://deploys.internal:443", "https://deploys.internal"),
            ("https://deploys.internal:8443", "https://deploys.internal:8443"),
            ("http://localhost:8700", "http://localhost:8700"),
            ("http://[::1]:8700", "http://[::1]:8700"),
        ] {
            assert_eq!(origin(written).as_deref(), Ok(meant));
        }
    }

    #[test]
    fn what_is_no_address_of_a_host_is_refused() {
        for bad in ["deploys.internal", "https://", "https://a/b", "https://u@a", "ftp://a", "https://a?b", ""] {
            assert!(origin(bad).unwrap_err().contains("write https://HOST"), "{bad}");
        }
        assert!(origin("http://deploys.internal").unwrap_err().contains("in clear"));
    }

    #[test]
    fn only_this_host_is_loopback() {
        for host in ["localhost", "LOCALHOST:8700", "127.0.0.1:8700", "[::1]:8700", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "a:b"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
