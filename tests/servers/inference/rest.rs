use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};
use std::io::{Read, Write};
use tokio::io::AsyncWriteExt;
use tower::ServiceBuilder;
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::layers::{ErrorResponseLayer, RateLimiterLayer};

use super::rest_client::{Answer, Client, HEAD_LENGTH, binary, f32s, saxpy};
use crate::axum::server::{JSON, Server};
use crate::support::http_client::head;
use crate::support::kernels;

#[tokio::test]
async fn the_server_and_its_models_describe_themselves() {
    let client = Client::start().await;
    let server = client.read("/v2").await.ok();
    assert_eq!(server["name"], "tower-kernels");
    assert!(server["extensions"].as_array().unwrap().contains(&json!("binary_tensor_data")), "{server}");
    assert_eq!(client.read("/v2/health/live").await.ok(), json!({"live": true}));
    assert_eq!(client.read("/v2/health/ready").await.ok(), json!({"ready": true}));
    for name in ["linalg.saxpy", "linalg/saxpy", "linalg%2Fsaxpy"] {
        for version in ["", "/versions/1"] {
            let path = format!("/v2/models/{name}{version}");
            let name = name.replace("%2F", "/");
            let model = client.read(&path).await.ok();
            assert_eq!((&model["name"], &model["versions"]), (&json!(name), &json!(["1"])));
            assert_eq!(model["inputs"][1], json!({"name": "x", "datatype": "FP32", "shape": [-1]}));
            let ready = client.read(&format!("{path}/ready")).await.ok();
            assert_eq!(ready, json!({"name": name, "ready": true}));
            let config = client.read(&format!("{path}/config")).await.ok();
            assert_eq!((&config["name"], &config["max_batch_size"]), (&json!(name), &json!(0)));
            let input = json!({"name": "a", "data_type": "TYPE_FP32", "dims": [1], "optional": false});
            assert_eq!(config["input"][0], input);
        }
    }
    for path in [
        "/v2/models/unknown",
        "/v2/models/unknown/ready",
        "/v2/models/linalg.saxpy/versions/2",
        "/v2/models/linalg.saxpy/versions/2/config",
        "/v2/models/linalg.saxpy/nothing",
        "/v2/models",
        "/v2/models/",
        "/v2/nothing",
    ] {
        client.read(path).await.error(404);
    }
    client.send("DELETE", "/v2/models/linalg.saxpy", &[], b"").await.error(405);
    client.send("POST", "/v2/models/linalg.saxpy/config", &[], b"").await.error(405);
}

#[tokio::test]
async fn the_index_has_the_models_and_nothing_is_loaded_or_shared() {
    let client = Client::start().await;
    for body in ["", "{}", r#"{"ready": true}"#] {
        let index = client.send("POST", "/v2/repository/index", &[], body.as_bytes()).await.ok();
        let entry = json!({"name": "linalg/saxpy", "version": "1", "state": "READY", "reason": ""});
        assert!(index.as_array().unwrap().contains(&entry), "{index}");
        // Its input is no object, so no tensors can be given to it.
        assert!(!index.to_string().contains("test/panics"), "{index}");
    }
    client.send("POST", "/v2/repository/index", &[], b"[").await.error(400);
    client.send("POST", "/v2/repository/index", &[], &[b' '; 5000]).await.error(413);
    for action in ["load", "unload"] {
        let path = format!("/v2/repository/models/linalg.saxpy/{action}");
        assert!(client.send("POST", &path, &[], b"{}").await.error(422).contains("neither loaded"));
    }
    for path in ["systemsharedmemory/status", "cudasharedmemory/status", "systemsharedmemory/region/a/status"] {
        assert!(client.read(&format!("/v2/{path}")).await.error(422).contains("shared memory"));
    }
    for path in ["systemsharedmemory/region/a/register", "cudasharedmemory/unregister"] {
        client.send("POST", &format!("/v2/{path}"), &[], b"{}").await.error(422);
    }
}

