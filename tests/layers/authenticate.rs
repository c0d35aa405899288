use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use http::{HeaderValue, Method, Request, Response, header};
use serde_json::Value;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::layers::{AuthenticateLayer, ErrorResponseLayer, RateLimiterLayer, TimeoutLayer};
use tower_kernels::middleware::authenticate::{
    ApiKey, ApiKeys, AuthenticateError, Credential, Denied, Identity, InvalidJwtKey, Jwt, JwtKey, Verify,
};
use tower_kernels::middleware::rate_limit::RateLimitError;
use tower_kernels::request::{PeerTenant, Priority, RequestContext, Tenant};
use tracing::Level;

use crate::support::logs::{Log, capture};

const KEY: &str = "the-one-key-of-acme";

fn keys() -> ApiKeys {
    ApiKeys::new([ApiKey::new("acme", KEY).unwrap()]).unwrap()
}

fn with_key(key: &str) -> Request<()> {
    Request::get("/").header("x-api-key", key).body(()).unwrap()
}

/// Answers with the tenant and the priority that it was told.
async fn whose(request: Request<()>) -> Result<(Option<String>, Priority), std::convert::Infallible> {
    Ok((request.tenant().map(ToString::to_string), request.priority()))
}

type Refused = AuthenticateError<std::convert::Infallible>;

async fn ask(layer: &AuthenticateLayer, request: Request<()>) -> Result<(Option<String>, Priority), Refused> {
    layer.layer(service_fn(whose)).oneshot(request).await
}

fn challenge(error: &impl Classify) -> String {
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    error.challenge().unwrap().to_str().unwrap().to_owned()
}

#[tokio::test]
async fn whoever_brings_a_key_is_its_tenant() {
    let layer = AuthenticateLayer::new(keys());
    assert_eq!(ask(&layer, with_key(KEY)).await.unwrap(), (Some("acme".to_owned()), Priority::Normal));
    let bearer = Request::get("/").header("authorization", format!("Bearer {KEY}")).body(()).unwrap();
    assert_eq!(ask(&layer, bearer).await.unwrap().0.as_deref(), Some("acme"));
}

#[tokio::test]
async fn what_was_known_of_the_tenant_before_is_replaced() {
    let keys = [
        ApiKey::new("acme", KEY).unwrap(),
        ApiKey::new("acme", "the-other-key-of-acme").unwrap().with_priority(Priority::Low),
    ];
    let layer = AuthenticateLayer::new(ApiKeys::new(keys).unwrap());
    let claiming = |key| {
        let mut request = with_key(key);
        request.extensions_mut().insert(Tenant("umbrella".into()));
        request.extensions_mut().insert(Priority::High);
        request
    };
    let acme = Some("acme".to_owned());
    assert_eq!(ask(&layer, claiming("the-other-key-of-acme")).await.unwrap(), (acme.clone(), Priority::Low));
    // A credential that says nothing of the priority leaves it to who has put it there.
    assert_eq!(ask(&layer, claiming(KEY)).await.unwrap(), (acme, Priority::High));
}

