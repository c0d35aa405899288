//! Host and device memory: pinned payloads, admission, and what goes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tower::{Service, ServiceExt};
use tower_kernels::backends::cuda::CudaUsage;
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::kernels::linalg::saxpy::{SaxpyInput, SaxpyOutput};
use tower_kernels::service::{Buffer, DType, KernelError, KernelRequest, LaunchContext, Payload, Tensor, Tensors};

use crate::probe::{Bench, numbers, request, run};

crate::tests! {
    pinned_payloads_give_the_same_bits_in_every_encoding
    a_tensor_of_an_answer_is_pinned_memory_and_the_next_input
    an_answer_outlives_its_backend
    with_the_pool_exhausted_arrays_go_through_staging
    what_is_uploaded_may_be_changed_and_dropped_at_once
    requests_that_exceed_memory_together_run_one_after_the_other
    small_requests_run_while_a_large_one_waits
    a_request_that_waits_for_memory_can_be_cancelled_or_expire
    a_kernel_that_wants_too_much_fails_alone
    idle_memory_goes_back_to_the_driver
}

const MIB: usize = 1 << 20;

fn usage(bench: &Bench) -> CudaUsage {
    bench.backend.status().usage
}

/// Nothing is in use any more.
fn at_rest(bench: &Bench) {
    bench.settle();
    let usage = usage(bench);
    assert_eq!((usage.device_reserved, usage.waiting, usage.pinned_in_use), (0, 0, 0), "{usage:?}");
}

fn saxpy(bench: &Bench, payload: Payload) -> Payload {
    let request = KernelRequest::new("linalg/saxpy", payload);
    bench.runtime.block_on(async { bench.service().ready().await?.call(request).await }).unwrap().payload
}

fn tensor(bytes: impl Into<Bytes>) -> Tensor {
    let bytes = bytes.into();
    Tensor::new(DType::F32, vec![bytes.len() / 4], bytes).unwrap()
}

