//! The host side on CUDA. `option_pricing.cu` describes its entries.

use crate::cuda::{Arg, DeviceBuffer, Launch, Module, built_in};
use crate::kernels::risk::black_scholes::{Contracts, Operand, OptionKind, Quotes};
use crate::service::{Element, KernelError, LaunchContext};

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

/// One operand of all inputs: each has an array, or all have the same value.
fn upload<'a, T: Element>(
    operands: impl Iterator<Item = Operand<'a, T>> + Clone,
    cuda: &mut LaunchContext<'_>,
) -> Result<OnDevice<T>, KernelError> {
    let arrays = operands.clone().map(|operand| match operand {
        Operand::Each(values) => Some(values),
        Operand::All(_) => None,
    });
    match (arrays.collect::<Option<Vec<_>>>(), operands.into_iter().next()) {
        (None, Some(Operand::All(value))) => Ok(OnDevice(cuda.upload(&[value])?, 0)),
        (Some(arrays), _) => Ok(OnDevice(cuda.upload_parts(arrays)?, 1)),
        _ => Err(KernelError::kernel("inputs of a run whose operands are not alike")),
    }
}

/// As `black_scholes::quote`, for several inputs of so many contracts, whose operands' lengths have been checked.
///
/// # Errors
/// What the lane gives.
pub(super) fn quote<T: Priced>(
    lengths: &[usize],
    inputs: &[Contracts<'_, T>],
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<Quotes<T>>, KernelError> {
    let contracts: usize = lengths.iter().sum();
    let spot = upload(inputs.iter().map(|terms| terms.spot), cuda)?;
    let strike = upload(inputs.iter().map(|terms| terms.strike), cuda)?;
    let rate = upload(inputs.iter().map(|terms| terms.rate), cuda)?;
    let volatility = upload(inputs.iter().map(|terms| terms.volatility), cuda)?;
    let time = upload(inputs.iter().map(|terms| terms.time), cuda)?;
    let dividend_yield = upload(inputs.iter().map(|terms| terms.dividend_yield), cuda)?;
    let kind = kinds(inputs.iter().map(|terms| terms.kind), cuda)?;
    let quantities = [(); 6].map(|()| cuda.alloc::<T>(contracts));
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
    cuda.launch(&MODULE, T::ENTRY, Launch::new(blocks, 256), &args)?;

    let parts = cuda.download_all_parts(quantities.each_ref(), lengths)?;
    let [mut price, mut delta, mut gamma, mut vega, mut theta, mut rho] = parts.map(Vec::into_iter);
    let quotes = std::iter::from_fn(|| {
        Some(Quotes {
            price: price.next()?,
            delta: delta.next()?,
            gamma: gamma.next()?,
            vega: vega.next()?,
            theta: theta.next()?,
            rho: rho.next()?,
        })
    });
    Ok(quotes.collect())
}

/// As [`upload`], as the numbers that the device code has for them.
fn kinds<'a>(
    operands: impl Iterator<Item = Operand<'a, OptionKind>> + Clone,
    cuda: &mut LaunchContext<'_>,
) -> Result<OnDevice<u8>, KernelError> {
    let is_put = |kind: &OptionKind| u8::from(*kind == OptionKind::Put);
    match operands.clone().next() {
        Some(Operand::All(kind)) => Ok(OnDevice(cuda.upload(&[is_put(&kind)])?, 0)),
        _ => {
            let each = operands.flat_map(|operand| match operand {
                Operand::Each(kinds) => kinds.iter().map(is_put),
                Operand::All(_) => [].iter().map(is_put),
            });
            Ok(OnDevice(cuda.upload(&each.collect::<Vec<u8>>())?, 1))
        }
    }
}
