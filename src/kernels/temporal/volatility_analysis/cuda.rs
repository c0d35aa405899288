//! The host side of the CUDA code.

use super::fit::Fit;
use super::{Mean, Status};
use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::device::cancel::CancelSignal;
use crate::service::{Element, FloatArray, InvalidInput, KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("temporal/volatility-analysis"));

/// Threads of a block that fits series: few, so that the multiprocessors finish together.
const FIT_THREADS: u32 = 64;
/// Rows of the transposition's grid at most: more tiles are taken in turn.
const MOST_GRID_ROWS: usize = 32_768;

/// Fits the series of all requests, each of `len` returns, in the order of the requests.
///
/// # Errors
/// Those of the launch context; more series than a `u32` counts.
pub(super) fn fit_all(
    returns: &[&FloatArray],
    len: usize,
    mean: Mean,
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<Fit>, KernelError> {
    let singles: Vec<&[f32]> = returns
        .iter()
        .filter_map(|array| if let FloatArray::F32(array) = array { Some(&array[..]) } else { None })
        .collect();
    let doubles: Vec<&[f64]> = returns
        .iter()
        .filter_map(|array| if let FloatArray::F64(array) = array { Some(&array[..]) } else { None })
        .collect();
    // Requests share a run only where their precision is the same.
    if singles.is_empty() {
        let returns = cuda.input_parts(doubles)?;
        fit_on_device(&returns, ["volatility_scale_f64", "volatility_transpose_f64"], len, mean, cuda)
    } else {
        let returns = cuda.input_parts(singles)?;
        fit_on_device(&returns, ["volatility_scale_f32", "volatility_transpose_f32"], len, mean, cuda)
    }
}

fn fit_on_device<T: Element>(
    returns: &DeviceBuffer<T>,
    [scale, transpose]: [&'static str; 2],
    len: usize,
    mean: Mean,
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<Fit>, KernelError> {
    let series = returns.len() / len;
    let Ok(num_series) = u32::try_from(series) else {
        return Err(InvalidInput::new("num_series", format!("{series} series are too many for CUDA")).into());
    };
    let length = len as u64;
    let has_mean = u32::from(mean == Mean::Constant);
    let scales = cuda.alloc::<f64>(3 * series)?;
    let normalized = cuda.alloc::<f64>(returns.len())?;
    let fits = cuda.alloc::<f64>(7 * series)?;
    let counts = cuda.alloc::<u32>(2 * series)?;

    // A warp for each series.
    let launch = Launch::new(num_series.div_ceil(8), 256);
    let args: [&dyn Arg; 5] = [&num_series, &length, &has_mean, returns, &scales];
    cuda.launch(&MODULE, scale, launch, &args)?;
    let rows = len.div_ceil(32).min(MOST_GRID_ROWS) as u32;
    let launch = Launch { grid: [num_series.div_ceil(32), rows, 1], ..Launch::new(1, 256) };
    let args: [&dyn Arg; 5] = [&num_series, &length, returns, &scales, &normalized];
    cuda.launch(&MODULE, transpose, launch, &args)?;
    let CancelSignal { flag, cancelled } = CancelSignal::new(cuda)?;
    let fit = match mean {
        Mean::Constant => "volatility_fit_constant_mean",
        Mean::Zero => "volatility_fit_zero_mean",
    };
    let launch = Launch::new(num_series.div_ceil(FIT_THREADS), FIT_THREADS);
    let args: [&dyn Arg; 8] = [&num_series, &length, &normalized, &scales, &fits, &counts, &flag, &cancelled];
    cuda.launch(&MODULE, fit, launch, &args)?;

    let fits = cuda.download(&fits)?;
    let counts = cuda.download(&counts)?;
    let fit = |index: usize| {
        let row = |row: usize| fits[row * series + index];
        Fit {
            mu: row(0),
            omega: row(1),
            alpha: row(2),
            beta: row(3),
            log_likelihood: row(4),
            last_variance: row(5),
            next_variance: row(6),
            evaluations: counts[index],
            status: status(counts[series + index]),
        }
    };
    Ok((0..series).map(fit).collect())
}

/// The status of this code on the device.
fn status(code: u32) -> Status {
    let all = [Status::Converged, Status::NotConverged, Status::Constant, Status::NotFinite];
    all.into_iter().find(|status| u32::from(*status as u8) == code).unwrap_or(Status::NotConverged)
}