fn tensors(a: f32, x: Tensor, y: Tensor) -> Payload {
    let mut all = Tensors::new();
    all.insert("a", Tensor::new(DType::F32, vec![], Bytes::copy_from_slice(&a.to_le_bytes())).unwrap()).unwrap();
    all.insert("x", x).unwrap();
    all.insert("y", y).unwrap();
    all.into()
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn with_saxpy(bench: Bench) -> Bench {
    tower_kernels::kernels::register_all(&bench.registry).unwrap();
    bench
}

fn pinned_payloads_give_the_same_bits_in_every_encoding() {
    let bench = with_saxpy(Bench::new(2));
    let staged = with_saxpy(Bench::configured(|config| config.pinned_bytes = 0));
    for len in [MIB / 4, MIB / 4 + 1, (5 << 20) + 3] {
        let [x, y] = [1, 2].map(|seed| numbers(len, seed).iter().map(|v| (v - 0.5) as f32 * 1e3).collect::<Vec<_>>());
        let a = 1.0 / 3.0;
        let input = |x: Buffer<f32>, y: Buffer<f32>| Payload::typed(SaxpyInput { a, x, y });
        let expected = saxpy(&staged, input(x.clone().into(), y.clone().into())).downcast::<SaxpyOutput>().unwrap();
        assert_eq!(usage(&staged).pinned, 0);
        let same = |name: &str, values: &[f32]| {
            assert!(values.iter().map(|v| v.to_bits()).eq(expected.y.iter().map(|v| v.to_bits())), "{name}, {len}");
        };
        let pinned = |values: &[f32]| {
            bench
                .backend
                .pinned_memory()
                .expect("this process has the device open")
                .copy_of(values)
                .expect("there is enough")
        };
        for _ in 0..3 {
            let output = saxpy(&bench, input(pinned(&x), pinned(&y))).downcast::<SaxpyOutput>().unwrap();
            same("typed, pinned", &output.y);
            assert!(usage(&bench).pinned_in_use > 0, "{:?}", usage(&bench));
            let output = saxpy(&bench, input(x.clone().into(), y.clone().into())).downcast::<SaxpyOutput>().unwrap();
            same("typed, pageable", &output.y);
            // At an odd address too, as in the middle of a message.
            for skipped in [0, 1] {
                let [x, y] = [&x, &y].map(|values| {
                    let mut bytes = vec![0; skipped];
                    bytes.extend(bytes_of(values));
                    tensor(Bytes::from(bytes).slice(skipped..))
                });
                let Payload::Tensors(output) = saxpy(&bench, tensors(a, x, y)) else { panic!("tensors in") };
                let output = output.get("y").unwrap();
                assert_eq!((output.dtype(), output.shape()), (DType::F32, &[len][..]));
                let values: Vec<f32> =
                    output.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
                same("tensors", &values);
            }
        }
        if len < MIB {
            let json = serde_json::json!({ "a": a, "x": x, "y": y }).to_string();
            let Payload::Json(output) = saxpy(&bench, Payload::json(json)) else { panic!("JSON in") };
            let output: serde_json::Value = serde_json::from_slice(&output).unwrap();
            let values: Vec<f32> = serde_json::from_value(output["y"].clone()).unwrap();
            same("JSON", &values);
        }
    }
    assert_eq!(usage(&bench).pinned_fallbacks, 0);
    at_rest(&bench);
}

fn a_tensor_of_an_answer_is_pinned_memory_and_the_next_input() {
    let bench = with_saxpy(Bench::new(1));
    let ones = || tensor(bytes_of(&vec![1.0; MIB]));
    let Payload::Tensors(first) = saxpy(&bench, tensors(1.0, ones(), ones())) else { panic!("tensors in") };
    let y = first.get("y").unwrap().clone();
    let one_slab = (4 * MIB) as u64;
    assert_eq!(usage(&bench).pinned_in_use, one_slab, "the response alone");
    drop(first);
    // Both operands are that response; the new response takes one slab more.
    let Payload::Tensors(second) = saxpy(&bench, tensors(1.0, y.clone(), y)) else { panic!("tensors in") };
    assert!(second.get("y").unwrap().data().chunks_exact(4).all(|b| b == 4.0_f32.to_le_bytes()));
    let part = second.get("y").unwrap().data().slice(17..);
    drop(second);
    assert_eq!(usage(&bench).pinned_in_use, one_slab, "a part of the bytes holds the slab");
    drop(part);
    at_rest(&bench);
}

fn an_answer_outlives_its_backend() {
    let bench = with_saxpy(Bench::new(1));
    let memory = bench.backend.pinned_memory().expect("this process has the device open").clone();
    let x = memory.copy_of(&vec![2.0_f32; MIB]).unwrap();
    let input = Payload::typed(SaxpyInput { a: 3.0, x: x.clone(), y: x });
    let output = saxpy(&bench, input.clone()).downcast::<SaxpyOutput>().unwrap();
    assert!(usage(&bench).pinned_in_use >= 8 << 20);
    drop(bench);
    assert!(memory.zeroed::<f32>(MIB).is_none(), "the backend has gone");
    assert!(output.y.iter().all(|v| *v == 8.0));
    let input = input.downcast::<SaxpyInput>().unwrap();
    assert!(input.x.iter().all(|v| *v == 2.0));
    // Once more from the start, and with memory of a backend that is gone.
    let bench = with_saxpy(Bench::new(1));
    let again = saxpy(&bench, Payload::typed(SaxpyInput::clone(&input))).downcast::<SaxpyOutput>().unwrap();
    assert!(again.y == output.y);
}

fn with_the_pool_exhausted_arrays_go_through_staging() {
    let bench = with_saxpy(Bench::configured(|config| config.pinned_bytes = 4 << 20));
    let values = numbers(MIB, 3).into_iter().map(|v| v as f32).collect::<Vec<_>>();
    for round in 1..4 {
        let bytes = bytes_of(&values);
        // At an odd address, so that it has to be copied.
        let odd = || tensor(Bytes::from([&[0], &bytes[..]].concat()).slice(1..));
        let Payload::Tensors(output) = saxpy(&bench, tensors(0.0, odd(), odd())) else { panic!("tensors in") };
        assert!(output.get("y").unwrap().data() == &bytes);
        // There is memory for one of three arrays.
        let usage = usage(&bench);
        assert_eq!((usage.pinned_fallbacks, usage.pinned), (2 * round, 4 << 20), "{usage:?}");
    }
    at_rest(&bench);
}

fn what_is_uploaded_may_be_changed_and_dropped_at_once() {
    let bench = Bench::new(1);
    let memory = bench.backend.pinned_memory().expect("this process has the device open").clone();
    let bench = bench.with("test/careless", move |cuda| {
        let values = numbers(8 * MIB, 4);
        let mut there = Vec::new();
        for round in 0..4 {
            let mut source = memory.copy_of(&values).expect("there is enough");
            there.push(cuda.upload(&source)?);
            // While the bus is at it.
            source.fill(-1.0);
            assert!(source.iter().all(|value| *value == -1.0), "round {round}");
            drop(source);
            drop(memory.zeroed::<f64>(8 * MIB));
        }
        for (round, there) in there.iter().enumerate() {
            assert!(*cuda.download(there)? == values[..], "round {round}");
        }
        Ok(Buffer::default())
    });
    bench.run("test/careless").unwrap();
    at_rest(&bench);
}

/// How many run at one time, and the most that there were.
#[derive(Clone, Default)]
struct Count(Arc<[AtomicU32; 2]>);

impl Count {
    fn during(&self, work: impl FnOnce()) {
        let now = self.0[0].fetch_add(1, Ordering::SeqCst) + 1;
        self.0[1].fetch_max(now, Ordering::SeqCst);
        work();
        self.0[0].fetch_sub(1, Ordering::SeqCst);
    }

    fn most(&self) -> u32 {
        self.0[1].load(Ordering::SeqCst)
    }
}

fn half_gib(cuda: &mut LaunchContext<'_>) -> Result<Buffer<f64>, KernelError> {
    let there = cuda.zeroed::<u8>(600 * MIB)?;
    let end = cuda.download(&there.slice(600 * MIB - 1..))?;
    Ok(vec![f64::from(end[0])].into())
}

/// Holds its memory until it is cancelled. No code runs on the device meanwhile, for which the driver could
/// hold up the others.
fn hold_until_cancelled(cuda: &mut LaunchContext<'_>) -> Result<Buffer<f64>, KernelError> {
    while cuda.context().check().is_ok() {
        std::thread::sleep(Duration::from_millis(1));
    }
    cuda.context().check().map(|()| unreachable!("it is cancelled"))
}

fn requests_that_exceed_memory_together_run_one_after_the_other() {
    let count = Count::default();
    let counted = count.clone();
    let bench = Bench::configured(|config| config.device_bytes = Some(1 << 30));
    let bench = bench.with_memory("test/large", 600 << 20, move |cuda| {
        let mut result = Ok(Buffer::default());
        counted.during(|| {
            std::thread::sleep(Duration::from_millis(20));
            result = half_gib(cuda);
        });
        result
    });
    bench.runtime.block_on(async {
        let tasks: Vec<_> = (0..6).map(|_| tokio::spawn(run(bench.service(), request("test/large")))).collect();
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap(), [0.0]);
        }
    });
    assert_eq!(count.most(), 1);
    let usage = usage(&bench);
    assert!((1..=5).contains(&usage.waits) && usage.rejections == 0, "{usage:?}");
    at_rest(&bench);
}

