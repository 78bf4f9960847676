//! Who looks at the page, and from where.
//!
//! A browser sends what other pages ask it to send. So the page answers only under its own name (`Host`), and does only what
//! comes from a page of its own: `Origin` says so, and so does the token that each of its forms carries. That token is made
//! of the session's id, which no other page can read.

use std::time::Duration;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{
    config::{PublicUrl, TrustedProxy, is_loopback},
    coordination::new_token,
    secret::hex,
    service::{
        Service,
        api_error::{ApiError, ApiResult, ErrorKind},
        auth::Caller,
        http::Request,
        store::Session,
    },
};

/// How long a session lasts: a long working day.
pub const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);

/// The address under which a browser has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    origin: String,
    https: bool,
}

impl Site {
    /// The address of a request, if the page is to be found there, and the request was not sent by another site's page.
    pub fn of(public: Option<&PublicUrl>, request: &Request) -> ApiResult<Self> {
        let host = request.header("host").unwrap_or_default().to_ascii_lowercase();
        let site = match public {
            Some(public) if host == public.authority => Self { origin: public.origin(), https: public.https },
            Some(public) => {
                let message = format!("this page is at {}, not here", public.origin());
                return Err(ApiError::new(ErrorKind::Forbidden, message));
            }
            None if is_loopback(&host) => Self { origin: format!("http://{host}"), https: false },
            None => {
                let message = "this page is for this host only: set service.public_url to the address people use";
                return Err(ApiError::new(ErrorKind::Forbidden, message));
            }
        };
        if request.method != "GET" && request.header("origin") != Some(&site.origin) {
            return Err(ApiError::new(
                ErrorKind::Forbidden,
                "this was sent by another page: use the forms of this one",
            ));
        }
        Ok(site)
    }

    /// The cookie that names the session. `__Host-` makes browsers refuse it from any other host and without TLS; on this
    /// host, where services on several ports share their cookies, its name has the port.
    fn cookie_name(&self) -> String {
        let port = self.origin.rsplit_once(':').map_or("80", |(_, port)| port);
        if self.https { "__Host-deployctl".to_owned() } else { format!("deployctl-{port}") }
    }

    /// The value of `Set-Cookie` that gives the session `id`, or takes it away.
    pub fn cookie(&self, id: Option<&str>) -> String {
        let secure = if self.https { "; Secure" } else { "" };
        let (id, age) = id.map_or(("", 0), |id| (id, SESSION_LIFE.as_secs()));
        format!("{}={id}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}", self.cookie_name())
    }

    /// The id of a session that the browser shows, which may be none of ours.
    fn shown_id<'a>(&self, request: &'a Request) -> Option<&'a str> {
        let id = request.cookie(&self.cookie_name())?;
        (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
    }
}

/// Who looks.
#[derive(Debug)]
pub struct Visitor {
    /// What they may do, and their name in the audit log.
    pub caller: Caller,
    /// Where they are.
    pub site: Site,
    id: String,
    /// Whether the browser has to be given the id.
    is_new: bool,
}

impl Visitor {
    /// Whose session the browser shows; none where there is no session, or no longer its token.
    pub fn of(service: &Service, site: &Site, request: &Request) -> ApiResult<Option<Self>> {
        let (shown, site) = (site.shown_id(request), site.clone());
        let user = service.config.service.trusted_proxy.as_ref().and_then(|proxy| user(proxy, request));
        if let Some(caller) = service.auth.anybody().map(|caller| caller.claiming(user)) {
            // Nobody has to sign in; the id is there for the forms.
            let id = shown.map_or_else(new_token, |id| Ok(id.to_owned()))?;
            return Ok(Some(Self { caller, site, id, is_new: shown.is_none() }));
        }
        let Some(id) = shown else { return Ok(None) };
        let Some(session) = service.store.session(id)? else { return Ok(None) };
        let caller = service.auth.visitor(&session.token, &session.sha256);
        Ok(caller.map(|caller| Self { caller: caller.claiming(user), site, id: id.to_owned(), is_new: false }))
    }

    /// The `Set-Cookie` that the browser lacks.
    pub fn new_cookie(&self) -> Option<String> {
        self.is_new.then(|| self.site.cookie(Some(&self.id)))
    }

    /// What every form of this visitor carries.
    pub fn form_token(&self) -> String {
        hex(&Sha256::digest(format!("form:{}", self.id)))
    }

    /// Refuses a form that was not made for this visitor.
    pub fn has_sent(&self, request: &Request) -> ApiResult<()> {
        let (form, expected) = (super::form(request)?, self.form_token());
        if form.get("form_token").as_bytes().ct_eq(expected.as_bytes()).into() {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorKind::Forbidden,
            "this form is of another session: go back, reload the page, and try again",
        ))
    }

    /// Ends the session.
    pub fn leave(&self, service: &Service) -> ApiResult<()> {
        Ok(service.store.end_session(&self.id)?)
    }
}

/// The user whom an authenticating proxy names, if the request comes from it.
fn user<'a>(proxy: &TrustedProxy, request: &'a Request) -> Option<&'a str> {
    let from_proxy = request.peer.is_some_and(|peer| proxy.addresses.contains(&peer.to_canonical()));
    from_proxy.then(|| request.only_header(&proxy.header.to_ascii_lowercase()))?
}

/// Begins a session by a token's text. Returns its id; none where no token has this text.
pub fn enter(service: &Service, request: &Request, text: &str) -> ApiResult<Option<String>> {
    let Some(token) = service.auth.typed(text, request.peer) else { return Ok(None) };
    let (id, session) = (new_token()?, Session { token: token.name.clone(), sha256: token.sha256.clone() });
    service.store.begin_session(&id, &session, SESSION_LIFE)?;
    Ok(Some(id))
}
