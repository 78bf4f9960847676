//! Who calls, and what they may do.
//!
//! A caller shows a bearer token; the configuration knows its SHA-256. Without tokens everybody who reaches the service
//! may do everything, so it then listens on loopback only.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use super::{
    api_error::{ApiError, ApiResult, ErrorKind},
    http::Request,
    reconcile::SERVICE,
};
use crate::{
    api::Release,
    config::{Scope, ServiceConfig, Token, Verb},
    names::Environment,
};

/// The longest `Deployctl-By` that is kept, in characters.
const CLAIM_LIMIT: usize = 128;
/// Between two lines of the log about unknown tokens.
const ONE_LINE: Duration = Duration::from_secs(1);

/// The tokens that are known.
pub struct Auth {
    tokens: Vec<(Token, [u8; 32])>,
    refusals: Refusals,
}

/// Callers whose token is not known, and how many the log has not named yet.
#[derive(Debug, Default)]
struct Refusals(Mutex<(Option<Instant>, u64)>);

impl Refusals {
    /// Leaves a trace of the caller, a line a second at most: whoever guesses must not fill the log.
    fn note(&self, peer: Option<IpAddr>, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, unnamed) = &mut *state;
        if last.is_some_and(|last| now.duration_since(last) < ONE_LINE) {
            *unnamed += 1;
            return;
        }
        let peer = peer.map_or_else(|| "somebody".to_owned(), |peer| peer.to_string());
        let more = if *unnamed > 0 { format!(", and {unnamed} more before") } else { String::new() };
        log::warn!("refused {peer}: the token is not known{more}");
        (*last, *unnamed) = (Some(now), 0);
    }
}

impl Auth {
    /// Checks the tokens, and that a service without any is reached from this host only.
    pub fn new(config: &ServiceConfig) -> Result<Self> {
        if config.tokens.is_empty() && !config.listen.ip().is_loopback() {
            bail!(
                "service.listen is {} and service.tokens is empty: add tokens, or listen on 127.0.0.1",
                config.listen
            );
        }
        let mut tokens: Vec<(Token, [u8; 32])> = Vec::new();
        for token in &config.tokens {
            let Some(digest) = digest(&token.sha256) else {
                bail!(
                    "service.tokens: the sha256 of {:?} is not 64 hexadecimal digits: write `printf %s TOKEN | sha256sum`",
                    token.name
                );
            };
            if token.name == SERVICE {
                bail!("service.tokens: the name {SERVICE:?} is the service's own in the audit log: choose another");
            }
            if tokens.iter().any(|(known, _)| known.name == token.name) {
                bail!("service.tokens: two are named {:?}: the audit log could not tell them apart", token.name);
            }
            tokens.push((token.clone(), digest));
        }
        Ok(Self { tokens, refusals: Refusals::default() })
    }

    /// Who sent this request.
    pub fn caller(&self, request: &Request) -> ApiResult<Caller> {
        self.caller_who_shows(request, request.header("authorization").and_then(bearer))
    }

    /// Who sent this request, of a client that can show a token only as the password in its URL. Not for what a browser
    /// may be made to send: it would show a password that it remembers.
    pub fn caller_by_password(&self, request: &Request) -> ApiResult<Caller> {
        let header = request.header("authorization");
        let shown = header.and_then(|header| bearer(header).map(str::to_owned).or_else(|| password(header)));
        self.caller_who_shows(request, shown.as_deref())
    }

    fn caller_who_shows(&self, request: &Request, shown: Option<&str>) -> ApiResult<Caller> {
        let claimed = request.header("deployctl-by").and_then(claim);
        if self.tokens.is_empty() {
            if from_a_web_page(request) {
                return Err(ApiError::new(
                    ErrorKind::Forbidden,
                    "requests from web pages need a token: add service.tokens",
                ));
            }
            // Nobody poses as the service: the audit log must tell what it did by itself.
            return Ok(Caller { token: None, claimed: claimed.filter(|name| name != SERVICE) });
        }
        let Some(shown) = shown else {
            return Err(ApiError::new(
                ErrorKind::Unauthorized,
                "send a token: Authorization: Bearer … (DEPLOYCTL_TOKEN)",
            ));
        };
        let Some(token) = self.known(shown) else {
            self.refusals.note(request.peer, Instant::now());
            let message = "the token is not known: ask for one whose SHA-256 is in service.tokens";
            return Err(ApiError::new(ErrorKind::Unauthorized, message));
        };
        Ok(Caller { token: Some((token.name.clone(), token.can.clone())), claimed })
    }