fn small_requests_run_while_a_large_one_waits() {
    let bench = Bench::configured(|config| (config.workers, config.device_bytes) = (2, Some(1 << 30)))
        .with_memory("test/holds", 600 << 20, hold_until_cancelled)
        .with_memory("test/large", 600 << 20, half_gib)
        .with_memory("test/medium", 100 << 20, |cuda| cuda.zeroed(1).and_then(|zero| cuda.download(&zero)))
        .with("test/small", |cuda| cuda.zeroed(1).and_then(|zero| cuda.download(&zero)));
    bench.runtime.block_on(async {
        let holds = tokio::spawn(run(bench.service(), request("test/holds")));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let large: Vec<_> = (0..3).map(|_| tokio::spawn(run(bench.service(), request("test/large")))).collect();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(usage(&bench).waiting, 3);
        for name in ["test/small", "test/medium", "test/small", "test/medium"] {
            let done = tokio::time::timeout(Duration::from_secs(5), run(bench.service(), request(name)));
            assert_eq!(done.await.unwrap_or_else(|_| panic!("{name} waits")).unwrap(), [0.0]);
        }
        assert_eq!(usage(&bench).waiting, 3);
        holds.abort();
        for task in large {
            assert_eq!(task.await.unwrap().unwrap(), [0.0]);
        }
    });
    at_rest(&bench);
}

