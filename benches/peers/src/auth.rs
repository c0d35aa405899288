//! Who calls, and how much may they: `AuthenticateLayer` with keys and tokens that it takes, and quotas by tenant.

use std::fmt::Debug;
use std::time::Duration;

use axum::body::Bytes;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Empty;
use tower::{Layer, Service, util::MapRequestLayer};
use tower_kernels::layers::{AuthenticateLayer, RateLimiterLayer};
use tower_kernels::middleware::authenticate::{ApiKey, ApiKeys, Jwt, JwtKey, Verify};
use tower_kernels::request::Tenant;

use crate::inner::Http;
use crate::{Calls, Case, drive};

/// The name of the baseline: the same request, with a header that nobody reads.
const CREDENTIAL: &str = "inner http service, x-api-key";
/// The name of the baseline of a request that has a tenant: what the extensions take.
const TENANT: &str = "inner http service, x-api-key and a tenant";

pub(crate) const CASES: &[Case] = &[
    Case { name: CREDENTIAL, over: None, build: || drive(Http, request(&key(0))) },
    Case { name: TENANT, over: None, build: || around(&key(0), tower::layer::util::Identity::new(), true) },
    Case { name: "AuthenticateLayer, 1 API key", over: Some(TENANT), build: || with_keys(1) },
    Case { name: "AuthenticateLayer, 16 API keys", over: Some(TENANT), build: || with_keys(16) },
    Case { name: "AuthenticateLayer, 1 000 API keys", over: Some(TENANT), build: || with_keys(1000) },
    Case { name: "AuthenticateLayer, 10 000 API keys", over: Some(TENANT), build: || with_keys(10_000) },
    Case { name: "AuthenticateLayer, JWT HS256", over: Some(TENANT), build: || with_token("hs256") },
    Case { name: "AuthenticateLayer, JWT RS256", over: Some(TENANT), build: || with_token("rs256") },
    Case { name: "AuthenticateLayer, JWT ES256", over: Some(TENANT), build: || with_token("es256") },
    Case { name: "AuthenticateLayer, JWT EdDSA", over: Some(TENANT), build: || with_token("eddsa") },
    Case {
        name: "RateLimiterLayer::per_tenant",
        over: Some(TENANT),
        build: || around(&key(0), RateLimiterLayer::new(u32::MAX, Duration::from_secs(1)).per_tenant(), true),
    },
];

/// As long as `openssl rand -hex 32` makes them.
fn key(n: usize) -> String {
    format!("{n:064x}")
}

fn with_keys(count: usize) -> Calls {
    let keys = (0..count).map(|n| ApiKey::new(format!("tenant {n}"), &key(n)).expect("a long key"));
    let keys = ApiKeys::new(keys).expect("all different");
    authenticated(&key(count / 2), keys)
}

/// A token of the goldens, and what takes it.
fn with_token(name: &str) -> Calls {
    let goldens: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/goldens/jwt.json")).expect("the goldens");
    let pem = goldens["keys"][name].as_str().expect("a key").as_bytes();
    let key = match name {
        "hs256" => JwtKey::hs256(pem),
        "rs256" => JwtKey::rs256_pem(pem),
        "es256" => JwtKey::es256_pem(pem),
        _ => JwtKey::eddsa_pem(pem),
    };
    let jwt = Jwt::new(key.expect("a key")).issuer("https://login.example").audience("kernels");
    let cases = goldens["tokens"].as_array().expect("a list");
    let good = cases.iter().find(|case| case["verifier"] == name && case["name"] == "good").expect("a good one");
    authenticated(good["token"].as_str().expect("a text"), jwt)
}

fn authenticated(credential: &str, verifier: impl Verify + 'static) -> Calls {
    around(credential, AuthenticateLayer::new(verifier), false)
}

type Credentialed = Request<Empty<Bytes>>;

/// The tenant, where it is known before, is inserted as the layer would.
fn around<L>(credential: &str, layer: L, tenant: bool) -> Calls
where
    L: Layer<Http, Service: Service<Credentialed, Error: Debug> + 'static>,
{
    let service = layer.layer(Http);
    if !tenant {
        return drive(service, request(credential));
    }
    let name: std::sync::Arc<str> = "tenant 0".into();
    let known = MapRequestLayer::new(move |mut request: Credentialed| {
        request.extensions_mut().insert(Tenant(name.clone()));
        request
    });
    drive(known.layer(service), request(credential))
}

fn request(credential: &str) -> impl Fn() -> Credentialed + 'static {
    let credential = HeaderValue::try_from(credential).expect("visible ASCII");
    move || {
        let mut request = Request::new(Empty::new());
        request.headers_mut().insert(HeaderName::from_static("x-api-key"), credential.clone());
        request
    }
}
