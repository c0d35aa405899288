//! Option pricing with all arrays on the device: the kernel alone, compared with a copy of as many bytes.

use std::sync::Arc;

use cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
use cudarc::driver::{CudaContext, CudaFunction, CudaSlice, CudaStream, DeviceRepr, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

use crate::catalogue::Random;
use crate::kernels::PRICING_PTX;

const CONTRACTS: usize = 64 << 20;
const LAUNCHES: usize = 40;

pub(crate) fn run() {
    let context = CudaContext::new(0).unwrap();
    // SAFETY: nothing has been allocated yet, and one stream uses what is.
    unsafe { context.disable_event_tracking() };
    let module = context.load_module(Ptx::from_src(PRICING_PTX)).unwrap();
    let stream = context.new_stream().unwrap();
    println!("\n64M contracts on the device            p50, ms      GB/s   of the copy's   best, ms");
    let entry = |name| module.load_function(name).unwrap();
    rows(&stream, "f64", &entry("black_scholes_f64"), 2, |value| value);
    rows(&stream, "f32", &entry("black_scholes_f32"), 4, |value| value as f32);
}

fn rows<T: DeviceRepr>(
    stream: &Arc<CudaStream>,
    name: &str,
    price: &CudaFunction,
    contracts_a_thread: usize,
    real: fn(f64) -> T,
) {
    let mut random = Random::new(7);
    let ranges = [(50.0, 150.0), (50.0, 150.0), (0.0, 0.1), (0.05, 0.6), (0.05, 3.0), (0.0, 0.05)];
    let inputs = ranges.map(|(low, high): (f64, f64)| {
        let step = (high - low) / f64::from(1 << 20);
        resident(stream, &(0..1 << 20).map(|_| real(low + step * random.below(1 << 20) as f64)).collect::<Vec<T>>())
    });
    let kinds = resident(stream, &(0..1 << 20).map(|index| u8::from(index % 3 == 0)).collect::<Vec<_>>());
    // SAFETY: the kernel writes every element of every output, and nothing reads them.
    let outputs = [(); 6].map(|()| unsafe { stream.alloc::<T>(CONTRACTS) }.unwrap());
    let bytes = CONTRACTS * (12 * size_of::<T>() + 1);

    // What is copied is read and written, so half of them; as much as there is of one array, some times over.
    let (from, mut to) = (&inputs[0], unsafe { stream.alloc::<T>(CONTRACTS) }.unwrap());
    let copies = bytes.div_ceil(2 * CONTRACTS * size_of::<T>());
    let copied = copies * 2 * CONTRACTS * size_of::<T>();
    let copy = times(stream, || (0..copies).for_each(|_| stream.memcpy_dtod(from, &mut to).unwrap()));
    let base = print(&format!("{name}: copy on the device"), &copy, copied, None);

    let count = CONTRACTS as u64;
    let blocks = u32::try_from(CONTRACTS.div_ceil(256 * contracts_a_thread).min(1 << 20)).unwrap();
    let kernel = times(stream, || {
        let mut launch = stream.launch_builder(price);
        launch.arg(&count);
        for input in &inputs {
            launch.arg(input).arg(&1_u32);
        }
        launch.arg(&kinds).arg(&1_u32);
        for output in &outputs {
            launch.arg(output);
        }
        let shape = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (256, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the arguments that the entry declares, each array of `count` elements.
        unsafe { launch.launch(shape) }.unwrap();
    });
    print(&format!("{name}: option pricing, kernel alone"), &kernel, bytes, Some(base));
}

/// These values over and over, up to one for each contract.
fn resident<T: DeviceRepr>(stream: &Arc<CudaStream>, values: &[T]) -> CudaSlice<T> {
    let part = stream.clone_htod(values).unwrap();
    // SAFETY: each part of it is written below.
    let mut all = unsafe { stream.alloc::<T>(CONTRACTS) }.unwrap();
    for start in (0..CONTRACTS).step_by(values.len()) {
        stream.memcpy_dtod(&part, &mut all.slice_mut(start..start + values.len())).unwrap();
    }
    stream.synchronize().unwrap();
    all
}

/// Milliseconds on the device, sorted. The queue is never empty between two, so that no launch is waited for.
fn times(stream: &Arc<CudaStream>, mut queue: impl FnMut()) -> Vec<f32> {
    (0..5).for_each(|_| queue());
    let mark = || stream.record_event(Some(CU_EVENT_DEFAULT)).unwrap();
    let mut marks = vec![mark()];
    for _ in 0..LAUNCHES {
        queue();
        marks.push(mark());
    }
    stream.synchronize().unwrap();
    let mut times: Vec<f32> = marks.windows(2).map(|pair| pair[0].elapsed_ms(&pair[1]).unwrap()).collect();
    times.sort_by(f32::total_cmp);
    times
}

fn print(name: &str, times: &[f32], bytes: usize, base: Option<f64>) -> f64 {
    let p50 = f64::from(times[times.len() / 2]);
    let rate = bytes as f64 / p50 / 1e6;
    let share = base.map_or("1.00".to_owned(), |base| format!("{:.2}", rate / base));
    println!("{name:<38}{p50:>8.3}{rate:>10.0}{share:>16}{:>11.3}", times[0]);
    rate
}
