//! Tokens of an OpenID Connect issuer, and signing in on the page: what is taken, and everything that is not.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use futures_util::future::{join, join_all};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use medsearch::archive::Secret;
use medsearch::http::{ClientSettings, Credentials, Oidc, OidcSettings, Roles};
use reqwest::{Response, Url};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::archive::secret;
use crate::cluster::eventually;
use crate::harness::{KEY, TestApp, problem, spawn_with};
use crate::issuer::{AUDIENCE, CLIENT, CLIENT_SECRET, Issuer, Signer};

/// Where browsers find the server.
const PUBLIC: &str = "https://search.example";
/// Whom the issuer means: in no log, metric or answer.
const SUBJECT: &str = "ada.lovelace-4711";

fn settings(issuer: &Issuer) -> OidcSettings {
    let roles = ["reader=search", "r+d=vectors", "boss=admin"].map(|role| role.parse().unwrap());
    OidcSettings {
        issuer: issuer.url.clone(),
        audience: AUDIENCE.to_owned(),
        ca: None,
        roles: Roles::new("scope".to_owned(), roles.to_vec()).unwrap(),
        client: Some(ClientSettings {
            id: CLIENT.to_owned(),
            secret: Some(CLIENT_SECRET.to_owned()),
            scope: "openid profile".to_owned(),
            public_url: PUBLIC.parse().unwrap(),
            session: Duration::from_secs(600),
            session_secret: None,
        }),
    }
}

async fn spawn(oidc: Arc<Oidc>) -> TestApp {
    spawn_with(|settings| {
        settings.credentials = Credentials::open_with(Some(KEY), None, Some(oidc)).unwrap();
        settings.loopback = false;
    })
    .await
}

async fn spawn_for(issuer: &Issuer) -> TestApp {
    spawn(Oidc::new(settings(issuer), &secret()).unwrap()).await
}

async fn ask(app: &TestApp, method: &str, path: &str, token: &str) -> Response {
    app.request(method, path).bearer_auth(token).send().await.unwrap()
}

async fn status(app: &TestApp, token: &str) -> u16 {
    ask(app, "GET", "/v1/archive", token).await.status().as_u16()
}

/// How often something was refused for this reason.
async fn refused(app: &TestApp, reason: &str) -> u64 {
    let text = ask(app, "GET", "/metrics", KEY).await.text().await.unwrap();
    let line = format!("medsearch_requests_refused_total{{reason=\"{reason}\"}} ");
    let value = text.lines().find_map(|found| found.strip_prefix(&line)).unwrap();
    value.parse().unwrap()
}

fn header(response: &Response, name: &str) -> String {
    response
        .headers()
        .get(name)
        .map_or(String::new(), |value| value.to_str().unwrap().to_owned())
}

#[actix_web::test]
async fn tokens_are_taken_for_what_their_roles_permit() {
    for signer in [
        Signer::rsa("a", "RS256"),
        Signer::rsa("a", "PS256"),
        Signer::ec("a"),
        Signer::ed("a"),
    ] {
        let issuer = Issuer::start(&[&signer]);
        let app = spawn_for(&issuer).await;
        let reader = signer.sign(&issuer.claims(SUBJECT, "openid reader"));
        assert_eq!(status(&app, &reader).await, 200);
        let response = ask(&app, "POST", "/v1/images", &reader).await;
        let challenge = r#"Bearer error="insufficient_scope", scope="ingest", login="/login""#;
        assert_eq!(header(&response, "www-authenticate"), challenge);
        assert_eq!(problem(response).await.1, "insufficient-scope");
        let boss = signer.sign(&issuer.claims(SUBJECT, "reader boss"));
        assert_eq!(ask(&app, "GET", "/v1/feedback", &boss).await.status(), 200);
        // Keys are taken beside tokens.
        assert_eq!(
            (status(&app, KEY).await, status(&app, "no-such-key-at-all").await),
            (200, 401)
        );
    }
}

