//! What a kernel's host code relies on: transfers, buffers, launches, code.

use std::sync::{Arc, Mutex};

use tower_kernels::cuda::{Arg, DeviceBuffer, Launch, Module};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::service::{Buffer, KernelError, LaunchContext};

use crate::probe::{Bench, CODE, numbers, request, run};

crate::tests! {
    arrays_of_every_size_come_back_as_they_went
    many_small_arrays_keep_apart
    arguments_arrive_as_they_were_passed
    arguments_that_do_not_match_are_rejected
    unwritten_memory_is_poisoned
    a_buffer_of_an_earlier_request_is_rejected
    dynamic_shared_memory_past_the_default
    a_shape_that_the_device_cannot_run_is_an_error_and_no_more
    too_much_memory_is_rejected_before_it_is_allocated
    code_that_does_not_compile_says_why
    ptx_that_does_not_load_says_why
    workers_do_not_share_buffers
}

const LAUNCH: Launch = Launch::new(64, 256);

fn scale(cuda: &mut LaunchContext<'_>, a: f64, x: &DeviceBuffer<f64>) -> Result<DeviceBuffer<f64>, KernelError> {
    let out = cuda.alloc(x.len())?;
    cuda.launch(&CODE, "scale", LAUNCH, &[&(x.len() as u64), &a, x, &out])?;
    Ok(out)
}

fn arrays_of_every_size_come_back_as_they_went() {
    // In bytes: the slab of small arrays holds 256 KiB, a piece 2 MiB, staging 8 MiB.
    let sizes = [0, 8, 4096, (256 << 10) - 8, 256 << 10, (256 << 10) + 8, 2 << 20, (2 << 20) + 8, (40 << 20) + 24];
    let bench = Bench::new(1).with("test/sizes", move |cuda| {
        for (seed, size) in sizes.into_iter().enumerate() {
            let x = numbers(size / 8, seed as u64);
            let there = cuda.upload(&x)?;
            let scaled = scale(cuda, 2.0, &there)?;
            let [same, double] = cuda.download_all([&there, &scaled])?;
            assert!(*same == x[..], "{size} bytes");
            assert!(double.iter().zip(&x).all(|(double, x)| *double == 2.0 * x), "{size} bytes, scaled");
            let part = there.slice(there.len() / 2..);
            assert!(*cuda.download(&part)? == x[x.len() / 2..], "half of {size} bytes");
        }
        Ok(Buffer::default())
    });
    for _ in 0..3 {
        bench.run("test/sizes").unwrap();
    }
}

fn many_small_arrays_keep_apart() {
    let bench = Bench::new(1).with("test/small", |cuda| {
        let mut made = Vec::new();
        for index in 0..500_u64 {
            let x = numbers(1 + (index as usize * 37) % 900, index);
            let there = cuda.upload(&x)?;
            let zeros = cuda.zeroed::<f64>(x.len())?;
            let out = if index % 3 == 0 { scale(cuda, 1.0, &there)? } else { there };
            made.push((x, out, zeros));
        }
        for (x, out, zeros) in &made {
            let [x_back, zeros] = cuda.download_all([out, zeros])?;
            assert!(*x_back == x[..] && zeros.iter().all(|zero| *zero == 0.0));
        }
        let (x, out, zeros) = &made[7];
        cuda.copy(out, zeros)?;
        assert!(*cuda.download(zeros)? == x[..]);
        cuda.zero(out)?;
        assert!(cuda.download(out)?.iter().all(|value| *value == 0.0));
        Ok(Buffer::default())
    });
    bench.run("test/small").unwrap();
}

