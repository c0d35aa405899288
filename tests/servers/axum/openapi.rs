//! What `/openapi.json` says is what the server does.

use crate::support::kernels;
use std::collections::BTreeSet;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::service::{Buffer, Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, RunContext};

use crate::axum::server::Server;

async fn document(server: &Server) -> Value {
    let response = server.get("/openapi.json").await;
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")), "{response:?}");
    assert_eq!(response.header("cache-control"), Some("no-cache"));
    response.json()
}

fn paths(document: &Value) -> Vec<&String> {
    document["paths"].as_object().unwrap().keys().collect()
}

/// Every value below, with the way to it.
fn walk<'a>(value: &'a Value, visit: &mut impl FnMut(&'a str, &'a Value)) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            visit(key, value);
            walk(value, visit);
        }),
        Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
        _ => {}
    }
}

fn assert_references_resolve(document: &Value) {
    let mut seen = 0;
    walk(document, &mut |key, value| {
        if let ("$ref", Some(target)) = (key, value.as_str()) {
            seen += 1;
            let pointer = target.strip_prefix('#').unwrap_or_else(|| panic!("{target} is elsewhere"));
            assert!(document.pointer(pointer).is_some(), "{target} is not there");
        }
    });
    assert!(seen > 0);
}

/// Those of the Open Inference Protocol, which have no prefix.
fn inference_paths() -> impl Iterator<Item = String> {
    let server = ["", "/health/live", "/health/ready", "/models/stats", "/repository/index"];
    let repository = ["load", "unload"].map(|action| format!("/v2/repository/models/{{name}}/{action}"));
    let regions =
        ["status", "unregister", "region/{name}/status", "region/{name}/register", "region/{name}/unregister"]
            .map(|path| format!("/v2/systemsharedmemory/{path}"));
    let model = |part: &&str| ["", "/versions/{version}"].map(|version| format!("/v2/models/{{name}}{version}{part}"));
    let models = ["", "/ready", "/config", "/stats", "/infer"];
    let models: Vec<_> = models.iter().flat_map(model).collect();
    server.into_iter().map(|path| format!("/v2{path}")).chain(repository).chain(regions).chain(models)
}

