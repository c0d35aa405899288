//! Authentication over REST and gRPC.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use tonic::Code;
use tonic::metadata::MetadataValue;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower_kernels::grpc::{ExecuteRequest, KernelClient};
use tower_kernels::middleware::authenticate::JwtKey;

use crate::config::File;
use crate::support::process::{SAXPY, Server, program, run, stderr, stdout};

pub(crate) const KEY: &str = "correct-horse-battery-staple";
// printf %s correct-horse-battery-staple | sha256sum
const SHA256: &str = "87cbebfeebc05f7c54ac9336c4b4bbec831227a641951a4bde7edd56020f8590";
const EXECUTE: &str = "/kernels/linalg/saxpy/execute";

/// A server with one API key.
pub(crate) fn with_keys(args: &[&str]) -> Server {
    let keys = File::new(&format!("[[api_keys]]\ntenant = \"acme\"\nkey_sha256 = \"{SHA256}\"\n"));
    Server::start(&[&["--auth-api-keys-file", keys.path()], args].concat())
}

/// Checks that an error has the form of its path: one text below `/v2`, and a problem document elsewhere.
#[track_caller]
fn check_error((status, body): &(u16, String), path: &str, expected: u16) {
    assert_eq!(*status, expected, "{path}: {body}");
    let document: serde_json::Value = serde_json::from_str(body).unwrap();
    let (text, fields) = if path.starts_with("/v2") { ("error", 1) } else { ("detail", 5) };
    assert!(document[text].is_string() && document.as_object().unwrap().len() == fields, "{path}: {body}");
}

