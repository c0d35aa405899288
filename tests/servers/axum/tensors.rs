//! Tensors as bodies, over real sockets: the binary data extension of the Open Inference Protocol.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tower_kernels::axum::RouterConfig;

use crate::axum::server::{JSON, Server};

const OCTETS: (&str, &str) = ("content-type", "application/octet-stream");
const HEAD_LENGTH: &str = "inference-header-content-length";

/// A tensor as a client has it: name, datatype, shape, bytes.
type Tensor<'a> = (&'a str, &'a str, Vec<usize>, Vec<u8>);

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn f64s(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn u32s(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A head with these fields besides its inputs, and the tensors after it.
fn body(rest: Value, tensors: &[Tensor<'_>]) -> (usize, Vec<u8>) {
    let mut head = rest;
    let describe = |(name, datatype, shape, data): &Tensor<'_>| {
        let parameters = json!({"binary_data_size": data.len()});
        json!({"name": name, "datatype": datatype, "shape": shape, "parameters": parameters})
    };
    head["inputs"] = tensors.iter().map(describe).collect();
    raw(&head, &tensors.iter().flat_map(|(_, _, _, data)| data.clone()).collect::<Vec<_>>())
}

fn raw(head: &Value, data: &[u8]) -> (usize, Vec<u8>) {
    let head = head.to_string();
    (head.len(), [head.as_bytes(), data].concat())
}

fn saxpy() -> Vec<Tensor<'static>> {
    vec![
        ("a", "FP32", vec![1], f32s(&[2.0])),
        ("x", "FP32", vec![3], f32s(&[1.0, 2.0, 0.1])),
        ("y", "FP32", vec![3], f32s(&[10.0, f32::INFINITY, 1e-7])),
    ]
}

struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    async fn receive(stream: &mut TcpStream) -> Self {
        use tokio::io::AsyncReadExt;
        let mut bytes = Vec::new();
        // The server may reset a connection whose body it did not read; what it said before that counts.
        let _ = stream.read_to_end(&mut bytes).await;
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer") + 4;
        let headers = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        Self { status: headers[9..12].parse().unwrap(), headers, body: bytes[end..].to_vec() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The head, and the bytes of each tensor that it describes.
    #[track_caller]
    fn tensors(&self) -> (Value, Vec<Vec<u8>>) {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some("application/octet-stream"));
        assert_eq!(self.header("content-length").unwrap().parse(), Ok(self.body.len()));
        let (head, mut rest) = self.body.split_at(self.header(HEAD_LENGTH).unwrap().parse().unwrap());
        let head: Value = serde_json::from_slice(head).unwrap();
        let mut tensors = Vec::new();
        for output in head["outputs"].as_array().unwrap() {
            let size = output["parameters"]["binary_data_size"].as_u64().unwrap() as usize;
            let (tensor, after) = rest.split_at(size);
            tensors.push(tensor.to_vec());
            rest = after;
        }
        assert!(rest.is_empty(), "nothing after the last tensor");
        (head, tensors)
    }

    #[track_caller]
    fn problem(&self, status: u16, code: &str, field: &str) -> String {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!((self.status, self.header("content-type")), (status, Some("application/problem+json")), "{text}");
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&document["code"], &document["field"]), (&json!(code), &json!(field)), "{document}");
        document["detail"].as_str().unwrap().to_owned()
    }
}

async fn post(server: &Server, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    Answer::receive(&mut server.send("POST", path, headers, body).await).await
}

async fn send(server: &Server, path: &str, (head, body): &(usize, Vec<u8>)) -> Answer {
    post(server, path, &[OCTETS, (HEAD_LENGTH, &head.to_string())], body).await
}

