//! The documentation of a server with authentication.

use serde_json::{Value, json};

use crate::auth::{KEY, with_keys};
use crate::connection::{Connection, Response};
use crate::support::process::{SAXPY, Server, program};

const FILES: [&str; 4] = ["/docs/", "/docs/index.html", "/docs/swagger-ui.css", "/docs/swagger-initializer.js"];

fn get(server: &Server, path: &str) -> Response {
    Connection::open(server.rest).call("GET", path, &[], "")
}

#[test]
fn the_documentation_needs_credentials_and_explains_how_to_open_it() {
    let server = with_keys(&[]);
    for path in ["/", "/docs", "/docs/", "/docs/swagger-ui.css", "/openapi.json"] {
        let problem = get(&server, path);
        assert_eq!((problem.status, problem.header("content-type")), (401, Some("application/problem+json")), "{path}");
        assert!(problem.json()["detail"].as_str().unwrap().contains("auth.open_docs"), "{path}: {problem:?}");
        // The headers of a browser.
        let accept = [("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")];
        let page = Connection::open(server.rest).call("GET", path, &accept, "");
        assert_eq!((page.status, page.header("content-type")), (401, Some("text/html; charset=utf-8")), "{path}");
        assert!(page.body.contains("auth.open_docs") && page.header("x-request-id").is_some(), "{path}: {page:?}");
        assert!(page.header("www-authenticate").is_some(), "{path}: {page:?}");
    }
    let elsewhere = get(&server, "/kernels");
    assert!(elsewhere.status == 401 && !elsewhere.body.contains("open_docs"), "{elsewhere:?}");
}

#[test]
fn open_docs_opens_the_documentation_and_nothing_else() {
    for prefix in ["", "/api/v1", "/docs"] {
        let server = with_keys(&["--auth-open-docs", &format!("--rest-prefix={prefix}/")]);
        let moved = get(&server, "/");
        assert_eq!((moved.status, moved.header("location")), (307, Some("docs/")), "{prefix}: {moved:?}");
        assert_eq!(get(&server, "/docs").status, 308, "{prefix}");
        for path in FILES.into_iter().chain(["/openapi.json"]) {
            assert_eq!(get(&server, path).status, 200, "{prefix}: {path}");
        }
        for path in ["/kernels", "/kernels/linalg/saxpy", "/execute", "/kernels/linalg/saxpy/execute"] {
            let path = format!("{prefix}{path}");
            assert_eq!(get(&server, &path).status, 401, "{path}");
            assert_eq!(server.post(&path, SAXPY).0, 401, "{path}");
        }
        for path in ["/metrics", "/nowhere", "/docs/a/b.c", "/docs/../kernels", "//docs/", "/openapi.json/"] {
            assert_eq!(get(&server, path).status, 401, "{prefix}: {path}");
        }
        assert_eq!(server.post("/docs/execute", SAXPY).0, 401, "{prefix}");
    }
}

#[test]
fn the_documented_security_is_what_the_server_requires() {
    for (args, prefix) in [(&["--auth-open-docs"][..], ""), (&["--auth-open-docs", "--auth-open-metrics"], "/api/v1")] {
        let server = with_keys(&[args, &[&format!("--rest-prefix={prefix}/")]].concat());
        let document = get(&server, "/openapi.json").json();
        let schemes = &document["components"]["securitySchemes"];
        assert_eq!(schemes["apiKey"], json!({ "type": "apiKey", "in": "header", "name": "x-api-key" }));
        assert_eq!((&schemes["bearer"]["type"], &schemes["bearer"]["scheme"]), (&json!("http"), &json!("bearer")));
        assert_eq!(schemes.as_object().unwrap().len(), 2, "{schemes}");
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let call = |headers: &[(&str, &str)]| {
                    let headers = [headers, &[("content-type", "application/json")]].concat();
                    let body = if method == "post" { SAXPY } else { "" };
                    Connection::open(server.rest).call(&method.to_uppercase(), path, &headers, body).status
                };
                let is_open = operation["security"] == json!([]);
                assert!(is_open || operation["security"] == json!([{"apiKey": []}, {"bearer": []}]), "{operation}");
                assert_eq!(call(&[]) == 401, !is_open, "{method} {path}");
                assert_eq!(operation["responses"]["401"].is_object(), !is_open, "{method} {path}");
                assert_ne!(call(&[("x-api-key", KEY)]), 401, "{method} {path}");
                assert_ne!(call(&[("authorization", &format!("Bearer {KEY}"))]), 401, "{method} {path}");
            }
        }
        let metrics = &document["paths"]["/metrics"]["get"]["security"];
        assert_eq!(metrics == &json!([]), args.contains(&"--auth-open-metrics"), "{metrics}");
        // As the documentation page sends it, with the key from its Authorize button.
        let execute = format!("{prefix}/kernels/linalg/saxpy/execute");
        assert!(document["paths"][&execute]["post"].is_object());
        let headers = [("content-type", "application/json"), ("x-api-key", KEY), ("origin", "http://localhost")];
        let response = Connection::open(server.rest).call("POST", &execute, &headers, SAXPY);
        assert_eq!(response.status, 200, "{response:?}");
    }
}

#[test]
fn tokens_have_their_own_scheme_and_without_authentication_there_is_none() {
    let mut command = program(["serve", "--rest-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0"]);
    command.env("TEST_JWT_SECRET", "a secret of 32 bytes or of more.");
    let jwt = ["--auth-jwt-algorithm=HS256", "--auth-jwt-secret-env=TEST_JWT_SECRET", "--auth-open-docs"];
    let server = Server::spawn(&mut command, &jwt);
    let schemes = get(&server, "/openapi.json").json()["components"]["securitySchemes"].clone();
    assert_eq!(schemes, json!({ "jwt": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } }));

    let open = Server::start(&[]);
    let document = get(&open, "/openapi.json").json();
    assert_eq!(document["components"]["securitySchemes"], Value::Null);
    assert_eq!(document["paths"]["/execute"]["post"]["security"], Value::Null);
    assert_eq!(get(&open, "/").header("location"), Some("docs/"));
}
