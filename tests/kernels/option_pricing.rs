//! Option prices: against 40-digit references, and what must hold of any.

use proptest::prelude::*;
use tower_kernels::kernels::authoring::{Float, Operand};
use tower_kernels::kernels::risk::option_pricing::{
    OptionKind, OptionPricing, OptionPricingInput, OptionPricingOutput,
};
use tower_kernels::service::{FloatArray, Kernel, RunContext};

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

fn columns<T: Float>(goldens: &[Golden], narrow: impl Fn(f64) -> T) -> ([Vec<T>; 6], Vec<OptionKind>) {
    let column = |index: usize| goldens.iter().map(|golden| narrow(golden.terms[index])).collect();
    (std::array::from_fn(column), goldens.iter().map(|golden| golden.kind).collect())
}

/// The outputs, with a value for each contract.
struct Quotes<T> {
    price: Vec<T>,
    delta: Vec<T>,
    gamma: Vec<T>,
    vega: Vec<T>,
    theta: Vec<T>,
    rho: Vec<T>,
}

fn price<T: Float>(input: &OptionPricingInput) -> Quotes<T>
where
    FloatArray: From<Vec<T>>,
{
    let output = OptionPricing.run_cpu(input, &RunContext::detached()).unwrap();
    let values = |array: FloatArray| -> Vec<T> {
        let expected = FloatArray::from(Vec::<T>::new());
        assert_eq!(std::mem::discriminant(&array), std::mem::discriminant(&expected), "the precision of the input");
        match T::convert(&array).operand() {
            Operand::Each(values) => values.to_vec(),
            Operand::One(value) => panic!("{value:?} is not an array"),
        }
    };
    let OptionPricingOutput { price, delta, gamma, vega, theta, rho } = output;
    let [price, delta, gamma, vega, theta, rho] = [price, delta, gamma, vega, theta, rho].map(values);
    Quotes { price, delta, gamma, vega, theta, rho }
}

fn input<T>(terms: &[Vec<T>; 6], kind: &[OptionKind]) -> OptionPricingInput
where
    T: Float,
    FloatArray: From<Vec<T>>,
{
    let [spot, strike, rate, volatility, time, dividend_yield] = terms.clone().map(FloatArray::from);
    let kind = kind.to_vec().into();
    OptionPricingInput { spot, strike, rate, volatility, time, dividend_yield, kind, precision: None }
}

fn run<T>(terms: &[Vec<T>; 6], kind: &[OptionKind]) -> Quotes<T>
where
    T: Float,
    FloatArray: From<Vec<T>>,
{
    price(&input(terms, kind))
}

fn rows<T>(quotes: &Quotes<T>) -> [&[T]; 6] {
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

    // One number for all contracts, of which there are as many as kinds; the largest outputs are in huge pages.
    let [spot, strike, rate, volatility, time, dividend_yield] = goldens[7].terms.map(FloatArray::from);
    let broadcast = OptionPricingInput {
        spot,
        strike,
        rate,
        volatility,
        time,
        dividend_yield,
        kind: vec![goldens[7].kind; 3].into(),
        precision: None,
    };
    assert_eq!(price::<f64>(&broadcast).price, vec![all.price[7]; 3]);
    for length in [3, 20_011, 70_001, 5] {
        let input = OptionPricingInput { kind: vec![goldens[7].kind; length].into(), ..broadcast.clone() };
        assert_eq!(price::<f64>(&input).theta, vec![all.theta[7]; length]);
    }
    let short = OptionPricingInput { strike: vec![1.0, 2.0].into(), ..broadcast };
    assert!(OptionPricing.validate(&short).is_err());
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
