//! The same work in plain cudarc: what the service is measured against.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use cudarc::driver::{CudaContext, CudaFunction, CudaSlice, CudaStream, LaunchConfig, PinnedHostSlice, PushKernelArg};
use cudarc::nvrtc::Ptx;

use crate::{EMPTY_PTX, SAXPY_PTX, sample};

pub(crate) struct Raw {
    context: Arc<CudaContext>,
    saxpy: CudaFunction,
    empty: CudaFunction,
}

/// A stream with its memory, pinned and on the device, all made once.
struct RawStream {
    stream: Arc<CudaStream>,
    host: [PinnedHostSlice<f32>; 3],
    device: [CudaSlice<f32>; 3],
}

impl Raw {
    pub(crate) fn new() -> Self {
        let context = CudaContext::new(0).unwrap();
        // SAFETY: nothing has been allocated yet, and every stream below uses memory of its own.
        unsafe { context.disable_event_tracking() };
        let load =
            |ptx: &str, entry: &str| context.load_module(Ptx::from_src(ptx)).unwrap().load_function(entry).unwrap();
        Self { saxpy: load(SAXPY_PTX, "saxpy_f32"), empty: load(EMPTY_PTX, "empty"), context }
    }

    /// A launch that does nothing, and the wait for it.
    pub(crate) fn empty(&self, count: usize) -> Vec<Duration> {
        let stream = self.context.new_stream().unwrap();
        sample(count, || {
            let shape = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (32, 1, 1), shared_mem_bytes: 0 };
            // SAFETY: the entry takes nothing and touches nothing.
            unsafe { stream.launch_builder(&self.empty).launch(shape) }.unwrap();
            stream.synchronize().unwrap();
        })
    }

    fn stream(&self, len: usize) -> RawStream {
        let stream = self.context.new_stream().unwrap();
        // SAFETY: what is uploaded is written first, and what is downloaded is not read before.
        let (host, device) = unsafe {
            let mut host = [
                self.context.alloc_pinned::<f32>(len).unwrap(),
                self.context.alloc_pinned::<f32>(len).unwrap(),
                self.context.alloc_pinned_with_flags::<f32>(len, 0).unwrap(),
            ];
            for array in &mut host {
                array.as_mut_slice().unwrap().fill(1.0);
            }
            (host, [(); 3].map(|()| stream.alloc::<f32>(len).unwrap()))
        };
        RawStream { stream, host, device }
    }

    fn saxpy_once(&self, raw: &mut RawStream, len: usize) {
        let RawStream { stream, host: [x, y, out], device: [x_there, y_there, out_there] } = raw;
        stream.memcpy_htod(x, x_there).unwrap();
        stream.memcpy_htod(y, y_there).unwrap();
        let (count, a) = (len as u64, 2.0_f32);
        let mut launch = stream.launch_builder(&self.saxpy);
        launch.arg(&count).arg(&a).arg(x_there).arg(y_there).arg(&mut *out_there);
        let blocks = u32::try_from(len.div_ceil(1024)).unwrap();
        let shape = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (256, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: three arrays of `count` elements, as the entry declares.
        unsafe { launch.launch(shape) }.unwrap();
        stream.memcpy_dtoh(out_there, out).unwrap();
        stream.synchronize().unwrap();
        black_box(out);
    }

    pub(crate) fn saxpy(&self, len: usize, count: usize) -> Vec<Duration> {
        let mut raw = self.stream(len);
        sample(count, || self.saxpy_once(&mut raw, len))
    }

    /// As `saxpy`, with the arrays in ordinary memory at first and at last, as a service gets and gives them.
    pub(crate) fn saxpy_with_copies(&self, len: usize, count: usize) -> Vec<Duration> {
        let mut raw = self.stream(len);
        let (x, y) = (vec![1.0_f32; len], vec![2.0_f32; len]);
        sample(count, || {
            raw.host[0].as_mut_slice().unwrap().copy_from_slice(&x);
            raw.host[1].as_mut_slice().unwrap().copy_from_slice(&y);
            self.saxpy_once(&mut raw, len);
            black_box(raw.host[2].as_slice().unwrap().to_vec());
        })
    }

    /// Requests a second of this many threads, each with a stream of its own.
    pub(crate) fn throughput(&self, threads: usize, each: usize) -> f64 {
        let start = Barrier::new(threads + 1);
        let seconds = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        self.context.bind_to_thread().unwrap();
                        let mut raw = self.stream(1024);
                        (0..1000).for_each(|_| self.saxpy_once(&mut raw, 1024));
                        start.wait();
                        (0..each).for_each(|_| self.saxpy_once(&mut raw, 1024));
                    })
                })
                .collect();
            start.wait();
            let begun = Instant::now();
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            begun.elapsed().as_secs_f64()
        });
        (threads * each) as f64 / seconds
    }
}
