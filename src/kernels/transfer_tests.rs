//! Every kernel's inputs and outputs cross to another process and back as they are.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::authoring::Random;
use super::compliance::sanctions_screening::SanctionsScreeningInput;
use super::graph::csr::CsrGraph;
use super::graph::degree_centrality::DegreeCentralityInput;
use super::graph::value_similarity::ValueSimilarityInput;
use super::risk::option_pricing::OptionPricingInput;
use super::{cases, register_all, tests};
use crate::service::{
    Encoding, Job, KernelError, KernelRegistry, KernelRequest, Mode, Operand, OperandVersion, Payload,
    RegisteredKernel, RunContext, Transfer, Typed, VersionLookup,
};

fn registry() -> KernelRegistry {
    let registry = KernelRegistry::new();
    register_all(&registry).unwrap();
    registry
}

fn batch_kernels(registry: &KernelRegistry) -> Vec<RegisteredKernel> {
    registry.list().into_iter().filter(|kernel| kernel.info().mode == Mode::Batch).collect()
}

fn examples(kernel: &RegisteredKernel) -> Vec<String> {
    let examples = kernel.input_schema().get("examples").and_then(|examples| examples.as_array());
    examples.into_iter().flatten().map(ToString::to_string).collect()
}

fn no_versions() -> VersionLookup {
    lookup(Vec::new())
}

fn lookup(versions: Vec<Arc<OperandVersion>>) -> VersionLookup {
    Arc::new(move |id| versions.iter().find(|version| version.id() == id).cloned())
}

/// Prepares a job; `None` if the input is invalid.
fn job(kernel: &RegisteredKernel, payload: Payload) -> Option<Job> {
    let mut job = Job::new(kernel.clone(), KernelRequest::new(kernel.info().id.clone(), payload)).unwrap();
    job.prepare(None).ok().map(|()| job)
}

fn transfer(job: &Job) -> Transfer {
    job.transfers().pop().unwrap().unwrap()
}

fn assert_same(transfer: &Transfer, other: &Transfer, what: &str) {
    assert_eq!(transfer.head, other.head, "{what}");
    assert!(transfer.sections == other.sections, "{what}: sections");
}

/// What a client gets: the JSON, and the names, types, shapes and bytes of the tensors.
fn encoded(kernel: &RegisteredKernel, output: &Typed) -> (Bytes, Option<Payload>) {
    let encode = |encoding| kernel.encode(output, encoding, None, &RunContext::detached());
    let Payload::Json(json) = encode(Encoding::Json).unwrap() else { panic!("no JSON") };
    (json, encode(Encoding::Tensors).ok())
}

fn check(kernel: &RegisteredKernel, job: &Job, versions: &VersionLookup) {
    let id = &*kernel.info().id;
    let sent = transfer(job);
    let received = Job::received(kernel, vec![sent.clone()], versions).unwrap();
    assert_same(&sent, &transfer(&received), id);
    assert_eq!(received.cost(), job.cost(), "{id}");
    let run = |job: &Job| job.run_kernel_on_cpu(&RunContext::detached());
    let (output, output_there) = match (run(job), run(&received)) {
        (Ok(output), Ok(output_there)) => (output, output_there),
        (Err(error), Err(error_there)) => return assert_eq!(error.to_string(), error_there.to_string(), "{id}"),
        (output, output_there) => panic!("{id}: {output:?} and {output_there:?}"),
    };
    let sent = kernel.transfer_output(&output).unwrap();
    assert_same(&sent, &kernel.transfer_output(&output_there).unwrap(), id);
    let returned = kernel.receive_output(sent.clone()).unwrap();
    assert_same(&sent, &kernel.transfer_output(&returned).unwrap(), id);
    let ((json, tensors), (json_there, tensors_there)) = (encoded(kernel, &output), encoded(kernel, &returned));
    assert_eq!(json, json_there, "{id}");
    match (tensors, tensors_there) {
        (Some(Payload::Tensors(tensors)), Some(Payload::Tensors(tensors_there))) => {
            assert!(tensors == tensors_there, "{id}: tensors");
        }
        (None, None) => {}
        _ => panic!("{id}: tensors on one side"),
    }
}

