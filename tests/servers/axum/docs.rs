//! The page at `/docs`, whose every part comes from this server.

use crate::support::kernels;
use tokio::io::AsyncReadExt;

use tower_kernels::axum::{KernelRouter, RouterConfig};

use crate::axum::server::Server;

/// The head, in lower case, and the body, which may be compressed.
async fn get(server: &Server, path: &str) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    server.send("GET", path, &[], b"").await.read_to_end(&mut bytes).await.unwrap();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let body = bytes.split_off(end + 4);
    (String::from_utf8(bytes).unwrap().to_lowercase(), body)
}

#[tokio::test]
async fn the_page_and_all_that_it_asks_for_are_here() {
    let server = Server::start().await;
    let moved = server.get("/docs").await;
    assert_eq!((moved.status, moved.header("location")), (308, Some("docs/")));
    for (file, content_type) in [
        ("", "text/html"),
        ("index.html", "text/html"),
        ("index.css", "text/css"),
        ("swagger-ui.css", "text/css"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("swagger-ui-standalone-preset.js", "text/javascript"),
        ("swagger-initializer.js", "text/javascript"),
        ("favicon-32x32.png", "image/png"),
        ("favicon-16x16.png", "image/png"),
    ] {
        let (head, body) = get(&server, &format!("/docs/{file}")).await;
        assert!(head.starts_with("http/1.1 200"), "{file}: {head}");
        assert!(head.contains(&format!("content-type: {content_type}\r\n")), "{file}: {head}");
        // Nothing from elsewhere, and nothing that the page would have to be trusted with.
        let policy = head.lines().find(|line| line.starts_with("content-security-policy: ")).unwrap();
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("http") && !policy.contains("eval"),
            "{head}"
        );
        assert!(head.contains("x-content-type-options: nosniff") && head.contains("cache-control: max-age="), "{head}");
        assert!(head.contains("x-request-id: "), "{head}");
        let compressed = head.contains("content-encoding: gzip");
        assert_eq!(compressed, body.starts_with(&[0x1f, 0x8b]), "{file}");
        assert!(!body.is_empty());
    }
}

#[tokio::test]
async fn its_title_is_ours() {
    for path in ["/docs/", "/docs/index.html"] {
        let page = Server::start().await.get(path).await.body;
        assert!(page.contains("<title>tower-kernels</title>") && !page.contains("Swagger"), "{page}");
    }
}

#[tokio::test]
async fn the_root_leads_to_it_wherever_the_router_is() {
    let server = Server::start().await;
    for method in ["GET", "HEAD"] {
        let moved = server.request(method, "/", &[], b"").await;
        assert_eq!((moved.status, moved.header("location")), (307, Some("docs/")), "{method}");
    }
    server.request("POST", "/", &[], b"").await.problem(404, "not_found");

    let router = KernelRouter::new(kernels::registry().0, RouterConfig::default()).into_router();
    let nested = Server::serve(axum::Router::new().nest("/compute", router.clone())).await;
    let moved = nested.get("/compute").await;
    assert_eq!((moved.status, moved.header("location")), (307, Some("/compute/docs/")));
    // Another router's own is not in the way.
    let merged = axum::Router::new().route("/", axum::routing::get(async || "mine")).merge(router);
    let mine = Server::serve(merged).await.get("/").await;
    assert_eq!((mine.status, mine.body.as_str()), (200, "mine"));
}

#[tokio::test]
async fn it_reads_the_relative_document_and_uses_no_validator() {
    let (_, body) = get(&Server::start().await, "/docs/swagger-initializer.js").await;
    let script = String::from_utf8(body).unwrap();
    assert!(script.contains(r#""url": "../openapi.json""#), "{script}");
    assert!(script.contains(r#""validatorUrl": "none""#), "{script}");
    assert!(script.contains(r#""persistAuthorization": true"#), "{script}");
    assert!(!script.contains("http") && !script.contains("{{config}}"), "{script}");
}

#[tokio::test]
async fn files_that_are_not_there_are_problems() {
    let server = Server::start().await;
    for path in ["/docs/none.js", "/docs/..%2Findex.html", "/docs/%00", "/docs/a/b"] {
        server.get(path).await.problem(404, "not_found");
    }
    server.get("/docs/%FF").await.problem(400, "invalid_argument");
}
