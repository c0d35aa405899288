//! Option prices: against 40-digit references, and what must hold of any.

use proptest::prelude::*;
use tower_kernels::kernels::risk::black_scholes::{Contracts, Operand, OptionKind, Quotes, Real, quote, quote_into};
use tower_kernels::service::RunContext;

struct Golden {
    /// Spot, strike, rate, volatility, time, dividend yield.
    terms: [f64; 6],
    kind: OptionKind,
    /// Price, delta, gamma, vega, theta, rho.
    quotes: [f64; 6],
}

fn goldens() -> Vec<Golden> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/option_pricing.json");
    let rows: Vec<Vec<serde_json::Value>> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    rows.iter()
        .map(|row| Golden {
            terms: std::array::from_fn(|index| number(&row[index])),
            kind: if row[6] == "call" { OptionKind::Call } else { OptionKind::Put },
            quotes: std::array::from_fn(|index| number(&row[7 + index])),
        })
        .collect()
}

fn columns<T: Real + From<f32>>(goldens: &[Golden], narrow: impl Fn(f64) -> T) -> ([Vec<T>; 6], Vec<OptionKind>) {
    let column = |index: usize| goldens.iter().map(|golden| narrow(golden.terms[index])).collect();
    (std::array::from_fn(column), goldens.iter().map(|golden| golden.kind).collect())
}

fn run<T: Real>([spot, strike, rate, volatility, time, yields]: &[Vec<T>; 6], kind: &[OptionKind]) -> Quotes<T> {
    let terms = Contracts {
        spot: Operand::Each(spot),
        strike: Operand::Each(strike),
        rate: Operand::Each(rate),
        volatility: Operand::Each(volatility),
        time: Operand::Each(time),
        dividend_yield: Operand::Each(yields),
        kind: Operand::Each(kind),
    };
    quote(kind.len(), &terms, &RunContext::detached()).unwrap()
}

fn rows<T: Real>(quotes: &Quotes<T>) -> [&[T]; 6] {
    [&quotes.price, &quotes.delta, &quotes.gamma, &quotes.vega, &quotes.theta, &quotes.rho].map(|row| &row[..])
}

const NAMES: [&str; 6] = ["price", "delta", "gamma", "vega", "theta", "rho"];

/// What one unit of each output is on the scale of the contract: the size of the terms that cancel in it.
fn scales([spot, strike, rate, volatility, time, dividend_yield]: [f64; 6]) -> [f64; 6] {
    let (forward, owed) = (spot * (-dividend_yield * time).exp(), strike * (-rate * time).exp());
    let money = forward + owed;
    let root = time.sqrt();
    let decay = if root > 0.0 { volatility / root } else { 0.0 };
    let peak = if volatility * root > 0.0 { forward / (spot * spot * volatility * root) } else { 1.0 };
    let carry = rate.abs() + dividend_yield.abs();
    [money, forward / spot, peak, forward * root, money * (carry + decay), owed * time]
}

#[test]
fn double_precision_is_within_1e12_of_40_digits() {
    let goldens = goldens();
    assert!(goldens.len() > 3_000);
    let (terms, kinds) = columns(&goldens, |value| value);
    let quotes = run(&terms, &kinds);
    for (contract, golden) in goldens.iter().enumerate() {
        let scales = scales(golden.terms);
        for output in 0..6 {
            let (value, expected) = (rows(&quotes)[output][contract], golden.quotes[output]);
            let bound = 1e-12 * expected.abs().max(scales[output]);
            let Golden { terms, kind, .. } = golden;
            assert!(
                (value - expected).abs() <= bound,
                "{} of {kind:?} {terms:?} is {value:e}, not {expected:e}",
                NAMES[output]
            );
        }
    }
}

#[test]
fn single_precision_prices_are_within_1e5_of_the_strike() {
    // Inputs that single precision holds exactly, so that the reference is for the same contract.
    let goldens: Vec<Golden> = goldens().into_iter().take(1_800).collect();
    let (terms, kinds) = columns(&goldens, |value| value as f32);
    let quotes = run(&terms, &kinds);
    let exact = run(&terms.clone().map(|term| term.into_iter().map(f64::from).collect()), &kinds);
    for contract in 0..goldens.len() {
        let strike = f64::from(terms[1][contract]);
        let (price, expected) = (f64::from(quotes.price[contract]), exact.price[contract]);
        assert!((price - expected).abs() <= 1e-5 * strike, "{:?}: {price} {expected}", goldens[contract].terms);
        let scales = scales(goldens[contract].terms);
        for output in 1..6 {
            let (value, expected) = (f64::from(rows(&quotes)[output][contract]), rows(&exact)[output][contract]);
            assert!((value - expected).abs() <= 1e-4 * scales[output], "{} {value} {expected}", NAMES[output]);
        }
    }
}

