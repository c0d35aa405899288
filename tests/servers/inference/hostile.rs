//! Requests that are malformed, or that would cost more than they should.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::rest_client::{Client, HEAD_LENGTH, binary, f32s, saxpy};
use crate::support::http_client::head;

/// A request for saxpy with these fields in place of its own.
fn with(changes: &[(&str, Value)]) -> Value {
    let mut request = saxpy();
    for (pointer, value) in changes {
        match request.pointer_mut(pointer) {
            Some(field) => *field = value.clone(),
            None => {
                let (object, key) = pointer.rsplit_once('/').unwrap();
                request.pointer_mut(object).unwrap()[key] = value.clone();
            }
        }
    }
    request
}

#[tokio::test]
async fn malformed_json_is_the_error_of_the_client() {
    let client = Client::start().await;
    let deep = format!("{{\"inputs\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_parameter =
        format!("{{\"inputs\": [], \"parameters\": {{\"a\": {}1{}}}}}", "[".repeat(50_000), "]".repeat(50_000));
    let deep_data = format!(
        "{{\"inputs\": [{{\"name\": \"x\", \"datatype\": \"FP32\", \"shape\": [1], \"data\": {}1{}}}]}}",
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    for body in ["", "{", "[]", "null", "\"a\"", "{\"inputs\": [}", "\u{feff}{", &deep, &deep_parameter, &deep_data] {
        client.infer_raw("linalg.saxpy", &[], body.as_bytes()).await.error(400);
        if !body.is_empty() {
            let length = body.len().to_string();
            client.infer_raw("linalg.saxpy", &[(HEAD_LENGTH, &length)], body.as_bytes()).await.error(400);
        }
    }
    client.infer_raw("linalg.saxpy", &[], b"{\"inputs\": [], \"id\": \"\xff\"}").await.error(400);
    client.infer("linalg.saxpy", &saxpy()).await.ok();
}

#[tokio::test]
async fn the_length_of_the_json_is_within_the_body() {
    let client = Client::start().await;
    let json = saxpy().to_string();
    for length in
        ["", "-1", "+5", "1e3", "0x10", "18446744073709551615", "18446744073709551616", "99999999999999999999999"]
    {
        client.infer_raw("linalg.saxpy", &[(HEAD_LENGTH, length)], json.as_bytes()).await.error(400);
    }
    // Beyond the end of the body, and shorter than the JSON.
    for length in [json.len() + 1, json.len() - 1, 1] {
        client.infer_raw("linalg.saxpy", &[(HEAD_LENGTH, &length.to_string())], json.as_bytes()).await.error(400);
    }
    let length = json.len().to_string();
    let twice = [(HEAD_LENGTH, length.as_str()), (HEAD_LENGTH, length.as_str())];
    client.infer_raw("linalg.saxpy", &twice, json.as_bytes()).await.error(400);
    // Bytes that belong to no input.
    let surplus = [json.as_bytes(), b"!"].concat();
    client.infer_raw("linalg.saxpy", &[(HEAD_LENGTH, &length)], &surplus).await.error(400);
}

#[tokio::test]
async fn shapes_agree_with_the_data() {
    let client = Client::start().await;
    let max = u64::MAX;
    for (changes, field) in [
        (vec![("/inputs/1/shape", json!([3]))], "data"),
        (vec![("/inputs/1/shape", json!([]))], "data"),
        (vec![("/inputs/1/shape", json!([-1]))], "shape"),
        (vec![("/inputs/1/shape", json!([1.5]))], "shape"),
        (vec![("/inputs/1/shape", json!([max, max]))], "shape"),
        (vec![("/inputs/1/shape", json!([1_u64 << 62, 4]))], "shape"),
        (vec![("/inputs/1/shape", json!(vec![1; 9]))], "shape"),
        (vec![("/inputs/1/shape", Value::Null)], "shape"),
        (vec![("/inputs/1/datatype", json!("FP99"))], "datatype"),
        (vec![("/inputs/1/datatype", json!("INT16"))], "datatype"),
        (vec![("/inputs/1/datatype", Value::Null)], "datatype"),
        (vec![("/inputs/1/data", json!([1.0, "a"]))], "data"),
        (vec![("/inputs/1/data", json!("abc"))], "data"),
        (vec![("/inputs/1/data", json!([[1.0], [2.0]]))], "data"),
        (vec![("/inputs/1/data", json!([[1.0, 2.0]]))], "data"),
        (vec![("/inputs/1/data", Value::Null)], "data"),
        (vec![("/inputs/1/parameters", json!({"binary_data_size": 8}))], "data"),
        (vec![("/inputs/1/datatype", json!("BYTES"))], "shape"),
        (
            vec![
                ("/inputs/1/shape", json!([1])),
                ("/inputs/1/datatype", json!("BYTES")),
                ("/inputs/1/data", json!(["a", "b"])),
            ],
            "data",
        ),
        (vec![("/inputs/1/name", json!(""))], "name"),
        (vec![("/inputs/1/name", json!("a\nb"))], "name"),
        (vec![("/inputs/1/extra", json!(1))], "extra"),
    ] {
        let error = client.infer("linalg.saxpy", &with(&changes)).await.error(400);
        assert!(error.contains(field), "{changes:?}: {error}");
    }
    let data = f32s(&[1.0, 2.0]);
    for (shape, size, sent) in
        [(vec![2], 8, 7), (vec![2], 8, 4), (vec![2], 4, 8), (vec![2], 9, 8), (vec![2, 1 << 60], 8, 8)]
    {
        let request = with(&[("/inputs/1", binary("x", "FP32", &shape, size))]);
        client.infer_binary("linalg.saxpy", &request, &data[..sent]).await.error(400);
    }
    let huge = json!({"inputs": [binary("x", "UINT8", &[usize::MAX / 2], usize::MAX / 2)]});
    client.infer_binary("linalg.saxpy", &huge, &data).await.error(413);
}

#[tokio::test]
async fn nothing_is_there_twice_and_nothing_is_unknown() {
    let client = Client::start().await;
    let twice = |name: &str| json!([{"name": name}, {"name": name}]);
    let mut repeated = saxpy();
    let first = repeated["inputs"][0].clone();
    repeated["inputs"].as_array_mut().unwrap().push(first);
    let many: Vec<_> = (0..257)
        .map(|index| json!({"name": format!("t{index}"), "datatype": "FP32", "shape": [0], "data": []}))
        .collect();
    let parameters: Value =
        (0..65).map(|index| (format!("p{index}"), json!(1))).collect::<serde_json::Map<_, _>>().into();
    for (request, part) in [
        (with(&[("/outputs", twice("y"))]), "twice"),
        (repeated, "twice"),
        (with(&[("/parameters", json!({"a": 1.0}))]), "twice"),
        (with(&[("/outputs", json!([{"name": "unknown"}]))]), "unknown"),
        (with(&[("/outputs", json!([{"name": "y", "parameters": {"classification": 3}}]))]), "classification"),
        (with(&[("/outputs", json!([{"name": "y", "parameters": {"shared_memory_region": "a"}}]))]), "shared memory"),
        (with(&[("/outputs", json!([{"name": "y", "parameters": {"binary_data": 1}}]))]), "binary_data"),
        (
            with(&[("/inputs/0/parameters", json!({"shared_memory_region": "a", "shared_memory_byte_size": 4}))]),
            "shared memory",
        ),
        (with(&[("/parameters", json!({"sequence_id": 7, "sequence_start": true}))]), "sequence"),
        (with(&[("/parameters", json!({"triton_x": 1}))]), "reserved"),
        (with(&[("/parameters", json!({"headers": "x"}))]), "reserved"),
        (with(&[("/parameters", json!({"unknown": 1}))]), "parameters.unknown"),
        (with(&[("/parameters", json!({"timeout": -1}))]), "timeout"),
        (with(&[("/parameters", json!({"priority": "high"}))]), "priority"),
        (with(&[("/parameters", json!({"timeout": [1]}))]), "parameters"),
        (with(&[("/parameters", parameters)]), "64"),
        (with(&[("/model_name", json!("linalg.dot"))]), "model_name"),
        (with(&[("/id", json!("a\nb"))]), "id"),
        (json!({"inputs": many}), "256"),
        (json!({"outputs": []}), "inputs"),
    ] {
        let error = client.infer("linalg.saxpy", &request).await.error(400);
        assert!(error.contains(part), "{part}: {error}");
    }
    let duplicate = saxpy().to_string().replacen('{', "{\"parameters\": {\"timeout\": 1, \"timeout\": 2}, ", 1);
    assert!(client.infer_raw("linalg.saxpy", &[], duplicate.as_bytes()).await.error(400).contains("twice"));
}

#[tokio::test]
async fn compressed_bodies_are_limited_by_what_they_contain() {
    let client = Client::start().await;
    let gzip = |data: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    };
    // 64 MiB of spaces, of which 10 MiB are allowed.
    let bomb = gzip(&vec![b' '; 64 << 20]);
    let encoded = ("content-encoding", "gzip");
    assert!(client.infer_raw("linalg.saxpy", &[encoded], &bomb).await.error(413).contains("10485760"));
    let valid = gzip(saxpy().to_string().as_bytes());
    client.infer_raw("linalg.saxpy", &[encoded], &valid).await.ok();
    client.infer_raw("linalg.saxpy", &[encoded], &valid[..valid.len() - 9]).await.error(400);
    client.infer_raw("linalg.saxpy", &[encoded], saxpy().to_string().as_bytes()).await.error(400);
    client.infer_raw("linalg.saxpy", &[("content-encoding", "br")], &valid).await.error(415);
    client.infer_raw("linalg.saxpy", &[("content-encoding", "gzip, gzip")], &valid).await.error(415);
}

#[tokio::test]
async fn bodies_in_many_chunks_are_read_whole() {
    let client = Client::start().await;
    let json =
        with(&[("/inputs/1", binary("x", "FP32", &[2], 8)), ("/parameters", json!({"binary_data_output": true}))])
            .to_string();
    let body = [json.as_bytes(), &f32s(&[1.0, 2.0])].concat();
    let length = json.len().to_string();
    let headers = [("transfer-encoding", "chunked"), (HEAD_LENGTH, length.as_str())];
    let mut stream = client.say(head("POST", "/v2/models/linalg.saxpy/infer", &headers, None, false)).await;
    for byte in &body {
        stream.write_all(&[b"1\r\n", &[*byte][..], b"\r\n"].concat()).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    assert!(response.starts_with(b"HTTP/1.1 200") && response.ends_with(&f32s(&[12.0, 24.0])));

    // A raw body without a length has no shape.
    let headers = [("transfer-encoding", "chunked"), (HEAD_LENGTH, "0")];
    let mut stream = client.say(head("POST", "/v2/models/stats.moments/infer", &headers, None, false)).await;
    stream.write_all(b"8\r\n\0\0\0\0\0\0\0\0\r\n0\r\n\r\n").await.unwrap();
    let mut response = String::new();
    let _ = stream.read_to_string(&mut response).await;
    assert!(response.starts_with("HTTP/1.1 400") && response.contains("content-length"), "{response}");
}
