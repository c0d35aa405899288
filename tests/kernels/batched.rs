//! Requests that share a run get what they would have got alone, to the last bit.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use proptest::prelude::*;
use tower::{Layer, ServiceExt};
use tower_kernels::backends::BatchedLayer;
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::kernels::authoring::Precision;
use tower_kernels::kernels::graph::betweenness_centrality::{BetweennessInput, BetweennessOutput};
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::kernels::linalg::saxpy::{SaxpyInput, SaxpyOutput};
use tower_kernels::kernels::register_all;
use tower_kernels::kernels::risk::option_pricing::{OptionKind, OptionPricingInput, OptionPricingOutput};
use tower_kernels::service::{FloatArray, KernelRegistry, KernelRequest, KernelService, Operands, Payload};

/// An output, and how many shared its run.
type Answer<T> = (Arc<T>, u32);

/// The outputs of these requests alone, and of all of them at one time.
fn both<T: std::any::Any + Send + Sync>(id: &'static str, inputs: &[Payload]) -> (Vec<Arc<T>>, Vec<Answer<T>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let registry = Arc::new(KernelRegistry::new());
    register_all(&registry).unwrap();
    let cpu = CpuBackend::new();
    // They wait for each other, and no longer than until all are there.
    let layer = BatchedLayer::for_workers(2).max_requests(inputs.len()).max_delay(Duration::from_millis(20));
    let together = KernelService::with_backend(Arc::clone(&registry), layer.layer(cpu.clone()));
    let alone = KernelService::with_backend(registry, cpu);
    runtime.block_on(async {
        let request = |input: &Payload| KernelRequest::new(id, input.clone());
        let mut expected = Vec::new();
        for input in inputs {
            let response = alone.clone().oneshot(request(input)).await.unwrap();
            assert_eq!(response.execution.batch_size, 1);
            expected.push(response.payload.downcast().unwrap());
        }
        let answers = join_all(inputs.iter().map(|input| together.clone().oneshot(request(input)))).await;
        let answers = answers.into_iter().map(Result::unwrap);
        (expected, answers.map(|answer| (answer.payload.downcast().unwrap(), answer.execution.batch_size)).collect())
    })
}

fn bits(values: &FloatArray) -> Vec<u64> {
    match values {
        FloatArray::F32(values) => values.iter().map(|value| value.to_bits().into()).collect(),
        FloatArray::F64(values) => values.iter().map(|value| value.to_bits()).collect(),
        other => panic!("{other:?}"),
    }
}

/// How many of the inputs have the same key as each of them.
fn peers<K: PartialEq>(keys: &[K]) -> Vec<u32> {
    keys.iter().map(|key| keys.iter().filter(|other| *other == key).count() as u32).collect()
}

fn contracts(sizes: &[(usize, u8)]) -> Vec<OptionPricingInput> {
    let real = |form: u8, bit: u8, values: Vec<f64>, one: f64| match form >> bit & 1 {
        _ if form >> 6 & 1 == 1 => FloatArray::from(values.iter().map(|&value| value as f32).collect::<Vec<_>>()),
        1 => FloatArray::One(one),
        _ => values.into(),
    };
    let spread = |len: usize, low: f64, high: f64, seed: usize| -> Vec<f64> {
        (0..len).map(|index| low + (high - low) * (((index + 7 * seed) * 37) % 101) as f64 / 101.0).collect()
    };
    let input = |(seed, &(len, form)): (usize, &(usize, u8))| OptionPricingInput {
        // An array, so that each has as many contracts as it is said to.
        spot: real(form & 0x40, 0, spread(len, 20.0, 200.0, seed), 0.0),
        strike: real(form, 1, spread(len, 20.0, 200.0, seed + 1), 100.0),
        rate: real(form, 2, spread(len, -0.02, 0.1, seed + 2), 0.03),
        volatility: real(form, 3, spread(len, 0.0, 0.9, seed + 3), 0.2),
        time: real(form, 4, spread(len, 0.0, 4.0, seed + 4), 1.0),
        dividend_yield: real(form, 5, spread(len, 0.0, 0.06, seed + 5), 0.01),
        kind: if form & 1 == 1 {
            OptionKind::Put.into()
        } else {
            (0..len)
                .map(|index| if index.is_multiple_of(3) { OptionKind::Put } else { OptionKind::Call })
                .collect::<Vec<_>>()
                .into()
        },
        precision: (form >> 7 & 1 == 1).then_some(Precision::F32),
    };
    sizes.iter().enumerate().map(input).collect()
}