fn a_request_that_waits_for_memory_can_be_cancelled_or_expire() {
    let bench = Bench::configured(|config| (config.workers, config.device_bytes) = (2, Some(1 << 30)))
        .with_memory("test/holds", 600 << 20, hold_until_cancelled)
        .with_memory("test/large", 600 << 20, half_gib);
    bench.runtime.block_on(async {
        let holds = tokio::spawn(run(bench.service(), request("test/holds")));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let cancelled = tokio::spawn(run(bench.service(), request("test/large")));
        let late = request("test/large").with_timeout(Duration::from_millis(80));
        let start = Instant::now();
        let result = run(bench.service(), late).await;
        assert!(matches!(result, Err(KernelError::DeadlineExceeded { started: false })), "{result:?}");
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
        cancelled.abort();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!((usage(&bench).waiting, crate::probe::in_flight(&bench.backend)), (0, 1));
        holds.abort();
    });
    bench.settle();
    assert_eq!(bench.run("test/large").unwrap(), [0.0]);
    at_rest(&bench);
}

fn a_kernel_that_wants_too_much_fails_alone() {
    let bench = Bench::configured(|config| (config.workers, config.device_bytes) = (2, Some(1 << 30)))
        .with_memory("test/never", 2 << 30, |_| unreachable!("it was rejected"))
        .with("test/greedy", |cuda| cuda.zeroed::<u8>(2 << 30).map(|_| Buffer::default()))
        .with("test/grows", |cuda| {
            let mut all = Vec::new();
            loop {
                all.push(cuda.zeroed::<u8>(50 << 20)?);
                assert!(all.len() < 100, "more than there is");
            }
        })
        .with("test/undeclared", half_gib)
        .with("test/small", |cuda| cuda.zeroed(1).and_then(|zero| cuda.download(&zero)));
    let error = bench.run("test/never").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    for round in 0..3 {
        for name in ["test/greedy", "test/grows"] {
            let error = bench.run(name).unwrap_err();
            assert!(matches!(error, KernelError::OutOfMemory { need, free, .. } if need > free), "{name}: {error}");
            assert_eq!(bench.run("test/small").unwrap(), [0.0], "after {name}");
        }
        assert_eq!(bench.run("test/undeclared").unwrap(), [0.0], "round {round}");
    }
    assert!(bench.backend.lost().is_none() && usage(&bench).rejections >= 7, "{:?}", usage(&bench));
    at_rest(&bench);
}

fn idle_memory_goes_back_to_the_driver() {
    const LARGE: usize = 8 << 30;
    let free = Arc::new([const { std::sync::atomic::AtomicU64::new(0) }; 2]);
    let [during, after] = [Arc::clone(&free), Arc::clone(&free)];
    let bench = Bench::configured(|config| config.idle_memory_ttl = Duration::from_millis(200))
        .with_memory("test/large", LARGE as u64, move |cuda| {
            let there = cuda.alloc::<u8>(LARGE)?;
            cuda.zero(&there.slice(..8))?;
            during[0].store(cuda.free_memory()?, Ordering::Relaxed);
            // Into pinned memory.
            cuda.download(&there.slice(..64 << 20)).map(|_| Buffer::default())
        })
        .with("test/after", move |cuda| {
            after[1].store(cuda.free_memory()?, Ordering::Relaxed);
            Ok(Buffer::default())
        });
    bench.run("test/large").unwrap();
    at_rest(&bench);
    let held = usage(&bench);
    assert!(held.device_idle >= LARGE as u64 && held.pinned >= 64 << 20, "{held:?}");
    let start = Instant::now();
    while (usage(&bench).device_idle, usage(&bench).pinned) != (0, 0) {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", usage(&bench));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(start.elapsed() > Duration::from_millis(100), "{:?}", start.elapsed());
    bench.run("test/after").unwrap();
    let [during, after] = [0, 1].map(|at: usize| free[at].load(Ordering::Relaxed));
    // Other tests take and give back some of it meanwhile.
    assert!(after > during + 5 * (LARGE as u64 / 8), "{during} free while it was used, {after} now");
}