#[tokio::test]
async fn json_gets_json() {
    let client = Client::start().await;
    let mut request = saxpy();
    request["id"] = json!("mine");
    let response = client.infer("linalg.saxpy", &request).await.ok();
    let output = json!({"name": "y", "datatype": "FP32", "shape": [2], "data": [12.0, 24.0]});
    let expected = json!({"model_name": "linalg.saxpy", "model_version": "1", "id": "mine", "outputs": [output]});
    assert_eq!(response, expected);
    let response = client.infer("linalg/saxpy/versions/1", &saxpy()).await.ok();
    assert_eq!((&response["outputs"][0], response.get("id")), (&output, None));
}

#[tokio::test]
async fn binary_and_json_are_mixed_in_requests_and_responses() {
    let client = Client::start().await;
    let data = [f32s(&[1.0, 2.0]), f32s(&[10.0, 20.0])].concat();
    let a = json!({"name": "a", "datatype": "FP32", "shape": [1], "data": [2.0]});
    let mut request = json!({"inputs": [a, binary("x", "FP32", &[2], 8), binary("y", "FP32", &[2], 8)]});
    let output = client.infer_binary("linalg.saxpy", &request, &data).await.ok();
    assert_eq!(output["outputs"][0]["data"], json!([12.0, 24.0]));
    for (parameters, outputs) in [
        (json!({"binary_data_output": true}), json!(null)),
        (json!({"binary_data_output": true}), json!([{"name": "y"}])),
        (json!({}), json!([{"name": "y", "parameters": {"binary_data": true}}])),
    ] {
        request["parameters"] = parameters;
        request["outputs"] = outputs;
        let response = client.infer_binary("linalg.saxpy", &request, &data).await;
        let (json, data) = response.binary();
        assert_eq!(json["outputs"], json!([binary("y", "FP32", &[2], 8)]));
        assert_eq!(data, f32s(&[12.0, 24.0]));
    }
    request["outputs"] = json!([{"name": "y", "parameters": {"binary_data": false}}]);
    request["parameters"] = json!({"binary_data_output": true});
    assert!(client.infer_binary("linalg.saxpy", &request, &data).await.ok()["outputs"][0]["data"].is_array());

    // Several outputs, each in its own form and in the order that is asked for.
    let graph = json!({
        "inputs": [
            {"name": "num_nodes", "datatype": "UINT64", "shape": [1], "data": [3]},
            {"name": "edges", "datatype": "UINT32", "shape": [2, 2], "data": [[0, 1], [1, 2]]},
        ],
        "outputs": [{"name": "converged"}, {"name": "scores", "parameters": {"binary_data": true}}, {"name": "iterations"}],
    });
    let response = client.infer("graph.pagerank", &graph).await;
    let (json, data) = response.binary();
    assert_eq!(json["outputs"][0], json!({"name": "converged", "datatype": "BOOL", "shape": [1], "data": [true]}));
    assert_eq!((&json["outputs"][1], data.len()), (&binary("scores", "FP64", &[3], 24), 24));
    assert_eq!(json["outputs"][2]["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn scalars_are_parameters_and_texts_are_bytes() {
    let client = Client::start().await;
    let edges = json!({"name": "edges", "datatype": "UINT32", "shape": [2, 2], "data": [0, 1, 1, 2]});
    let tensors = json!([
        edges,
        {"name": "num_nodes", "datatype": "UINT64", "shape": [1], "data": [3]},
        {"name": "damping", "datatype": "FP64", "shape": [1], "data": [0.5]},
        {"name": "directed", "datatype": "BOOL", "shape": [], "data": [true]},
    ]);
    let by_tensors = client.infer("graph.pagerank", &json!({"inputs": tensors})).await.ok();
    let parameters = json!({"num_nodes": 3, "damping": 0.5, "directed": true});
    let by_parameters = client.infer("graph.pagerank", &json!({"inputs": [edges], "parameters": parameters})).await;
    assert_eq!(by_parameters.ok()["outputs"], by_tensors["outputs"]);

    let one = |name: &str, value: f64| json!({"name": name, "datatype": "FP64", "shape": [1], "data": [value]});
    let numbers =
        [one("spot", 100.0), one("strike", 90.0), one("rate", 0.05), one("volatility", 0.2), one("time", 1.0)];
    let mut prices = Vec::new();
    for (kind, data) in [
        (json!({"name": "kind", "datatype": "UINT8", "shape": [3], "data": [112, 117, 116]}), &b""[..]),
        (json!({"name": "kind", "datatype": "BYTES", "shape": [1], "data": ["put"]}), b""),
        (json!({"name": "kind", "datatype": "BYTES", "shape": [1, 1], "data": [["put"]]}), b""),
        (binary("kind", "BYTES", &[1], 7), b"\x03\0\0\0put"),
    ] {
        let inputs: Vec<_> = numbers.iter().cloned().chain([kind]).collect();
        let response = client.infer_binary("risk.option-pricing", &json!({"inputs": inputs}), data).await.ok();
        prices.push(response["outputs"].clone());
    }
    assert!(prices[0].is_array() && prices.windows(2).all(|pair| pair[0] == pair[1]), "{prices:?}");
}

#[tokio::test]
async fn a_body_of_one_raw_input_needs_no_json() {
    let client = Client::start().await;
    let values: Vec<u8> = [1.0_f64, 2.0, 3.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let model = client.read("/v2/models/stats.moments").await.ok();
    let (only, datatype) = (&model["inputs"][0], model["inputs"][0]["datatype"].as_str().unwrap());
    let values = if datatype == "FP32" { f32s(&[1.0, 2.0, 3.0]) } else { values };
    let response = client.infer_raw("stats.moments", &[(HEAD_LENGTH, "0")], &values).await;
    let (json, data) = response.binary();
    assert!(json["outputs"].as_array().is_some_and(|outputs| !outputs.is_empty()) && !data.is_empty(), "{only}");
    client.infer_raw("stats.moments", &[(HEAD_LENGTH, "0")], &values[1..]).await.error(400);
    client.infer_raw("stats.moments", &[(HEAD_LENGTH, "0")], b"").await.error(400);
    // Two and more required inputs.
    client.infer_raw("linalg.saxpy", &[(HEAD_LENGTH, "0")], &values).await.error(400);
}

#[tokio::test]
async fn operands_are_parameters_of_inputs_or_texts() {
    let client = Client::start().await;
    let graph = json!({"num_nodes": 3, "edges": [[0, 1], [1, 2]]});
    let graph = graph.to_string();
    let stored = client.request("PUT", "/operands/payments?type=graph", &[JSON], graph.as_bytes()).await;
    assert_eq!(stored.status, 201);
    let direct = json!({"inputs": [
        {"name": "num_nodes", "datatype": "UINT64", "shape": [1], "data": [3]},
        {"name": "edges", "datatype": "UINT32", "shape": [2, 2], "data": [0, 1, 1, 2]},
    ]});
    let expected = client.infer("graph.pagerank", &direct).await.ok()["outputs"].clone();
    for input in [
        json!({"name": "graph", "parameters": {"operand": "payments"}}),
        json!({"name": "graph", "datatype": "BYTES", "shape": [1], "parameters": {"operand": "payments"}}),
        json!({"name": "graph.operand", "datatype": "BYTES", "shape": [1], "data": ["payments"]}),
    ] {
        assert_eq!(client.infer("graph.pagerank", &json!({"inputs": [input]})).await.ok()["outputs"], expected);
    }
    for (input, status) in [
        (json!({"name": "graph", "parameters": {"operand": "unknown"}}), 400),
        (json!({"name": "graph", "parameters": {"operand": "../x"}}), 400),
        (
            json!({"name": "graph", "datatype": "BYTES", "shape": [1], "data": ["a"], "parameters": {"operand": "payments"}}),
            400,
        ),
    ] {
        let error = client.infer("graph.pagerank", &json!({"inputs": [input]})).await.error(status);
        assert!(error.contains("operand"), "{error}");
    }
}

#[tokio::test]
async fn bodies_are_compressed_both_ways() {
    let client = Client::start().await;
    let ones: Vec<f32> = vec![1.0; 1000];
    let a = json!({"name": "a", "datatype": "FP32", "shape": [1], "data": [2.0]});
    let request = json!({"inputs": [a, binary("x", "FP32", &[1000], 4000), binary("y", "FP32", &[1000], 4000)]});
    let json = request.to_string();
    let plain = [json.as_bytes(), &f32s(&ones), &f32s(&ones)].concat();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&plain).unwrap();
    let mut deflate = ZlibEncoder::new(Vec::new(), Compression::fast());
    deflate.write_all(&plain).unwrap();
    let length = json.len().to_string();
    for (encoding, body) in [("gzip", gzip.finish().unwrap()), ("deflate", deflate.finish().unwrap())] {
        assert!(body.len() < 1000);
        let headers = [(HEAD_LENGTH, length.as_str()), ("content-encoding", encoding)];
        let response = client.infer_raw("linalg.saxpy", &headers, &body).await.ok();
        assert_eq!(response["outputs"][0]["data"].as_array().unwrap().len(), 1000);
        let headers = [&headers[..], &[("accept-encoding", "gzip")]].concat();
        let response = client.infer_raw("linalg.saxpy", &headers, &body).await;
        assert_eq!((response.status, response.header("content-encoding")), (200, Some("gzip")));
        let mut decoded = String::new();
        GzDecoder::new(&response.body[..]).read_to_string(&mut decoded).unwrap();
        let decoded: Value = serde_json::from_str(&decoded).unwrap();
        assert_eq!(decoded["outputs"][0]["data"], json!(vec![3.0; 1000]));
    }
}

#[tokio::test]
async fn the_timeout_is_the_deadline_of_the_request_in_microseconds() {
    let client = Client::start().await;
    let mut nap = json!({"inputs": [{"name": "millis", "datatype": "UINT64", "shape": [1], "data": [10_000]}]});
    nap["parameters"] = json!({"timeout": 50_000, "priority": 1});
    let began = Instant::now();
    client.infer("test.nap", &nap).await.error(504);
    assert!((50..5000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    nap["inputs"][0]["data"] = json!([1]);
    nap["parameters"] = json!({"timeout": 0, "priority": 0});
    assert_eq!(client.infer("test.nap", &nap).await.ok()["outputs"][0]["data"], json!([1]));
}

#[tokio::test]
async fn the_timeout_counts_from_the_arrival_of_the_head() {
    let client = Client::start().await;
    let mut nap = json!({"inputs": [{"name": "millis", "datatype": "UINT64", "shape": [1], "data": [1]}]});
    for (timeout, status) in [(100_000, 504), (60_000_000, 200)] {
        nap["parameters"] = json!({"timeout": timeout});
        let body = nap.to_string();
        let (first, last) = body.split_at(body.len() - 1);
        let path = "/v2/models/test.nap/infer";
        let mut stream = client.say(head("POST", path, &[], Some(body.len()), false) + first).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        stream.write_all(last.as_bytes()).await.unwrap();
        assert_eq!(Answer::receive(stream).await.status, status, "{timeout}");
    }
}

#[tokio::test]
async fn errors_of_layers_are_error_objects_below_v2_and_problem_documents_elsewhere() {
    let router = || KernelRouter::new(kernels::registry().0, RouterConfig::default());
    let limit = || {
        let hour = Duration::from_secs(3600);
        ServiceBuilder::new().layer(ErrorResponseLayer::new()).layer(RateLimiterLayer::new(1, hour))
    };
    let client = Client(Server::serve(router().into_router_with(limit())).await);
    client.read("/v2").await.ok();
    for path in ["/v2", "/v2/models/linalg.saxpy", "/v2/nothing"] {
        let response = client.read(path).await;
        assert!(response.error(429).contains("rate limit"), "{path}");
        assert!(response.header("retry-after").is_some() && response.header("x-request-id").is_some(), "{path}");
    }
    client.get("/kernels").await.problem(429, "rate_limited");
    client.get("/v20").await.problem(429, "rate_limited");
    // Without the protocol, the paths have no form of their own.
    let server = Server::serve(router().inference_protocol(false).into_router_with(limit())).await;
    server.get("/v2").await.problem(404, "not_found");
    server.get("/v2").await.problem(429, "rate_limited");
}

#[tokio::test]
async fn errors_of_limits_are_error_objects() {
    let router =
        KernelRouter::new(kernels::registry().0, RouterConfig { max_request_size: 100, ..RouterConfig::default() });
    let client = Client(Server::serve(router.timeout(Duration::from_millis(200)).into_router()).await);
    let path = "/v2/models/linalg.saxpy/infer";
    client.send("POST", path, &[], &[b' '; 101]).await.error(413);
    client.send("POST", path, &[("content-encoding", "br")], b"{}").await.error(415);
    let unfinished = client.say(head("POST", path, &[], Some(50), false) + "{").await;
    Answer::receive(unfinished).await.error(408);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    let (registry, naps) = kernels::registry();
    let server = Server::serve(KernelRouter::new(registry, RouterConfig::default()).into_router()).await;
    let nap = json!({"inputs": [{"name": "millis", "datatype": "UINT64", "shape": [1], "data": [60_000]}]});
    let stream = server.send("POST", "/v2/models/test.nap/infer", &[], nap.to_string().as_bytes()).await;
    naps.until(1).await;
    drop(stream);
    naps.until(0).await;
    assert_eq!(naps.done(), 0);
}

#[tokio::test]
async fn statistics_count_requests_by_outcome() {
    let client = Client::start().await;
    for _ in 0..3 {
        client.infer("linalg.saxpy", &saxpy()).await.ok();
    }
    client.infer("linalg.saxpy", &json!({"inputs": []})).await.error(400);
    let one = client.read("/v2/models/linalg.saxpy/stats").await.ok();
    let all = client.read("/v2/models/stats").await.ok();
    let named = |page: &Value, name: &str| -> Value {
        page["model_stats"].as_array().unwrap().iter().find(|model| model["name"] == name).unwrap().clone()
    };
    let (one, all, none) = (named(&one, "linalg.saxpy"), named(&all, "linalg/saxpy"), named(&all, "linalg/dot"));
    assert_eq!(one["inference_stats"], all["inference_stats"]);
    assert_eq!((&one["inference_count"], &one["execution_count"]), (&json!(3), &json!(3)));
    let statistics = &one["inference_stats"];
    assert_eq!((&statistics["success"]["count"], &statistics["fail"]["count"]), (&json!(3), &json!(1)));
    assert!(statistics["success"]["ns"].as_u64().unwrap() >= statistics["compute_infer"]["ns"].as_u64().unwrap());
    assert_eq!(one["batch_stats"][0]["batch_size"], 1);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let last = Duration::from_millis(one["last_inference"].as_u64().unwrap());
    assert!(now - last < Duration::from_secs(60));
    for (metric, value) in
        [("request_success", 3.0), ("request_failure", 1.0), ("count", 3.0), ("pending_request_count", 0.0)]
    {
        let line = format!("nv_inference_{metric}{{model=\"linalg/saxpy\",version=\"1\"}}");
        assert_eq!(client.metric(&line).await, Some(value), "{line}");
    }
    assert_eq!((&none["last_inference"], &none["inference_stats"]["success"]["count"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn it_can_be_turned_off() {
    let router = KernelRouter::new(kernels::registry().0, RouterConfig::default()).inference_protocol(false);
    let server = Server::serve(router.into_router()).await;
    for path in ["/v2", "/v2/health/live", "/v2/models/linalg.saxpy"] {
        server.get(path).await.problem(404, "not_found");
    }
}