fn graph(nodes: u32, which: u8, sources: Option<Vec<u32>>, normalized: bool) -> BetweennessInput {
    let step = u32::from(which) + 1;
    let edges = (0..2 * nodes).map(|edge| [edge % nodes, (edge * step + edge / nodes + 1) % nodes]).collect();
    let mut input = BetweennessInput::from_edges(nodes.into(), edges);
    (input.normalized, input.directed) = (normalized, which == 2);
    input.sources = sources.map(Into::into);
    input
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn saxpy(sizes in proptest::collection::vec((1_usize..300, 0_u8..2), 2..12)) {
        let inputs: Vec<_> = sizes.iter().enumerate().map(|(seed, &(len, a))| {
            let x: Vec<f32> = (0..len).map(|index| (index * 31 + seed * 17) as f32 * 0.37 - 40.0).collect();
            let y: Vec<f32> = x.iter().map(|x| 1e3 / (x + 0.123)).collect();
            Payload::typed(SaxpyInput { a: f32::from(a) + 0.3, x: x.into(), y: y.into() })
        }).collect();
        let (alone, together) = both::<SaxpyOutput>("linalg/saxpy", &inputs);
        let keys: Vec<_> = sizes.iter().map(|(_, a)| *a).collect();
        for ((alone, (together, shared)), peers) in alone.iter().zip(&together).zip(peers(&keys)) {
            prop_assert!(alone.y.iter().zip(together.y.iter()).all(|(a, b)| a.to_bits() == b.to_bits()));
            prop_assert_eq!((alone.y.len(), *shared), (together.y.len(), peers));
        }
    }

    #[test]
    fn option_prices(sizes in proptest::collection::vec((1_usize..200, prop_oneof![Just(0_u8), Just(0x3e), Just(0x41), Just(0x83)]), 2..8)) {
        let inputs: Vec<_> = contracts(&sizes).into_iter().map(Payload::typed).collect();
        let (alone, together) = both::<OptionPricingOutput>("risk/option-pricing", &inputs);
        let keys: Vec<_> = sizes.iter().map(|(_, form)| *form).collect();
        for ((alone, (together, shared)), peers) in alone.iter().zip(&together).zip(peers(&keys)) {
            for (alone, together) in [
                (&alone.price, &together.price), (&alone.delta, &together.delta), (&alone.gamma, &together.gamma),
                (&alone.vega, &together.vega), (&alone.theta, &together.theta), (&alone.rho, &together.rho),
            ] {
                prop_assert_eq!(bits(alone), bits(together));
            }
            prop_assert_eq!(*shared, peers);
        }
    }

    #[test]
    fn betweenness_on_a_stored_graph(
        requests in proptest::collection::vec((1_usize..4, 0_u32..9, any::<bool>()), 2..8), directed: bool,
    ) {
        let direction = if directed { Direction::Directed } else { Direction::Undirected };
        let edges: Vec<[u32; 2]> = (0..40_u32).map(|edge| [edge % 13, edge * 5 % 13]).collect();
        let graph = CsrGraph::from_edges(13, &edges, direction).unwrap();
        let graph = Operands::default().put("graph", graph).unwrap();
        let inputs: Vec<_> = requests.iter().map(|&(step, first, normalized)| {
            let sources: Vec<u32> = (0..4).map(|index| (first + index * step as u32) % 13).collect();
            let input = BetweennessInput::from_operand(graph.clone());
            Payload::typed(BetweennessInput { sources: Some(sources.into()), normalized, ..input })
        }).collect();
        let (alone, together) = both::<BetweennessOutput>("graph/betweenness-centrality", &inputs);
        for (alone, (together, shared)) in alone.iter().zip(&together) {
            prop_assert!(alone.scores.iter().zip(together.scores.iter()).all(|(a, b)| a.to_bits() == b.to_bits()));
            prop_assert_eq!((alone.scores.len(), *shared as usize), (together.scores.len(), inputs.len()));
        }
    }

    #[test]
    fn betweenness(requests in proptest::collection::vec((0_u8..3, 0_u8..3, any::<bool>()), 2..8)) {
        let inputs: Vec<_> = requests.iter().map(|&(which, sources, normalized)| {
            let sources = [None, Some(vec![0, 3, 5]), Some(vec![7, 1])][usize::from(sources)].clone();
            Payload::typed(graph(12, which, sources, normalized))
        }).collect();
        let (alone, together) = both::<BetweennessOutput>("graph/betweenness-centrality", &inputs);
        let keys: Vec<_> = requests.iter().map(|(which, ..)| *which).collect();
        for ((alone, (together, shared)), peers) in alone.iter().zip(&together).zip(peers(&keys)) {
            prop_assert!(alone.scores.iter().zip(together.scores.iter()).all(|(a, b)| a.to_bits() == b.to_bits()));
            prop_assert_eq!((alone.scores.len(), *shared), (together.scores.len(), peers));
        }
    }
}