#[tokio::test]
async fn a_client_certificate_is_a_credential_where_it_is_to_be_and_while_it_is_valid() {
    let on_a_connection_of = |tenant: &str, expires: SystemTime, mut request: Request<()>| {
        request.extensions_mut().insert(PeerTenant::new(tenant, expires));
        request
    };
    let (past, later) = (SystemTime::now() - Duration::from_secs(1), SystemTime::now() + Duration::from_secs(3600));
    let certificates = AuthenticateLayer::new(keys()).client_certificates();
    let bob = Some("bob".to_owned());
    assert_eq!(ask(&certificates, on_a_connection_of("bob", later, Request::new(()))).await.unwrap().0, bob);
    // No header makes another tenant of it, be it right or wrong.
    for key in [KEY, "of-nobody"] {
        assert_eq!(ask(&certificates, on_a_connection_of("bob", later, with_key(key))).await.unwrap().0, bob);
    }
    // A connection can outlive the certificate, which then is worth nothing, and hides no key either.
    for request in [Request::new(()), with_key(KEY)] {
        let expired = ask(&certificates, on_a_connection_of("bob", past, request)).await.unwrap_err();
        assert_eq!(challenge(&expired), r#"Bearer realm="kernels", error="invalid_token""#);
    }
    assert_eq!(ask(&certificates, with_key(KEY)).await.unwrap().0.as_deref(), Some("acme"));

    let without = AuthenticateLayer::new(keys());
    ask(&without, on_a_connection_of("bob", later, Request::new(()))).await.unwrap_err();
    assert_eq!(
        ask(&without, on_a_connection_of("bob", later, with_key(KEY))).await.unwrap().0.as_deref(),
        Some("acme")
    );
}

#[tokio::test]
async fn a_refusal_says_whether_there_was_a_credential_and_no_more() {
    let layer = AuthenticateLayer::new(keys().or(Jwt::new(golden_key("hs256"))));
    let missing = ask(&layer, Request::new(())).await.unwrap_err();
    assert_eq!(challenge(&missing), r#"Bearer realm="kernels""#);
    assert_eq!(missing.to_string(), "the request carries no credential");

    let mut two = with_key(KEY);
    two.headers_mut().insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer the-one-key-of-acme"));
    let expired = golden("hs256", "expired");
    for request in [with_key("no-key-of-anybody"), with_key(&expired), with_key(""), two] {
        let denied = ask(&layer, request).await.unwrap_err();
        assert_eq!(challenge(&denied), r#"Bearer realm="kernels", error="invalid_token""#);
        assert_eq!(denied.to_string(), "the credential is not accepted");
        assert!(!format!("{denied:?}").contains("expired"));
    }
}

#[tokio::test]
async fn a_realm_is_quoted() {
    let layer = AuthenticateLayer::new(keys()).realm(r#"the "inner" \ realm"#);
    let missing = ask(&layer, Request::new(())).await.unwrap_err();
    assert_eq!(challenge(&missing), r#"Bearer realm="the \"inner\" \\ realm""#);
    std::panic::catch_unwind(|| AuthenticateLayer::new(keys()).realm("a\r\nset-cookie: b")).unwrap_err();
}

#[tokio::test]
async fn exempt_requests_go_on_as_they_came() {
    let layer = AuthenticateLayer::new(keys())
        .exempt(|_, uri| uri.path() == "/health")
        .exempt(|method, _| method == Method::OPTIONS);
    let request = |method: Method, path: &str| Request::builder().method(method).uri(path).body(()).unwrap();
    for (method, path) in [(Method::GET, "/health"), (Method::GET, "/health?full"), (Method::OPTIONS, "/execute")] {
        assert_eq!(ask(&layer, request(method, path)).await.unwrap().0, None);
    }
    for path in ["/healthy", "/health/", "/x/health", "/execute"] {
        ask(&layer, request(Method::GET, path)).await.unwrap_err();
    }
    // With a credential or without, right or wrong: nobody looks.
    let mut known = request(Method::GET, "/health");
    known.headers_mut().insert("x-api-key", HeaderValue::from_static(KEY));
    known.extensions_mut().insert(Tenant("umbrella".into()));
    assert_eq!(ask(&layer, known).await.unwrap().0.as_deref(), Some("umbrella"));
}

#[tokio::test]
async fn a_refused_call_does_not_reach_the_inner_service_and_leaves_it_ready() {
    let (mock, mut handle) = tower_test::mock::pair::<Request<()>, Response<()>>();
    // The mock gives one permit, so a second call without another `ready` shows that the first did not use it up.
    handle.allow(1);
    let layer = AuthenticateLayer::new(keys());
    let mut service = layer.layer(mock);
    let denied = service.ready().await.unwrap().call(with_key("no-key-of-anybody")).await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Unauthenticated);

    let answer = service.call(with_key(KEY));
    let (request, respond) = handle.next_request().await.unwrap();
    assert_eq!(request.extensions().get(), Some(&Tenant("acme".into())));
    respond.send_response(Response::new(()));
    answer.await.unwrap();
    assert!(tokio_test::task::spawn(handle.next_request()).poll().is_pending(), "one call, one request");
}

#[tokio::test]
async fn readiness_is_that_of_the_inner_service() {
    let (mock, mut handle) = tower_test::mock::pair::<Request<()>, Response<()>>();
    handle.allow(0);
    let mut service = AuthenticateLayer::new(keys()).layer(mock);
    let (_wakes, waker) = crate::support::wakes::Wakes::new();
    assert!(matches!(service.poll_ready(&mut Context::from_waker(&waker)), Poll::Pending));
    handle.send_error("gone");
    let Err(AuthenticateError::Inner(error)) = service.ready().await else { panic!("the inner service failed") };
    assert_eq!(error.to_string(), "gone");
}

/// The challenge gets through whatever is between, and becomes a header.
#[tokio::test]
async fn a_challenge_is_a_header_of_the_401_and_of_nothing_else() {
    let inner =
        || service_fn(|_: Request<()>| async { Ok::<_, std::convert::Infallible>(Response::new(bytes::Bytes::new())) });
    let stack = tower::ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(RateLimiterLayer::new(3, Duration::from_secs(3600)))
        .layer(TimeoutLayer::new(Duration::from_secs(1)))
        .layer(AuthenticateLayer::new(keys()).realm("here"))
        .service(inner());
    let call = |request| stack.clone().oneshot(request);

    let Ok(refused) = call(with_key("no-key-of-anybody")).await;
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()[header::WWW_AUTHENTICATE], r#"Bearer realm="here", error="invalid_token""#);
    let document: Value = serde_json::from_slice(refused.body()).unwrap();
    assert_eq!((&document["code"], &document["status"]), (&"unauthenticated".into(), &401.into()));

    let mut grpc = with_key("no-key-of-anybody");
    grpc.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let Ok(grpc) = call(grpc).await;
    assert_eq!((grpc.status().as_u16(), &grpc.headers()["grpc-status"]), (200, &HeaderValue::from_static("16")));

    let Ok(taken) = call(with_key(KEY)).await;
    assert_eq!(taken.status(), 200);
    let Ok(limited) = call(with_key(KEY)).await;
    assert_eq!(limited.status(), 429);
    assert_eq!(limited.headers().get(header::WWW_AUTHENTICATE), None);
}

#[tokio::test(start_paused = true)]
async fn tenants_have_quotas_of_their_own_by_their_keys() {
    let keys = [ApiKey::new("acme", KEY).unwrap(), ApiKey::new("umbrella", "the-key-of-umbrella").unwrap()];
    let stack = tower::ServiceBuilder::new()
        .layer(AuthenticateLayer::new(ApiKeys::new(keys).unwrap()))
        .layer(RateLimiterLayer::new(1, Duration::from_secs(1)).per_tenant())
        .service(service_fn(whose));
    let call = |key| stack.clone().oneshot(with_key(key));
    call(KEY).await.unwrap();
    let limited = call(KEY).await.unwrap_err();
    assert!(matches!(limited, AuthenticateError::Inner(RateLimitError::Limited { .. })), "{limited:?}");
    assert_eq!(limited.kind(), ErrorKind::RateLimited);
    call("the-key-of-umbrella").await.unwrap();
}

#[tokio::test]
async fn a_closure_is_a_verifier_and_so_is_one_that_is_chosen_at_run_time() {
    let own = |credential: Credential<'_>| match credential.as_str() {
        "open sesame" => Ok(Identity::new("ali").with_priority(Priority::High)),
        _ => Err(Denied::new("not the words")),
    };
    let answer = ask(&AuthenticateLayer::new(own), with_key("open sesame")).await.unwrap();
    assert_eq!(answer, (Some("ali".to_owned()), Priority::High));
    for chosen in [Arc::new(own) as Arc<dyn Verify>, Arc::new(keys().or(own))] {
        let layer = AuthenticateLayer::new(chosen);
        assert_eq!(ask(&layer, with_key("open sesame")).await.unwrap().0.as_deref(), Some("ali"));
        ask(&layer, with_key("open barley")).await.unwrap_err();
    }
    let both = keys().or(own).verify(Credential::new("open barley")).unwrap_err();
    assert_eq!(both.to_string(), "no such API key; not the words");
}

#[test]
fn the_log_has_the_reason_and_not_the_credential() {
    let log = Log::default();
    let token = golden("hs256", "expired");
    let subscriber = tracing_subscriber::fmt().with_max_level(Level::TRACE).with_ansi(false).with_writer(log.clone());
    let guard = capture(subscriber.finish());
    let layer = AuthenticateLayer::new(keys().or(golden_verifier("hs256")));
    let request = Request::get("/execute?x-api-key=in-the-query").header("x-api-key", &token).body(()).unwrap();
    ask(&layer, request).now_or_never().unwrap().unwrap_err();
    drop(guard);
    let text = log.text();
    assert!(text.contains("no such API key; token: it has expired") && text.contains("path=\"/execute\""), "{text}");
    for part in token.split('.').chain(["in-the-query"]) {
        assert!(!text.contains(part), "{text}");
    }
}

fn goldens() -> Value {
    serde_json::from_str(include_str!("../goldens/jwt.json")).unwrap()
}

fn golden_key(name: &str) -> JwtKey {
    let goldens = goldens();
    let key = goldens["keys"][name].as_str().unwrap().as_bytes();
    match name {
        "hs256" => JwtKey::hs256(key),
        "rs256" => JwtKey::rs256_pem(key),
        "es256" => JwtKey::es256_pem(key),
        "eddsa" => JwtKey::eddsa_pem(key),
        _ => panic!("no key {name}"),
    }
    .unwrap()
}

fn golden_verifier(name: &str) -> Jwt {
    let asking = |jwt: Jwt| jwt.issuer("https://login.example").audience("kernels");
    match name {
        "by_id" => asking(Jwt::by_id([("old", golden_key("hs256")), ("new", golden_key("rs256"))]).unwrap()),
        "any" => Jwt::new(golden_key("hs256")),
        "claims" => asking(Jwt::new(golden_key("hs256"))).tenant_claim("org").priority_claim("class"),
        key => asking(Jwt::new(golden_key(key))),
    }
}

/// The token of this name.
fn golden(verifier: &str, name: &str) -> String {
    let goldens = goldens();
    let cases = goldens["tokens"].as_array().unwrap();
    let case = cases.iter().find(|case| case["verifier"] == verifier && case["name"] == name).unwrap();
    case["token"].as_str().unwrap().to_owned()
}

#[test]
fn tokens_of_another_implementation_are_taken_and_refused_as_it_says() {
    let goldens = goldens();
    let cases = goldens["tokens"].as_array().unwrap();
    assert!(cases.len() > 60 && cases.iter().filter(|case| case["tenant"].is_string()).count() > 10);
    for case in cases {
        let verifier = golden_verifier(case["verifier"].as_str().unwrap());
        let found = verifier.verify(Credential::new(case["token"].as_str().unwrap()));
        let what = format!("{} {}: {found:?}", case["verifier"], case["name"]);
        match case["reason"].as_str() {
            Some(reason) => assert!(found.is_err_and(|denied| denied.to_string().contains(reason)), "{what}"),
            None => {
                let identity = found.expect(&what);
                assert_eq!(&*identity.tenant, case["tenant"].as_str().unwrap(), "{what}");
                assert_eq!(identity.priority.map(Priority::as_str), case["priority"].as_str(), "{what}");
            }
        }
    }
}

#[test]
fn the_leeway_is_for_clocks_that_differ_and_not_for_ever() {
    // Signed here, as no golden can be expired by half a minute.
    let expired_by = |seconds: i64| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().cast_signed();
        let claims = serde_json::json!({"sub": "acme", "exp": now - seconds});
        let secret = goldens()["keys"]["hs256"].as_str().unwrap().to_owned();
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes()).unwrap();
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    };
    let taken = |jwt: &Jwt, seconds| jwt.verify(Credential::new(&expired_by(seconds))).is_ok();
    let jwt = golden_verifier("any");
    assert!(taken(&jwt, 30) && !taken(&jwt, 90));
    let strict = jwt.clone().leeway(Duration::ZERO);
    assert!(taken(&strict, -30) && !taken(&strict, 5));
    let endless = jwt.leeway(Duration::MAX);
    assert!(taken(&endless, 3000) && !taken(&endless, 4000));
}

#[test]
fn keys_that_tokens_cannot_be_checked_with_are_errors_at_once() {
    let goldens = goldens();
    for (name, pem) in goldens["refused_keys"].as_object().unwrap() {
        let pem = pem.as_str().unwrap().as_bytes();
        for (made, error) in [
            (JwtKey::rs256_pem(pem), InvalidJwtKey::NotRsa),
            (JwtKey::es256_pem(pem), InvalidJwtKey::NotP256),
            (JwtKey::eddsa_pem(pem), InvalidJwtKey::NotEd25519),
        ] {
            assert_eq!(made.unwrap_err(), error, "{name}");
        }
    }
    // Nor is the key of one algorithm one of another's.
    let pem = |name: &str| goldens["keys"][name].as_str().unwrap().as_bytes().to_vec();
    assert_eq!(JwtKey::rs256_pem(&pem("es256")).unwrap_err(), InvalidJwtKey::NotRsa);
    assert_eq!(JwtKey::es256_pem(&pem("eddsa")).unwrap_err(), InvalidJwtKey::NotP256);
    assert_eq!(JwtKey::eddsa_pem(&pem("rs256")).unwrap_err(), InvalidJwtKey::NotEd25519);
    // Nor is a public key a secret, in any of the forms in which it is handed out.
    for (name, key) in goldens["refused_secrets"].as_object().unwrap() {
        let made = JwtKey::hs256(key.as_str().unwrap().as_bytes());
        assert_eq!(made.unwrap_err(), InvalidJwtKey::NotSecret, "{name}");
    }
    let base64 = &goldens["refused_secrets"]["PEM without its first line and its last"];
    let der = jsonwebtoken::DecodingKey::from_base64_secret(base64.as_str().unwrap()).unwrap();
    assert_eq!(JwtKey::hs256(der.try_get_as_bytes().unwrap()).unwrap_err(), InvalidJwtKey::NotSecret, "DER");
    for secret in [
        "{\"a\": \"secret that happens to be JSON\"}",
        "MIIB a secret that begins as keys do",
        "ssh-agents-are-no-secret-keys-alone",
    ] {
        JwtKey::hs256(secret.as_bytes()).unwrap();
    }
    let twice = Jwt::by_id([("a", golden_key("hs256")), ("a", golden_key("rs256"))]);
    assert_eq!(twice.unwrap_err(), InvalidJwtKey::Twice { kid: "a".to_owned() });
}

#[test]
fn debug_output_of_tokens_keys_is_no_secret() {
    let secret = goldens()["keys"]["hs256"].as_str().unwrap().to_owned();
    let verifier = golden_verifier("by_id");
    let layer = AuthenticateLayer::new(verifier.clone());
    let shown = format!("{layer:?} {verifier:?} {:?}", golden_key("hs256"));
    assert!(shown.contains("https://login.example") && shown.contains("HS256"), "{shown}");
    assert!(!shown.contains(&secret) && !shown.contains(&format!("{:?}", secret.as_bytes())), "{shown}");
}