#[actix_web::test]
async fn tokens_that_do_not_hold_are_refused_and_counted_by_reason() {
    let signer = Signer::rsa("a", "RS256");
    let (stranger, same_name) = (Signer::ec("b"), Signer::ec("a"));
    let issuer = Issuer::start(&[&signer]);
    let app = spawn_for(&issuer).await;
    let now = Timestamp::now().as_second();
    let changed = |name: &str, value: Value| {
        let mut claims = issuer.claims(SUBJECT, "reader");
        claims[name] = value;
        claims
    };
    let good = signer.sign(&issuer.claims(SUBJECT, "reader"));
    assert_eq!(status(&app, &good).await, 200);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (head, _) = signed.split_once('.').unwrap();
    let unsigned = |algorithm: &str| {
        let head = BASE64.encode(json!({"alg": algorithm, "kid": "a"}).to_string());
        format!("{head}.{}", BASE64.encode(issuer.claims(SUBJECT, "boss").to_string()))
    };
    // The classic: the public key, which everybody knows, as the secret of an HMAC.
    let with_hmac = |secret: &[u8]| {
        let signed = unsigned("HS256");
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", BASE64.encode(mac.finalize().into_bytes()))
    };
    let public = signer.jwk();
    let modulus = BASE64.decode(public["n"].as_str().unwrap()).unwrap();
    let elevated = BASE64.encode(issuer.claims(SUBJECT, "boss").to_string());
    let rows = [
        (
            "expired",
            signer.sign(&changed("exp", json!(now - 60))),
            "token_expired",
        ),
        ("not yet", signer.sign(&changed("nbf", json!(now + 600))), "token_early"),
        (
            "made in the future",
            signer.sign(&changed("iat", json!(now + 600))),
            "token_early",
        ),
        (
            "without an end",
            signer.sign(&changed("exp", Value::Null)),
            "token_malformed",
        ),
        (
            "for others",
            signer.sign(&changed("aud", json!("others"))),
            "token_audience",
        ),
        (
            "for the page",
            signer.sign(&changed("aud", json!(CLIENT))),
            "token_audience",
        ),
        (
            "another issuer",
            signer.sign(&changed("iss", json!("https://evil.example"))),
            "token_issuer",
        ),
        (
            "almost the issuer",
            signer.sign(&changed("iss", json!(format!("{}/", issuer.url)))),
            "token_issuer",
        ),
        (
            "to refresh with",
            signer.sign(&changed("typ", json!("Refresh"))),
            "token_type",
        ),
        (
            "one that says who signed in, for the same audience",
            signer.sign(&changed("at_hash", json!("x"))),
            "token_type",
        ),
        (
            "with nothing of one to ask with",
            signer.sign(&changed("scope", Value::Null)),
            "token_type",
        ),
        (
            "bound to a key",
            signer.sign(&changed("cnf", json!({"jkt": "x"}))),
            "token_type",
        ),
        (
            "to sign out with",
            signer.sign_as(
                &json!({"alg": "RS256", "kid": "a", "typ": "logout+jwt"}),
                &issuer.claims(SUBJECT, "reader"),
            ),
            "token_type",
        ),
        ("alg none", format!("{}.", unsigned("none")), "token_algorithm"),
        (
            "alg None with a signature",
            format!("{}.{signature}", unsigned("None")),
            "token_algorithm",
        ),
        (
            "HS256 with the public key",
            with_hmac(public.to_string().as_bytes()),
            "token_algorithm",
        ),
        ("HS256 with the modulus", with_hmac(&modulus), "token_algorithm"),
        (
            "another way than the key's",
            format!("{}.{signature}", unsigned("PS256")),
            "token_algorithm",
        ),
        (
            "an unknown key",
            stranger.sign(&issuer.claims(SUBJECT, "reader")),
            "token_key",
        ),
        (
            "another's key under a known name",
            same_name.sign_as(&json!({"alg": "RS256", "kid": "a"}), &issuer.claims(SUBJECT, "reader")),
            "token_signature",
        ),
        (
            "a key that comes along",
            same_name.sign_as(
                &json!({"alg": "ES256", "kid": "c", "jwk": same_name.jwk()}),
                &issuer.claims(SUBJECT, "reader"),
            ),
            "token_key",
        ),
        ("changed", format!("{head}.{elevated}.{signature}"), "token_signature"),
        (
            "cut",
            format!("{signed}.{}", &signature[..signature.len() - 2]),
            "token_signature",
        ),
        ("without a signature", format!("{signed}."), "token_signature"),
        ("not text", "a.b.c".to_owned(), "token_malformed"),
        (
            "too long",
            signer.sign(&changed("more", json!("x".repeat(16 << 10)))),
            "token_malformed",
        ),
        (
            "without a role",
            signer.sign(&issuer.claims(SUBJECT, "openid admin")),
            "no_role",
        ),
    ];
    for (what, token, reason) in rows {
        let before = refused(&app, reason).await;
        let response = ask(&app, "GET", "/v1/archive", &token).await;
        let challenge = header(&response, "www-authenticate");
        assert!(
            challenge.starts_with("Bearer error=") && challenge.ends_with(r#"login="/login""#),
            "{what}: {challenge}"
        );
        let (status, slug, problem) = problem(response).await;
        let expected = if reason == "no_role" {
            (403, "insufficient-scope")
        } else {
            (401, "unauthorized")
        };
        assert_eq!((status, slug.as_str()), expected, "{what}");
        assert!(!problem.detail.contains(SUBJECT), "{what}: {}", problem.detail);
        assert_eq!(refused(&app, reason).await, before + 1, "{what}");
    }
}

#[actix_web::test]
async fn keys_come_and_go_at_the_issuer() {
    let (old, new) = (Signer::ec("old"), Signer::ec("new"));
    let issuer = Issuer::start(&[&old]);
    let app = spawn_for(&issuer).await;
    let claims = issuer.claims(SUBJECT, "reader");
    assert_eq!(status(&app, &old.sign(&claims)).await, 200);
    issuer.change(|issuer| issuer.keys = vec![new.jwk()]);
    assert_eq!(status(&app, &new.sign(&claims)).await, 200, "a new key is looked for");
    assert_eq!(
        status(&app, &old.sign(&claims)).await,
        401,
        "one that was taken back is none"
    );

    // Whoever invents keys does not make the server ask for each.
    let asked = issuer.change(|issuer| issuer.asked_for_keys);
    for n in 0..20 {
        assert_eq!(status(&app, &Signer::ec(&n.to_string()).sign(&claims)).await, 401);
    }
    assert_eq!(issuer.change(|issuer| issuer.asked_for_keys), asked);

    issuer.change(|issuer| issuer.down = true);
    assert_eq!(status(&app, &new.sign(&claims)).await, 200, "the last keys stay");
}

#[actix_web::test]
async fn all_that_wait_for_a_new_key_wait_for_one_answer_of_the_issuer() {
    let (old, new) = (Signer::ec("old"), Signer::ec("new"));
    let issuer = Issuer::start(&[&old]);
    let app = spawn_for(&issuer).await;
    let claims = issuer.claims(SUBJECT, "reader");
    assert_eq!(status(&app, &old.sign(&claims)).await, 200);
    let asked = issuer.change(|issuer| {
        issuer.keys = vec![new.jwk()];
        issuer.delay = Duration::from_millis(300);
        issuer.asked_for_keys
    });
    let token = new.sign(&claims);
    let statuses = join_all((0..16).map(|_| status(&app, &token))).await;
    assert_eq!(statuses, [200; 16]);
    assert_eq!(issuer.change(|issuer| issuer.asked_for_keys), asked + 1);

    // An issuer that is slow holds nobody up for longer than a moment: the place of a request is worth more.
    issuer.change(|issuer| issuer.delay = Duration::from_secs(4));
    let (third, fourth) = (Signer::ec("third"), Signer::ec("fourth"));
    actix_web::rt::time::sleep(Duration::from_secs(10)).await;
    let token = third.sign(&claims);
    let first = status(&app, &token);
    let others = async {
        actix_web::rt::time::sleep(Duration::from_millis(200)).await;
        let started = Instant::now();
        let token = fourth.sign(&claims);
        let statuses = join_all((0..16).map(|_| status(&app, &token))).await;
        (statuses, started.elapsed())
    };
    let (first, (others, took)) = join(first, others).await;
    assert_eq!((first, others), (401, vec![401; 16]));
    assert!(took < Duration::from_millis(2500), "{took:?}");
}

#[actix_web::test]
async fn the_issuer_is_asked_for_four_codes_at_a_time() {
    let signer = Signer::ec("a");
    let issuer = Issuer::start(&[&signer]);
    let app = spawn_for(&issuer).await;
    let mut backs = Vec::new();
    for _ in 0..7 {
        let way = Way::begin(&app).await;
        let code = way.let_in(&issuer, &signer, "reader", &json!({}));
        backs.push((way.back(&issuer, &code), way.cookie));
    }
    issuer.change(|issuer| issuer.delay = Duration::from_secs(1));
    let came = backs.iter().map(|(back, cookie)| come_back(&app, back, Some(cookie)));
    let mut pages: Vec<String> = join_all(came)
        .await
        .iter()
        .map(|response| header(response, "location"))
        .collect();
    pages.sort();
    let unavailable = "/#sign-in-unavailable";
    assert_eq!(pages, ["/", "/", "/", "/", unavailable, unavailable, unavailable]);
    assert_eq!(issuer.change(|issuer| issuer.exchanging_max), 4);
    // Their places are free again.
    issuer.change(|issuer| issuer.delay = Duration::ZERO);
    sign_in(&app, &issuer, &signer, "reader").await;
}

#[actix_web::test]
async fn a_server_starts_without_the_issuer_and_says_so() {
    let signer = Signer::ed("a");
    let issuer = Issuer::start(&[&signer]);
    issuer.change(|issuer| issuer.down = true);
    let app = spawn_for(&issuer).await;
    let response = ask(
        &app,
        "GET",
        "/v1/archive",
        &signer.sign(&issuer.claims(SUBJECT, "reader")),
    )
    .await;
    assert_eq!(problem(response).await.0, 503);
    assert_eq!(
        (status(&app, KEY).await, refused(&app, "issuer_unavailable").await),
        (200, 1)
    );
    eventually("the metric says so", async || {
        let text = ask(&app, "GET", "/metrics", KEY).await.text().await.unwrap();
        text.contains("medsearch_oidc_issuer_broken 1")
    })
    .await;
}

/// A browser on the way to the issuer.
struct Way {
    query: HashMap<String, String>,
    cookie: String,
}

impl Way {
    async fn begin(app: &TestApp) -> Self {
        let response = app.get("/login").await;
        assert_eq!(response.status(), 303);
        let address = Url::parse(&header(&response, "location")).unwrap();
        assert_eq!(address.path(), "/auth");
        let cookie = header(&response, "set-cookie");
        for part in [
            "__Host-medsearch-login=",
            "; Path=/;",
            "; HttpOnly",
            "; SameSite=Lax",
            "; Secure",
        ] {
            assert!(cookie.contains(part), "{cookie}");
        }
        Self {
            query: address.query_pairs().into_owned().collect(),
            cookie: cookie.split(';').next().unwrap().to_owned(),
        }
    }

    /// The issuer lets the person in: a code for an id token with these changes.
    fn let_in(&self, issuer: &Issuer, signer: &Signer, scope: &str, change: &Value) -> String {
        let mut claims = issuer.claims(SUBJECT, scope);
        claims["aud"] = json!(CLIENT);
        claims["nonce"] = json!(self.query["nonce"]);
        claims["name"] = json!("Ada Lovelace");
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let code = format!("code-{}", &self.query["state"][..8]);
        let tokens = json!({"id_token": signer.sign(&claims), "access_token": "opaque", "token_type": "Bearer"});
        issuer.change(|issuer| {
            issuer
                .codes
                .insert(code.clone(), (self.query["code_challenge"].clone(), tokens))
        });
        code
    }

    fn back(&self, issuer: &Issuer, code: &str) -> Vec<(String, String)> {
        [("code", code), ("state", &self.query["state"]), ("iss", &issuer.url)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    }
}

async fn come_back(app: &TestApp, parameters: &[(String, String)], cookie: Option<&str>) -> Response {
    let mut address = Url::parse("http://localhost/login/callback").unwrap();
    address.query_pairs_mut().extend_pairs(parameters);
    let request = app.request("GET", &format!("/login/callback?{}", address.query().unwrap()));
    match cookie {
        Some(cookie) => request.header("cookie", cookie),
        None => request,
    }
    .send()
    .await
    .unwrap()
}

/// The session's cookie of an answer; none where nobody was let in.
fn session_of(response: &Response) -> Option<String> {
    assert_eq!(response.status(), 303);
    let cookies: Vec<&str> = response
        .headers()
        .get_all("set-cookie")
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect();
    assert!(
        cookies
            .iter()
            .any(|cookie| cookie.starts_with("__Host-medsearch-login=;") && cookie.contains("Max-Age=0"))
    );
    let session = cookies
        .into_iter()
        .find(|cookie| cookie.starts_with("__Host-medsearch="))?;
    for part in ["; Path=/;", "; HttpOnly", "; SameSite=Strict", "; Secure", "; Max-Age="] {
        assert!(session.contains(part), "{session}");
    }
    Some(session.split(';').next().unwrap().to_owned())
}

async fn sign_in(app: &TestApp, issuer: &Issuer, signer: &Signer, scope: &str) -> String {
    let way = Way::begin(app).await;
    let code = way.let_in(issuer, signer, scope, &json!({}));
    let response = come_back(app, &way.back(issuer, &code), Some(&way.cookie)).await;
    assert_eq!(header(&response, "location"), "/");
    session_of(&response).expect("somebody was let in")
}

/// A request of a page, with the cookie that the browser adds.
async fn by_page(app: &TestApp, method: &str, path: &str, cookie: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = app.request(method, path).header("cookie", cookie);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

const OWN: &[(&str, &str)] = &[("sec-fetch-site", "same-origin"), ("origin", PUBLIC)];

#[actix_web::test]
async fn people_sign_in_and_out_on_the_page() {
    let signer = Signer::rsa("a", "RS256");
    let issuer = Issuer::start(&[&signer]);
    let app = spawn_for(&issuer).await;
    let stranger: Value = app.get("/session").await.json().await.unwrap();
    assert_eq!(stranger, json!({"login": "/login", "session": null}));
    let way = Way::begin(&app).await;
    let asked = |name: &str| way.query[name].as_str();
    assert_eq!(
        (
            asked("response_type"),
            asked("code_challenge_method"),
            asked("client_id")
        ),
        ("code", "S256", CLIENT)
    );
    assert_eq!(
        (asked("redirect_uri"), asked("scope")),
        ("https://search.example/login/callback", "openid profile")
    );

    let session = sign_in(&app, &issuer, &signer, "reader").await;
    assert!(!session.contains("Ada") && !session.contains(SUBJECT));
    assert_eq!(
        by_page(&app, "GET", "/v1/archive", &session, &OWN[..1]).await.status(),
        200
    );
    assert_eq!(
        by_page(&app, "POST", "/v1/embeddings", &session, OWN).await.status(),
        403
    );
    let known: Value = by_page(&app, "GET", "/session", &session, &OWN[..1])
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&known["session"]["name"], &known["session"]["scopes"]),
        (&json!("Ada Lovelace"), &json!(["search"]))
    );
    let pseudonym = known["session"]["key"].as_str().unwrap();
    assert!(pseudonym.starts_with("oidc:") && pseudonym.len() == 21, "{pseudonym}");

    let response = by_page(&app, "POST", "/logout", &session, OWN).await;
    assert!(header(&response, "set-cookie").starts_with("__Host-medsearch=; Path=/; Max-Age=0;"));
    let ended: Value = response.json().await.unwrap();
    assert_eq!(ended["continue"], format!("{}/end?client_id={CLIENT}", issuer.url));
    // Whoever copied it before has nothing now.
    let copied = by_page(&app, "GET", "/v1/archive", &session, &OWN[..1]).await;
    assert_eq!(problem(copied).await.0, 401);
    // What a key may do the key decides, whatever cookie comes along.
    let response = app
        .request("POST", "/v1/embeddings")
        .bearer_auth(KEY)
        .header("cookie", &session);
    assert_ne!(response.send().await.unwrap().status(), 403);
}

/// Method, path, headers, and whether a session may ask so.
type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], bool);