    /// The token that has this text.
    fn known(&self, text: &str) -> Option<&Token> {
        let shown: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        // Every token is compared whole, so that the time it takes says nothing.
        self.tokens.iter().fold(
            None,
            |found, (token, digest)| {
                if digest.ct_eq(&shown).into() { Some(token) } else { found }
            },
        )
    }

    /// The token that somebody at `peer` has typed into the page; a wrong one leaves a trace.
    pub fn typed(&self, text: &str, peer: Option<IpAddr>) -> Option<&Token> {
        let token = self.known(text);
        if token.is_none() {
            self.refusals.note(peer, Instant::now());
        }
        token
    }

    /// Who has a session that began with the token of this name and SHA-256; nobody, once the configuration has no such
    /// token.
    pub fn visitor(&self, name: &str, sha256: &str) -> Option<Caller> {
        let (token, _) = self.tokens.iter().find(|(token, _)| token.name == name && token.sha256 == sha256)?;
        Some(Caller { token: Some((token.name.clone(), token.can.clone())), claimed: None })
    }

    /// Whoever reaches a service without tokens; nobody where it has some.
    pub fn anybody(&self) -> Option<Caller> {
        self.tokens.is_empty().then_some(Caller { token: None, claimed: None })
    }
}

/// Whether a page in a browser on this host may have sent it. Such a page says where it comes from; only one whose name
/// was made to point to this host does not, and it shows in `Host` ([DNS rebinding](https://en.wikipedia.org/wiki/DNS_rebinding)).
fn from_a_web_page(request: &Request) -> bool {
    let site = request.header("sec-fetch-site");
    request.header("origin").is_some()
        || site.is_some_and(|site| site != "none")
        || request.header("host").is_some_and(|host| !is_this_host(host))
}

/// `localhost` or an address, with or without a port.
fn is_this_host(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name);
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(digest)
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The password of [basic authentication](https://www.rfc-editor.org/rfc/rfc7617).
fn password(header: &str) -> Option<String> {
    let (scheme, encoded) = header.split_once(' ')?;
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(encoded.trim()).ok())??;
    Some(String::from_utf8(decoded).ok()?.split_once(':')?.1.to_owned())
}

/// The user and host that a caller says they are: a help for people, no proof.
fn claim(header: &str) -> Option<String> {
    let text: String = header.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(CLAIM_LIMIT).collect();
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The token's name and permissions; absent while the service has no tokens.
    token: Option<(String, Vec<Scope>)>,
    claimed: Option<String>,
}

impl Caller {
    /// Whether the caller may do `verb` in `environment`; with none, in every one. Whoever may do anything in an
    /// environment may read there. To publish is to do nothing in any, and a token for reboots stands in a URL on every
    /// machine.
    #[must_use]
    pub fn may(&self, verb: Verb, environment: Option<&Environment>) -> bool {
        let Some((_, scopes)) = &self.token else { return true };
        scopes.iter().any(|scope| {
            (scope.verb == verb || (verb == Verb::Read && !matches!(scope.verb, Verb::Publish | Verb::Reboot)))
                && scope.environment.as_ref().is_none_or(|narrowed| environment == Some(narrowed))
        })
    }

    /// Refuses unless the caller [may](Self::may).
    pub fn need(&self, verb: Verb, environment: Option<&Environment>) -> ApiResult<()> {
        if self.may(verb, environment) {
            return Ok(());
        }
        let place = environment.map(|e| format!(" in {e}")).unwrap_or_default();
        Err(ApiError::new(
            ErrorKind::Forbidden,
            format!("the token {} lacks the scope {verb}{place}", self.token.as_ref().map_or("", |(name, _)| name)),
        ))
    }

    /// Refuses unless the caller may promote to `environment`: who may start anything there may, and who may approve.
    pub fn need_approval(&self, environment: &Environment) -> ApiResult<()> {
        if self.may(Verb::Start, Some(environment)) { Ok(()) } else { self.need(Verb::Approve, Some(environment)) }
    }

    /// The name by which approvals tell callers apart.
    #[must_use]
    pub fn name(&self) -> &str {
        self.token.as_ref().map_or("somebody", |(name, _)| name)
    }

    /// Refuses unless the caller may do `verb` in some environment: for what belongs to no environment.
    pub fn need_anywhere(&self, verb: Verb) -> ApiResult<()> {
        let serves = |scope: &Scope| scope.verb == verb || (verb == Verb::Read && scope.verb != Verb::Reboot);
        match &self.token {
            Some((_, scopes)) if !scopes.iter().any(serves) => self.need(verb, None),
            _ => Ok(()),
        }
    }

    /// The release as the caller may see it: why it is broken, and its last words, only who may read where that was found.
    #[must_use]
    pub fn shown(&self, release: Release) -> Release {
        release.told(|environment| self.may(Verb::Read, Some(environment)))
    }

