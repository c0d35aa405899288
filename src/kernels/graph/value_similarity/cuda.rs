//! The search of all pairs on CUDA. `value_similarity.cu` describes the algorithm.

use super::all_pairs::Wanted;
use super::rows::Rows;
use super::selection::{Candidate, Selection};
use super::{Metric, ValueSimilarityInput};
use crate::cuda::{Arg, Launch, Module, device_code};
use crate::kernels::device::cancel::CancelSignal;
use crate::service::{KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("graph/value-similarity"));

/// Rows of a tile and threads of a block, as in `value_similarity.cu`.
const TILE: u32 = 64;
const THREADS: u32 = 256;
/// The most rows of a band. A launch compares two bands, and there is room for all their pairs.
const MAX_BAND: u32 = 32 * TILE;
/// Rows of the first band. All its pairs are stored, and then few of those that follow.
const FIRST_BAND: u32 = 4 * TILE;
/// Bins times pairs of a launch: some milliseconds.
const MAX_TERMS: u64 = 1 << 29;

/// The rows of the largest band for rows of this width, a multiple of [`TILE`].
fn max_band(width: u64) -> u32 {
    let tiles = (MAX_TERMS / width.max(1)).isqrt() / u64::from(TILE);
    TILE * (tiles.min(u64::from(MAX_BAND / TILE)) as u32).max(1)
}

/// Bytes that a run holds on the device.
pub(super) fn device_memory(input: &ValueSimilarityInput) -> u64 {
    let values = input.distributions.array_len().unwrap_or(0) as u64;
    let band = u64::from(max_band(input.num_bins() as u64).min(input.num_distributions));
    values.saturating_mul(8).saturating_add(band * band * 16).saturating_add(1 << 10)
}

/// Returns where bands of rows start, and at the end the number of rows. The first bands double, so that a good bound is
/// found from few pairs.
fn bands(rows: u32, max_band: u32) -> Vec<u32> {
    let mut starts = vec![0];
    let mut end = 0;
    while end < rows {
        let band = end.max(FIRST_BAND).min(max_band);
        end = end.saturating_add(band).min(rows);
        starts.push(end);
    }
    starts
}

/// Compares all pairs of rows.
///
/// # Errors
/// Those of the launch context.
pub(super) fn search(
    rows: &Rows,
    metric: Metric,
    wanted: Wanted,
    cuda: &mut LaunchContext<'_>,
) -> Result<Selection, KernelError> {
    let (count, width) = (rows.count() as u32, rows.width() as u64);
    let max_band = max_band(width);
    let on_device = cuda.upload(rows.values())?;
    let room = (max_band.min(count) as usize).pow(2);
    let (distances, pairs) = (cuda.alloc::<f64>(room)?, cuda.alloc::<u32>(2 * room)?);
    // A `Found` of the device code.
    let found = cuda.alloc::<u64>(2)?;
    let CancelSignal { flag, cancelled } = CancelSignal::new(cuda)?;
    let entry = match metric {
        Metric::Jsd => "similarity_jsd",
        Metric::Wasserstein => "similarity_wasserstein",
    };
    let starts = bands(count, max_band);
    let mut selection = Selection::new(wanted.max_pairs);
    let mut bound = Candidate { distance: f64::INFINITY, nodes: [0; 2] };
    for band_b in starts.windows(2) {
        for band_a in starts.windows(2).take_while(|band| band[0] <= band_b[0]) {
            cuda.zero(&found)?;
            let Candidate { distance: bound_distance, nodes: [bound_a, bound_b] } = bound;
            let args: [&dyn Arg; 14] = [
                &count,
                &width,
                &on_device,
                &band_a[0],
                &band_b[0],
                &wanted.min_similarity,
                &bound_distance,
                &bound_a,
                &bound_b,
                &found,
                &distances,
                &pairs,
                &flag,
                &cancelled,
            ];
            let [tiles_a, tiles_b] = [band_a, band_b].map(|band| (band[1] - band[0]).div_ceil(TILE));
            cuda.launch(&MODULE, entry, Launch { grid: [tiles_b, tiles_a, 1], ..Launch::new(1, THREADS) }, &args)?;
            let words = cuda.download(&found)?;
            selection.matching_pairs += words[0];
            let stored = words[1] as u32 as usize;
            if stored > 0 {
                let distances = cuda.download(&distances.slice(..stored))?;
                let nodes = cuda.download(&pairs.slice(..2 * stored))?;
                let (nodes, _) = nodes.as_chunks::<2>();
                let candidates = distances.iter().zip(nodes);
                let candidates = candidates.map(|(&distance, &nodes)| Candidate { distance, nodes });
                bound = selection.add_counted(candidates).unwrap_or(bound);
            }
        }
    }
    Ok(selection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_cover_all_rows_and_fit_the_terms_of_a_launch() {
        for (rows, width) in [(1, 1), (256, 64), (257, 64), (100_000, 64), (5_000, 100_000), (300, 1 << 40)] {
            let band = max_band(width);
            assert!(band == TILE || u64::from(band).pow(2) * width <= MAX_TERMS, "{width}");
            let starts = bands(rows, band);
            assert_eq!((starts[0], *starts.last().unwrap()), (0, rows));
            let is_band = |band: &[u32]| band[0] < band[1] && band[1] - band[0] <= max_band(width);
            assert!(starts.windows(2).all(is_band), "{starts:?}");
        }
    }
}