#[actix_web::test]
async fn a_session_is_for_our_page_alone() {
    let signer = Signer::ec("a");
    let issuer = Issuer::start(&[&signer]);
    let app = spawn_for(&issuer).await;
    let session = sign_in(&app, &issuer, &signer, "boss").await;
    let site = |site| ("sec-fetch-site", site);
    let (own, evil) = (("origin", PUBLIC), ("origin", "https://evil.example"));
    #[rustfmt::skip] // a table
    let rows: &[Row<'_>] = &[
        ("GET", "/v1/archive", &[site("same-origin")], true),
        ("GET", "/v1/archive", &[site("none")], true),
        ("POST", "/v1/search/by-id", &[site("same-origin"), own], true),
        ("POST", "/v1/search/by-id", &[own], true),
        // a form, a picture, a script of another page
        ("POST", "/v1/search/by-id", &[site("cross-site"), evil], false),
        ("POST", "/v1/images", &[site("cross-site"), ("origin", "null")], false),
        ("POST", "/v1/images", &[evil], false),
        ("POST", "/v1/images", &[("origin", "http://search.example")], false),
        ("POST", "/v1/images", &[], false),
        ("POST", "/v1/images", &[site("none")], false),
        ("POST", "/v1/images", &[site("same-site"), ("origin", "https://other.search.example")], false),
        ("DELETE", "/v1/feedback/x", &[site("cross-site"), own], false),
        ("GET", "/v1/archive", &[site("cross-site")], false),
        ("GET", "/v1/archive", &[site("same-site")], false),
        ("GET", "/v1/archive", &[site("same-origin"), site("cross-site")], false),
        ("GET", "/v1/archive", &[site("same-origin"), evil], false),
        ("GET", "/v1/archive", &[], false),
        ("POST", "/logout", &[site("cross-site"), evil], false),
        ("POST", "/logout", &[], false),
    ];
    for (method, path, headers, good) in rows {
        let response = by_page(&app, method, path, &session, headers).await;
        if *good {
            assert!(
                !matches!(response.status().as_u16(), 401 | 403),
                "{method} {path} {headers:?}: {}",
                response.status()
            );
        } else {
            assert_eq!(
                problem(response).await.1,
                "forbidden-origin",
                "{method} {path} {headers:?}"
            );
        }
    }
    // What another page asks does not even learn that somebody has signed in.
    let known: Value = by_page(&app, "GET", "/session", &session, &[site("cross-site")])
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(known["session"], Value::Null);
    let framed = app
        .request("GET", "/login")
        .header("sec-fetch-dest", "iframe")
        .header("sec-fetch-mode", "navigate");
    assert_eq!(framed.send().await.unwrap().status(), 403);
}

