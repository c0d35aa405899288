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
        for (what, len, calls) in
            [("empty", 0, 20_000), ("4 KiB", 4 << 10, 20_000), ("64 KiB", 60 << 10, 5000), ("16 MiB", 16 << 20, 50)]
        {
            let sections = if len == 0 { vec![] } else { vec![random_bytes(1, len)] };
            println!("{name}, {what}: {}", round_trip(&mut callers[0], &sections, calls));
        }
    }
    let mut kills: Vec<_> = (0..20).map(|_| children::kill_in_call()).collect();
    kills.sort();
    println!("from kill -9 to the error of the call: {:?} ({:?})", kills[0], kills[10]);
}
