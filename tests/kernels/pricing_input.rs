//! What option pricing takes and refuses, as JSON, as tensors and typed.

use crate::service::{ask, read, rejection, run, tensor, tensors};
use tower_kernels::kernels::risk::option_pricing::OptionKind;
use tower_kernels::kernels::risk::option_pricing::{OptionPricingInput, OptionPricingOutput};
use tower_kernels::service::{DType, FloatArray, Payload};

const ID: &str = "risk/option-pricing";

/// Hull, *Options, Futures, and Other Derivatives*, 15.9: a call at 4.76 and a put at 0.81.
const BOOK: &str = r#"{
    "spot": 42, "strike": 40, "rate": 0.1, "volatility": 0.2, "time": 0.5, "kind": ["call", "put"]
}"#;

#[tokio::test]
async fn the_example_of_the_textbook() {
    let answer = ask(ID, BOOK).await.unwrap();
    let price = |contract: usize| (answer["price"][contract].as_f64().unwrap() * 100.0).round() / 100.0;
    assert_eq!((price(0), price(1)), (4.76, 0.81), "{answer}");
    for name in ["price", "delta", "gamma", "vega", "theta", "rho"] {
        assert_eq!(answer[name].as_array().unwrap().len(), 2, "{name}");
    }
}

#[tokio::test]
async fn all_payloads_give_the_same_output() {
    let json = ask(ID, BOOK).await.unwrap();
    let prices = [json["price"][0].as_f64().unwrap(), json["price"][1].as_f64().unwrap()];

    let input = || OptionPricingInput {
        spot: 42.0.into(),
        strike: vec![40.0, 40.0].into(),
        rate: 0.1.into(),
        volatility: 0.2.into(),
        time: 0.5.into(),
        dividend_yield: FloatArray::default(),
        kind: vec![OptionKind::Call, OptionKind::Put].into(),
        precision: None,
    };
    let answer = run(ID, Payload::typed(input())).await.unwrap();
    assert_eq!(answer.downcast::<OptionPricingOutput>().unwrap().price, FloatArray::from(prices.to_vec()));
    let narrow = OptionPricingInput { strike: vec![40.0_f32; 2].into(), ..input() };
    let answer = run(ID, Payload::typed(narrow)).await.unwrap();
    assert!(matches!(answer.downcast::<OptionPricingOutput>().unwrap().price, FloatArray::F32(_)));

    let one = |value: f64| tensor(DType::F64, &[], &[value]);
    let fields = |strike, kind| {
        let rest = [one(42.0), one(0.1), one(0.2), one(0.5)];
        let [spot, rate, volatility, time] = rest;
        tensors([
            ("spot", spot),
            ("strike", strike),
            ("rate", rate),
            ("volatility", volatility),
            ("time", time),
            ("kind", kind),
        ])
    };
    let strike = || tensor(DType::F64, &[2], &[40.0_f64, 40.0]);
    let codes = tensor(DType::U8, &[2], &[0_u8, 1]);
    let answer = run(ID, fields(strike(), codes.clone())).await.unwrap();
    assert_eq!(read::<f64>(&answer, "price", DType::F64), prices);
    let answer = run(ID, fields(strike(), tensor(DType::U8, &[4], b"call"))).await.unwrap();
    assert_eq!(read::<f64>(&answer, "price", DType::F64), [prices[0]; 2]);
    // Single precision in, single precision out.
    let answer = run(ID, fields(tensor(DType::F32, &[2], &[40.0_f32, 40.0]), codes)).await.unwrap();
    for (single, double) in read::<f32>(&answer, "price", DType::F32).into_iter().zip(prices) {
        assert!((f64::from(single) - double).abs() < 1e-5 * 40.0);
    }
}

#[tokio::test]
async fn precision_may_be_asked_for() {
    let with = |precision: &str| BOOK.replace("\"kind\"", &format!("\"precision\": \"{precision}\", \"kind\""));
    let single = ask(ID, &with("f32")).await.unwrap();
    let double = ask(ID, &with("f64")).await.unwrap();
    assert_eq!(double, ask(ID, BOOK).await.unwrap());
    assert_ne!(single, double);
    let price = |answer: &serde_json::Value| answer["price"][0].as_f64().unwrap();
    assert!((price(&single) - price(&double)).abs() < 1e-5 * 40.0);
}

#[tokio::test]
async fn rejections_name_the_field_and_the_index() {
    let with = |name: &str, value: &str| {
        let mut document: serde_json::Map<String, serde_json::Value> = serde_json::from_str(BOOK).unwrap();
        document.insert(name.to_owned(), serde_json::from_str(value).unwrap());
        serde_json::to_string(&document).unwrap()
    };
    for (name, value, field) in [
        ("spot", "0", "spot"),
        ("spot", "[42, -1]", "spot[1]"),
        ("spot", "[]", "spot"),
        ("spot", "1e-310", "spot"),
        ("strike", "[40, 4e-320]", "strike[1]"),
        ("strike", "[40, 0]", "strike[1]"),
        ("strike", "[40, 40, 40]", "kind"),
        ("strike", "\"40\"", "strike"),
        ("strike", "[40, \"x\"]", "strike[1]"),
        ("strike", "{\"float64\": []}", "strike"),
        ("volatility", "-0.1", "volatility"),
        ("time", "[0.5, -0.1]", "time[1]"),
        ("time", "3001", "rate"),
        ("rate", "[0.1, 601]", "rate[1]"),
        ("dividend_yield", "-601", "dividend_yield"),
        ("kind", "\"straddle\"", "kind"),
        ("kind", "[\"call\", 1]", "kind[1]"),
        ("kind", "[]", "kind"),
        ("precision", "\"f16\"", "precision"),
        ("colour", "1", "colour"),
    ] {
        let refused = rejection(ask(ID, &with(name, value)).await);
        let expected = if (name, value) == ("kind", "[]") { "spot" } else { field };
        assert_eq!(refused.field, expected, "{name} {value}: {refused}");
    }
}

#[tokio::test]
async fn tensors_of_no_number_are_rejected() {
    for (bad, name) in [(f64::NAN, "spot"), (f64::INFINITY, "spot")] {
        let one = || tensor(DType::F64, &[1], &[0.5_f64]);
        let payload = tensors([
            ("spot", tensor(DType::F64, &[3], &[1.0, bad, 1.0])),
            ("strike", one()),
            ("rate", one()),
            ("volatility", one()),
            ("time", one()),
            ("kind", tensor(DType::U8, &[3], b"put")),
        ]);
        assert_eq!(rejection(run(ID, payload).await).field, format!("{name}[1]"));
    }
    for strike in [tensor(DType::U32, &[2], &[1_u32, 2]), tensor(DType::F64, &[1, 2], &[1.0_f64, 2.0])] {
        let one = || tensor(DType::F64, &[1], &[0.5_f64]);
        let payload = tensors([
            ("spot", one()),
            ("strike", strike),
            ("rate", one()),
            ("volatility", one()),
            ("time", one()),
            ("kind", tensor(DType::U8, &[2], &[0_u8, 2])),
        ]);
        assert_eq!(rejection(run(ID, payload).await).field, "strike");
    }
}