#[test]
fn every_example_crosses() {
    for kernel in batch_kernels(&registry()) {
        let examples = examples(&kernel);
        assert!(!examples.is_empty(), "{kernel:?}");
        for input in examples.into_iter().chain(tests::inputs(&kernel.info().id)) {
            check(&kernel, &job(&kernel, Payload::json(input)).unwrap(), &no_versions());
        }
    }
}

#[test]
fn random_inputs_cross_with_and_without_nan() {
    let registry = registry();
    let mut random = Random::new(1);
    let mut checked = 0;
    for case in cases() {
        let kernel = registry.get(&case.id()).unwrap();
        for (size, has_nan) in [0, 1, 33, 257].into_iter().flat_map(|size| [(size, false), (size, true)]) {
            let Some(input) = case.input(size, has_nan, &mut random) else { continue };
            let versions = lookup(kernel.operands(&input));
            // Some kernels reject NaN, and some an empty input.
            if let Some(job) = job(&kernel, Payload::Typed(input)) {
                check(&kernel, &job, &versions);
                checked += 1;
            }
        }
    }
    assert!(checked > 3 * cases().len(), "{checked} inputs");
}

#[test]
fn inputs_are_written_as_json_as_they_are_read() {
    fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(registry: &KernelRegistry, id: &str) {
        for example in examples(&registry.get(id).unwrap()) {
            let input: T = serde_json::from_str(&example).unwrap();
            let written = serde_json::to_string(&input).unwrap();
            assert_eq!(serde_json::from_str::<T>(&written).unwrap(), input, "{written}");
        }
    }
    // A name for all rows and one for each, lists of names with all columns, and pairs of nodes.
    check::<OptionPricingInput>(&registry(), "risk/option-pricing");
    check::<SanctionsScreeningInput>(&registry(), "compliance/sanctions-screening");
    check::<ValueSimilarityInput>(&registry(), "graph/value-similarity");
    let each =
        r#"{"spot": 100.0, "strike": 90.0, "rate": 0.0, "volatility": 0.2, "time": 1.0, "kind": ["put", "call"]}"#;
    let input: OptionPricingInput = serde_json::from_str(each).unwrap();
    assert_eq!(serde_json::to_value(&input).unwrap()["kind"], serde_json::json!(["put", "call"]));
}

