//! `GET /login`, `GET /login/callback`, `POST /logout`, `GET /session`: people sign in on the page. For browsers alone, so that the description of the API
//! does not have them.

use std::sync::Arc;

use actix_web::http::header::{self, HeaderMap, HeaderName};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use jiff::Timestamp;
use serde_json::json;

use super::access::{Login, LoginFault, Oidc, Returned, TokenFault, session_cookie};
use super::guard::{cookies, from_our_page};
use super::{State, audited};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::RefusalReason;

/// Sends the browser to the issuer.
pub async fn begin(state: Data<State>, request: HttpRequest) -> Result<HttpResponse> {
    let (oidc, login) = issuer(&state)?;
    // Not into a frame or a picture of somebody's page.
    if !is_navigation(request.headers()) {
        return Err(Error::new(
            ErrorKind::ForbiddenOrigin,
            "signing in begins in a tab of its own",
        ));
    }
    let begun = oidc.begin(login, Timestamp::now()).await?;
    Ok(see_other(&begun.address, &[login.way_header(&begun.cookie)]))
}

/// Lets in whoever comes back from the issuer. Whether or not it worked, the way there and back is over.
pub async fn finish(state: Data<State>, request: HttpRequest) -> Result<HttpResponse> {
    let (oidc, login) = issuer(&state)?;
    let returned = Returned {
        query: request.query_string(),
        cookie: session_cookie(cookies(request.headers()), login.cookie_name(true)),
    };
    let over = login.way_header("");
    let finished = oidc.finish(login, returned, Timestamp::now()).await;
    let fault = match finished {
        Ok(session) => {
            let name = session.holder.name.clone();
            tracing::info!(key = name.as_str(), "signed in");
            audited::signed(&state, &request, "signIn", Some(&name));
            return Ok(see_other("/", &[over, login.session_header(&session.seal(login)?)]));
        }
        Err(fault) => fault,
    };
    tracing::warn!(reason = fault.as_str(), "not signed in");
    state.metrics.refused(RefusalReason::Login);
    audited::signed(&state, &request, "signIn", None);
    let page = match fault {
        LoginFault::Token(TokenFault::NoRole) => "/#sign-in-no-role",
        LoginFault::Unavailable | LoginFault::Exchange => "/#sign-in-unavailable",
        _ => "/#sign-in-failed",
    };
    Ok(see_other(page, &[over]))
}

/// Ends the session of this browser, and says where the one at the issuer can be ended.
pub async fn end(state: Data<State>, request: HttpRequest) -> Result<HttpResponse> {
    let (oidc, login) = issuer(&state)?;
    if !from_our_page(login, request.method(), request.headers()) {
        let message = "the request does not come from this server's page";
        return Err(Error::new(ErrorKind::ForbiddenOrigin, message));
    }
    let cookie = session_cookie(cookies(request.headers()), login.cookie_name(false));
    // A session that is over is nobody's to end.
    if let Some((cookie, session)) =
        cookie.and_then(|cookie| Some((cookie, oidc.session(cookie, Timestamp::now()).ok()?)))
    {
        login.end(cookie);
        audited::signed(&state, &request, "signOut", Some(&session.holder.name));
    }
    Ok(HttpResponse::Ok()
        .insert_header((header::SET_COOKIE, login.session_header("")))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(json!({ "continue": oidc.sign_out_address(login) })))
}

/// Who has signed in, for the page, and where to do so.
pub async fn session(state: Data<State>, request: HttpRequest) -> HttpResponse {
    let known = issuer(&state).ok();
    let session = known.as_ref().and_then(|(oidc, login)| {
        let cookie = session_cookie(cookies(request.headers()), login.cookie_name(false))?;
        let ours = from_our_page(login, request.method(), request.headers());
        ours.then(|| oidc.session(cookie, Timestamp::now()).ok()).flatten()
    });
    let signed_in = session.map(|session| {
        json!({
            "name": session.shown,
            "key": session.holder.name.as_str(),
            "scopes": session.holder.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>(),
            "expires": session.expires.to_string(),
        })
    });
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(json!({ "login": known.map(|_| "/login"), "session": signed_in }))
}

fn issuer(state: &State) -> Result<(&Arc<Oidc>, &Login)> {
    let oidc = state
        .settings
        .credentials
        .as_ref()
        .and_then(|credentials| credentials.oidc());
    oidc.and_then(|oidc| Some((oidc, oidc.login()?)))
        .ok_or_else(|| Error::new(ErrorKind::NotFound, "nobody can sign in here"))
}

/// Whether a tab goes there; programs, which say nothing, are let through.
fn is_navigation(headers: &HeaderMap) -> bool {
    [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]
        .iter()
        .all(|(name, wanted)| {
            let mut values = headers.get_all(HeaderName::from_static(name));
            values.all(|value| value == wanted)
        })
}

fn see_other(address: &str, cookies: &[String]) -> HttpResponse {
    let mut response = HttpResponse::SeeOther();
    response
        .insert_header((header::LOCATION, address))
        .insert_header((header::CACHE_CONTROL, "no-store"));
    for cookie in cookies {
        response.append_header((header::SET_COOKIE, cookie.as_str()));
    }
    response.finish()
}
