//! Compares two runs.

use std::fmt::Write;

use super::report::{Run, Window};
use super::units::time;

/// With fewer windows the noise of a run cannot be estimated.
const MIN_WINDOWS: usize = 8;

/// The quantile of the normal distribution for a two-sided test at 1 %.
const ONE_PER_CENT: f64 = 2.576;

/// Whether a figure differs between two runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Differs,
    WithinNoise,
    TooFew,
}

/// Formats the comparison, preceded by the differences in how the runs were made.
pub(super) fn table(a: &Run, b: &Run) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(format!("A  {}, {}: {}", a.date, a.target, a.load()));
    line(format!("B  {}, {}: {}", b.date, b.target, b.load()));
    for (what, a, b) in differences(a, b) {
        line(format!("!  {what}: {a} in A, {b} in B"));
    }
    line(String::new());
    line(row(["", "A", "B", "B / A", "beyond noise"]));
    let rate = |run: &Run| format!("{:.1}", run.requests_per_s);
    let of_windows = |figure: fn(&Window) -> u64| differs(&figures(a, figure), &figures(b, figure));
    let shown = [rate(a), rate(b), ratio(a.requests_per_s, b.requests_per_s)];
    line(row(["requests/s", &shown[0], &shown[1], &shown[2], verdict(of_windows(|window| window.requests))]));
    let (x, y) = (&a.latency_ns, &b.latency_ns);
    for (name, x, y, figure) in [
        ("mean", x.mean, y.mean, None),
        ("p50", x.p50 as f64, y.p50 as f64, Some((|window| window.p50) as fn(&Window) -> u64)),
        ("p90", x.p90 as f64, y.p90 as f64, Some(|window| window.p90)),
        ("p99", x.p99 as f64, y.p99 as f64, Some(|window| window.p99)),
        ("p99.9", x.p999 as f64, y.p999 as f64, None),
        ("max", x.max as f64, y.max as f64, None),
    ] {
        let noise = figure.map_or("", |figure| verdict(of_windows(figure)));
        line(row([name, &time(x), &time(y), &ratio(x, y), noise]));
    }
    let failed = |run: &Run| run.errors.values().map(|failed| failed.count).sum::<u64>();
    line(row(["failed", &failed(a).to_string(), &failed(b).to_string(), "", ""]));
    let cpu = |run: &Run| run.cpu_us_per_request.map_or_else(String::new, |cpu| time(cpu * 1e3));
    line(row(["cpu/request", &cpu(a), &cpu(b), "", ""]));
    let _ = write!(
        text,
        "\n\"yes\": a two-sided Mann-Whitney test on the figures of each {} s finds a difference at 1 %. It covers the noise\n\
         within each run, not changes between them such as other load on the machine: repeat both in turns.\n",
        a.window_s
    );
    text
}

fn row(cells: [&str; 5]) -> String {
    let [name, a, b, ratio, noise] = cells;
    format!("{name:<11}{a:>12}{b:>12}{ratio:>8}  {noise}")
}

fn ratio(a: f64, b: f64) -> String {
    if a > 0.0 { format!("{:.2}", b / a) } else { "-".to_owned() }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Differs => "yes",
        Verdict::WithinNoise => "no",
        Verdict::TooFew => "run too short",
    }
}

/// The differences between two runs other than target and load.
fn differences(a: &Run, b: &Run) -> Vec<(&'static str, String, String)> {
    let of = |run: &Run| {
        [
            ("kernel", run.kernel.clone()),
            ("input", format!("{} bytes", run.input_bytes)),
            ("payload", format!("{:?}", run.payload).to_lowercase()),
            ("machine", run.machine.clone()),
            ("version", run.version.clone()),
            ("ended by Ctrl-C", run.interrupted.to_string()),
        ]
    };
    let pairs = of(a).into_iter().zip(of(b));
    pairs.filter(|((_, a), (_, b))| a != b).map(|((what, a), (_, b))| (what, a, b)).collect()
}

fn figures(run: &Run, figure: fn(&Window) -> u64) -> Vec<u64> {
    run.windows.iter().map(figure).collect()
}

/// The Mann-Whitney U test (1947), by the normal approximation with the variance corrected for ties. It makes no assumption
/// about the distribution.
fn differs(a: &[u64], b: &[u64]) -> Verdict {
    if a.len().min(b.len()) < MIN_WINDOWS {
        return Verdict::TooFew;
    }
    let pairs = a.iter().flat_map(|x| b.iter().map(move |y| x.cmp(y)));
    let u: f64 = pairs.map(|order| f64::from(order as i8) / 2.0 + 0.5).sum();
    let (n, m) = (a.len() as f64, b.len() as f64);
    let mut all: Vec<u64> = a.iter().chain(b).copied().collect();
    all.sort_unstable();
    let ties: f64 = all
        .chunk_by(|x, y| x == y)
        .map(|same| {
            let same = same.len() as f64;
            same * (same * same - 1.0)
        })
        .sum();
    let total = n + m;
    let variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    // If all figures are equal the variance is 0 and they do not differ.
    let beyond = (u - n * m / 2.0).abs() - 0.5 > ONE_PER_CENT * variance.max(0.0).sqrt();
    if beyond && variance > 0.0 { Verdict::Differs } else { Verdict::WithinNoise }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As even as random numbers are, and the same each time.
    fn noise(count: usize, seed: u64, around: u64) -> Vec<u64> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            around + (state >> 33) % 100
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn two_samples_of_the_same_seldom_differ_and_shifted_ones_do() {
        let runs = 1000;
        let false_alarms = (0..runs)
            .filter(|&seed| differs(&noise(20, seed, 500), &noise(20, seed + 10_000, 500)) == Verdict::Differs)
            .count();
        assert!((1..30).contains(&false_alarms), "{false_alarms} of {runs} at 1 %");
        let seen = (0..runs)
            .filter(|&seed| differs(&noise(20, seed, 500), &noise(20, seed + 10_000, 550)) == Verdict::Differs)
            .count();
        assert!(seen > 900, "{seen} of {runs}");
    }

    #[test]
    fn one_wild_window_is_noise_and_a_short_run_says_nothing() {
        let (a, mut b) = (noise(20, 1, 500), noise(20, 2, 500));
        b[7] = 1_000_000;
        assert_eq!(differs(&a, &b), Verdict::WithinNoise);
        assert_eq!(differs(&a[..MIN_WINDOWS - 1], &[1; 20]), Verdict::TooFew);
        assert_eq!(differs(&[5; 20], &[5; 20]), Verdict::WithinNoise);
        assert_eq!(differs(&[5; 20], &[6; 20]), Verdict::Differs);
    }

    #[test]
    fn the_test_agrees_with_a_published_example() {
        // Ranks far apart but few: U = 0 of 8 and 8 is beyond 1 % (the exact limit is 7), U = 12 is not.
        let a: Vec<u64> = (0..8).collect();
        let apart: Vec<u64> = (100..108).collect();
        assert_eq!(differs(&a, &apart), Verdict::Differs);
        let mixed: Vec<u64> = [2, 3, 100, 101, 102, 103, 104, 105].to_vec();
        assert_eq!(differs(&a, &mixed), Verdict::WithinNoise);
    }
}
