//! JSON web tokens that are signed or addressed wrongly.

use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use tower_kernels::middleware::authenticate::JwtKey;

use crate::support::process::{PATIENCE, SAXPY, Server, Text, program};

const EXECUTE: &str = "/kernels/linalg/saxpy/execute";
const ISSUER: &str = "https://login.example";
const SECRET: &str = "a secret of 32 bytes or of more.";

/// Keys, and tokens of another implementation.
fn goldens() -> Value {
    serde_json::from_str(include_str!("../goldens/jwt.json")).unwrap()
}

/// A file that goes with this.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        // Tests of this process run at the same time, and two of them may want the same name.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hostile-tokens-{}-{number}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // Where it cannot be removed it is in the system's way and not in ours.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn execute(server: &Server, token: &str) -> u16 {
    server.post_as(EXECUTE, SAXPY, &[&format!("authorization: Bearer {token}")]).0
}

/// Its exit code, and what it said on stderr. One that starts to serve is killed, and has no code.
fn end_of(command: &mut Command) -> (Option<i32>, String) {
    let mut child = command.spawn().unwrap();
    let stdout = Text::of(child.stdout.take().unwrap());
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if stdout.now().contains("auth ") || begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            break child.wait().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    // What it says is short and fits into the pipe meanwhile.
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (status.code(), said)
}

fn signed(claims: &Value) -> String {
    // The crate's own key brings the provider that signs.
    JwtKey::hs256(SECRET.as_bytes()).unwrap();
    encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes()).unwrap()).unwrap()
}

/// These claims, and an hour to go.
fn with_exp(mut claims: Value) -> Value {
    let hour = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3600);
    claims["exp"] = hour.as_secs().into();
    claims
}

fn start(args: &[&str]) -> Server {
    let mut command = program(["serve", "--rest-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0"]);
    command.env("TEST_JWT_SECRET", SECRET);
    let jwt = ["--cuda-mode=off", "--auth-jwt-algorithm=HS256", "--auth-jwt-secret-env=TEST_JWT_SECRET"];
    Server::spawn(&mut command, &[&jwt, args].concat())
}

#[test]
fn a_public_key_is_no_secret_for_the_program_and_it_says_which_setting_is_wrong() {
    let goldens = goldens();
    let keys = goldens["refused_secrets"].as_object().unwrap().iter();
    let keys = keys.map(|(name, key)| (name.as_str(), key.as_str().unwrap()));
    for (name, secret) in keys.chain([("a short one", "31 bytes are not enough for it.")]) {
        let file = File::new(&name.replace([' ', '#'], "-"), secret);
        let says =
            if secret.len() < 32 { "fewer than 32 bytes" } else { "the secret of HS256 is a key or certificate" };
        let from_file = format!("--auth-jwt-key-file={}", file.path());
        for (args, setting) in [
            ([from_file.as_str(), "--auth-jwt-algorithm=HS256"], "--auth-jwt-key-file"),
            (["--auth-jwt-secret-env=TEST_JWT_SECRET", "--auth-jwt-algorithm=HS256"], "--auth-jwt-secret-env"),
        ] {
            let mut command = program(["serve", "--rest-listen=127.0.0.1:0", "--grpc-listen=off", "--cuda-mode=off"]);
            let (code, said) = end_of(command.args(args).env("TEST_JWT_SECRET", secret));
            assert_eq!(code, Some(2), "{name}, {setting}: {said}");
            assert!(said.contains(setting) && said.contains(says), "{name}, {setting}: {said}");
            assert!(!said.contains(secret), "{name}, {setting}: a secret is not printed: {said}");
        }
    }
}

#[test]
fn a_token_signed_with_the_public_key_lets_nobody_in() {
    let goldens = goldens();
    let key = File::new("rs256", goldens["keys"]["rs256"].as_str().unwrap());
    let server = Server::start(&[
        "--cuda-mode=off",
        "--auth-jwt-algorithm=RS256",
        &format!("--auth-jwt-key-file={}", key.path()),
        &format!("--auth-jwt-issuer={ISSUER}"),
        "--auth-jwt-audience=kernels",
    ]);
    let of_key = goldens["tokens"].as_array().unwrap().iter().filter(|case| case["verifier"] == "rs256");
    let (mut taken, mut rejected) = (0, 0);
    for case in of_key {
        let status = execute(&server, case["token"].as_str().unwrap());
        let expected = if case["tenant"].is_string() { 200 } else { 401 };
        assert_eq!(status, expected, "{}", case["name"]);
        *(if expected == 200 { &mut taken } else { &mut rejected }) += 1;
    }
    assert!(taken >= 1 && rejected >= 10, "{taken} taken, {rejected} refused");
}

