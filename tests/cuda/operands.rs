//! Operands on the device: copies that are made once, shared, evicted and freed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tower::{Service, ServiceExt};
use tower_kernels::backends::Local;
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::backends::cuda::CudaUsage;
use tower_kernels::cuda::Launch;
use tower_kernels::service::{
    BackendKind, Bf16, Buffer, Element, F16, KernelError, KernelRequest, KernelService, LaunchContext, OperandBudget,
    OperandError, OperandVersion, Payload, Placement, PutOptions, RemoveOptions, RunContext, TensorSet, VectorElements,
    Vectors,
};

use crate::domain;
use crate::faults::in_a_child;
use crate::probe::{Bench, CODE, numbers, request, run};

crate::tests! {
    results_by_reference_are_those_by_value_and_the_second_run_uploads_nothing
    vectors_in_each_precision_are_uploaded_once
    a_part_of_an_array_is_found_if_it_is_aligned
    threads_that_need_a_copy_at_once_make_it_once
    copies_are_evicted_within_the_budget_while_runs_use_others
    a_version_that_is_replaced_and_deleted_stays_until_its_run_has_ended
    a_request_that_waits_for_memory_has_idle_copies_evicted
    a_cancelled_upload_is_made_again_by_the_next_run
    operands_are_placed_as_they_say
    placed_copies_stay_and_a_placement_without_memory_for_it_stores_nothing
    without_memory_for_copies_runs_upload_for_themselves
    host_code_cannot_write_to_a_copy
    a_kernel_that_writes_to_a_copy_faults
}

const MIB: usize = 1 << 20;
const SOON: Duration = Duration::from_secs(30);

fn usage(bench: &Bench) -> CudaUsage {
    bench.backend.status().usage
}

fn with_kernels(bench: Bench) -> Bench {
    tower_kernels::kernels::register_all(&bench.registry).unwrap();
    bench
}

fn put<T: Element>(bench: &Bench, name: &str, elements: &[T]) -> Arc<OperandVersion> {
    let stored = bench.registry.operands().put(name, TensorSet::of(name, elements.to_vec())).unwrap();
    Arc::clone(stored.version().unwrap())
}

fn remove(bench: &Bench, name: &str) {
    bench.registry.operands().remove(name, &RemoveOptions::default()).unwrap();
}

/// The output of a kernel, and whether each operand was resident.
fn execute(bench: &Bench, id: &'static str, input: &Value) -> (Value, Vec<(String, bool)>) {
    let response = bench.runtime.block_on(async {
        let mut service = bench.service();
        let request = KernelRequest::new(id, Payload::json(input.to_string()));
        service.ready().await.unwrap().call(request).await.unwrap()
    });
    assert_eq!(response.execution.backend, "CUDA");
    let uses = response.execution.operands().iter();
    let uses = uses.map(|operand| (operand.to_string(), operand.resident)).collect();
    let Payload::Json(output) = response.payload else { panic!("JSON in, JSON out") };
    (serde_json::from_slice(&output).unwrap(), uses)
}

/// Whether two outputs have the same numbers, but for the order in which betweenness adds them up.
fn agree(output: &Value, expected: &Value) -> bool {
    match (output, expected) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 1e-12 * b.abs()
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| agree(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| agree(a, b)))
        }
        (a, b) => a == b,
    }
}

