//! In and out. A token is pasted into a form once; from then on the browser has a session, and nowhere the token.

use maud::{Markup, html};

use super::{
    form, html as page, own_path, see_other,
    visitor::{self, Site, Visitor},
};
use crate::service::{
    Service,
    api_error::ApiResult,
    http::{Request, Response},
};

/// Sends who has no session to the form, and from there back to what they asked for.
pub fn ask(request: &Request) -> Response {
    let path = format!("/{}", request.path.join("/"));
    // A browser that follows a link of another site keeps a `SameSite=Strict` cookie back; it sends it when the page asks
    // for itself.
    if request.header("sec-fetch-site") == Some("cross-site") && request.method == "GET" {
        return page::reload(own_path(&path));
    }
    see_other(&format!("/login?next={}", own_path(&path)))
}

/// `GET /login`.
#[expect(clippy::unnecessary_wraps, reason = "the table of paths wants calls that may fail")]
pub fn form_page(service: &Service, _: &Site, request: &Request) -> ApiResult<Response> {
    if service.auth.anybody().is_some() {
        return Ok(see_other("/"));
    }
    let next = own_path(request.param("next").unwrap_or("/"));
    Ok(page::page(200, None, "Sign in", &sign_in(next, None)))
}

/// `POST /login`.
pub fn enter(service: &Service, site: &Site, request: &Request) -> ApiResult<Response> {
    let form = form(request)?;
    let next = own_path(form.get("next"));
    match visitor::enter(service, request, form.get("token"))? {
        Some(id) => Ok(see_other(next).header("set-cookie", site.cookie(Some(&id)))),
        None => Ok(page::page(401, None, "Sign in", &sign_in(next, Some("This token is not known.")))),
    }
}

/// `POST /logout`.
pub fn leave(service: &Service, visitor: &Visitor, _: &Request) -> ApiResult<Response> {
    visitor.leave(service)?;
    Ok(see_other("/login").header("set-cookie", visitor.site.cookie(None)))
}

fn sign_in(next: &str, complaint: Option<&str>) -> Markup {
    html! {
        section .card .sign-in {
            h1 { "Sign in" }
            p .muted { "Paste a token of this service. The browser keeps a session for twelve hours, not the token." }
            form method="post" action="/login" {
                input type="hidden" name="next" value=(next);
                label for="token" { "Token" }
                input #token type="password" name="token" required autofocus autocomplete="off" spellcheck="false"
                    aria-invalid=[complaint.map(|_| "true")] aria-describedby=[complaint.map(|_| "complaint")];
                @if let Some(complaint) = complaint {
                    p #complaint .bad role="alert" { (complaint) " Ask for one whose SHA-256 is in service.tokens." }
                }
                button .main { "Sign in" }
            }
        }
    }
}