#[test]
fn a_small_request_has_a_small_head() {
    let registry = registry();
    let kernel = registry.get("linalg/saxpy").unwrap();
    let numbers = vec!["0.5"; 1024].join(",");
    let job = job(&kernel, Payload::json(format!(r#"{{"a": 2.0, "x": [{numbers}], "y": [{numbers}]}}"#))).unwrap();
    let sent = transfer(&job);
    assert!(sent.head.len() <= 24, "{} bytes: {:x?}", sent.head.len(), sent.head);
    assert_eq!(sent.sections.iter().map(Bytes::len).collect::<Vec<_>>(), [4 * 1024, 4 * 1024]);
}

#[test]
fn a_stored_graph_crosses_as_an_id() {
    let registry = registry();
    let kernel = registry.get("graph/degree-centrality").unwrap();
    let graph = CsrGraph::from_edges(3, &[[0, 1], [1, 2]], super::graph::csr::Direction::Undirected).unwrap();
    let stored: Operand<CsrGraph> = registry.operands().put("graph", graph).unwrap();
    let version = Arc::clone(stored.version().unwrap());
    let job = job(&kernel, Payload::typed(DegreeCentralityInput::from_operand(stored))).unwrap();
    let sent = transfer(&job);
    assert!(sent.sections.is_empty());
    let received = Job::received(&kernel, vec![sent.clone()], &lookup(vec![Arc::clone(&version)])).unwrap();
    assert!(Arc::ptr_eq(received.operands()[0], &version), "the run knows what it refers to");
    assert!(received.run_kernel_on_cpu(&RunContext::detached()).is_ok());
    assert!(matches!(Job::received(&kernel, vec![sent], &no_versions()), Err(KernelError::Backend(_))));
}

/// Receives a head and sections that nobody has sent. Whatever comes of it, the kernel's code does not panic.
fn receive(kernel: &RegisteredKernel, transfer: Transfer, is_input: bool) {
    let error = match is_input {
        true => Job::received(kernel, vec![transfer], &no_versions()).err(),
        false => kernel.receive_output(transfer).and_then(|output| encode_both(kernel, &output)).err(),
    };
    assert!(!matches!(error, Some(KernelError::Panicked { .. })), "{kernel:?}: {error:?}");
}

fn encode_both(kernel: &RegisteredKernel, output: &Typed) -> Result<(), KernelError> {
    for encoding in [Encoding::Json, Encoding::Tensors] {
        let encoded = kernel.encode(output, encoding, None, &RunContext::detached());
        // An output may have no form as tensors.
        if let Err(error @ KernelError::Panicked { .. }) = encoded {
            return Err(error);
        }
    }
    Ok(())
}

/// The first example of every kernel and its output.
fn samples() -> Vec<(RegisteredKernel, Transfer, bool)> {
    let sample = |kernel: RegisteredKernel| {
        let job = job(&kernel, Payload::json(examples(&kernel).swap_remove(0))).unwrap();
        let output = job.run_kernel_on_cpu(&RunContext::detached()).unwrap();
        let output = kernel.transfer_output(&output).unwrap();
        [(kernel.clone(), transfer(&job), true), (kernel, output, false)]
    };
    batch_kernels(&registry()).into_iter().flat_map(sample).collect()
}

#[test]
fn torn_heads_are_errors() {
    for (kernel, sent, is_input) in samples() {
        for end in 0..sent.head.len() {
            let torn = Transfer { head: sent.head[..end].to_vec(), sections: sent.sections.clone() };
            let result = match is_input {
                true => Job::received(&kernel, vec![torn], &no_versions()).map(drop),
                false => kernel.receive_output(torn).map(drop),
            };
            assert!(matches!(result, Err(KernelError::Backend(_))), "{kernel:?} at {end}: {result:?}");
        }
    }
}

#[test]
fn mutated_transfers_never_panic() {
    let samples = samples();
    let mut random = Random::new(2);
    let mut below = |bound: usize| random.below(bound as u64) as usize;
    for round in 0..10_000 {
        let (kernel, sent, is_input) = &samples[round % samples.len()];
        let Transfer { mut head, mut sections } = sent.clone();
        for _ in 0..=below(4) {
            let at = below(head.len());
            match below(6) {
                0 => head[at] = below(256) as u8,
                1 => head[at] ^= 1 << below(8),
                2 => head.insert(at, below(256) as u8),
                3 if head.len() > 1 => drop(head.remove(at)),
                4 if !sections.is_empty() => drop(sections.swap_remove(below(sections.len()))),
                _ if !sections.is_empty() => {
                    let section = below(sections.len());
                    let start = below(sections[section].len() + 1);
                    sections[section] = sections[section].slice(start..);
                }
                _ => head.truncate(at + 1),
            }
        }
        receive(kernel, Transfer { head, sections }, *is_input);
    }
}

/// Prints what it takes to carry `linalg/saxpy` of 1 024 elements to another process.
#[test]
#[ignore = "a measurement"]
fn measure_a_small_transfer() {
    let registry = registry();
    let kernel = registry.get("linalg/saxpy").unwrap();
    let numbers = vec!["0.5"; 1024].join(",");
    let job = job(&kernel, Payload::json(format!(r#"{{"a": 2.0, "x": [{numbers}], "y": [{numbers}]}}"#))).unwrap();
    let versions = no_versions();
    let rounds = 200_000;
    let mut best = [std::time::Duration::MAX; 2];
    for _ in 0..5 {
        let started = std::time::Instant::now();
        for _ in 0..rounds {
            std::hint::black_box(transfer(&job));
        }
        best[0] = best[0].min(started.elapsed() / rounds);
        let sent = transfer(&job);
        let started = std::time::Instant::now();
        for _ in 0..rounds {
            std::hint::black_box(Job::received(&kernel, vec![sent.clone()], &versions).unwrap());
        }
        best[1] = best[1].min(started.elapsed() / rounds);
    }
    println!("written in {:?}, received in {:?}, head {} bytes", best[0], best[1], transfer(&job).head.len());
}