#[actix_web::test]
async fn forged_and_old_sessions_are_refused() {
    let signer = Signer::ed("a");
    let issuer = Issuer::start(&[&signer]);
    let app = spawn_for(&issuer).await;
    let session = sign_in(&app, &issuer, &signer, "reader").await;
    let mut other = settings(&issuer);
    let client = other.client.as_mut().unwrap();
    client.session_secret = Some(Secret::from_bytes([9; 32]));
    let elsewhere = spawn(Oidc::new(other, &secret()).unwrap()).await;
    let of_another_key = sign_in(&elsewhere, &issuer, &signer, "boss").await;
    let on_the_way = Way::begin(&app).await.cookie.replace("-login=", "=");
    let (name, value) = session.split_once('=').unwrap();
    let mut bytes = BASE64.decode(value).unwrap();
    bytes[20] ^= 1;
    let plain =
        BASE64.encode(json!({"name": "oidc:0000000000000000", "scopes": "admin", "expires": i64::MAX}).to_string());
    for (what, cookie) in [
        ("made up", format!("{name}=forged")),
        ("not sealed", format!("{name}={plain}")),
        ("changed", format!("{name}={}", BASE64.encode(&bytes))),
        ("cut", session[..session.len() - 4].to_owned()),
        ("of another key", of_another_key),
        ("for the way", on_the_way),
        ("empty", format!("{name}=")),
        ("long", format!("{name}={}", "A".repeat(8000))),
    ] {
        let response = by_page(&app, "GET", "/v1/archive", &cookie, &OWN[..1]).await;
        assert_eq!(
            header(&response, "www-authenticate"),
            r#"Bearer error="invalid_token", login="/login""#,
            "{what}"
        );
        assert_eq!(problem(response).await.1, "unauthorized", "{what}");
    }
    assert_eq!(refused(&app, "unknown_session").await, 8);
    for cookie in [format!("{session}; {session}"), session.replace("__Host-", "")] {
        let response = by_page(&app, "GET", "/v1/archive", &cookie, &OWN[..1]).await;
        assert_eq!(response.status(), 401);
    }

    let mut short = settings(&issuer);
    short.client.as_mut().unwrap().session = Duration::from_secs(1);
    let app = spawn(Oidc::new(short, &secret()).unwrap()).await;
    // A replica with the same secret reads it.
    assert_eq!(
        by_page(&app, "GET", "/v1/archive", &session, &OWN[..1]).await.status(),
        200
    );
    let brief = sign_in(&app, &issuer, &signer, "reader").await;
    actix_web::rt::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(
        by_page(&app, "GET", "/v1/archive", &brief, &OWN[..1]).await.status(),
        401
    );
    assert_eq!(refused(&app, "expired_session").await, 1);
}

