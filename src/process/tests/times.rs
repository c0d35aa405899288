//! How long calls to a child process take. Run with
//! `cargo test --release --features full --lib process::tests::times -- --ignored --nocapture`.

use super::*;

/// The least and the median time of one of `calls` calls.
fn round_trip(caller: &mut Caller, sections: &[Bytes], calls: usize) -> String {
    let mut times: Vec<Duration> = (0..calls)
        .map(|_| {
            let start = Instant::now();
            call(caller, 0, &[], sections).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    format!("{:?} ({:?})", times[0], times[calls / 2])
}

#[test]
#[ignore = "prints times"]
fn times() {
    println!("round trip, least (median); each section both ways");
    for (name, spin) in [("spinning", Duration::from_millis(1)), ("futex", Duration::ZERO)] {
        let Spawned { child: _child, mut callers, control: _control } = children::spawn_with(1 << 30, spin);
        let kib = 1 << 10;
        let sizes =
            [(0, 20_000), (4, 20_000), (16, 10_000), (32, 10_000), (60, 5000), (72, 5000), (1024, 500), (16_384, 50)];
        for (len, calls) in sizes {
            let sections = if len == 0 { vec![] } else { vec![random_bytes(1, len * kib)] };
            println!("{name}, {len} KiB: {}", round_trip(&mut callers[0], &sections, calls));
        }
    }
    let mut kills: Vec<_> = (0..20).map(|_| children::kill_in_call()).collect();
    kills.sort();
    println!("from kill -9 to the error of the call: {:?} ({:?})", kills[0], kills[10]);
}
