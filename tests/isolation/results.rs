//! Outputs of kernels in a device process are those of the same kernels in this process.

use tower::ServiceExt;
use tower_kernels::service::{Buffer, KernelRequest, KernelService, Payload, Tensor, Tensors};

use crate::kernels::registry;
use crate::support::Isolated;

crate::tests! {
    outputs_are_those_of_this_process
    errors_are_those_of_this_process
    large_arrays_cross_both_ways
}

/// A request for a kernel of each domain.
const DOCUMENTS: &[(&str, &str)] = &[
    ("linalg/saxpy", r#"{"a": 2.5, "x": [1.0, 2.0, 3.5], "y": [0.1, 0.2, 0.3]}"#),
    ("core/sort", r#"{"values": [3, 1, 2]}"#),
    ("core/top-k", r#"{"values": [0.5, 0.25, 1.5], "k": 2}"#),
    ("graph/pagerank", r#"{"num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [3, 0], [0, 2]]}"#),
    ("graph/betweenness-centrality", r#"{"num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]]}"#),
    ("graph/connected-components", r#"{"num_nodes": 5, "edges": [[0, 1], [3, 4]]}"#),
    ("stats/moments", r#"{"x": [1.0, 2.0, 4.0, 8.0]}"#),
];

fn outputs_are_those_of_this_process() {
    let isolated = Isolated::new(2);
    let here = KernelService::new(registry());
    for &(kernel, document) in DOCUMENTS {
        let request = || KernelRequest::new(kernel, Payload::json(document));
        let expected = isolated.within(here.clone().oneshot(request()));
        let response = isolated.within(isolated.call(request()));
        let text = |payload: &Payload| match payload {
            Payload::Json(text) => String::from_utf8(text.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        };
        match (expected, response) {
            (Ok(expected), Ok(response)) => {
                assert_eq!(text(&response.payload), text(&expected.payload), "{kernel}");
                assert_eq!(response.execution.backend, "CPU");
            }
            (expected, response) => panic!("{kernel}: {expected:?}, {response:?}"),
        }
    }
}

fn errors_are_those_of_this_process() {
    let isolated = Isolated::new(1);
    let here = KernelService::new(registry());
    for document in [r#"{"a": 1, "x": [1], "y": []}"#, r#"{"a": 1}"#, "[", r#"{"a": "x", "x": [], "y": []}"#] {
        let request = || KernelRequest::new("linalg/saxpy", Payload::json(document));
        let expected = isolated.within(here.clone().oneshot(request())).unwrap_err();
        let error = isolated.within(isolated.call(request())).unwrap_err();
        assert_eq!(format!("{error:?}"), format!("{expected:?}"));
    }
}

fn large_arrays_cross_both_ways() {
    const LEN: usize = 4 << 20;
    let isolated = Isolated::new(2);
    let x: Buffer<f32> = (0..LEN).map(|at| at as f32).collect();
    let bytes = |values: &Buffer<f32>| bytes::Bytes::copy_from_slice(bytemuck::cast_slice(values));
    let tensor = |values: &Buffer<f32>, shape: Vec<usize>| {
        Tensor::new(tower_kernels::service::DType::F32, shape, bytes(values)).unwrap()
    };
    let mut tensors = Tensors::new();
    tensors.insert("a", tensor(&vec![2.0].into(), vec![])).unwrap();
    tensors.insert("x", tensor(&x, vec![LEN])).unwrap();
    tensors.insert("y", tensor(&x, vec![LEN])).unwrap();
    for _ in 0..5 {
        let request = KernelRequest::new("linalg/saxpy", Payload::Tensors(tensors.clone()));
        let response = isolated.within(isolated.call(request)).unwrap();
        let Payload::Tensors(output) = response.payload else { panic!("tensors in, tensors out") };
        let result = output.get("y").unwrap();
        let numbers: &[f32] = bytemuck::cast_slice(result.data());
        assert!(numbers.len() == LEN && numbers.iter().zip(&*x).all(|(result, x)| *result == 3.0 * x));
    }
}