#[tokio::test]
async fn tensors_get_tensors_as_responses_on_both_routes() {
    let server = Server::start().await;
    let expected = f32s(&[12.0, f32::INFINITY, 2.0_f32.mul_add(0.1, 1e-7)]);
    for (path, rest) in [
        ("/kernels/linalg/saxpy/execute", json!({"id": "mine"})),
        ("/execute", json!({"id": "mine", "kernel_id": "linalg/saxpy", "parameters": {"binary_data_output": true}})),
    ] {
        let response = send(&server, path, &body(rest, &saxpy())).await;
        let (head, tensors) = response.tensors();
        assert_eq!(tensors, std::slice::from_ref(&expected));
        let output = json!({"name": "y", "datatype": "FP32", "shape": [3], "parameters": {"binary_data_size": 12}});
        assert_eq!((&head["outputs"], &head["id"]), (&json!([output]), &json!("mine")));
        assert_eq!(head["request_id"].as_str(), response.header("x-request-id"));
        assert_eq!((&head["kernel_id"], &head["model_name"]), (&json!("linalg/saxpy"), &json!("linalg/saxpy")));
        assert!(head["metadata"]["duration_us"].is_u64() && head["metadata"]["backend"].is_string());
    }
    // As Triton's own client sends it: with no type.
    let (head, bytes) = body(json!({}), &saxpy());
    let response = post(&server, "/kernels/linalg/saxpy/execute", &[(HEAD_LENGTH, &head.to_string())], &bytes).await;
    let (head, tensors) = response.tensors();
    assert_eq!((tensors, head.get("id")), (vec![expected], None));
    assert_eq!(server.metric("kernel_http_responses_total{code=\"ok\"}").await, Some(3.0));
}

#[tokio::test]
async fn responses_equal_those_of_json_bit_for_bit() {
    let server = Server::start().await;
    let spot: Vec<f64> = (0..500).map(|i| 80.0 + f64::from(i) * 0.1).collect();
    let (offsets, columns) = ([0_u32, 2, 4, 6, 8], [1_u32, 3, 0, 2, 1, 3, 2, 0]);
    let graph = json!({"row_offsets": offsets, "column_indices": columns});
    let options = json!({"spot": spot, "strike": 100.0, "rate": 0.05, "volatility": 0.2, "time": 0.5, "kind": "put"});
    let one = |name, value| (name, "FP64", vec![1], f64s(&[value]));
    for (kernel, input, tensors) in [
        (
            "graph/betweenness-centrality",
            graph,
            vec![
                ("row_offsets", "UINT32", vec![5], u32s(&offsets)),
                ("column_indices", "UINT32", vec![8], u32s(&columns)),
            ],
        ),
        (
            "risk/option-pricing",
            options,
            vec![
                ("spot", "FP64", vec![500], f64s(&spot)),
                one("strike", 100.0),
                one("rate", 0.05),
                one("volatility", 0.2),
                one("time", 0.5),
                ("kind", "UINT8", vec![3], b"put".to_vec()),
            ],
        ),
    ] {
        let path = format!("/kernels/{kernel}/execute");
        let json = server.post(&path, &input).await.json();
        let (head, sections) = send(&server, &path, &body(json!({}), &tensors)).await.tensors();
        let outputs = head["outputs"].as_array().unwrap();
        assert_eq!(outputs.len(), json["output"].as_object().unwrap().len());
        for (output, section) in outputs.iter().zip(&sections) {
            let values = json["output"][output["name"].as_str().unwrap()].as_array().unwrap();
            let values: Vec<f64> = values.iter().map(|value| value.as_f64().unwrap()).collect();
            assert_eq!((&output["datatype"], *section == f64s(&values)), (&json!("FP64"), true), "{kernel} {output}");
        }
    }
}

