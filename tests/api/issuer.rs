//! An OpenID Connect issuer in the test's own process: description, keys, and an exchange of codes. It signs whatever it is told to.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64};
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaKeyPair,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What tokens for the API have as `aud`.
pub const AUDIENCE: &str = "medsearch-api";
/// What the issuer calls the server.
pub const CLIENT: &str = "medsearch-page";
/// The secret that both know.
pub const CLIENT_SECRET: &str = "a secret: with odd characters";

/// A key with its name.
pub struct Signer {
    name: String,
    key: Key,
}

enum Key {
    Rsa(Box<RsaKeyPair>, &'static str),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    /// The RSA key of these tests, for `RS256` or `PS256`. ring makes none.
    pub fn rsa(name: &str, algorithm: &'static str) -> Self {
        let text = include_str!("rsa_key_for_tests.txt").replace('\n', "");
        let key = RsaKeyPair::from_der(&STANDARD.decode(text).unwrap()).unwrap();
        Self {
            name: name.to_owned(),
            key: Key::Rsa(Box::new(key), algorithm),
        }
    }

    /// A new key on P-256.
    pub fn ec(name: &str) -> Self {
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random).unwrap();
        Self {
            name: name.to_owned(),
            key: Key::Ec(key),
        }
    }

    /// A new key on Ed25519.
    pub fn ed(name: &str) -> Self {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self {
            name: name.to_owned(),
            key: Key::Ed(Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap()),
        }
    }

    fn algorithm(&self) -> &'static str {
        match &self.key {
            Key::Rsa(_, algorithm) => algorithm,
            Key::Ec(_) => "ES256",
            Key::Ed(_) => "EdDSA",
        }
    }

    /// The public half, as an issuer publishes it.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.key {
            Key::Rsa(key, _) => {
                let public: PublicKeyComponents<Vec<u8>> = key.public().into();
                json!({"kty": "RSA", "n": BASE64.encode(public.n), "e": BASE64.encode(public.e)})
            }
            Key::Ec(key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..])})
            }
            Key::Ed(key) => json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(key.public_key().as_ref())}),
        };
        let more = json!({"kid": self.name, "use": "sig", "alg": self.algorithm()});
        jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        jwk
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(
            &json!({"alg": self.algorithm(), "kid": self.name, "typ": "JWT"}),
            claims,
        )
    }

    /// The same with another head.
    pub fn sign_as(&self, head: &Value, claims: &Value) -> String {
        let signed = format!(
            "{}.{}",
            BASE64.encode(head.to_string()),
            BASE64.encode(claims.to_string())
        );
        let (random, message) = (SystemRandom::new(), signed.as_bytes());
        let signature = match &self.key {
            Key::Rsa(key, algorithm) => {
                let mut signature = vec![0; key.public().modulus_len()];
                let padding: &dyn ring::signature::RsaEncoding = if *algorithm == "PS256" {
                    &RSA_PSS_SHA256
                } else {
                    &RSA_PKCS1_SHA256
                };
                key.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Key::Ec(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Key::Ed(key) => key.sign(message).as_ref().to_vec(),
        };
        format!("{signed}.{}", BASE64.encode(signature))
    }
}

/// What the issuer does.
#[derive(Default)]
pub struct Behaviour {
    /// The keys that it publishes.
    pub keys: Vec<Value>,
    /// It answers nothing but 503.
    pub down: bool,
    /// How often it was asked for its keys.
    pub asked_for_keys: usize,
    /// Code -> the challenge it was asked with, and the tokens that it gives, once.
    pub codes: HashMap<String, (String, Value)>,
    /// How long it takes to answer for its keys, and for a code.
    pub delay: Duration,
    /// Codes that it exchanges at the moment, and most of them at a time so far.
    pub exchanging: usize,
    pub exchanging_max: usize,
}

/// A running issuer.
pub struct Issuer {
    /// Its address.
    pub url: String,
    behaviour: Data<Mutex<Behaviour>>,
    server: ServerHandle,
}

impl Issuer {
    /// One that publishes these keys.
    pub fn start(signers: &[&Signer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let keys = signers.iter().map(|signer| signer.jwk()).collect();
        let behaviour = Data::new(Mutex::new(Behaviour {
            keys,
            ..Behaviour::default()
        }));
        let (shared, own) = (behaviour.clone(), Data::new(Arc::<str>::from(url.as_str())));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(shared.clone())
                .app_data(own.clone())
                .route("/.well-known/openid-configuration", web::get().to(describe))
                .route("/keys", web::get().to(keys_of))
                .route("/token", web::post().to(exchange))
        });
        let server = server.workers(1).disable_signals().listen(listener).unwrap().run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self {
            url,
            behaviour,
            server: handle,
        }
    }

    /// Changes what it does.
    pub fn change<T>(&self, change: impl FnOnce(&mut Behaviour) -> T) -> T {
        change(&mut self.behaviour.lock().unwrap())
    }

    /// Claims of a token to ask with that is good for an hour.
    pub fn claims(&self, subject: &str, scope: &str) -> Value {
        let now = Timestamp::now().as_second();
        json!({"iss": self.url, "sub": subject, "aud": AUDIENCE, "exp": now + 3600, "iat": now, "scope": scope})
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        drop(self.server.stop(false));
    }
}

