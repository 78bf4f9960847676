//! `/v1/token`: what the caller may do, so that `doctor` can tell.

use crate::{
    api::TokenAnswer,
    service::{
        Service,
        api_error::ApiResult,
        auth::Caller,
        http::{Request, Response},
    },
};

/// `GET /v1/token`: any token will do.
#[expect(clippy::unnecessary_wraps, reason = "the table of routes wants calls that may fail")]
pub fn show(_: &Service, caller: &Caller, _: &Request) -> ApiResult<Response> {
    let answer = caller.token().map_or_else(TokenAnswer::default, |(name, scopes)| TokenAnswer {
        name: Some(name.to_owned()),
        can: scopes.iter().map(ToString::to_string).collect(),
    });
    Ok(Response::json(200, &answer))
}