fn arguments_arrive_as_they_were_passed() {
    let bench = Bench::new(1).with("test/types", |cuda| {
        let out = cuda.alloc(6)?;
        let args: [&dyn Arg; 7] =
            [&u32::MAX, &i32::MIN, &(1_u64 << 52), &-(1_i64 << 52), &1.5_f32, &std::f64::consts::PI, &out];
        cuda.launch(&CODE, "all_types", Launch::new(1, 1), &args)?;
        cuda.download(&out)
    });
    let p52 = (1_u64 << 52) as f64;
    let expected = vec![f64::from(u32::MAX), f64::from(i32::MIN), p52, -p52, 1.5, std::f64::consts::PI];
    assert_eq!(bench.run("test/types").unwrap(), expected);
}

fn arguments_that_do_not_match_are_rejected() {
    let bench = Bench::new(1)
        .with("test/few", |cuda| {
            let out = cuda.alloc::<f64>(1)?;
            cuda.launch(&CODE, "scale", LAUNCH, &[&1_u64, &out]).map(|()| Buffer::default())
        })
        .with("test/narrow", |cuda| {
            let (x, out) = (cuda.zeroed::<f64>(1)?, cuda.alloc::<f64>(1)?);
            cuda.launch(&CODE, "scale", LAUNCH, &[&1_u32, &1.0, &x, &out]).map(|()| Buffer::default())
        })
        .with("test/many", |cuda| {
            cuda.launch(&CODE, "scale", LAUNCH, &[&0_u32 as &dyn Arg; 33]).map(|()| Buffer::default())
        })
        .with("test/no-entry", |cuda| cuda.launch(&CODE, "scales", LAUNCH, &[]).map(|()| Buffer::default()));
    for name in ["test/few", "test/narrow", "test/many"] {
        assert!(matches!(bench.run(name), Err(KernelError::Kernel(_))), "{name}");
    }
    let error = bench.run("test/no-entry").unwrap_err().to_string();
    assert!(error.contains("scales"), "{error}");
}

fn unwritten_memory_is_poisoned() {
    let bench = Bench::new(1).with("test/poison", |cuda| {
        let out = cuda.alloc::<f64>(1000)?;
        cuda.download(&out)
    });
    let poison = f64::from_bits(0xA5A5_A5A5_A5A5_A5A5);
    for _ in 0..2 {
        assert!(bench.run("test/poison").unwrap().iter().all(|value| *value == poison));
    }
}

fn a_buffer_of_an_earlier_request_is_rejected() {
    let stored = Arc::new(Mutex::new(None::<DeviceBuffer<f64>>));
    let store = Arc::clone(&stored);
    let bench = Bench::new(1)
        .with("test/store", move |cuda| {
            let buffer = cuda.upload(&[1.0, 2.0])?;
            *store.lock().unwrap() = Some(buffer);
            cuda.download(&buffer)
        })
        .with("test/use", move |cuda| {
            let buffer = stored.lock().unwrap().expect("test/store ran first");
            assert!(matches!(cuda.download(&buffer), Err(KernelError::Kernel(_))));
            assert!(matches!(cuda.zero(&buffer), Err(KernelError::Kernel(_))));
            let out = cuda.alloc::<f64>(2)?;
            let launched = cuda.launch(&CODE, "scale", LAUNCH, &[&2_u64, &1.0, &buffer, &out]);
            assert!(matches!(launched, Err(KernelError::Kernel(_))));
            Ok(Buffer::default())
        });
    bench.run("test/store").unwrap();
    bench.run("test/use").unwrap();
}

fn dynamic_shared_memory_past_the_default() {
    let bench = Bench::new(1).with("test/shared", |cuda| {
        let out = cuda.alloc::<f64>(1)?;
        let launch = Launch { shared: 60_000, ..Launch::new(1, 64) };
        cuda.launch(&CODE, "shared_sum", launch, &[&7500_u32, &out])?;
        cuda.download(&out)
    });
    assert_eq!(bench.run("test/shared").unwrap(), [7499.0 * 7500.0 / 2.0]);
}