#[test]
fn an_issuer_and_an_audience_that_are_asked_for_are_those_of_the_token_to_the_character() {
    let server = start(&[&format!("--auth-jwt-issuer={ISSUER}"), "--auth-jwt-audience=kernels"]);
    let claims = |iss: Value, aud: Value| with_exp(json!({"sub": "acme", "iss": iss, "aud": aud}));
    let asked = || json!(ISSUER);
    for (iss, aud) in [(asked(), json!("kernels")), (asked(), json!(["other", "kernels"]))] {
        let claims = claims(iss, aud);
        assert_eq!(execute(&server, &signed(&claims)), 200, "{claims}");
    }
    for (iss, aud) in [
        (asked(), json!("other")),
        (asked(), json!("kernels ")),
        (asked(), json!("KERNELS")),
        (asked(), json!([])),
        (asked(), json!(["other"])),
        (asked(), json!(["kernels", 1])),
        (asked(), json!([["kernels"]])),
        (asked(), json!({"kernels": true})),
        (asked(), Value::Null),
        (json!("https://login.example.evil"), json!("kernels")),
        (json!("https://login.example/"), json!("kernels")),
        (json!([ISSUER]), json!("kernels")),
        (json!([ISSUER, "https://evil.example"]), json!("kernels")),
        (json!(""), json!("kernels")),
        (Value::Null, json!("kernels")),
    ] {
        let claims = claims(iss, aud);
        assert_eq!(execute(&server, &signed(&claims)), 401, "{claims}");
    }
    for missing in ["iss", "aud", "exp", "sub"] {
        let mut claims = claims(asked(), json!("kernels"));
        claims.as_object_mut().unwrap().remove(missing);
        assert_eq!(execute(&server, &signed(&claims)), 401, "without {missing}");
    }
}

#[test]
fn a_token_for_some_audience_is_not_for_a_server_that_has_no_name() {
    let server = start(&[]);
    let nobody = with_exp(json!({"sub": "acme"}));
    assert_eq!(execute(&server, &signed(&nobody)), 200);
    for aud in [json!("kernels"), json!(["kernels"]), json!([]), json!(7), json!(["kernels", 7]), Value::Null] {
        let claims = with_exp(json!({"sub": "acme", "aud": aud}));
        assert_eq!(execute(&server, &signed(&claims)), 401, "{claims}");
    }
}

#[test]
fn times_that_cannot_be_read_and_tenants_that_cannot_be_named_let_nobody_in() {
    let server = start(&[]);
    let token = |change: &dyn Fn(&mut Value)| {
        let mut claims = with_exp(json!({"sub": "acme"}));
        change(&mut claims);
        (signed(&claims), claims)
    };
    let far = 4_102_444_800_u64;
    for exp in [json!(far), json!(far as f64 + 0.5), json!(u64::MAX)] {
        let (token, claims) = token(&|claims| claims["exp"] = exp.clone());
        assert_eq!(execute(&server, &token), 200, "{claims}");
    }
    for (claim, value) in [
        ("exp", json!("4102444800")),
        ("exp", json!(-1)),
        ("exp", json!(1e300)),
        ("exp", json!(i64::MIN)),
        ("exp", json!(0)),
        ("exp", json!([far])),
        ("exp", json!(true)),
        ("nbf", json!(far)),
        ("nbf", json!(u64::MAX)),
        ("nbf", json!("0")),
        ("nbf", json!(1e300)),
        ("nbf", Value::Null),
        ("iat", json!("0")),
        ("iat", Value::Null),
        ("sub", json!("x".repeat(129))),
        ("sub", json!("acme\r\nx-admin: 1")),
        ("sub", json!("a b")),
        ("sub", json!("\u{202e}emca")),
        ("sub", json!(["acme"])),
        ("sub", json!("")),
    ] {
        let (token, claims) = token(&|claims| claims[claim] = value.clone());
        assert_eq!(execute(&server, &token), 401, "{claims}");
    }
    // One that is longer than any is not even read.
    let (token, _) = token(&|claims| claims["more"] = json!("x".repeat(20_000)));
    assert_eq!(execute(&server, &token), 401);
}