async fn describe(behaviour: Data<Mutex<Behaviour>>, url: Data<Arc<str>>) -> HttpResponse {
    if behaviour.lock().unwrap().down {
        return HttpResponse::ServiceUnavailable().finish();
    }
    HttpResponse::Ok().json(json!({
        "issuer": url.as_ref().as_ref(),
        "jwks_uri": format!("{}/keys", url.as_ref()),
        "authorization_endpoint": format!("{}/auth", url.as_ref()),
        "token_endpoint": format!("{}/token", url.as_ref()),
        "end_session_endpoint": format!("{}/end", url.as_ref()),
        "authorization_response_iss_parameter_supported": true,
    }))
}

async fn keys_of(behaviour: Data<Mutex<Behaviour>>) -> HttpResponse {
    let delay = {
        let mut behaviour = behaviour.lock().unwrap();
        behaviour.asked_for_keys += 1;
        behaviour.delay
    };
    actix_web::rt::time::sleep(delay).await;
    let behaviour = behaviour.lock().unwrap();
    HttpResponse::Ok().json(json!({ "keys": behaviour.keys }))
}

/// As RFC 6749 and RFC 7636 have it: for the client alone, once, with the verifier of the challenge.
async fn exchange(
    behaviour: Data<Mutex<Behaviour>>,
    request: HttpRequest,
    form: web::Form<HashMap<String, String>>,
) -> HttpResponse {
    let refuse = || HttpResponse::BadRequest().json(json!({"error": "invalid_grant"}));
    let basic = format!(
        "Basic {}",
        STANDARD.encode(format!("{CLIENT}:a+secret%3A+with+odd+characters"))
    );
    let is_client = request
        .headers()
        .get("authorization")
        .is_some_and(|value| value == basic.as_str());
    if !is_client || form["grant_type"] != "authorization_code" || !form["redirect_uri"].ends_with("/login/callback") {
        return refuse();
    }
    let delay = {
        let mut behaviour = behaviour.lock().unwrap();
        behaviour.exchanging += 1;
        behaviour.exchanging_max = behaviour.exchanging_max.max(behaviour.exchanging);
        behaviour.delay
    };
    actix_web::rt::time::sleep(delay).await;
    behaviour.lock().unwrap().exchanging -= 1;
    let Some((challenge, tokens)) = behaviour.lock().unwrap().codes.remove(&form["code"]) else {
        return refuse();
    };
    if BASE64.encode(Sha256::digest(&form["code_verifier"])) != challenge {
        return refuse();
    }
    HttpResponse::Ok().json(tokens)
}