/// No run uses device memory, and there are no copies.
fn nothing_is_left(bench: &Bench) {
    bench.settle();
    let start = Instant::now();
    let left = || (usage(bench).operand_bytes, usage(bench).operand_copies, usage(bench).device_reserved);
    while left() != (0, 0, 0) {
        assert!(start.elapsed() < SOON, "{:?}", usage(bench));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(bench.backend.lost().is_none());
}

fn results_by_reference_are_those_by_value_and_the_second_run_uploads_nothing() {
    let bench = with_kernels(Bench::new(1));
    let floats = |seed| numbers(100_000, seed).iter().map(|value| *value as f32).collect::<Vec<_>>();
    let (x, y) = (floats(1), floats(2));
    put(&bench, "x", &x);
    put(&bench, "y", &y);
    let spot: Vec<f64> = numbers(50_000, 3).iter().map(|value| 50.0 + 100.0 * value).collect();
    put(&bench, "spot", &spot);
    let nodes = 20_000_u32;
    let edges: Vec<[u32; 2]> =
        (0..nodes).flat_map(|node| [[node, (node * 7 + 1) % nodes], [node, (node + 1) % nodes]]).collect();
    let edges: Vec<_> = edges.into_iter().filter(|[from, to]| from != to).collect();
    let graph = json!({ "num_nodes": nodes, "edges": edges });
    let document = Payload::json(graph.to_string());
    let context = RunContext::detached();
    bench.registry.operands().put_payload("graph", "graph", document, &PutOptions::default(), &context).unwrap();

    let options = |spot: Value| json!({ "spot": spot, "strike": 100.0, "rate": 0.05, "volatility": 0.2, "time": 1.0, "kind": "call" });
    let by_reference = |reference: &str| json!({ "operand": reference });
    let (graph_inline, sources) = (&graph, json!([1, 5, 17, 300]));
    let cases = [
        ("linalg/dot", json!({ "x": x, "y": y }), json!({ "x": by_reference("x"), "y": by_reference("y@2") }), 2),
        (
            "linalg/saxpy",
            json!({ "a": 2, "x": x, "y": y }),
            json!({ "a": 2, "x": by_reference("x"), "y": by_reference("y") }),
            2,
        ),
        ("risk/option-pricing", options(json!(spot)), options(by_reference("spot")), 1),
        (
            "graph/betweenness-centrality",
            json!({ "num_nodes": nodes, "edges": graph_inline["edges"], "sources": sources }),
            json!({ "graph": by_reference("graph"), "sources": sources }),
            1,
        ),
    ];
    for (id, inline, reference, operands) in cases {
        let before = usage(&bench);
        let (expected, uses) = execute(&bench, id, &inline);
        assert_eq!(uses, [], "{id}");
        assert_eq!(
            (usage(&bench).operand_hits, usage(&bench).operand_misses),
            (before.operand_hits, before.operand_misses)
        );
        let first = execute(&bench, id, &reference);
        let made = usage(&bench);
        for round in 0..3 {
            let (output, uses) = execute(&bench, id, &reference);
            assert!(agree(&output, &expected), "{id}, round {round}");
            assert_eq!(uses.len(), operands, "{id}: {uses:?}");
            assert!(uses.iter().all(|(_, resident)| *resident), "{id}: {uses:?}");
        }
        assert!(agree(&first.0, &expected), "{id}");
        let after = usage(&bench);
        assert!(after.operand_hits >= made.operand_hits + 3, "{id}: {after:?}");
        assert_eq!(after.operand_misses, made.operand_misses, "{id}: nothing is uploaded twice");
        // The vectors of saxpy are those of dot.
        assert_eq!(made.operand_misses > before.operand_misses, id != "linalg/saxpy", "{id}: {made:?}");
        assert_eq!(first.1.iter().all(|(_, resident)| *resident), id == "linalg/saxpy", "{id}: {:?}", first.1);
    }
    let used = usage(&bench);
    assert_eq!((used.operand_evictions, used.operand_fallbacks), (0, 0), "{used:?}");
    assert!(used.operand_bytes >= 4 * 2 * MIB as u64 && used.device_reserved >= used.operand_bytes, "{used:?}");
    ["x", "y", "spot", "graph"].iter().for_each(|name| remove(&bench, name));
    nothing_is_left(&bench);
}

/// A kernel that returns the sum of what a closure finds on the device, and whether it was a copy.
fn sum(cuda: &mut LaunchContext<'_>, bytes: &[u8]) -> Result<Buffer<f64>, KernelError> {
    let array = cuda.input(bytes)?;
    let downloaded = cuda.download(&array)?;
    assert!(downloaded[..] == *bytes, "the device has other contents");
    Ok(vec![f64::from(u8::from(array.is_read_only()))].into())
}

fn bytes_of(version: &OperandVersion) -> &[u8] {
    version.arrays()[0].bytes
}

fn vectors_in_each_precision_are_uploaded_once() {
    /// Whether there is a copy of the elements on the device.
    fn is_resident<T: Element>(cuda: &mut LaunchContext<'_>, elements: &[T]) -> Result<bool, KernelError> {
        let array = cuda.input(elements)?;
        assert!(cuda.download(&array)?[..] == *elements, "the device has other contents");
        Ok(array.is_read_only())
    }

    let numbers: Vec<f32> = numbers(64_000, 1).into_iter().map(|number| number as f32).collect();
    let elements: [VectorElements; 3] = [
        numbers.clone().into(),
        numbers.iter().map(|&number| F16::from_f32(number)).collect::<Vec<_>>().into(),
        numbers.iter().map(|&number| Bf16::from_f32(number)).collect::<Vec<_>>().into(),
    ];
    for (elements, size) in elements.into_iter().zip([4, 2, 2]) {
        let bench = Bench::new(1);
        let stored = bench.registry.operands().put("corpus", Vectors::new(64, elements).unwrap()).unwrap();
        assert_eq!(stored.version().unwrap().bytes(), 64_000 * size + 1_000 * 4);
        let vectors = Arc::clone(stored.value().unwrap());
        let bench = bench.with("test/vectors", move |cuda| {
            let is_resident = match vectors.elements() {
                VectorElements::F32(elements) => is_resident(cuda, elements)?,
                VectorElements::F16(elements) => is_resident(cuda, elements)?,
                VectorElements::Bf16(elements) => is_resident(cuda, elements)?,
                _ => unreachable!("there are no other precisions"),
            };
            Ok(vec![f64::from(u8::from(is_resident))].into())
        });
        for _ in 0..3 {
            assert_eq!(bench.run("test/vectors").unwrap(), [1.0]);
        }
        let used = usage(&bench);
        assert_eq!((used.operand_misses, used.operand_hits), (1, 2), "{used:?}");
        assert_eq!(stored.version().unwrap().devices(), [0]);
    }
}

fn a_part_of_an_array_is_found_if_it_is_aligned() {
    let bench = Bench::new(1);
    let version = put(&bench, "x", &numbers(MIB, 1));
    let held = Arc::clone(&version);
    let bench = bench.with("test/parts", move |cuda| {
        let bytes = bytes_of(&held);
        for (start, len, found) in [
            (0, bytes.len(), true),
            (256, 8192, true),
            (8, 8192, false),
            (512, 100, false),
            (bytes.len() - 8192, 8192, true),
            (4 * MIB, 3 * MIB, true),
        ] {
            let is_copy = sum(cuda, &bytes[start..start + len])?[0] == 1.0;
            assert_eq!(is_copy, found, "{start}, {len}");
        }
        let unregistered = bytes.to_vec();
        sum(cuda, &unregistered)
    });
    assert_eq!(bench.run("test/parts").unwrap(), [0.0], "other memory with the same contents");
    assert_eq!(usage(&bench).operand_misses, 1);
}

fn threads_that_need_a_copy_at_once_make_it_once() {
    const THREADS: usize = 8;
    let bench = Bench::new(THREADS);
    let version = put(&bench, "x", &numbers(8 * MIB, 1));
    let (held, barrier) = (Arc::clone(&version), Barrier::new(THREADS));
    let bench = bench.with("test/at-once", move |cuda| {
        barrier.wait();
        sum(cuda, bytes_of(&held))
    });
    bench.runtime.block_on(async {
        let tasks: Vec<_> = (0..THREADS).map(|_| tokio::spawn(run(bench.service(), request("test/at-once")))).collect();
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap(), [1.0]);
        }
    });
    let usage = usage(&bench);
    assert_eq!((usage.operand_misses, usage.operand_hits, usage.operand_copies), (1, THREADS as u64 - 1, 1));
    assert_eq!(version.devices(), [0]);
}

