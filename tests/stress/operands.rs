//! Ten thousand operands that threads store, replace and remove while requests use them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tower::ServiceExt;
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::service::{
    KernelRegistry, KernelRequest, KernelService, OperandError, OperandLimits, Operands, Payload, PutOptions,
    RemoveOptions, TensorSet,
};

use crate::support::random::Random;

const OPERANDS: usize = 10_000;
const TENANTS: usize = 10;
/// Elements of an operand.
const LEN: usize = 16;
const WRITERS: u64 = 2;
/// Changes that each writer makes after it has stored its share of the operands.
const CHANGES: usize = 2_000;
/// Requests that each reader has at one time.
const CONCURRENT: usize = 8;

/// The elements of a version: the number of its operand, and the change that stored it.
fn elements(number: usize, change: usize) -> Vec<f32> {
    let mut elements = vec![change as f32; LEN];
    elements[0] = number as f32;
    elements
}

/// The name of an operand, which ten tenants have.
fn name(number: usize) -> String {
    format!("n{}", number / TENANTS)
}

fn tenant(number: usize) -> Option<Arc<str>> {
    Some(format!("tenant-{}", number % TENANTS).into())
}

fn put(operands: &Operands, number: usize, change: usize) {
    let mut options = PutOptions::default();
    options.tenant = tenant(number);
    let set = TensorSet::of("x", elements(number, change));
    operands.put_with(&name(number), set, &options).expect("the memory suffices");
}

fn remove(operands: &Operands, number: usize) -> Result<(), OperandError> {
    let mut options = RemoveOptions::default();
    options.tenant = tenant(number);
    operands.remove(&name(number), &options).map(drop)
}

/// Stores this writer's share of the operands, and then changes any of them.
fn write(operands: &Operands, writer: u64) {
    let mut random = Random::new(writer);
    (0..OPERANDS).filter(|number| *number as u64 % WRITERS == writer).for_each(|number| put(operands, number, 0));
    for change in 1..=CHANGES {
        let number = random.below(OPERANDS as u64) as usize;
        if random.one_in(3) {
            if let Err(error) = remove(operands, number) {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            }
        } else {
            put(operands, number, change);
        }
    }
}

/// Runs a kernel that returns the elements of an operand, some time after the request has been accepted. Returns whether
/// there was such an operand.
async fn read(service: KernelService<CpuBackend>, number: usize) -> bool {
    let input = json!({"a": 1, "x": {"operand": name(number)}, "y": vec![0; LEN]});
    let mut request = KernelRequest::new("linalg/saxpy", Payload::from_serialize(&input).unwrap());
    request.tenant = tenant(number);
    request.resolve_operands(service.registry());
    let is_there = !request.operands().is_empty();
    tokio::task::yield_now().await;
    match service.oneshot(request).await {
        Ok(response) => {
            assert!(is_there);
            let output: Value = response.json().unwrap();
            let change = output["y"][1].as_f64().unwrap() as usize;
            assert_eq!(output["y"], json!(elements(number, change)), "another version's elements");
        }
        Err(error) => assert_eq!((error.kind(), is_there), (ErrorKind::InvalidArgument, false), "{error}"),
    }
    is_there
}

#[test]
fn ten_thousand_operands_change_under_load_and_nothing_leaks() {
    let mut limits = OperandLimits::default();
    // Room for all of them, and for versions that requests still use.
    limits.max_bytes = (2 * OPERANDS * LEN * size_of::<f32>()) as u64;
    let operands = Operands::new(limits);
    let registry = KernelRegistry::with_operands(operands.clone());
    tower_kernels::kernels::register_all(&registry).unwrap();
    let service = KernelService::with_backend(Arc::new(registry), CpuBackend::new());
    let start = operands.usage();
    assert_eq!((start.bytes, start.versions), (0, 0));

    let (stop, found) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let readers: Vec<_> = (0..CONCURRENT as u64)
        .map(|reader| {
            let (service, stop, found) = (service.clone(), Arc::clone(&stop), Arc::clone(&found));
            runtime.spawn(async move {
                let mut random = Random::new(100 + reader);
                while !stop.load(Ordering::Relaxed) {
                    let number = random.below(OPERANDS as u64) as usize;
                    found.fetch_add(u64::from(read(service.clone(), number).await), Ordering::Relaxed);
                }
            })
        })
        .collect();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn({
                    let operands = &operands;
                    move || write(operands, writer)
                })
            })
            .collect();
        // The readers stop if a writer has failed, too.
        let results: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok), "a writer failed");
    });
    readers.into_iter().for_each(|reader| runtime.block_on(reader).unwrap());

    assert!(found.load(Ordering::Relaxed) > 0, "no request found its operand");
    let used = operands.usage();
    assert!(used.operands > OPERANDS as u64 / 2 && used.stored > OPERANDS as u64 && used.removed > 0, "{used:?}");
    // A response can come a moment before its worker has dropped the request.
    settles_at(&operands, used.operands);
    let removed = (0..OPERANDS).filter(|number| remove(&operands, *number).is_ok()).count();
    assert_eq!(removed as u64, used.operands);
    settles_at(&operands, 0);
    assert_eq!(operands.usage().bytes, start.bytes);
}

/// Waits until there are this many versions, and checks their memory.
fn settles_at(operands: &Operands, versions: u64) {
    let start = Instant::now();
    while operands.usage().versions != versions {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", operands.usage());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(operands.usage().bytes, versions * (LEN * size_of::<f32>()) as u64);
}