#[tokio::test]
async fn outputs_are_those_asked_for_and_data_may_be_in_the_head() {
    let server = Server::start().await;
    let one = |name: &str, value: f64| json!({"name": name, "datatype": "FP64", "shape": [1], "data": [value]});
    let mut head = json!({
        "inputs": [one("spot", 100.0), one("strike", 100.0), one("rate", 0.05), one("volatility", 0.2), one("time", 1.0),
            {"name": "kind", "datatype": "UINT8", "shape": [2], "parameters": {"binary_data_size": 2}}],
        "outputs": [{"name": "rho", "parameters": {"binary_data": true}}, {"name": "price"}],
    });
    let path = "/kernels/risk/option-pricing/execute";
    let (response, tensors) = send(&server, path, &raw(&head, &[0, 1])).await.tensors();
    let names: Vec<_> =
        response["outputs"].as_array().unwrap().iter().map(|output| output["name"].as_str().unwrap()).collect();
    assert_eq!((names, tensors[0].len(), tensors[1].len()), (vec!["rho", "price"], 16, 16));

    head["outputs"][1]["name"] = json!("speed");
    let unknown = send(&server, path, &raw(&head, &[0, 1])).await;
    assert!(unknown.problem(400, "invalid_argument", "outputs[1].name").contains("gamma"));
}

#[tokio::test]
async fn frames_may_end_anywhere() {
    let server = Server::start().await;
    let (head, bytes) = body(json!({}), &saxpy());
    let expected = f32s(&[12.0, f32::INFINITY, 2.0_f32.mul_add(0.1, 1e-7)]);
    // Each pair of cuts: the head in two, a tensor in the middle of an element, at the very borders.
    let mut splits: Vec<Vec<usize>> = [1, head - 1, head, head + 1, head + 4, head + 6, head + 16, bytes.len() - 1]
        .into_iter()
        .map(|cut| vec![cut])
        .collect();
    splits.push(vec![head / 2, head + 2, head + 9]);
    splits.push((1..bytes.len()).collect());
    for cuts in splits {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let start = format!(
            "POST /kernels/linalg/saxpy/execute HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: \
             application/octet-stream\r\n{HEAD_LENGTH}: {head}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        stream.write_all(start.as_bytes()).await.unwrap();
        let ends = cuts.iter().copied().chain([bytes.len()]);
        for (from, to) in std::iter::once(0).chain(cuts.iter().copied()).zip(ends) {
            let chunk = [format!("{:x}\r\n", to - from).as_bytes(), &bytes[from..to], b"\r\n"].concat();
            stream.write_all(&chunk).await.unwrap();
            stream.flush().await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        let (_, tensors) = Answer::receive(&mut stream).await.tensors();
        assert_eq!(tensors, std::slice::from_ref(&expected), "{cuts:?}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_head_is_named() {
    let server = Server::start().await;
    let input = |change: &dyn Fn(&mut Value)| {
        let parameters = json!({"binary_data_size": 12});
        let mut input = json!({"name": "x", "datatype": "FP32", "shape": [3], "parameters": parameters});
        change(&mut input);
        json!({"inputs": [{"name": "a", "datatype": "FP32", "shape": [], "data": [1.0]}, input]})
    };
    let size = "inputs[1].parameters.binary_data_size";
    for (head, field, says) in [
        (input(&|x| x["name"] = json!("a")), "inputs[1].name", "two tensors"),
        (input(&|x| x["datatype"] = json!("INT16")), "inputs[1].datatype", "INT16"),
        (input(&|x| x["datatype"] = json!("BYTES")), "inputs[1].datatype", "UINT8"),
        (input(&|x| x["shape"] = json!([2])), size, "needs 8 bytes"),
        (input(&|x| x["shape"] = json!([-1])), "inputs[1].shape[0]", ""),
        (input(&|x| x["shape"] = json!([u64::MAX, 2])), "inputs[1].shape", "address space"),
        (input(&|x| x["shape"] = json!(vec![1; 9])), "inputs[1].shape", "more than 8 items"),
        (input(&|x| x["parameters"] = json!({})), size, "missing"),
        (input(&|x| x["parameters"] = json!({"binary_data_size": -1})), size, ""),
        (
            input(&|x| x["parameters"] = json!({"shared_memory_region": "r"})),
            "inputs[1].parameters.shared_memory_region",
            "",
        ),
        (input(&|x| x["data"] = json!([1, 2, 3])), "inputs[1].data", "binary_data_size"),
        (json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": ["1"]}]}), "inputs[0].data[0]", ""),
        (
            json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1]}]}),
            "inputs[0].data",
            "needs 8 bytes",
        ),
        (json!({"inputs": {}}), "inputs", ""),
        (json!({}), "inputs", "missing"),
        (json!([]), "input", ""),
        (json!({"inputs": [], "kernel_id": "linalg/saxpy"}), "kernel_id", "path"),
        (json!({"inputs": [], "parameters": {"timeout": 1}}), "parameters.timeout", "timeout_ms"),
        (json!({"inputs": [], "parameters": {"priority": "urgent"}}), "parameters.priority", "low"),
        (json!({"inputs": [], "parameters": {"backend": "tpu"}}), "parameters.backend", "cuda"),
        (json!({"inputs": [], "parameters": {"trace_id": "0"}}), "parameters.trace_id", ""),
        (json!({"inputs": [], "parameters": {"binary_data_output": false}}), "parameters.binary_data_output", "JSON"),
        (
            json!({"inputs": [], "outputs": [{"name": "y", "parameters": {"binary_data": false}}]}),
            "outputs[0].parameters.binary_data",
            "JSON",
        ),
        (json!({"inputs": [], "outputs": [{"name": "y"}, {"name": "y"}]}), "outputs[1].name", "twice"),
    ] {
        let response = send(&server, "/kernels/linalg/saxpy/execute", &raw(&head, &[0; 12])).await;
        let detail = response.problem(400, "invalid_argument", field);
        assert!(detail.contains(says), "{head}: {detail}");
    }
    let nameless = send(&server, "/execute", &raw(&json!({"inputs": []}), b"")).await;
    nameless.problem(400, "invalid_argument", "kernel_id");
    let unknown = send(&server, "/execute", &raw(&json!({"kernel_id": "no/such", "inputs": []}), b"")).await;
    assert_eq!(unknown.status, 404);
    // What the kernel says of its input names the tensor.
    let wrong = send(&server, "/kernels/linalg/saxpy/execute", &body(json!({}), &saxpy()[..2])).await;
    wrong.problem(400, "invalid_argument", "y");
}

