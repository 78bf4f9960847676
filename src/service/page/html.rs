//! What every page has around its content.

use maud::{DOCTYPE, Markup, html};

use super::visitor::Visitor;
use crate::{
    screen::printable,
    service::{
        api_error::{ApiError, ErrorKind},
        http::Response,
    },
};

/// A whole page. One that `lives` is fetched again by the script when something has changed.
pub fn page(status: u16, visitor: Option<&Visitor>, title: &str, main: &Markup) -> Response {
    document(status, visitor, title, None, main)
}

/// A page that the script keeps as new as the service's; `number` says how new it is.
pub fn live(visitor: &Visitor, title: &str, number: u64, main: &Markup) -> Response {
    document(200, Some(visitor), title, Some(number), main)
}

fn document(status: u16, visitor: Option<&Visitor>, title: &str, number: Option<u64>, main: &Markup) -> Response {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (head(title))
                @if number.is_some() { script src="/live.js" defer {} }
            }
            body data-number=[number] {
                a .skip href="#main" { "Skip to the content" }
                header .top {
                    a .brand href="/" { "deployctl" }
                    @if number.is_some() {
                        span #live role="status" {}
                        noscript { a .muted href="" { "Reload" } }
                    }
                    @if let Some(visitor) = visitor { (who(visitor)) }
                }
                main #main { (main) }
            }
        }
    };
    let response = Response::text(status, "text/html; charset=utf-8", document.into_string());
    match visitor.and_then(Visitor::new_cookie) {
        Some(cookie) => response.header("set-cookie", cookie),
        None => response,
    }
}

fn head(title: &str) -> Markup {
    html! {
        meta charset="utf-8";
        meta name="viewport" content="width=device-width, initial-scale=1";
        meta name="color-scheme" content="light dark";
        title { (title) @if title != "deployctl" { " · deployctl" } }
        link rel="icon" href="data:,";
        link rel="stylesheet" href="/style.css";
    }
}

fn who(visitor: &Visitor) -> Markup {
    html! {
        @match visitor.caller.token() {
            Some(_) => form .who method="post" action="/logout" {
                (form_token(visitor))
                span { (said(&visitor.caller.by())) }
                button .quiet { "Sign out" }
            },
            None => span .who .muted { "no tokens: this host only" },
        }
    }
}

/// The field by which a form shows whose it is.
pub fn form_token(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name="form_token" value=(visitor.form_token()); }
}

/// A page that asks for itself at once.
pub fn reload(path: &str) -> Response {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (head("deployctl"))
                meta http-equiv="refresh" content=(format!("0; url={path}"));
            }
            body { main { p { a href=(path) { "Go on" } } } }
        }
    };
    Response::text(200, "text/html; charset=utf-8", document.into_string())
}

/// What went wrong.
pub fn error(visitor: Option<&Visitor>, error: &ApiError) -> Response {
    if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Internal) {
        log::error!("{}", error.message);
    }
    let main = html! {
        section .card .error role="alert" {
            h1 { "That did not work" }
            p { (said(&error.message)) }
            p { a href="/" { "To the overview" } }
        }
    };
    page(error.kind.status(), visitor, "Error", &main)
}

/// What people, boxes or containers wrote: without control characters, and without those that turn the direction of
/// writing. [`html!`] escapes it.
pub fn said(text: &str) -> String {
    printable(text)
}