fn a_shape_that_the_device_cannot_run_is_an_error_and_no_more() {
    let bench = Bench::new(1)
        .with("test/shape", |cuda| {
            let x = cuda.zeroed::<f64>(1)?;
            cuda.launch(&CODE, "scale", Launch::new(1, 4096), &[&1_u64, &1.0, &x, &x]).map(|()| Buffer::default())
        })
        .with("test/good", |cuda| {
            let x = cuda.upload(&[21.0])?;
            let out = scale(cuda, 2.0, &x)?;
            cuda.download(&out)
        });
    assert!(matches!(bench.run("test/shape"), Err(KernelError::Device(_))));
    assert_eq!(bench.run("test/good").unwrap(), [42.0]);
    assert!(bench.backend.lost().is_none());
}

fn too_much_memory_is_rejected_before_it_is_allocated() {
    // A context alone takes some hundred MiB.
    let total = Bench::new(1).backend.device().memory;
    let bench = Bench::new(1)
        .with_memory("test/impossible", 1 << 50, |_| unreachable!("it was rejected"))
        .with_memory("test/full", total - (64 << 20), |_| unreachable!("it was rejected"))
        .with("test/inside", move |cuda| cuda.alloc::<u8>(1 << 50).map(|_| Buffer::default()))
        .with("test/overflow", move |cuda| cuda.alloc::<f64>(usize::MAX).map(|_| Buffer::default()))
        .with("test/little", |cuda| cuda.zeroed(1).and_then(|zero| cuda.download(&zero)));
    for (name, kind) in [
        ("test/impossible", ErrorKind::TooLarge),
        ("test/full", ErrorKind::TooLarge),
        ("test/inside", ErrorKind::TooLarge),
        ("test/overflow", ErrorKind::TooLarge),
    ] {
        let error = bench.run(name).unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
        let KernelError::OutOfMemory { need, free, total: reported } = error else { panic!("{name}: {error}") };
        assert!(need > free && free <= reported && reported > total / 8, "{name}: {need} {free} {reported}");
        assert_eq!(bench.run("test/little").unwrap(), [0.0], "after {name}");
    }
}

static BROKEN: Module = {
    // SAFETY: it does not compile.
    unsafe { Module::from_source("test/broken", "extern \"C\" __global__ void broken() { undeclared = 1; }") }
};

fn code_that_does_not_compile_says_why() {
    let bench = Bench::new(1)
        .with("test/broken", |cuda| cuda.launch(&BROKEN, "broken", LAUNCH, &[]).map(|()| Buffer::default()));
    for _ in 0..2 {
        let error = bench.run("test/broken").unwrap_err().to_string();
        assert!(error.contains("test/broken") && error.contains("undeclared"), "{error}");
    }
}

static NEWER: Module = {
    // SAFETY: it does not load.
    unsafe { Module::from_ptx("test/newer", ".version 99.0\n.target sm_75\n.address_size 64\n") }
};

fn ptx_that_does_not_load_says_why() {
    let bench =
        Bench::new(1).with("test/newer", |cuda| cuda.launch(&NEWER, "any", LAUNCH, &[]).map(|()| Buffer::default()));
    let error = bench.run("test/newer").unwrap_err().to_string();
    assert!(error.contains("test/newer") && error.contains("PTX"), "{error}");
    assert!(bench.backend.lost().is_none());
}

fn workers_do_not_share_buffers() {
    let seeds = Arc::new(std::sync::atomic::AtomicU64::new(1));
    let bench = Bench::new(8).with("test/mix", move |cuda| {
        let seed = seeds.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let x = numbers(1 + (seed as usize * 7919) % 400_000, seed);
        let there = cuda.upload(&x)?;
        let out = scale(cuda, seed as f64, &there)?;
        let out = cuda.download(&out)?;
        assert!(out.iter().zip(&x).all(|(out, x)| *out == seed as f64 * x), "seed {seed}");
        Ok(Buffer::default())
    });
    bench.runtime.block_on(async {
        let tasks: Vec<_> = (0..256).map(|_| tokio::spawn(run(bench.service(), request("test/mix")))).collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
    });
    bench.settle();
}
