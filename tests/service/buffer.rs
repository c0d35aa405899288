//! Arrays below and above the size from which they have pages of their own.

use bytes::Bytes;
use serde_json::json;
use tower::ServiceExt;
use tower_kernels::kernels::linalg::saxpy::{Saxpy, SaxpyInput, SaxpyOutput};
use tower_kernels::service::{Buffer, DType, KernelRegistry, KernelRequest, Payload, Tensor, Tensors};

use crate::kernels::service;

/// Elements of 4 bytes that fill 4 MiB.
const LARGE: usize = 1 << 20;

const LENGTHS: [usize; 5] = [1, LARGE - 1, LARGE, LARGE + 1, LARGE * 5 / 4 + 5];

fn ramp(len: usize) -> Vec<f32> {
    (0..len).map(|index| index as f32).collect()
}

fn zeroed_ramp(len: usize) -> Buffer<f32> {
    let mut buffer = Buffer::zeroed(len);
    assert!(buffer.len() == len && buffer.iter().all(|element| *element == 0.0));
    for (index, element) in buffer.iter_mut().enumerate() {
        *element = index as f32;
    }
    buffer
}

#[test]
fn what_a_buffer_is_made_of_is_not_seen() {
    for len in LENGTHS {
        let (filled, made) = (zeroed_ramp(len), Buffer::from(ramp(len)));
        assert!(filled == made && filled.iter().copied().collect::<Buffer<f32>>() == made, "{len}");
        assert_eq!(format!("{filled:?}"), format!("{made:?}"));
        let mut copy = filled.clone();
        assert!(copy == filled);
        copy[len - 1] = -1.0;
        assert!(copy != filled && filled == made, "a clone is apart");
        assert!(filled.into_vec() == ramp(len) && made.into_vec() == ramp(len), "{len}");
    }
    assert_eq!(Buffer::<f64>::zeroed(0), Buffer::default());
    assert_eq!(Buffer::<f64>::default().into_vec(), Vec::<f64>::new());
}

#[test]
fn clones_share_their_elements_until_one_is_written_to() {
    for len in [LARGE / 2, LARGE] {
        let mut buffer = zeroed_ramp(len);
        let (place, clone) = (buffer.as_ptr(), buffer.clone());
        assert_eq!(clone.as_ptr(), place);
        buffer[0] = 7.0;
        assert!(buffer.as_ptr() != place && clone.as_ptr() == place, "the one that is written to moves");
        assert_eq!((buffer[0], clone[0], buffer[1]), (7.0, 0.0, 1.0));
        let mut alone = clone;
        alone[0] = 8.0;
        assert_eq!(alone.as_ptr(), place, "nobody else has it");
    }
}

#[test]
#[should_panic(expected = "capacity overflow")]
fn more_than_an_address_space_is_refused_as_a_vec_refuses_it() {
    Buffer::<f64>::zeroed(usize::MAX);
}

#[test]
fn it_goes_to_another_thread() {
    let buffer = zeroed_ramp(LARGE);
    assert!(*std::thread::spawn(move || buffer).join().unwrap() == ramp(LARGE)[..]);
}

async fn saxpy(payload: Payload) -> Payload {
    let registry = KernelRegistry::new();
    registry.register(Saxpy).unwrap();
    service(registry, 1, 0).oneshot(KernelRequest::new("linalg/saxpy", payload)).await.unwrap().payload
}

#[tokio::test]
async fn every_encoding_brings_it_and_takes_it() {
    for len in LENGTHS {
        let expected: Vec<f32> = ramp(len).into_iter().map(|x| 2.0 * x + 1.0).collect();

        let input = SaxpyInput { a: 2.0, x: zeroed_ramp(len), y: vec![1.0; len].into() };
        let output = saxpy(Payload::typed(input)).await.downcast::<SaxpyOutput>().unwrap();
        assert!(*output.y == expected[..], "typed, {len}");

        let mut tensors = Tensors::new();
        let little_endian = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Bytes>();
        for (name, shape, values) in
            [("a", vec![], vec![2.0]), ("x", vec![len], ramp(len)), ("y", vec![len], vec![1.0; len])]
        {
            tensors.insert(name, Tensor::new(DType::F32, shape, little_endian(&values)).unwrap()).unwrap();
        }
        let Payload::Tensors(output) = saxpy(tensors.into()).await else { panic!("no tensors") };
        assert!(*output.get("y").unwrap().data() == little_endian(&expected), "tensors, {len}");

        let json = json!({ "a": 2.0, "x": &*zeroed_ramp(len), "y": vec![1.0; len] });
        let Payload::Json(output) = saxpy(Payload::json(serde_json::to_vec(&json).unwrap())).await else {
            panic!("no JSON")
        };
        let output: serde_json::Value = serde_json::from_slice(&output).unwrap();
        assert!(serde_json::from_value::<Buffer<f32>>(output["y"].clone()).unwrap() == expected.into(), "JSON, {len}");
    }
}