fn copies_are_evicted_within_the_budget_while_runs_use_others() {
    const BUDGET: u64 = 16 << 20;
    let bench = Bench::configured(|config| (config.workers, config.operand_memory) = (4, Some(BUDGET)));
    let versions: Vec<_> = (0..8).map(|seed| put(&bench, &format!("v{seed}"), &numbers(400_000, seed))).collect();
    let choices = Mutex::new(numbers(4000, 77).into_iter());
    let held = versions.clone();
    let bench = bench.with("test/random", move |cuda| {
        for _ in 0..3 {
            let choice = choices.lock().unwrap().next().expect("a number for each run");
            sum(cuda, bytes_of(&held[(choice * 8.0) as usize]))?;
        }
        Ok(Buffer::default())
    });
    bench.runtime.block_on(async {
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let service = bench.service();
                tokio::spawn(async move {
                    for _ in 0..200 {
                        run(service.clone(), request("test/random")).await.unwrap();
                    }
                })
            })
            .collect();
        while tasks.iter().any(|task| !task.is_finished()) {
            assert!(usage(&bench).operand_bytes <= BUDGET, "{:?}", usage(&bench));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
    let used = usage(&bench);
    assert!(used.operand_evictions > 0 && used.operand_hits > 0, "{used:?}");
    // An input that its run has used before is not counted again.
    assert!((800..=2400).contains(&(used.operand_hits + used.operand_misses + used.operand_fallbacks)), "{used:?}");
    assert!(used.operand_copies <= 4, "{used:?}");
}

fn a_version_that_is_replaced_and_deleted_stays_until_its_run_has_ended() {
    let bench = Bench::new(2);
    put(&bench, "x", &numbers(MIB, 1));
    let (started, may_end) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let flags = (Arc::clone(&started), Arc::clone(&may_end));
    // As a request does, the run holds the version that was the newest when it began.
    let operands = bench.registry.operands().clone();
    let bench = bench.with("test/holds", move |cuda| {
        let version = operands.get(None, "x").expect("it is there");
        let bytes = bytes_of(&version);
        let array = cuda.input(bytes)?;
        assert!(array.is_read_only());
        flags.0.store(true, Ordering::SeqCst);
        while !flags.1.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(cuda.download(&array)?[..] == *bytes);
        Ok(Buffer::default())
    });
    let running = bench.runtime.spawn(run(bench.service(), request("test/holds")));
    let start = Instant::now();
    while !started.load(Ordering::SeqCst) {
        assert!(start.elapsed() < SOON, "it does not begin");
        std::thread::sleep(Duration::from_millis(1));
    }
    let held = usage(&bench).operand_bytes;
    assert_eq!(held, 8 << 20);
    put(&bench, "x", &numbers(MIB, 2));
    remove(&bench, "x");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(usage(&bench).operand_bytes, held, "it is in use");
    may_end.store(true, Ordering::SeqCst);
    bench.runtime.block_on(running).unwrap().unwrap();
    nothing_is_left(&bench);
}

fn a_request_that_waits_for_memory_has_idle_copies_evicted() {
    let bench = Bench::configured(|config| {
        (config.workers, config.device_bytes, config.operand_memory) = (2, Some(1 << 30), Some(700 << 20));
    });
    let version = put(&bench, "x", &numbers(64 * MIB, 1));
    let bench = bench
        .with("test/uses", move |cuda| {
            let array = cuda.input(bytes_of(&version))?;
            Ok(vec![f64::from(u8::from(array.is_read_only()))].into())
        })
        .with_memory("test/large", 800 << 20, |cuda| {
            let there = cuda.zeroed::<u8>(800 * MIB)?;
            cuda.download(&there.slice(..1)).map(|_| Buffer::default())
        })
        .with("test/undeclared", |cuda| {
            let there = cuda.zeroed::<u8>(800 * MIB)?;
            cuda.download(&there.slice(..1)).map(|_| Buffer::default())
        });
    for (round, name) in ["test/large", "test/large", "test/undeclared"].into_iter().enumerate() {
        assert_eq!(bench.run("test/uses").unwrap(), [1.0]);
        assert_eq!(usage(&bench).operand_bytes, 512 << 20);
        bench.run(name).unwrap();
        let usage = usage(&bench);
        assert_eq!((usage.operand_bytes, usage.operand_evictions), (0, round as u64 + 1), "{name}");
    }
    assert_eq!(usage(&bench).rejections, 0);
}

fn a_cancelled_upload_is_made_again_by_the_next_run() {
    let bench = Bench::new(2);
    let version = put(&bench, "x", &numbers(32 * MIB, 1));
    let bench = bench.with("test/uses", move |cuda| sum(cuda, bytes_of(&version)));
    for micros in [0, 100, 1000, 3000, 6000, 10_000, 20_000] {
        let hurried = request("test/uses").with_timeout(Duration::from_micros(micros));
        match bench.runtime.block_on(run(bench.service(), hurried)) {
            Err(KernelError::DeadlineExceeded { .. }) => {}
            result => assert_eq!(result.unwrap(), [1.0], "{micros}"),
        }
    }
    assert_eq!(bench.run("test/uses").unwrap(), [1.0]);
    bench.settle();
    let usage = usage(&bench);
    assert_eq!((usage.operand_misses, usage.operand_copies), (1, 1), "{usage:?}");
    assert_eq!(usage.operand_bytes, 256 << 20);
}

fn operands_are_placed_as_they_say() {
    let bench = with_kernels(Bench::new(1));
    let local = Local::with_backends(CpuBackend::new(), Ok(bench.backend.clone()));
    local.load_kernels(&bench.registry);
    local.load_kernels(&bench.registry);
    let operands = bench.registry.operands();
    let x = numbers(100_000, 1);
    for (placement, devices) in
        [(Placement::OnDemand, &[][..]), (Placement::HostOnly, &[]), (Placement::One, &[0]), (Placement::All, &[0])]
    {
        let mut options = PutOptions::default();
        options.placement = placement;
        let before = usage(&bench).operand_misses;
        let stored = operands.put_with("x", TensorSet::of("x", x.clone()), &options).unwrap();
        let info = stored.version().unwrap().info();
        assert_eq!((info.placement, &info.devices[..]), (placement, devices));
        assert_eq!(usage(&bench).operand_misses - before, devices.len() as u64, "{placement}");
        let (_, uses) = execute(&bench, "stats/moments", &json!({ "x": { "operand": "x" } }));
        assert_eq!(uses[0].1, !devices.is_empty(), "{placement}: {uses:?}");
        let (_, uses) = execute(&bench, "stats/moments", &json!({ "x": { "operand": "x" } }));
        assert_eq!(uses[0].1, placement != Placement::HostOnly, "{placement}: {uses:?}");
    }
    remove(&bench, "x");
    nothing_is_left(&bench);
    // The operands live on without the devices.
    let registry = Arc::clone(&bench.registry);
    drop((local, bench));
    let mut options = PutOptions::default();
    options.placement = Placement::All;
    let stored = registry.operands().put_with("x", TensorSet::of("x", x), &options).unwrap();
    assert!(stored.version().unwrap().devices().is_empty());
}

fn placed_copies_stay_and_a_placement_without_memory_for_it_stores_nothing() {
    const SIZE: u64 = 16 << 20;
    let bench = with_kernels(Bench::configured(|config| config.operand_memory = Some(3 * SIZE)));
    let local = Local::with_backends(CpuBackend::new(), Ok(bench.backend.clone()));
    local.load_kernels(&bench.registry);
    let place = |name: &str, mib: usize| {
        let mut options = PutOptions::default();
        options.placement = Placement::All;
        let value = TensorSet::of("x", numbers(mib * MIB / 8, 1));
        bench.registry.operands().put_with(name, value, &options)
    };
    place("placed", 16).unwrap();
    place("other", 16).unwrap();
    // Copies on demand take turns in what is left.
    for name in ["a", "b", "a", "b"] {
        put(&bench, name, &numbers(SIZE as usize / 8, 1));
        execute(&bench, "stats/moments", &json!({ "x": { "operand": name } }));
        bench.settle();
    }
    let before = usage(&bench);
    assert!(before.operand_evictions > 0 && before.operand_bytes == 3 * SIZE, "{before:?}");
    for name in ["placed", "other"] {
        let (_, uses) = execute(&bench, "stats/moments", &json!({ "x": { "operand": name } }));
        assert!(uses[0].1, "it stays: {uses:?}");
    }
    let memory = bench.registry.operands().usage();
    let over = place("placed", 32).unwrap_err();
    let OperandError::OverBudget { budget: OperandBudget::Device, need, free } = over else { panic!("{over:?}") };
    assert_eq!((need, free), (2 * SIZE, SIZE));
    bench.settle();
    assert_eq!(bench.registry.operands().get(None, "placed").unwrap().version(), 1, "the old version stays");
    let after = bench.registry.operands().usage();
    assert_eq!((after.versions, after.bytes), (memory.versions, memory.bytes));
    assert_eq!(usage(&bench).operand_evictions, before.operand_evictions, "nothing is evicted in vain");
    // What was placed makes room when it is removed, and another one takes the place of copies on demand.
    remove(&bench, "other");
    bench.settle();
    place("large", 32).unwrap();
    let (_, uses) = execute(&bench, "stats/moments", &json!({ "x": { "operand": "placed" } }));
    assert!(uses[0].1, "{uses:?}");
}

fn without_memory_for_copies_runs_upload_for_themselves() {
    for (budget, fallbacks) in [(0, 0), (4 << 20, 2)] {
        let bench = Bench::configured(|config| config.operand_memory = Some(budget));
        let version = put(&bench, "x", &numbers(MIB, 1));
        let bench = bench.with("test/uses", move |cuda| sum(cuda, bytes_of(&version)));
        for _ in 0..2 {
            assert_eq!(bench.run("test/uses").unwrap(), [0.0]);
        }
        let usage = usage(&bench);
        assert_eq!((usage.operand_fallbacks, usage.operand_misses, usage.operand_bytes), (fallbacks, 0, 0));
    }
}

fn host_code_cannot_write_to_a_copy() {
    let bench = Bench::new(1);
    let version = put(&bench, "x", &numbers(1000, 1));
    let bench = bench.with("test/writes", move |cuda| {
        let array = cuda.input(bytes_of(&version))?;
        assert!(array.is_read_only() && array.slice(8..).is_read_only());
        let other = cuda.upload(bytes_of(&version))?;
        assert!(!other.is_read_only());
        for error in [cuda.zero(&array).unwrap_err(), cuda.copy(&other, &array).unwrap_err()] {
            let reason = std::error::Error::source(&error).expect("a reason").to_string();
            assert!(reason.contains("only for reading"), "{reason}");
        }
        cuda.copy(&array, &other)?;
        sum(cuda, bytes_of(&version))
    });
    assert_eq!(bench.run("test/writes").unwrap(), [1.0]);
}

fn a_kernel_that_writes_to_a_copy_faults() {
    in_a_child(&["--domain", "write-to-operand"]);
}

/// In a process of its own, which loses its device.
pub(crate) fn write_to_a_copy() {
    let bench = Bench::new(1);
    let values = numbers(1000, 1);
    let version = put(&bench, "x", &values);
    let bench = bench.with("test/writes", move |cuda| {
        let array = cuda.input(bytes_of(&version))?;
        cuda.launch(&CODE, "pass_time", Launch::new(1, 1), &[&1_u64, &array])?;
        cuda.wait().map(|()| Buffer::default())
    });
    let error = bench.run("test/writes").unwrap_err();
    assert!(matches!(&error, KernelError::DeviceLost { reason, .. } if reason.contains("ILLEGAL_ADDRESS")), "{error}");
    // The operand is as it was, for other devices and the CPU.
    let kept = bench.registry.operands().get(None, "x").unwrap();
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert!(bytes_of(&kept) == bytes);
    remove(&bench, "x");
    drop(kept);
    println!("as expected");
}

/// Where there are two devices.
pub(crate) const TWO: &[crate::Test] =
    &[("cuda::operands::requests_go_where_the_operand_is_until_that_device_is_lost", || {
        in_a_child(&["--domain", "operand-on-one-of-two"]);
    })];

/// In a process of its own, where one device of two hangs. (A fault of one loses the other as well.)
pub(crate) fn on_one_of_two() {
    let hang_timeout = Duration::from_millis(200);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let registry = domain::registry("astray");
    tower_kernels::kernels::register_all(&registry).unwrap();
    let backends = [0, 1].map(|device| domain::open(device, 1, hang_timeout));
    let local = Local::with_backends(CpuBackend::new(), Ok(Vec::from(backends.clone())));
    local.load_kernels(&registry);
    let service = KernelService::with_backend(Arc::clone(&registry), local);
    let execute = || {
        let input = json!({ "x": { "operand": "x" } }).to_string();
        let mut request = KernelRequest::new("stats/moments", Payload::json(input));
        request.set_backend(BackendKind::Cuda);
        let mut service = service.clone();
        let response = runtime.block_on(async { service.ready().await.unwrap().call(request).await }).unwrap();
        let resident = response.execution.operands()[0].resident;
        let Payload::Json(output) = response.payload else { panic!("JSON in, JSON out") };
        let lost = backends.each_ref().map(|backend| backend.lost().map(|lost| format!("{lost:?}")));
        let device = response.execution.device.unwrap_or_else(|| panic!("the CPU ran it; lost devices: {lost:?}"));
        (device, resident, output)
    };
    let mut options = PutOptions::default();
    options.placement = Placement::One;
    let set = TensorSet::of("x", numbers(32 * MIB, 1));
    let stored = registry.operands().put_with("x", set, &options).unwrap();
    let devices = stored.version().unwrap().devices();
    let [device] = devices[..] else { panic!("{devices:?}") };
    let (_, _, expected) = execute();
    for _ in 0..30 {
        assert_eq!(execute(), (device as u16, true, expected.clone()));
    }
    let other = &backends[1 - device as usize];
    assert_eq!(other.status().usage.operand_misses, 0);

    let alone = KernelService::with_backend(Arc::clone(&registry), backends[device as usize].clone());
    let deaf = request("test/deaf").with_timeout(Duration::from_millis(100));
    runtime.block_on(run(alone, deaf)).unwrap_err();
    let start = Instant::now();
    while backends[device as usize].lost().is_none() {
        assert!(start.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(5));
    }
    let elsewhere = (1 - device) as u16;
    assert_eq!(execute(), (elsewhere, false, expected.clone()), "made from the value in host memory");
    assert_eq!(execute(), (elsewhere, true, expected), "and then resident");
    assert!(other.lost().is_none());
    println!("as expected");
}