#[tokio::test]
async fn every_route_but_those_of_the_document_is_in_it_and_the_other_way_round() {
    let prefixed = RouterConfig { prefix: "/api/v1".to_owned(), ..RouterConfig::default() };
    for config in [RouterConfig::default(), prefixed] {
        let prefix = config.prefix.clone();
        let server = Server::with_config(config).await;
        let document = document(&server).await;
        let mut expected: BTreeSet<_> = ["/health", "/health/live", "/health/ready", "/metrics"]
            .into_iter()
            .map(str::to_owned)
            .chain(inference_paths())
            .chain(["/kernels", "/execute", "/operands", "/operands/{name}"].map(|path| format!("{prefix}{path}")))
            .collect();
        for kernel in kernels::registry().0.list() {
            let path = format!("{prefix}/kernels/{}", kernel.info().id);
            if kernel.info().id != "orderbook/matching" {
                expected.insert(format!("{path}/execute"));
            }
            expected.insert(path);
        }
        assert_eq!(paths(&document).into_iter().cloned().collect::<BTreeSet<_>>(), expected);

        for (path, item) in document["paths"].as_object().unwrap() {
            let methods: BTreeSet<_> = item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
            let (error, known) = if path.starts_with("/v2") {
                ("application/json", path.replace("{name}", "linalg.saxpy").replace("{version}", "1"))
            } else {
                ("application/problem+json", path.clone())
            };
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
                let response = server.request(method, &known, &[], b"").await;
                if methods.contains(method) {
                    let documented = &item[method.to_lowercase()]["responses"][response.status.to_string()];
                    assert!(documented.is_object(), "{method} {path}: {} is not documented", response.status);
                    assert!(![404, 405].contains(&response.status), "{method} {path}: {response:?}");
                } else {
                    assert_eq!((response.status, response.header("content-type")), (405, Some(error)), "{response:?}");
                    let allow: BTreeSet<_> = response.header("allow").unwrap().split(',').map(str::trim).collect();
                    let head = methods.contains("GET").then_some("HEAD");
                    let documented = methods.iter().map(String::as_str).chain(head).collect();
                    assert_eq!(allow, documented, "{method} {path}");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_turned_off_is_not_in_the_document() {
    let off = RouterConfig { enable_metrics: false, enable_health: false, ..RouterConfig::default() };
    let server = Server::with_config(off).await;
    let document = document(&server).await;
    assert!(paths(&document).iter().all(|path| !path.starts_with("/health") && *path != "/metrics"));
    assert_references_resolve(&document);

    let router = KernelRouter::new(kernels::registry().0, RouterConfig::default()).openapi(false).into_router();
    let server = Server::serve(router).await;
    for path in ["/openapi.json", "/docs", "/docs/", "/"] {
        server.get(path).await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn every_reference_resolves_and_every_problem_has_its_code() {
    use tower_kernels::error::ErrorKind;

    let document = document(&Server::start().await).await;
    assert_references_resolve(&document);
    let codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].as_array().unwrap();
    let responses = &document["paths"]["/execute"]["post"]["responses"];
    for kind in ErrorKind::ALL {
        assert!(codes.contains(&kind.code().into()), "{codes:?}");
        let reference = responses[kind.http_status().to_string()]["$ref"].as_str().unwrap();
        let response = document.pointer(&reference[1..]).unwrap();
        let narrowed = &response["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"];
        assert_eq!(narrowed["status"]["const"], kind.http_status());
        assert!(narrowed["code"]["enum"].as_array().unwrap().contains(&kind.code().into()), "{narrowed}");
        let waits = [429, 503].contains(&kind.http_status());
        assert_eq!(response["headers"].get("retry-after").is_some(), waits, "{kind}");
    }
}

#[tokio::test]
async fn every_example_is_accepted() {
    let server = Server::start().await;
    let document = document(&server).await;
    let mut tried = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let content = &item["post"]["requestBody"]["content"]["application/json"];
        let schema = content["schema"]["$ref"].as_str().and_then(|target| document.pointer(&target[1..]));
        let examples = schema.and_then(|schema| schema["examples"].as_array());
        for example in content.get("example").into_iter().chain(examples.into_iter().flatten()) {
            let response = server.post(path, example).await;
            assert_eq!(response.status, 200, "{path}: {response:?}");
            tried += 1;
        }
    }
    // Those of every kernel of the catalogue, of which each has one or more, and one document.
    let registry = tower_kernels::service::KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    let batch = registry.list().into_iter().filter(|kernel| kernel.info().mode == tower_kernels::service::Mode::Batch);
    let examples = batch.map(|kernel| kernel.input_schema().get("examples").unwrap().as_array().unwrap().len());
    assert_eq!(tried, 1 + examples.inspect(|&count| assert!(count > 0)).sum::<usize>());
}

#[tokio::test]
async fn tensors_are_in_the_document_as_in_requests_and_responses() {
    const OCTETS: &str = "application/octet-stream";
    const HEAD_LENGTH: &str = "inference-header-content-length";
    let server = Server::start().await;
    let document = document(&server).await;
    let resolve = |value: &Value| document.pointer(&value["$ref"].as_str().unwrap()[1..]).unwrap().clone();
    for path in ["/execute", "/kernels/linalg/saxpy/execute"] {
        let operation = &document["paths"][path]["post"];
        let parameters = operation["parameters"].as_array().unwrap();
        assert!(parameters.iter().map(resolve).any(|it| it["name"] == HEAD_LENGTH && it["in"] == "header"), "{path}");
        let body = resolve(&operation["requestBody"]["content"][OCTETS]["schema"]);
        let (head, fields) = (resolve(&body["x-head"]), |schema: &Value| schema["properties"].clone());
        assert_eq!((&body["format"], &head["additionalProperties"]), (&json!("binary"), &json!(false)));

        let mut sent = json!({"id": "7", "parameters": {"timeout_ms": 5000}, "outputs": [{"name": "y"}], "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [1], "data": [2.0]},
            {"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}},
            {"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]});
        if path == "/execute" {
            sent["kernel_id"] = "linalg/saxpy".into();
        }
        for (key, value) in sent.as_object().unwrap() {
            let known = &fields(&head)[key];
            assert!(known.is_object(), "{key} is not in {head}");
            for (key, _) in value[0].as_object().into_iter().flatten() {
                assert!(fields(&known["items"])[key].is_object(), "{key} is not in {known}");
            }
        }
        let datatypes = &fields(&head)["inputs"]["items"]["properties"]["datatype"]["enum"];
        assert!(datatypes.as_array().unwrap().contains(&json!("FP32")), "{datatypes}");

        let sent = sent.to_string();
        let length = sent.len().to_string();
        let headers = [("content-type", OCTETS), (HEAD_LENGTH, length.as_str())];
        let bytes = [sent.as_bytes(), &[1.0_f32.to_le_bytes(), 3.0_f32.to_le_bytes()].concat()].concat();
        let mut response = Vec::new();
        let mut stream = server.send("POST", path, &headers, &bytes).await;
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut response).await.unwrap();
        let end = response.windows(4).position(|at| at == b"\r\n\r\n").unwrap() + 4;
        let (status_and_headers, body) = (String::from_utf8_lossy(&response[..end]), &response[end..]);
        let answered = &operation["responses"]["200"];
        assert!(answered["content"][OCTETS].is_object() && answered["headers"][HEAD_LENGTH].is_object());
        assert!(
            status_and_headers.contains(OCTETS) && status_and_headers.contains(HEAD_LENGTH),
            "{status_and_headers}"
        );
        let written: Value = serde_json::from_slice(&body[..body.len() - 4]).unwrap();
        let schema = resolve(&resolve(&answered["content"][OCTETS]["schema"])["x-head"]);
        for (key, _) in written.as_object().unwrap() {
            assert!(fields(&schema)[key].is_object(), "{key} is not in {schema}");
        }
        assert_eq!(body[body.len() - 4..], 5.0_f32.to_le_bytes());
    }
}

/// Kernels whose types have the same names, and refer to themselves and to each other.
mod same_names {
    use super::*;

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[allow(dead_code)]
    pub(super) struct Input {
        node: Node,
        next: Option<Box<Input>>,
    }

    #[derive(Deserialize, Serialize, JsonSchema)]
    pub(super) struct Node {
        children: Vec<Node>,
    }

    pub(super) struct Tree;

    impl Kernel for Tree {
        type Input = Input;
        type Output = Node;

        fn info(&self) -> KernelInfo {
            KernelInfo::new("test/tree", "1.0.0", "A tree.")
        }
        fn validate(&self, _: &Input) -> Result<(), InvalidInput> {
            Ok(())
        }
        fn cost(&self, _: &Input) -> Cost {
            Cost::default()
        }
        fn run_cpu(&self, _: &Input, _: &RunContext<'_>) -> Result<Node, KernelError> {
            Ok(Node { children: Vec::new() })
        }
    }

    pub(super) mod other {
        use super::*;

        #[derive(Deserialize, Serialize, JsonSchema)]
        pub(in super::super) struct Node {
            weight: f64,
        }

        #[derive(Serialize, Deserialize, JsonSchema)]
        pub(in super::super) struct Output {
            #[serde(rename(serialize = "written", deserialize = "read"))]
            nodes: Vec<Node>,
            lengths: Buffer<f64>,
        }

        pub(in super::super) struct Other;

        impl Kernel for Other {
            type Input = Node;
            type Output = Output;

            fn info(&self) -> KernelInfo {
                KernelInfo::new("test/tree.other", "1.0.0", "No tree.")
            }
            fn validate(&self, _: &Node) -> Result<(), InvalidInput> {
                Ok(())
            }
            fn cost(&self, _: &Node) -> Cost {
                Cost::default()
            }
            fn run_cpu(&self, input: &Node, _: &RunContext<'_>) -> Result<Output, KernelError> {
                Ok(Output { nodes: vec![Node { weight: 1.0 }], lengths: vec![input.weight, f64::NAN].into() })
            }
        }
    }
}

#[tokio::test]
async fn types_of_one_name_do_not_meet_and_the_document_follows_the_registry() {
    let registry = Arc::new(KernelRegistry::new());
    registry.register(same_names::Tree).unwrap();
    let router = KernelRouter::new(Arc::clone(&registry), RouterConfig::default());
    let server = Server::serve(router.into_router()).await;
    let before = document(&server).await;
    assert!(before["paths"].get("/kernels/test/tree.other/execute").is_none());
    registry.register(same_names::other::Other).unwrap();
    let after = document(&server).await;
    assert_references_resolve(&after);
    let schemas = &after["components"]["schemas"];
    assert_eq!(schemas["test.tree.Input"]["properties"]["node"]["$ref"], "#/components/schemas/test.tree.Input.Node");
    assert_eq!(
        schemas["test.tree.Input.Node"]["properties"]["children"]["items"]["$ref"],
        "#/components/schemas/test.tree.Input.Node"
    );
    // A schema that refers to the whole of itself.
    assert_eq!(
        schemas["test.tree.Output"]["properties"]["children"]["items"]["$ref"],
        "#/components/schemas/test.tree.Output"
    );
    let other = &schemas["test.treeDOTother.Output"]["properties"];
    assert_eq!(other["written"]["items"]["$ref"], "#/components/schemas/test.treeDOTother.Output.Node");

    // An output is described as it is written: under its own names, and with null where JSON has no number.
    assert!(other.get("read").is_none(), "{other}");
    assert_eq!(other["lengths"]["items"]["type"], json!(["number", "null"]));
    let response = server.post("/kernels/test/tree.other/execute", &json!({"weight": 2.0})).await.json();
    assert_eq!(response["output"], json!({"written": [{"weight": 1.0}], "lengths": [2.0, null]}));
}

#[tokio::test]
async fn nested_in_another_router_the_document_still_leads_to_the_kernels() {
    let kernels = KernelRouter::new(kernels::registry().0, RouterConfig::default()).into_router();
    let server = Server::serve(axum::Router::new().nest("/compute", kernels)).await;
    let response = server.get("/compute/openapi.json").await;
    // Relative to where the document is.
    assert_eq!(response.json()["servers"], json!([{ "url": "." }]));
    assert_eq!(server.get("/compute/kernels").await.status, 200);
}