/// Calls a kernel over gRPC with this `authorization`.
async fn over_grpc(server: &Server, authorization: Option<&str>) -> Code {
    let input = SAXPY.to_owned();
    let mut request = tonic::Request::new(ExecuteRequest { kernel_id: "linalg/saxpy".to_owned(), input });
    if let Some(value) = authorization {
        request.metadata_mut().insert("authorization", MetadataValue::try_from(value).unwrap());
    }
    match KernelClient::new(server.channel().await).execute(request).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_authenticates_its_tenant_and_probes_need_none() {
    let file = File::new(&format!("[auth]\napi_keys = [{{ tenant = \"acme\", key_sha256 = \"{SHA256}\" }}]\n"));
    let server = Server::start(&["--config", file.path()]);
    let (bearer, api_key) = (format!("authorization: Bearer {KEY}"), format!("x-api-key: {KEY}"));
    for (headers, status) in [
        (&[][..], 401),
        (&["authorization: Bearer of-nobody-at-all"], 401),
        (&[bearer.as_str()], 200),
        (&[api_key.as_str()], 200),
    ] {
        assert_eq!(server.post_as(EXECUTE, SAXPY, headers).0, status, "{headers:?}");
    }
    assert_eq!(over_grpc(&server, None).await, Code::Unauthenticated);
    assert_eq!(over_grpc(&server, Some("Bearer of-nobody-at-all")).await, Code::Unauthenticated);
    assert_eq!(over_grpc(&server, Some(&format!("Bearer {KEY}"))).await, Code::Ok);

    for path in ["/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"] {
        assert_eq!(server.get(path).0, 200, "{path}");
    }
    for path in ["/metrics", "/kernels", "/v2", "/v2/models/linalg.saxpy"] {
        check_error(&server.get(path), path, 401);
    }
    let health = HealthClient::new(server.channel().await).check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(health.into_inner().status, 1);
    assert!(server.stdout.until("Try it").contains("auth     API keys"));
}

#[test]
fn metrics_can_be_open_and_keys_in_a_separate_file() {
    let keys = File::new(&format!("[[api_keys]]\ntenant = \"acme\"\nkey_sha256 = \"{SHA256}\"\n"));
    let server = Server::start(&["--auth-open-metrics", "--auth-api-keys-file", keys.path()]);
    assert_eq!((server.get("/metrics").0, server.get("/kernels").0), (200, 401));
}

#[test]
fn the_rate_limit_is_that_of_the_authenticated_tenant_whatever_the_request_claims() {
    let keys = File::new(&format!("[[api_keys]]\ntenant = \"acme\"\nkey_sha256 = \"{SHA256}\"\n"));
    let limit = ["--rate-limit-per-second=1", "--rate-limit-burst=1"];
    let document = |tenant: &str| {
        format!(r#"{{"kernel_id": "linalg/saxpy", "input": {SAXPY}, "metadata": {{"tenant": "{tenant}"}}}}"#)
    };
    let inference = |tenant: &str| {
        let tensor = |name| format!(r#"{{"name": "{name}", "datatype": "FP32", "shape": [1], "data": [1]}}"#);
        let inputs = ["a", "x", "y"].map(tensor).join(",");
        format!(r#"{{"inputs": [{inputs}], "parameters": {{"tenant": "{tenant}"}}}}"#)
    };
    type BodyOf<'a> = &'a dyn Fn(&str) -> String;
    let ways: [(&str, BodyOf<'_>); 2] = [("/execute", &document), ("/v2/models/linalg.saxpy/infer", &inference)];
    for (path, body) in ways {
        let server = Server::start(&[&["--auth-api-keys-file", keys.path()][..], &limit].concat());
        let post = |n| server.post_as(path, &body(&format!("made up {n}")), &[&format!("x-api-key: {KEY}")]);
        assert_eq!(post(0).0, 200, "{path}");
        let rejected = (1..1000).map(post).find(|response| response.0 == 429);
        let rejected = rejected.expect("a tenant limited to one request per second is rejected");
        check_error(&rejected, path, 429);
    }
}

const OTHER_KEY: &str = "battery-staple-of-umbrella";
const OTHER_SHA256: &str = "cf0fc9b30ede8f3fd744fa3943bb8a5fe8ba02f8aeafc865bfd61626b7f523ac";

/// Sends requests with this key and counts those that succeed and those over the rate limit.
fn succeeded_and_rejected(server: &Server, key: &str, requests: usize) -> (usize, usize) {
    let statuses: Vec<_> =
        (0..requests).map(|_| server.post_as(EXECUTE, SAXPY, &[&format!("x-api-key: {key}")]).0).collect();
    let with = |status| statuses.iter().filter(|&&one| one == status).count();
    (with(200), with(429))
}

#[tokio::test(flavor = "multi_thread")]
async fn per_tenant_rate_limits_override_the_default() {
    let keys = [("acme", SHA256), ("umbrella", OTHER_SHA256)]
        .map(|(tenant, sha256)| format!("[[auth.api_keys]]\ntenant = \"{tenant}\"\nkey_sha256 = \"{sha256}\"\n"));
    let limits = "[rate_limit]\nper_second = 1\nburst = 2\n[rate_limit.tenants.acme]\nper_second = 1\nburst = 40\n";
    let file = File::new(&(keys.concat() + limits));
    let server = Server::start(&["--config", file.path()]);
    // On a slow machine both get back a token per second.
    let (begun, requests) = (Instant::now(), 60);
    let (acme, rejected) = succeeded_and_rejected(&server, KEY, requests);
    assert!(acme >= 40 && acme + rejected == requests, "{acme} succeeded, {rejected} rejected");
    let (other, rejected) = succeeded_and_rejected(&server, OTHER_KEY, requests);
    let back = begun.elapsed().as_secs() as usize + 1;
    assert!((2..=2 + back).contains(&other), "{other} succeeded in {back} s");
    assert_eq!(other + rejected, requests);
    assert!(acme <= 40 + back, "{acme} succeeded in {back} s");
    // REST and gRPC share one limit.
    let mut codes = Vec::new();
    while codes.len() < 100 && codes.last() != Some(&Code::ResourceExhausted) {
        codes.push(over_grpc(&server, Some(&format!("Bearer {OTHER_KEY}"))).await);
    }
    assert_eq!(codes.last(), Some(&Code::ResourceExhausted), "{codes:?}");
}

#[test]
fn one_tenant_can_have_a_rate_limit_without_a_default() {
    let file = File::new("[rate_limit.tenants.acme]\nper_second = 1\nburst = 1\n");
    let server = Server::start(&["--config", file.path()]);
    // Without authentication the tenant is what the request claims.
    let statuses = |tenant: &str| -> Vec<u16> {
        let metadata = format!(r#""metadata": {{"tenant": "{tenant}"}}"#);
        let body = format!(r#"{{"kernel_id": "linalg/saxpy", "input": {SAXPY}, {metadata}}}"#);
        (0..200).map(|_| server.post("/execute", &body).0).collect()
    };
    let acme = statuses("acme");
    assert!(acme[0] == 200 && acme.contains(&429), "{acme:?}");
    assert!(statuses("umbrella").iter().all(|&status| status == 200));
    assert!(server.stderr.until("without authentication a request can name any tenant").contains("WARN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_authenticates_its_tenant() {
    let secret = "a secret of 32 bytes or of more.";
    let mut command = program(["serve", "--rest-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0"]);
    command.env("TEST_JWT_SECRET", secret);
    let jwt = ["--auth-jwt-algorithm=HS256", "--auth-jwt-secret-env=TEST_JWT_SECRET"];
    let claims = ["--auth-jwt-issuer=https://login.example", "--auth-jwt-tenant-claim=org"];
    let server = Server::spawn(&mut command, &[jwt, claims].concat());
    let hour = Duration::from_secs(3600);
    let exp = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + hour).as_secs();
    // The first key of a process installs ring as the signer.
    JwtKey::hs256(secret.as_bytes()).unwrap();
    let token = |issuer: &str| {
        let claims = serde_json::json!({"iss": issuer, "org": "acme", "exp": exp});
        encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes()).unwrap()).unwrap()
    };
    for (issuer, status, code) in
        [("https://login.example", 200, Code::Ok), ("https://evil.example", 401, Code::Unauthenticated)]
    {
        let bearer = format!("Bearer {}", token(issuer));
        assert_eq!(server.post_as(EXECUTE, SAXPY, &[&format!("authorization: {bearer}")]).0, status, "{issuer}");
        assert_eq!(over_grpc(&server, Some(&bearer)).await, code, "{issuer}");
    }
}

#[test]
fn with_authentication_there_is_no_warning() {
    let keys = File::new(&format!("[[api_keys]]\ntenant = \"acme\"\nkey_sha256 = \"{SHA256}\"\n"));
    let mut command = program(["serve", "--rest-listen=0.0.0.0:0", "--grpc-listen=127.0.0.1:0"]);
    let server = Server::spawn(&mut command, &["--auth-api-keys-file", keys.path()]);
    server.stdout.until("Try it");
    assert!(!server.stderr.until("serving").contains("without authentication"));
}

#[test]
fn no_digest_of_a_key_is_printed_or_logged() {
    let file = File::new(&format!("[auth]\napi_keys = [{{ tenant = \"acme\", key_sha256 = \"{SHA256}\" }}]\n"));
    let printed = run(["serve", "--print-config", "--config", file.path()], "");
    assert!(stdout(&printed).contains("acme") && stdout(&printed).contains("(redacted)"), "{}", stdout(&printed));
    assert!(!stdout(&printed).contains(SHA256));
    let server = Server::start(&["--config", file.path(), "--log-level=trace"]);
    server.post_as(EXECUTE, SAXPY, &[&format!("x-api-key: {KEY}")]);
    let log = server.stderr.until("(redacted)");
    assert!(!log.contains(SHA256), "{log}");
}

#[test]
fn invalid_credentials_are_configuration_errors() {
    let short = "[auth]\n\napi_keys = [{ tenant = \"acme\", key_sha256 = \"00\" }]\n";
    let empty = File::new("api_keys = []\n");
    let secret = ["serve", "--auth-jwt-algorithm=HS256", "--auth-jwt-secret-env=NOT_SET_ANYWHERE"];
    let short = File::new(short);
    for (args, said) in [
        (&["serve", "--config", short.path()][..], "line 3"),
        (&["serve", "--auth-api-keys-file", empty.path()], "it contains no key"),
        (&["serve", "--auth-api-keys-file", "/nowhere.toml"], "--auth-api-keys-file: /nowhere.toml: No such file"),
        (&["serve", "--auth-jwt-key-file", empty.path()], "not an RSA public key"),
        (&secret, "--auth-jwt-secret-env: NOT_SET_ANYWHERE"),
    ] {
        let output = run(args.iter().copied(), "");
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{args:?}: {said} is not in {}", stderr(&output));
    }
}