#[actix_web::test]
async fn sessions_end_when_the_rules_by_which_they_were_made_change() {
    let signer = Signer::ed("a");
    let issuer = Issuer::start(&[&signer]);
    let app = spawn_for(&issuer).await;
    let session = sign_in(&app, &issuer, &signer, "boss").await;
    let still = async |other: OidcSettings| {
        let app = spawn(Oidc::new(other, &secret()).unwrap()).await;
        let response = by_page(&app, "GET", "/v1/archive", &session, &OWN[..1]).await;
        response.status().as_u16()
    };
    let roles = |claim: &str, roles: &[&str]| {
        let roles = roles.iter().map(|role| role.parse().unwrap()).collect();
        Roles::new(claim.to_owned(), roles).unwrap()
    };
    let with_roles = |roles| OidcSettings {
        roles,
        ..settings(&issuer)
    };
    let same = roles("scope", &["boss=admin", "r+d=vectors", "reader=search"]);
    assert_eq!(still(with_roles(same)).await, 200);
    // The boss is one no more, or roles stand elsewhere.
    let fewer = roles("scope", &["reader=search", "r+d=vectors", "boss=search"]);
    assert_eq!(still(with_roles(fewer)).await, 401);
    let elsewhere = roles("groups", &["boss=admin", "r+d=vectors", "reader=search"]);
    assert_eq!(still(with_roles(elsewhere)).await, 401);
    let mut another_client = settings(&issuer);
    another_client.client.as_mut().unwrap().id = "another".to_owned();
    assert_eq!(still(another_client).await, 401);
    let another_issuer = OidcSettings {
        issuer: "https://another.example".to_owned(),
        ..settings(&issuer)
    };
    assert_eq!(still(another_issuer).await, 401);
}

