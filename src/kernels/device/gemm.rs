//! Products of dense matrices in single precision. `include/gemm.cuh` has the algorithm.

use super::cancel::CancelSignal;
use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::service::{KernelError, LaunchContext};

/// The device code of the product, for the `modules` of kernels that use it.
pub static MODULE: Module = Module::embedded(device_code!("device/gemm"));

/// `GEMM_ROWS` of `gemm.cuh`, and the rows and columns that a thread computes.
const TILE_ROWS: u32 = 128;
const MICRO: u32 = 8;

/// A matrix on the device: `rows` rows of `columns` numbers, each of which begins `stride` numbers after the last.
#[derive(Debug, Clone, Copy)]
pub struct Matrix {
    /// The numbers.
    pub numbers: DeviceBuffer<f32>,
    /// The number of rows.
    pub rows: u32,
    /// The number of columns.
    pub columns: u32,
    /// The numbers from the start of a row to that of the next, at least `columns`.
    pub stride: u32,
}

impl Matrix {
    /// A matrix whose rows follow each other without gaps.
    ///
    /// # Panics
    /// If the length is not that of the rows.
    pub fn new(numbers: DeviceBuffer<f32>, rows: u32, columns: u32) -> Self {
        assert_eq!(numbers.len() as u64, u64::from(rows) * u64::from(columns), "{rows} rows of {columns}");
        Self { numbers, rows, columns, stride: columns }
    }

    /// A matrix at the start of an array, whose rows begin at multiples of four numbers.
    ///
    /// # Panics
    /// If the array is too short.
    pub fn padded(numbers: DeviceBuffer<f32>, rows: u32, columns: u32) -> Self {
        let stride = columns.next_multiple_of(4);
        Self { numbers: numbers.slice(..rows as usize * stride as usize), rows, columns, stride }
    }
}

/// What is done to each element of a product: a bias for each column is added, and the function of `activation.cuh` with
/// this number is applied.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue {
    /// The bias of each column.
    pub bias: Option<DeviceBuffer<f32>>,
    /// The number of the function; 0 for none.
    pub activation: u32,
    /// The slope of the leaky rectifier for negative numbers.
    pub negative_slope: f32,
}

impl Epilogue {
    /// The pointer to the bias, or a null pointer.
    pub fn bias_argument(&self) -> &dyn Arg {
        self.bias.as_ref().map_or(&0_u64, |bias| bias)
    }
}

/// Writes the product of `a` and `b` to `c`, with the epilogue.
///
/// # Errors
/// Those of the launch context.
///
/// # Panics
/// If the shapes do not fit, or rows of `b` do not follow each other without gaps.
pub fn multiply(
    a: &Matrix,
    b: &Matrix,
    c: &Matrix,
    epilogue: &Epilogue,
    cancel: &CancelSignal,
    cuda: &mut LaunchContext<'_>,
) -> Result<(), KernelError> {
    let shapes = [(a.rows, c.rows), (a.columns, b.rows), (b.columns, c.columns), (b.columns, b.stride)];
    assert!(shapes.iter().all(|(one, other)| one == other), "the shapes of a product: {shapes:?}");
    let (tile_columns, entry) = match b.columns {
        ..=32 => (32, "gemm_32"),
        33..=64 => (64, "gemm_64"),
        _ => (128, "gemm_128"),
    };
    let blocks = a.rows.div_ceil(TILE_ROWS) * b.columns.div_ceil(tile_columns);
    let threads = TILE_ROWS * tile_columns / (MICRO * MICRO);
    let args: [&dyn Arg; 13] = [
        &a.rows,
        &b.columns,
        &a.columns,
        &a.stride,
        &c.stride,
        &a.numbers,
        &b.numbers,
        epilogue.bias_argument(),
        &c.numbers,
        &epilogue.activation,
        &epilogue.negative_slope,
        &cancel.flag,
        &cancel.cancelled,
    ];
    cuda.launch(&MODULE, entry, Launch::new(blocks, threads), &args)
}
