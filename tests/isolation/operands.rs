//! Operands are sent to the process that needs them, and again to the one that takes over.

use tower_kernels::service::{KernelRequest, Payload, TensorSet};

use crate::support::{Isolated, kill, until};

crate::tests! {
    operands_are_there_after_the_process_has_ended
    a_new_version_replaces_the_old_one
}

fn operands_are_there_after_the_process_has_ended() {
    let isolated = Isolated::new(2);
    let values: Vec<f64> = (0..100_000).map(f64::from).collect();
    isolated.service.registry().operands().put("prices", TensorSet::of("close", values)).unwrap();
    let sum = || {
        let document = r#"{"x": {"operand": "prices/close"}}"#;
        let response = isolated.within(isolated.call(KernelRequest::new("stats/moments", Payload::json(document))));
        let response = response.unwrap();
        let Payload::Json(text) = response.payload else { panic!("JSON in, JSON out") };
        text
    };
    let before = sum();
    assert_eq!(sum(), before);
    let standby = isolated.standby();
    kill(isolated.pid().unwrap());
    until(|| isolated.pid() == Some(standby));
    assert_eq!(sum(), before);
}

fn a_new_version_replaces_the_old_one() {
    let isolated = Isolated::new(1);
    let run = || {
        let document = r#"{"a": 1.0, "x": {"operand": "series/x"}, "y": {"operand": "series/x"}}"#;
        let response = isolated.within(isolated.call(KernelRequest::new("linalg/saxpy", Payload::json(document))));
        let Payload::Json(text) = response.unwrap().payload else { panic!("JSON in, JSON out") };
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()["y"].clone()
    };
    for number in 1..4_u8 {
        isolated.service.registry().operands().put("series", TensorSet::of("x", vec![f32::from(number); 2])).unwrap();
        assert_eq!(run(), serde_json::json!([f64::from(2 * number), f64::from(2 * number)]));
    }
}
