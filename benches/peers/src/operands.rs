//! Operands: the look-up by name, and all that a request with one reference does to hold the version.

use std::hint::black_box;

use tower_kernels::service::{KernelRegistry, KernelRequest, Operands, Payload, TensorSet};

use crate::{Calls, Case};

pub(crate) const CASES: &[Case] = &[
    Case { name: "operand: look-up by name", over: None, build: look_up },
    Case { name: "operand: look-up by name, of a tenant", over: None, build: look_up_of_tenant },
    Case { name: "operand: request without operands", over: None, build: request_without },
    Case {
        name: "operand: request with one reference",
        over: Some("operand: request without operands"),
        build: request,
    },
];

const TENANT: &str = "acme";

/// A thousand operands, all of one tenant or of none.
fn stored(tenant: Option<&str>) -> Operands {
    let operands = Operands::default();
    let mut options = tower_kernels::service::PutOptions::default();
    options.tenant = tenant.map(Into::into);
    for index in 0..1000 {
        let value = TensorSet::of("x", vec![1.0_f32]);
        operands.put_with(&format!("prices-{index}"), value, &options).expect("it is within the limits");
    }
    operands
}

fn look_up() -> Calls {
    let operands = stored(None);
    Box::new(move |calls| {
        for _ in 0..calls {
            black_box(operands.get(None, black_box("prices-7"))).expect("it is stored");
        }
    })
}

fn look_up_of_tenant() -> Calls {
    let operands = stored(Some(TENANT));
    Box::new(move |calls| {
        for _ in 0..calls {
            black_box(operands.get(Some(TENANT), black_box("prices-7"))).expect("it is stored");
        }
    })
}

fn request_without() -> Calls {
    of_request(r#"{"x": [1.0], "y": [1.0], "sources": [1, 2, 3]}"#, 0)
}

fn request() -> Calls {
    of_request(r#"{"x": {"operand": "prices-7"}, "y": [1.0]}    "#, 1)
}

fn of_request(document: &'static str, references: usize) -> Calls {
    let registry = KernelRegistry::with_operands(stored(None));
    Box::new(move |calls| {
        for _ in 0..calls {
            let mut request = KernelRequest::new("linalg/dot", Payload::json(document));
            request.resolve_operands(&registry);
            assert_eq!(black_box(&request).operands().len(), references);
        }
    })
}
