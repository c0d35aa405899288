//! What a small request waits for where others fill the device, by its priority and theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tower::{Service, ServiceExt};
use tower_kernels::request::Priority;
use tower_kernels::service::{KernelRequest, Payload};

use crate::hold::{HOLD, HoldInput};
use crate::{Row, saxpy_input, service};

/// Blocks of 200 µs that come to 20 times what the device holds at once: some 4 ms.
const LONG: HoldInput = HoldInput { micros: 200, blocks: 132 * 2 * 20, waits: false };

pub(crate) fn run() {
    println!("\nsaxpy 1024, one at a time, µs          p50     p99   x alone");
    let base = measure(None, Priority::Normal, 2000);
    base.print("alone, 0.3 to 2.4 ms after the one before", &base);
    println!("next to 4 tasks of kernels that fill the device for 4 ms, in blocks of 200 µs:");
    for (name, theirs, ours) in [
        ("low next to low", Priority::Low, Priority::Low),
        ("normal next to normal", Priority::Normal, Priority::Normal),
        ("normal next to low", Priority::Low, Priority::Normal),
        ("high next to normal", Priority::Normal, Priority::High),
        ("high next to low", Priority::Low, Priority::High),
        ("low next to high", Priority::High, Priority::Low),
    ] {
        measure(Some(theirs), ours, 100).print(name, &base);
    }
}

fn measure(theirs: Option<Priority>, ours: Priority, count: usize) -> Row {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let service = service(|_| {});
    let of = |id: &'static str, input: Payload, priority: Priority| {
        let mut request = KernelRequest::new(id, input);
        request.priority = priority;
        request
    };
    let end = Arc::new(AtomicBool::new(false));
    let others: Vec<_> = theirs
        .iter()
        .flat_map(|&theirs| std::iter::repeat_n(theirs, 4))
        .map(|theirs| {
            let (mut service, end) = (service.clone(), Arc::clone(&end));
            runtime.spawn(async move {
                while !end.load(Ordering::Relaxed) {
                    let request = of(HOLD, Payload::typed(LONG), theirs);
                    service.ready().await.unwrap().call(request).await.unwrap();
                }
            })
        })
        .collect();
    let mut service = service.clone();
    let row = runtime.block_on(async {
        let input = saxpy_input(1024);
        let mut times = Vec::with_capacity(count);
        // WorkerPool load code at first; and the moments must not be those at which a long one ends.
        for at in 0..count + 20 {
            tokio::time::sleep(Duration::from_micros(300 + 137 * (at as u64 % 16))).await;
            let request = of("linalg/saxpy", input.clone(), ours);
            let start = Instant::now();
            service.ready().await.unwrap().call(request).await.unwrap();
            times.push(start.elapsed());
        }
        end.store(true, Ordering::Relaxed);
        for other in others {
            other.await.unwrap();
        }
        times.split_off(20)
    });
    Row::of(row)
}