#[actix_web::test]
async fn whoever_comes_back_wrongly_is_not_let_in() {
    let signer = Signer::ec("a");
    let issuer = Issuer::start(&[&signer]);
    let app = spawn_for(&issuer).await;
    let failed = |response: &Response, page: &str, what: &str| {
        assert_eq!(session_of(response), None, "{what}");
        assert_eq!(header(response, "location"), page, "{what}");
    };
    const FAILED: &str = "/#sign-in-failed";

    let way = Way::begin(&app).await;
    let code = way.let_in(&issuer, &signer, "reader", &json!({}));
    let back = way.back(&issuer, &code);
    let with = |name: &str, value: &str| -> Vec<(String, String)> {
        back.iter()
            .map(|(n, v)| (n.clone(), if n == name { value.to_owned() } else { v.clone() }))
            .collect()
    };
    let without = |name: &str| -> Vec<(String, String)> { back.iter().filter(|(n, _)| n != name).cloned().collect() };
    // Signing somebody in as another: their browser never went.
    failed(&come_back(&app, &back, None).await, FAILED, "another's browser");
    let theirs = Way::begin(&app).await;
    failed(
        &come_back(&app, &back, Some(&theirs.cookie)).await,
        FAILED,
        "a browser that went for itself",
    );
    failed(
        &come_back(&app, &with("state", "guessed"), Some(&way.cookie)).await,
        FAILED,
        "another state",
    );
    failed(
        &come_back(&app, &without("state"), Some(&way.cookie)).await,
        FAILED,
        "no state",
    );
    let twice = [back.clone(), with("state", "x")].concat();
    failed(&come_back(&app, &twice, Some(&way.cookie)).await, FAILED, "two states");
    // None of these used it up.
    assert!(session_of(&come_back(&app, &back, Some(&way.cookie)).await).is_some());
    way.let_in(&issuer, &signer, "reader", &json!({}));
    failed(
        &come_back(&app, &back, Some(&way.cookie)).await,
        FAILED,
        "the same again",
    );

    for (what, name, value) in [
        ("another issuer", "iss", Some("https://evil.example")),
        ("no issuer", "iss", None),
        ("no code", "code", None),
    ] {
        let way = Way::begin(&app).await;
        let code = way.let_in(&issuer, &signer, "reader", &json!({}));
        let mut back = way.back(&issuer, &code);
        back.retain(|(n, _)| n != name);
        back.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        failed(&come_back(&app, &back, Some(&way.cookie)).await, FAILED, what);
    }
    let way = Way::begin(&app).await;
    let mut denied = way.back(&issuer, "x");
    denied.push(("error".to_owned(), "access_denied".to_owned()));
    failed(
        &come_back(&app, &denied, Some(&way.cookie)).await,
        FAILED,
        "refused by the issuer",
    );
    let way = Way::begin(&app).await;
    let back = way.back(&issuer, "no-such-code");
    failed(
        &come_back(&app, &back, Some(&way.cookie)).await,
        "/#sign-in-unavailable",
        "a code that is none",
    );
    // A code that was stolen from another browser's way: PKCE.
    let (victim, thief) = (Way::begin(&app).await, Way::begin(&app).await);
    let stolen = victim.let_in(&issuer, &signer, "boss", &json!({}));
    let back = thief.back(&issuer, &stolen);
    failed(
        &come_back(&app, &back, Some(&thief.cookie)).await,
        "/#sign-in-unavailable",
        "a stolen code",
    );
}

