//! The host side of the CUDA code.

use super::Losses;
use super::book::Book;
use super::select::Level;
use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::device::cancel::CancelSignal;
use crate::service::{KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("risk/monte-carlo-var"));

const THREADS: u32 = 256;
/// Scenarios times factors of one launch: a few milliseconds.
const NUMBERS_PER_LAUNCH: u64 = 1 << 31;
/// Blocks of the passes over the losses at most. Sums are those of blocks, so this must not depend on the device.
const MOST_BLOCKS: u32 = 2_048;

/// The losses of all scenarios on a device.
#[derive(Debug)]
pub(super) struct DeviceLosses<'c, 'l> {
    losses: DeviceBuffer<f32>,
    cuda: &'c mut LaunchContext<'l>,
}

impl<'c, 'l> DeviceLosses<'c, 'l> {
    /// Simulates scenarios 0 to `count`.
    pub(super) fn simulate(
        book: &Book,
        seed: u64,
        count: u64,
        cuda: &'c mut LaunchContext<'l>,
    ) -> Result<Self, KernelError> {
        // Four factors at a time: their linear and then their square coefficients, of the losses.
        let coefficient = |values: &[f64], index: usize| values.get(index).map_or(0.0, |value| -value as f32);
        let num_groups = book.linear.len().div_ceil(4);
        let groups: Vec<f32> = (0..num_groups)
            .flat_map(|group| [&book.linear, &book.square].map(|values| (group, values)))
            .flat_map(|(group, values)| (4 * group..4 * group + 4).map(|index| coefficient(values, index)))
            .collect();
        let groups = cuda.upload(&groups)?;
        let losses = cuda.alloc::<f32>(count as usize)?;
        let CancelSignal { flag, cancelled } = CancelSignal::new(cuda)?;
        let (num_groups, constant) = (num_groups as u32, -book.constant as f32);
        let scenarios = NUMBERS_PER_LAUNCH / (4 * u64::from(num_groups));
        for first in (0..count).step_by(scenarios as usize) {
            let part = scenarios.min(count - first);
            let target = losses.slice(first as usize..(first + part) as usize);
            let blocks = (16 * cuda.device().multiprocessors).min(part.div_ceil(THREADS.into()) as u32);
            let launch = Launch { shared: 32 * num_groups, ..Launch::new(blocks, THREADS) };
            let args: [&dyn Arg; 9] =
                [&first, &part, &seed, &num_groups, &groups, &constant, &target, &flag, &cancelled];
            cuda.launch(&MODULE, "var_simulate", launch, &args)?;
        }
        Ok(Self { losses, cuda })
    }

    /// The shape of a pass over the losses.
    fn pass(&self) -> Launch {
        Launch::elements(self.losses.len(), MOST_BLOCKS)
    }
}

impl Losses for DeviceLosses<'_, '_> {
    fn count(&mut self, level: &Level) -> Result<Vec<u32>, KernelError> {
        let (len, launch) = (self.losses.len() as u64, self.pass());
        let counts = self.cuda.zeroed::<u32>(level.bins())?;
        if level.bits == 12 {
            self.cuda.launch(&MODULE, "var_count_first", launch, &[&len, &self.losses, &counts])?;
        } else {
            let num_prefixes = level.prefixes.len() as u32;
            let prefixes = self.cuda.upload(&level.prefixes)?;
            let args: [&dyn Arg; 6] = [&len, &self.losses, &level.shift, &num_prefixes, &prefixes, &counts];
            self.cuda.launch(&MODULE, "var_count", launch, &args)?;
        }
        Ok(self.cuda.download(&counts)?.to_vec())
    }

    fn sums(&mut self, origin: f64, only_above: bool) -> Result<[f64; 2], KernelError> {
        let (len, launch) = (self.losses.len() as u64, self.pass());
        let only_above = u32::from(only_above);
        let partials = self.cuda.alloc::<f64>(2 * launch.grid[0] as usize)?;
        let args: [&dyn Arg; 5] = [&len, &self.losses, &origin, &only_above, &partials];
        self.cuda.launch(&MODULE, "var_sums", launch, &args)?;
        let partials = self.cuda.download(&partials)?;
        Ok(partials.as_chunks::<2>().0.iter().fold([0.0, 0.0], |[sum, squares], [a, b]| [sum + a, squares + b]))
    }
}
