//! Elementwise kernels in single or double precision: what the macro `elementwise_floats!` calls.

use super::cases::{Expected, Random};
use super::choice::choice_facts;
use super::column::Operand;
#[cfg(feature = "cuda")]
use super::device::{Entry, map_rows_cuda};
use super::elementwise::{BlockFunction, Granularity, map_rows};
use super::field::{FieldFacts, cost, shares_run};
use super::floats::{Converted, Float, Precision};
#[cfg(feature = "cuda")]
use crate::cuda::Module;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{BatchKey, Buffer, Cost, FloatArray, Footprint, InvalidInput, KernelError, RunContext};

/// The columns of a kernel with `R` fields of numbers and `C` of names.
pub type FloatColumns<'a, T, const R: usize, const C: usize> = ([Operand<'a, T>; R], [Operand<'a, u8>; C]);

/// The fields of an input: `R` of numbers and `C` of names, and the precision that it asks for.
#[derive(Clone, Copy, Debug)]
pub struct FloatFields<'a, const R: usize, const C: usize> {
    /// Fields of numbers.
    pub floats: [(&'static str, &'a FloatArray); R],
    /// Fields of names.
    pub choices: [(&'static str, Operand<'a, u8>); C],
    /// The precision asked for.
    pub precision: Option<Precision>,
}

/// A check of an input's values, generic over the precision.
pub trait CheckValues<const R: usize, const C: usize> {
    /// Checks the values of this many rows, whose lengths agree.
    ///
    /// # Errors
    /// The first field that is wrong.
    fn check<T: Float>(columns: FloatColumns<'_, T, R, C>, rows: usize) -> Result<(), InvalidInput>;
}

impl<'a, const R: usize, const C: usize> FloatFields<'a, R, C> {
    /// The precision asked for, or else single where all arrays are `f32`.
    pub fn precision(&self) -> Precision {
        self.precision.unwrap_or_else(|| Precision::of(self.floats.map(|(_, values)| values)))
    }

    /// The number of rows: the length of the first array, or 1 where there is none.
    pub fn rows(&self) -> usize {
        super::field::rows(&self.facts::<f64>())
    }

    fn facts<T: Float>(&self) -> Vec<FieldFacts> {
        let floats = self.floats.iter().map(|(name, values)| T::facts(name, values));
        floats.chain(self.choices.iter().map(|(name, codes)| choice_facts(name, *codes))).collect()
    }

    fn convert<T: Float>(&self) -> [Converted<'a, T>; R] {
        self.floats.map(|(_, values)| T::convert(values))
    }

    fn columns<'b, T: Float>(&self, converted: &'b [Converted<'a, T>; R]) -> FloatColumns<'b, T, R, C>
    where
        'a: 'b,
    {
        (converted.each_ref().map(Converted::operand), self.choices.map(|(_, codes)| codes))
    }

    /// Checks lengths, and then the values.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn validate<V: CheckValues<R, C>>(&self) -> Result<(), InvalidInput> {
        if self.rows() == 0 {
            return Err(InvalidInput::new(self.floats[0].0, "empty"));
        }
        super::field::check_lengths(&self.facts::<f64>())?;
        match self.precision() {
            Precision::F32 => V::check(self.columns(&self.convert::<f32>()), self.rows()),
            Precision::F64 => V::check(self.columns(&self.convert::<f64>()), self.rows()),
        }
    }

    /// The cost of a run with this many outputs and operations a row.
    pub fn cost(&self, outputs: usize, operations: fn(Precision) -> u64) -> Cost {
        let operations = operations(self.precision());
        let cost = match self.precision() {
            Precision::F32 => cost::<f32>(&self.facts::<f32>(), outputs, operations),
            Precision::F64 => cost::<f64>(&self.facts::<f64>(), outputs, operations),
        };
        // A run of one row computes a whole block.
        Cost { operations: cost.operations.saturating_add(64 * operations), ..cost }
    }

    /// The memory of a run with this many outputs.
    pub fn footprint(&self, outputs: usize) -> Footprint {
        let precision = self.precision();
        let array = match precision {
            Precision::F32 => Footprint::of_array::<f32>(self.rows() as u64),
            Precision::F64 => Footprint::of_array::<f64>(self.rows() as u64),
        };
        let converted = self.floats.iter().filter(|(_, values)| precision.converts(values)).count();
        Footprint { output: array.saturating_mul(outputs as u64), scratch: array.saturating_mul(converted as u64) }
    }

    /// The key of the runs that a request may share: its precision, which fields are arrays, and the other values.
    pub fn batch_key(&self) -> BatchKey {
        let uniforms: Vec<_> = self.facts::<f64>().iter().map(|field| field.uniform).collect();
        BatchKey::hash((self.precision(), uniforms))
    }

    /// Whether two requests with the same batch key may share a run.
    pub fn shares_run(&self, other: &Self) -> bool {
        self.precision() == other.precision() && shares_run(&self.facts::<f64>(), &other.facts::<f64>())
    }