#[tokio::test]
async fn a_body_that_contradicts_its_headers_and_head_is_rejected() {
    let server = Server::with_config(RouterConfig { max_request_size: 1 << 20, ..RouterConfig::default() }).await;
    let path = "/kernels/linalg/saxpy/execute";
    let (length, bytes) = body(json!({}), &saxpy());
    let text = length.to_string();
    let too_long = (bytes.len() + 1).to_string();
    for headers in [
        &[OCTETS][..],
        &[OCTETS, (HEAD_LENGTH, "")],
        &[OCTETS, (HEAD_LENGTH, "many")],
        &[OCTETS, (HEAD_LENGTH, &text), (HEAD_LENGTH, &text)],
        &[OCTETS, (HEAD_LENGTH, &too_long)],
    ] {
        post(&server, path, headers, &bytes).await.problem(400, "invalid_argument", HEAD_LENGTH);
    }
    let encoded = [OCTETS, (HEAD_LENGTH, text.as_str()), ("content-encoding", "gzip")];
    assert_eq!(post(&server, path, &encoded, &bytes).await.status, 415);
    // Cut off by one, in the head, in a tensor.
    let short = send(&server, path, &(length, bytes[..bytes.len() - 1].to_vec())).await;
    short.problem(400, "invalid_argument", "inputs[2].parameters.binary_data_size");
    let surplus = send(&server, path, &(length, [&bytes[..], b"!"].concat())).await;
    surplus.problem(400, "invalid_argument", "inputs");
    for cut in [1, length - 1] {
        let response = send(&server, path, &(cut, bytes.clone())).await;
        assert_eq!(response.status, 400, "a head cut to {cut}");
    }
    // The same where no length is announced.
    for (end, field) in [
        (length - 1, HEAD_LENGTH),
        (length, "inputs[0].parameters.binary_data_size"),
        (bytes.len() - 1, "inputs[2].parameters.binary_data_size"),
        (bytes.len() + 1, "inputs"),
    ] {
        let sent = [&bytes[..], b"!"].concat()[..end].to_vec();
        let chunked = [format!("{end:x}\r\n").as_bytes(), &sent, b"\r\n0\r\n\r\n"].concat();
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let start = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/octet-stream\r\n\
             {HEAD_LENGTH}: {length}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        stream.write_all(&[start.as_bytes(), &chunked].concat()).await.unwrap();
        Answer::receive(&mut stream).await.problem(400, "invalid_argument", field);
    }
    let fine = send(&server, path, &(length, bytes)).await;
    assert_eq!(fine.status, 200);
}