#[test]
fn the_pool_the_blocks_and_scalars_give_the_same_bits() {
    let goldens = goldens();
    // Lengths on both sides of a block and of what goes to the pool.
    let (terms, kinds) = columns(&goldens, |value| value);
    let long: [Vec<f64>; 6] = terms.clone().map(|term| term.iter().cycle().take(20_011).copied().collect());
    let long_kinds: Vec<OptionKind> = kinds.iter().cycle().take(20_011).copied().collect();
    let all = run(&long, &long_kinds);
    for length in [1, 63, 64, 65, 300] {
        let some = run(&terms.clone().map(|term| term[..length].to_vec()), &kinds[..length]);
        for (some, all) in rows(&some).iter().zip(rows(&all)) {
            assert_eq!(some[..], all[..length]);
        }
    }
    let wrapped = 3 * kinds.len();
    assert_eq!(all.price[..kinds.len()], all.price[wrapped..wrapped + kinds.len()]);

    let [spot, strike, rate, volatility, time, dividend_yield] = goldens[7].terms;
    let terms = Contracts {
        spot: Operand::All(spot),
        strike: Operand::All(strike),
        rate: Operand::All(rate),
        volatility: Operand::All(volatility),
        time: Operand::All(time),
        dividend_yield: Operand::All(dividend_yield),
        kind: Operand::All(goldens[7].kind),
    };
    let one = quote(3, &terms, &RunContext::detached()).unwrap();
    assert_eq!(*one.price, vec![all.price[7]; 3]);
    // Buffers of another length, with other values in them; the longest are in huge pages.
    let mut again = all.clone();
    for length in [3, 20_011, 70_001, 5] {
        quote_into(&mut again, length, &terms, &RunContext::detached()).unwrap();
        assert_eq!(*again.theta, vec![one.theta[0]; length]);
    }
    let short = Contracts { strike: Operand::Each(&[1.0, 2.0]), ..terms };
    assert!(quote(3, &short, &RunContext::detached()).is_err());
}

proptest! {
    #[test]
    fn a_call_less_a_put_is_a_forward(
        spot in 1e-3..1e4_f64,
        strike in 1e-3..1e4_f64,
        rate in -0.2..0.5_f64,
        volatility in prop_oneof![Just(0.0), 1e-4..5.0_f64],
        time in prop_oneof![Just(0.0), 1e-4..30.0_f64],
        dividend_yield in -0.1..0.3_f64,
    ) {
        let twice = |value: f64| vec![value; 2];
        let terms = [spot, strike, rate, volatility, time, dividend_yield].map(twice);
        let quotes = run(&terms, &[OptionKind::Call, OptionKind::Put]);
        let (forward, owed) = (spot * (-dividend_yield * time).exp(), strike * (-rate * time).exp());
        let near = |value: f64, expected: f64, scale: f64| (value - expected).abs() <= 1e-13 * scale;
        let money = forward + owed;
        let difference = |row: &[f64]| row[0] - row[1];
        prop_assert!(near(difference(&quotes.price), forward - owed, money));
        prop_assert!(near(difference(&quotes.delta), forward / spot, forward / spot));
        prop_assert!(near(difference(&quotes.rho), time * owed, time * owed));
        prop_assert!(near(difference(&quotes.theta), dividend_yield * forward - rate * owed, money));
        prop_assert_eq!(quotes.gamma[0], quotes.gamma[1]);
        prop_assert_eq!(quotes.vega[0], quotes.vega[1]);
        // No price is under what exercising the forward is worth, nor over what may be had.
        prop_assert!(quotes.price[0] >= (forward - owed).max(0.0) - 1e-13 * money && quotes.price[0] <= forward * (1.0 + 1e-13));
        prop_assert!(quotes.price[1] >= (owed - forward).max(0.0) - 1e-13 * money && quotes.price[1] <= owed * (1.0 + 1e-13));
    }

    #[test]
    fn sensitivities_are_the_slopes_of_the_price(
        moneyness in -1.0..1.0_f64,
        rate in -0.05..0.1_f64,
        volatility in 0.1..0.8_f64,
        time in 0.1..3.0_f64,
        dividend_yield in 0.0..0.06_f64,
        call in any::<bool>(),
    ) {
        let kind = if call { OptionKind::Call } else { OptionKind::Put };
        let point = [100.0 * (moneyness * volatility * time.sqrt()).exp(), 100.0, rate, volatility, time, dividend_yield];
        let at = |index: usize, step: f64| {
            let mut terms = point;
            terms[index] += step;
            run(&terms.map(|term| vec![term]), &[kind])
        };
        let quotes = run(&point.map(|term| vec![term]), &[kind]);
        for (index, step, slope) in [(0, 1e-3, quotes.delta[0]), (2, 1e-5, quotes.rho[0]), (3, 1e-5, quotes.vega[0]), (4, 1e-5, -quotes.theta[0])] {
            let measured = (at(index, step).price[0] - at(index, -step).price[0]) / (2.0 * step);
            prop_assert!((measured - slope).abs() < 1e-5 * (1.0 + slope.abs()), "{index}: {measured} {slope}");
        }
        let bend = (at(0, 1e-3).delta[0] - at(0, -1e-3).delta[0]) / 2e-3;
        prop_assert!((bend - quotes.gamma[0]).abs() < 1e-6, "{bend} {}", quotes.gamma[0]);
    }
}
