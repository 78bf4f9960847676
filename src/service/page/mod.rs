//! The page: what a person sees of the service in a browser, and the buttons for what they may do.
//!
//! A page is made whole, on the host, of what `status` shows; it needs no script. The script only fetches it again when
//! the service says that something has changed. A button is a form, and a form becomes a call of the API in the name of the
//! visitor's token: the page can do nothing that the API would refuse.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`visitor`] | from where requests may come; sessions, and the tokens that forms carry |
//! | [`login`] | in and out |
//! | [`snapshot`] | what stands where, read once a second however many look; the streams that tell of changes |
//! | [`overview`], [`deploy`], [`release`], [`box_page`] | one page each |
//! | [`needs`] | what waits for a person. Pure |
//! | [`actions`] | the forms, and what they do |
//! | [`html`], [`parts`] | what all pages have, and what several have |

mod actions;
mod box_page;
mod deploy;
mod html;
mod login;
mod needs;
mod overview;
mod parts;
mod release;
mod snapshot;
mod visitor;

pub use self::snapshot::{Snapshots, run as watch};
use self::visitor::{Site, Visitor};
use super::{
    Service,
    api_error::{ApiError, ApiResult, ErrorKind},
    http::{Request, Response},
};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");
/// Nothing from elsewhere, nothing inline, no frame around it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// How a path of the page is answered.
enum Call {
    /// To everybody who comes by the right address.
    Open(fn(&Service, &Site, &Request) -> ApiResult<Response>),
    /// To who has a session.
    Signed(fn(&Service, &Visitor, &Request) -> ApiResult<Response>),
}

/// The answer, where the path is one of the page's.
pub fn answer(service: &Service, request: &Request, path: &[&str]) -> Option<Response> {
    let methods: &[(&str, Call)] = match path {
        [""] => &[("GET", Call::Signed(overview::show))],
        ["deploys", _] => &[("GET", Call::Signed(deploy::show))],
        ["releases", _, _] => &[("GET", Call::Signed(release::show))],
        ["boxes", _] => &[("GET", Call::Signed(box_page::show))],
        ["actions", _] => &[("POST", Call::Signed(actions::act))],
        ["events"] => &[("GET", Call::Signed(snapshot::events))],
        ["login"] => &[("GET", Call::Open(login::form_page)), ("POST", Call::Open(login::enter))],
        ["logout"] => &[("POST", Call::Signed(login::leave))],
        ["style.css"] => &[("GET", Call::Open(|_, _, _| Ok(Response::text(200, "text/css; charset=utf-8", STYLE))))],
        ["live.js"] => {
            &[("GET", Call::Open(|_, _, _| Ok(Response::text(200, "text/javascript; charset=utf-8", SCRIPT))))]
        }
        _ => return None,
    };
    let call = methods.iter().find(|(method, _)| *method == request.method);
    let response = if let Some((_, call)) = call {
        respond(service, request, call)
    } else {
        let allowed: Vec<&str> = methods.iter().map(|(method, _)| *method).collect();
        Response::method_not_allowed(&request.method, &allowed.join(", "))
    };
    Some(
        response
            .header("content-security-policy", CONTENT_SECURITY_POLICY)
            .header("x-content-type-options", "nosniff")
            // With `no-referrer` browsers would send forms with `Origin: null`.
            .header("referrer-policy", "same-origin")
            .header("cross-origin-opener-policy", "same-origin")
            .header("cross-origin-resource-policy", "same-origin"),
    )
}

fn respond(service: &Service, request: &Request, call: &Call) -> Response {
    let site = match Site::of(service.config.service.public_url.as_ref(), request) {
        Ok(site) => site,
        Err(refusal) => return html::error(None, &refusal),
    };
    let signed = match call {
        Call::Open(call) => return call(service, &site, request).unwrap_or_else(|error| html::error(None, &error)),
        Call::Signed(call) => call,
    };
    match Visitor::of(service, &site, request) {
        Ok(Some(visitor)) => {
            let allowed = if request.method == "GET" { Ok(()) } else { visitor.has_sent(request) };
            let answered = allowed.and_then(|()| signed(service, &visitor, request));
            answered.unwrap_or_else(|error| html::error(Some(&visitor), &error))
        }
        Ok(None) => login::ask(request),
        Err(error) => html::error(None, &error),
    }
}

/// The fields of the form that a page has sent.
fn form(request: &Request) -> ApiResult<super::http::Form> {
    request
        .form()
        .ok_or_else(|| ApiError::new(ErrorKind::BadRequest, "this is no form of the page: go back and reload it"))
}

/// Sends the browser on to another path of the page.
fn see_other(path: &str) -> Response {
    Response::text(303, "text/plain; charset=utf-8", "").header("location", path)
}

/// A path of the page that a form or an address names; the first page where it is none, or leads elsewhere.
fn own_path(path: &str) -> &str {
    let is_own = path.starts_with('/')
        && !path.starts_with("//")
        && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    if is_own { path } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_back_leads_nowhere_else() {
        for own in ["/", "/deploys/app.staging.1abc", "/releases/app/v1.2_3"] {
            assert_eq!(own_path(own), own);
        }
        for other in ["", "//evil.example", "https://evil.example", "/\\evil.example", "/a?b", "/\r\nSet-Cookie: a=b"] {
            assert_eq!(own_path(other), "/", "{other}");
        }
    }
}