#[actix_web::test]
async fn what_the_issuer_says_of_people_is_checked() {
    let signer = Signer::ec("a");
    let issuer = Issuer::start(&[&signer]);
    let app = spawn_for(&issuer).await;
    let now = Timestamp::now().as_second();
    let stranger = Signer::ec("b");
    for (what, by, change, page) in [
        ("no nonce", &signer, json!({"nonce": null}), "/#sign-in-failed"),
        ("another nonce", &signer, json!({"nonce": "x"}), "/#sign-in-failed"),
        ("for the API", &signer, json!({"aud": AUDIENCE}), "/#sign-in-failed"),
        (
            "for another client",
            &signer,
            json!({"aud": [CLIENT, "x"], "azp": "x"}),
            "/#sign-in-failed",
        ),
        ("expired", &signer, json!({"exp": now - 60}), "/#sign-in-failed"),
        (
            "another issuer",
            &signer,
            json!({"iss": "https://evil.example"}),
            "/#sign-in-failed",
        ),
        ("an unknown key", &stranger, json!({}), "/#sign-in-failed"),
        ("no role", &signer, json!({"scope": "openid"}), "/#sign-in-no-role"),
    ] {
        let way = Way::begin(&app).await;
        let code = way.let_in(&issuer, by, "reader", &change);
        let response = come_back(&app, &way.back(&issuer, &code), Some(&way.cookie)).await;
        assert_eq!(
            (session_of(&response), header(&response, "location").as_str()),
            (None, page),
            "{what}"
        );
    }
    assert_eq!(refused(&app, "login").await, 8);
    // Roles in the token to ask with, of the same person, count.
    for (subject, let_in) in [(SUBJECT, true), ("another", false)] {
        let way = Way::begin(&app).await;
        let code = way.let_in(&issuer, &signer, "openid", &json!({}));
        let access = signer.sign(&issuer.claims(subject, "reader"));
        issuer.change(|issuer| issuer.codes.get_mut(&code).unwrap().1["access_token"] = json!(access));
        let response = come_back(&app, &way.back(&issuer, &code), Some(&way.cookie)).await;
        assert_eq!(session_of(&response).is_some(), let_in, "{subject}");
    }
}

#[actix_web::test]
async fn without_an_issuer_nobody_signs_in() {
    let app = crate::harness::spawn_with_key().await;
    let known: Value = app.get("/session").await.json().await.unwrap();
    assert_eq!(known, json!({"login": null, "session": null}));
    for (method, path) in [
        ("GET", "/login"),
        ("GET", "/login/callback?code=x&state=y"),
        ("POST", "/logout"),
    ] {
        let response = app.request(method, path).send().await.unwrap();
        assert_eq!(problem(response).await.0, 404, "{path}");
    }
    let response = app.get("/v1/archive").await;
    assert_eq!(header(&response, "www-authenticate"), "Bearer");
    let token = Signer::ed("a").sign(&json!({}));
    assert_eq!(status(&app, &token).await, 401);
}
