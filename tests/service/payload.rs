//! Payloads of JSON, from and into values.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tower_kernels::error::chain;
use tower_kernels::request::Execution;
use tower_kernels::service::{KernelResponse, Payload, PayloadError, Tensors};

const DOCUMENT: &str = r#"{"name":"acme","numbers":[1.0,2.5]}"#;

#[derive(Debug, PartialEq, Deserialize, Serialize)]
struct Borrowing<'a> {
    name: &'a str,
    numbers: Vec<f64>,
}

fn response(payload: Payload) -> KernelResponse {
    KernelResponse::new(payload, Execution::new("CPU"))
}

#[test]
fn a_document_is_any_text_or_bytes_borrowed_or_owned() {
    let owned = DOCUMENT.to_owned();
    let bytes = Bytes::from_static(DOCUMENT.as_bytes());
    let array = br#"{"name":"acme","numbers":[1.0,2.5]}"#;
    let local: &str = &owned;
    let vec = owned.clone().into_bytes();
    for payload in [
        Payload::json(DOCUMENT),
        Payload::json(local),
        Payload::json(&owned),
        Payload::json(owned.as_bytes()),
        Payload::json(&vec),
        Payload::json(array),
        Payload::json(&bytes),
        Payload::json(Cow::Borrowed(local)),
        Payload::json(Cow::<[u8]>::Owned(vec.clone())),
        Payload::json(BytesMut::from(DOCUMENT)),
        Payload::json(vec.clone().into_boxed_slice()),
        Payload::json(owned.clone().into_boxed_str()),
        Payload::json(vec.clone()),
        Payload::json(owned.clone()),
        Payload::json(bytes.clone()),
    ] {
        let Payload::Json(document) = payload else { panic!("{payload:?}") };
        assert_eq!(document, DOCUMENT);
    }
    let moved = owned.as_ptr();
    let Payload::Json(document) = Payload::json(owned) else { panic!("JSON") };
    assert_eq!(document.as_ptr(), moved, "what is owned is not copied");
}

#[test]
fn a_value_becomes_a_payload_and_a_payload_a_value_that_may_borrow() {
    let value = Borrowing { name: "acme", numbers: vec![1.0, 2.5] };
    let payload = Payload::from_serialize(&value).unwrap();
    assert_eq!(payload.byte_len(), Some(DOCUMENT.len()));
    let response = response(payload);
    assert_eq!(response.json::<Borrowing<'_>>().unwrap(), value);
    assert_eq!(response.json::<serde_json::Value>().unwrap()["name"], "acme");
}

#[test]
fn what_is_no_value_of_the_type_is_said_with_its_place() {
    let of =
        |document: &str| chain(&response(Payload::json(document)).json::<Borrowing<'_>>().unwrap_err()).to_string();
    for (document, says) in [
        (r#"{"name":"a","numbers":[1,"2"]}"#, "`numbers[1]` of the payload cannot be read as"),
        (r#"{"name":"a"}"#, "missing field `numbers`"),
        (r#"{"name":"a","numbers":[]} 1"#, "trailing characters"),
        ("", "the payload cannot be read as"),
    ] {
        let text = of(document);
        assert!(text.contains(says) && text.contains("Borrowing"), "{document}: {text}");
    }
}

#[test]
fn what_is_not_json_or_cannot_be_is_said() {
    let json = |payload| response(payload).json::<serde_json::Value>().unwrap_err();
    let tensors = json(Tensors::default().into());
    assert_eq!(tensors.to_string(), "the payload holds tensors and not JSON");
    assert!(json(Payload::typed(1.5f32)).to_string().contains("f32"));
    let error = Payload::from_serialize(&HashMap::from([((1, 2), 3)])).unwrap_err();
    assert!(matches!(error, PayloadError::Encode { .. }));
    assert!(chain(&error).to_string().contains("key must be a string"), "{}", chain(&error));
}
