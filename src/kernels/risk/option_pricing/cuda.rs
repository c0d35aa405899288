//! The host side on CUDA. `option_pricing.cu` describes its entries.

use crate::backends::cuda::{Arg, DeviceBuffer, Lane, Launch, Module, built_in};
use crate::kernels::risk::black_scholes::{Contracts, Operand, OptionKind, Quotes};
use crate::service::{Element, KernelError};

static MODULE: Module = built_in!("risk/option-pricing", "../option_pricing");

/// A floating-point type that there is an entry for.
pub(super) trait Priced: Element {
    const ENTRY: &'static str;
    /// Contracts that a thread prices at a time, in accesses of 16 bytes.
    const WIDTH: u64 = 16 / size_of::<Self>() as u64;
}

impl Priced for f32 {
    const ENTRY: &'static str = "black_scholes_f32";
}

impl Priced for f64 {
    const ENTRY: &'static str = "black_scholes_f64";
}

/// An operand on the device: its array, and the step from one contract's value to the next.
struct OnDevice<T>(DeviceBuffer<T>, u32);

fn upload<T: Element>(operand: &Operand<'_, T>, lane: &mut Lane<'_>) -> Result<OnDevice<T>, KernelError> {
    match operand {
        Operand::All(value) => Ok(OnDevice(lane.upload(&[*value])?, 0)),
        Operand::Each(values) => Ok(OnDevice(lane.upload(values)?, 1)),
    }
}

/// As `black_scholes::quote`, whose operands' lengths have been checked.
///
/// # Errors
/// What the lane gives.
pub(super) fn quote<T: Priced>(
    contracts: usize,
    terms: &Contracts<'_, T>,
    lane: &mut Lane<'_>,
) -> Result<Quotes<T>, KernelError> {
    let spot = upload(&terms.spot, lane)?;
    let strike = upload(&terms.strike, lane)?;
    let rate = upload(&terms.rate, lane)?;
    let volatility = upload(&terms.volatility, lane)?;
    let time = upload(&terms.time, lane)?;
    let dividend_yield = upload(&terms.dividend_yield, lane)?;
    let is_put = |kind: &OptionKind| u8::from(*kind == OptionKind::Put);
    let kind = match &terms.kind {
        Operand::All(kind) => OnDevice(lane.upload(&[is_put(kind)])?, 0),
        Operand::Each(kinds) => OnDevice(lane.upload(&kinds.iter().map(is_put).collect::<Vec<u8>>())?, 1),
    };
    let quantities = [(); 6].map(|()| lane.alloc::<T>(contracts));
    let [price, delta, gamma, vega, theta, rho] = quantities;
    let quantities = [price?, delta?, gamma?, vega?, theta?, rho?];

    let count = contracts as u64;
    let mut args: Vec<&dyn Arg> = vec![&count];
    for OnDevice(array, stride) in [&spot, &strike, &rate, &volatility, &time, &dividend_yield] {
        args.extend([array as &dyn Arg, stride]);
    }
    args.extend([&kind.0 as &dyn Arg, &kind.1]);
    args.extend(quantities.iter().map(|array| array as &dyn Arg));
    let blocks = count.div_ceil(256 * T::WIDTH).min(1 << 20) as u32;
    lane.launch(&MODULE, T::ENTRY, Launch::new(blocks, 256), &args)?;

    let [price, delta, gamma, vega, theta, rho] = lane.download_all(quantities.each_ref())?;
    Ok(Quotes { price, delta, gamma, vega, theta, rho })
}