    /// The same caller, who says to be this user. Nobody poses as the service.
    #[must_use]
    pub fn claiming(self, user: Option<&str>) -> Self {
        let claimed = user.and_then(claim).filter(|name| self.token.is_some() || name != SERVICE);
        Self { claimed, ..self }
    }

    /// The name of the caller's token, and its scopes; none while the service has no tokens.
    #[must_use]
    pub fn token(&self) -> Option<(&str, &[Scope])> {
        self.token.as_ref().map(|(name, scopes)| (name.as_str(), scopes.as_slice()))
    }

    /// For the audit log and for `by`: `token (user@host)`.
    #[must_use]
    pub fn by(&self) -> String {
        match (&self.token, &self.claimed) {
            (Some((name, _)), Some(claimed)) => format!("{name} ({claimed})"),
            (Some((name, _)), None) => name.clone(),
            (None, Some(claimed)) => claimed.clone(),
            (None, None) => "somebody".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(scopes: &[&str]) -> Caller {
        let scopes = scopes.iter().map(|s| Scope::try_from((*s).to_owned()).unwrap()).collect();
        Caller { token: Some(("ci".to_owned(), scopes)), claimed: None }
    }

    #[test]
    fn a_scope_counts_in_its_environment_only_and_lets_read_there() {
        let [staging, production] = ["staging", "production"].map(|e| e.parse::<Environment>().unwrap());
        let ci = caller(&["publish", "start:staging"]);
        assert!(ci.may(Verb::Start, Some(&staging)) && !ci.may(Verb::Start, Some(&production)));
        assert!(!ci.may(Verb::Start, None) && !ci.may(Verb::Cancel, Some(&staging)));
        let starter = caller(&["start:staging"]);
        assert!(starter.may(Verb::Read, Some(&staging)) && !starter.may(Verb::Read, Some(&production)));
        assert!(!starter.may(Verb::Read, None) && starter.need_anywhere(Verb::Read).is_ok());
        assert!(starter.need_anywhere(Verb::Publish).is_err());
        assert!(!ci.may(Verb::Read, Some(&production)) && ci.may(Verb::Read, Some(&staging)));
        let reboots = caller(&["reboot:staging"]);
        assert!(!reboots.may(Verb::Read, Some(&staging)) && reboots.need_anywhere(Verb::Read).is_err());
        let message = starter.need(Verb::Start, Some(&production)).unwrap_err().message;
        assert_eq!(message, "the token ci lacks the scope start in production");
    }

    #[test]
    fn without_tokens_the_service_listens_on_loopback_only() {
        let config = ServiceConfig { listen: "0.0.0.0:8700".parse().unwrap(), ..ServiceConfig::default() };
        let error = Auth::new(&config).err().unwrap().to_string();
        assert!(error.contains("0.0.0.0:8700") && error.contains("127.0.0.1"), "{error}");
        assert!(Auth::new(&ServiceConfig::default()).is_ok());
    }

    #[test]
    fn this_host_is_localhost_or_an_address() {
        for host in ["localhost", "LOCALHOST:8700", "127.0.0.1", "127.0.0.1:8700", "[::1]:8700", "[::1]"] {
            assert!(is_this_host(host), "{host}");
        }
        for host in ["evil.example", "evil.example:8700", "localhost.evil.example", "127.0.0.1.evil.example:80", ""] {
            assert!(!is_this_host(host), "{host}");
        }
    }

    #[test]
    fn a_token_without_a_digest_is_named() {
        let token = Token { name: "ci".to_owned(), sha256: "hunter2".to_owned(), can: Vec::new() };
        let config = ServiceConfig { tokens: vec![token], ..ServiceConfig::default() };
        let error = Auth::new(&config).err().unwrap().to_string();
        assert!(error.contains("ci") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn the_password_is_what_stands_behind_the_first_colon() {
        assert_eq!(password("Basic bm9kZTpzOmNyZXQ="), Some("s:cret".to_owned()));
        assert_eq!(password("basic OnRva2Vu"), Some("token".to_owned()));
        for none in ["Basic", "Basic !", "Basic bm9kZQ==", "Bearer bm9kZTpzOmNyZXQ="] {
            assert_eq!(password(none), None, "{none}");
        }
    }

    #[test]
    fn a_claim_is_short_and_printable() {
        assert_eq!(claim("ann@laptop"), Some("ann@laptop".to_owned()));
        assert_eq!(claim("a\u{1b}[31mb\n"), Some("a[31mb".to_owned()));
        assert_eq!(claim(&"x".repeat(500)).unwrap().len(), CLAIM_LIMIT);
        assert_eq!(claim(" \t"), None);
    }
}