    /// Runs the kernel on the CPU.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub fn run_cpu<F, const N: usize>(
        &self,
        function: F,
        operations: fn(Precision) -> u64,
        context: &RunContext<'_>,
    ) -> Result<[FloatArray; N], KernelError>
    where
        F: for<'b> BlockFunction<FloatColumns<'b, f32, R, C>, f32, N>
            + for<'b> BlockFunction<FloatColumns<'b, f64, R, C>, f64, N>,
    {
        let granularity = Granularity::of_operations(operations(self.precision()));
        match self.precision() {
            Precision::F32 => {
                let converted = self.convert::<f32>();
                let outputs: [Buffer<f32>; N] =
                    map_rows(self.columns(&converted), self.rows(), granularity, function, context)?;
                Ok(outputs.map(Into::into))
            }
            Precision::F64 => {
                let converted = self.convert::<f64>();
                let outputs: [Buffer<f64>; N] =
                    map_rows(self.columns(&converted), self.rows(), granularity, function, context)?;
                Ok(outputs.map(Into::into))
            }
        }
    }

    /// Runs the kernel on CUDA for requests that may share a run, in one launch of the entry for their precision.
    ///
    /// # Errors
    /// Those of the launch context.
    #[cfg(feature = "cuda")]
    pub fn run_cuda<const N: usize>(
        requests: &[Self],
        module: &'static Module,
        [single, double]: [&'static str; 2],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<[FloatArray; N]>, KernelError> {
        match requests.first().map(Self::precision) {
            None => Ok(Vec::new()),
            Some(Precision::F32) => Self::run_cuda_in::<f32, N>(requests, Entry { module, name: single }, cuda),
            Some(Precision::F64) => Self::run_cuda_in::<f64, N>(requests, Entry { module, name: double }, cuda),
        }
    }

    #[cfg(feature = "cuda")]
    fn run_cuda_in<T: Float, const N: usize>(
        requests: &[Self],
        entry: Entry,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<[FloatArray; N]>, KernelError>
    where
        FloatArray: From<Buffer<T>>,
    {
        let converted: Vec<_> = requests.iter().map(Self::convert::<T>).collect();
        let columns: Vec<_> = requests.iter().zip(&converted).map(|(fields, arrays)| fields.columns(arrays)).collect();
        let rows: Vec<_> = requests.iter().map(Self::rows).collect();
        let outputs = map_rows_cuda::<_, T, N>(&columns, &rows, entry, cuda)?;
        Ok(outputs.into_iter().map(|outputs| outputs.map(Into::into)).collect())
    }

    /// The expected outputs: those of the CPU code in double precision, within 1e-12 or, in single precision, 1e-4 of the
    /// size of the terms that cancel in a row's outputs, which `scales` computes.
    pub fn reference<const N: usize>(
        &self,
        names: [&'static str; N],
        run_cpu: impl FnOnce(Self) -> [FloatArray; N],
        scales: fn([f64; R]) -> [f64; N],
    ) -> Vec<Expected> {
        let outputs = run_cpu(Self { precision: Some(Precision::F64), ..*self });
        let tolerance = if self.precision() == Precision::F32 { 1e-4 } else { 1e-12 };
        let converted = self.convert::<f64>();
        let (floats, _) = self.columns(&converted);
        let scales: Vec<_> = (0..self.rows()).map(|row| scales(floats.map(|values| values.value(row)))).collect();
        let with_bounds = |(output, name)| Expected {
            name,
            values: float_values(&outputs[output])
                .into_iter()
                .zip(&scales)
                .map(|(value, scales)| (value, tolerance * scales[output]))
                .collect(),
        };
        names.into_iter().enumerate().map(with_bounds).collect()
    }
}

/// The values of an array in double precision.
pub fn float_values(values: &FloatArray) -> Vec<f64> {
    let converted = f64::convert(values);
    (0..values.array_len().unwrap_or(1)).map(|row| converted.operand().value(row)).collect()
}

/// Random numbers of a range for tests: an array, or one number where the field's index is 2 or 5, so that both occur.
pub fn generate_floats(
    field: usize,
    range: std::ops::Range<f64>,
    rows: usize,
    precision: Precision,
    random: &mut Random,
) -> FloatArray {
    let mut number = || random.between(range.start, range.end);
    match precision {
        _ if field % 3 == 2 => FloatArray::One(number()),
        Precision::F32 => (0..rows).map(|_| number() as f32).collect::<Vec<_>>().into(),
        Precision::F64 => (0..rows).map(|_| number()).collect::<Vec<_>>().into(),
    }
}

/// Takes over one number for all rows from an input whose run is to be shared.
pub fn share_floats(values: &mut FloatArray, with: &FloatArray) {
    if matches!(with, FloatArray::One(_)) {
        *values = with.clone();
    }
}

/// Puts NaN into a row.
pub fn put_nan_floats(values: &mut FloatArray, row: usize) {
    match values {
        FloatArray::One(value) => *value = f64::NAN,
        FloatArray::F32(values) => values[row] = f32::NAN,
        FloatArray::F64(values) => values[row] = f64::NAN,
    }
}