#[tokio::test]
async fn a_response_that_is_too_large_is_rejected_before_it_is_sent() {
    let server = Server::with_config(RouterConfig { max_request_size: 1 << 20, ..RouterConfig::default() }).await;
    let path = "/kernels/linalg/saxpy/execute";
    let announced = [OCTETS, (HEAD_LENGTH, "100"), ("content-length", "1048577")];
    assert_eq!(post(&server, path, &announced, b"").await.status, 413);
    let long_head = [OCTETS, (HEAD_LENGTH, "65537"), ("content-length", "1000000")];
    post(&server, path, &long_head, b"").await.problem(413, "too_large", HEAD_LENGTH);
    // Claimed in the head of a body that announces no length.
    for bytes in [1_usize << 20, 1 << 40, 1 << 60] {
        let parameters = json!({"binary_data_size": bytes});
        let head = json!({"inputs": [{"name": "x", "datatype": "UINT8", "shape": [bytes], "parameters": parameters}]});
        let head = head.to_string();
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let start = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/octet-stream\r\n\
             {HEAD_LENGTH}: {0}\r\ntransfer-encoding: chunked\r\n\r\n{0:x}\r\n{head}\r\n",
            head.len()
        );
        stream.write_all(start.as_bytes()).await.unwrap();
        let answer = Answer::receive(&mut stream).await;
        answer.problem(413, "too_large", "inputs[0].parameters.binary_data_size");
    }
}

#[tokio::test]
async fn a_slow_body_has_until_the_deadline_of_its_headers_or_its_head() {
    let server = Server::start().await;
    let begun = Instant::now();
    let path = "/kernels/linalg/saxpy/execute";
    for (parameters, header) in
        [(json!({}), ("connect-timeout-ms", "50")), (json!({"timeout_ms": 50}), ("grpc-timeout", "1H"))]
    {
        let (head, bytes) = body(json!({"parameters": parameters}), &saxpy());
        let (head, length) = (head.to_string(), bytes.len().to_string());
        let headers = [OCTETS, (HEAD_LENGTH, head.as_str()), ("content-length", &length), header];
        let mut stream = server.send("POST", path, &headers, &bytes[..bytes.len() - 2]).await;
        let response = Answer::receive(&mut stream).await;
        assert_eq!(response.status, 408, "{}", String::from_utf8_lossy(&response.body));
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn metadata_in_the_parameters_reaches_the_kernel_and_a_client_that_hangs_up_cancels_it() {
    const IN_FLIGHT: &str = "kernel_requests_in_flight{operation=\"test/nap\"}";
    let server = Server::start().await;
    let nap = |parameters: Value| {
        let millis = ("millis", "UINT64", vec![1], 600_000_u64.to_le_bytes().to_vec());
        body(json!({"parameters": parameters}), &[millis])
    };
    let path = "/kernels/test/nap/execute";
    let late = send(&server, path, &nap(json!({"timeout_ms": 30, "priority": "low", "tenant": "acme"}))).await;
    assert_eq!(late.status, 504);
    let (head, bytes) = nap(json!({}));
    let stream = server.send("POST", path, &[OCTETS, (HEAD_LENGTH, &head.to_string())], &bytes).await;
    server.until(IN_FLIGHT, 1.0).await;
    drop(stream);
    server.until(IN_FLIGHT, 0.0).await;
    // JSON is as it was.
    let json = server.request("POST", path, &[JSON], br#"{"millis": 0}"#).await;
    assert_eq!(json.json()["output"], json!({"millis": [0]}));
}
