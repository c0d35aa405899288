//! [`elementwise!`](crate::kernels::authoring::elementwise).

/// Implements [`Kernel`](crate::service::Kernel) for a kernel whose outputs' row i is a function of its inputs' row i.
///
/// The entries, in this order; `check` and `cuda` are optional:
///
/// | entry | |
/// |---|---|
/// | `info` | a [`KernelInfo`](crate::service::KernelInfo); `pure`, and the backends, are derived |
/// | `input` | the input struct and its fields, of types that implement [`Field`](crate::kernels::authoring::Field) |
/// | `output` | the output struct and its fields, each a `Buffer` of the type after `of` |
/// | `operations` | arithmetic operations of a row |
/// | `check` | a `fn(&Input) -> Result<(), InvalidInput>`, called once all lengths agree |
/// | `cpu` | the function of a row: from the fields, with their types, to an array with a value for each output |
/// | `cuda` | a [`Module`](crate::cuda::Module) and the name of its entry, which `elementwise.cuh` describes |
/// | `reference` | the function of a row in `f64`, for tests: for each output its value and the largest error allowed |
///
/// The [guide](crate::guide) has an example. The struct has to be `Clone`.
#[doc(hidden)]
#[macro_export]
macro_rules! __elementwise {
    (
        impl Kernel for $kernel:ident {
            info: $info:expr,
            input: $input:ident { $($field:ident),+ $(,)? },
            output: $output:ident { $($out:ident),+ $(,)? } of $element:ty,
            operations: $operations:expr,
            $(check: $check:expr,)?
            cpu: |$($arg:ident: $type:ty),+ $(,)?| $cpu:expr,
            $(cuda: $module:expr, $entry:literal,)?
            reference: |$($wide:ident),+ $(,)?| $reference:expr $(,)?
        }
    ) => {
        const _: () = {
            use $crate::kernels::authoring::{self, Field, FieldFacts};
            use $crate::service::{BatchKey, Cost, Footprint, InvalidInput, KernelError, KernelInfo, RunContext};

            $($crate::__if_cuda! {
                static GENERATED_MODULE: $crate::cuda::Module = $module;
            })?

            const FIELDS: usize = [$(stringify!($field)),+].len();
            const OUTPUTS: usize = [$(stringify!($out)),+].len();

            fn generated_facts(input: &$input) -> [FieldFacts; FIELDS] {
                [$(Field::facts(&input.$field, stringify!($field))),+]
            }

            #[allow(dead_code, reason = "for CUDA alone")]
            fn generated_columns(input: &$input) -> impl authoring::Column {
                ($(Field::column(&input.$field),)+)
            }

            fn generated_output([$($out),+]: [$crate::service::Buffer<$element>; OUTPUTS]) -> $output {
                $output { $($out),+ }
            }

            impl $crate::service::Kernel for $kernel {
                type Input = $input;
                type Output = $output;

                fn info(&self) -> KernelInfo {
                    let info = $info.pure();
                    $(let info = { let _ = $entry; info.cuda() };)?
                    info
                }

                fn validate(&self, input: &$input) -> Result<(), InvalidInput> {
                    authoring::check_lengths(&generated_facts(input))?;
                    $({
                        let check: fn(&$input) -> Result<(), InvalidInput> = $check;
                        check(input)?;
                    })?
                    Ok(())
                }

                fn cost(&self, input: &$input) -> Cost {
                    authoring::cost::<$element>(&generated_facts(input), OUTPUTS, $operations)
                }

                fn footprint(&self, input: &$input) -> Option<Footprint> {
                    let rows = authoring::rows(&generated_facts(input)) as u64;
                    Some(Footprint { output: Footprint::of_array::<$element>(rows) * OUTPUTS as u64, scratch: 0 })
                }

                fn batch_key(&self, input: &$input) -> Option<BatchKey> {
                    Some(authoring::batch_key(&generated_facts(input)))
                }

                fn shares_run(&self, first: &$input, other: &$input) -> bool {
                    authoring::shares_run(&generated_facts(first), &generated_facts(other))
                }

                fn run_cpu(&self, input: &$input, context: &RunContext<'_>) -> Result<$output, KernelError> {
                    let columns = ($(Field::column(&input.$field),)+);
                    let rows = authoring::rows(&generated_facts(input));
                    let function = authoring::RowFunction(
                        #[inline(always)]
                        |($($arg,)+): ($($type,)+)| -> [$element; OUTPUTS] { $cpu },
                    );
                    let granularity = authoring::Granularity::of_operations($operations);
                    authoring::map_rows(columns, rows, granularity, function, context).map(generated_output)
                }

                $($crate::__if_cuda! {
                    fn modules(&self) -> Vec<&'static $crate::cuda::Module> {
                        vec![&GENERATED_MODULE]
                    }

                    fn run_cuda(
                        &self,
                        input: &$input,
                        cuda: &mut $crate::service::LaunchContext<'_>,
                    ) -> Result<$output, KernelError> {
                        let mut outputs = self.run_cuda_batch(&[input], cuda)?;
                        Ok(outputs.swap_remove(0))
                    }

                    fn run_cuda_batch(
                        &self,
                        inputs: &[&$input],
                        cuda: &mut $crate::service::LaunchContext<'_>,
                    ) -> Result<Vec<$output>, KernelError> {
                        let columns: Vec<_> = inputs.iter().map(|input| generated_columns(input)).collect();
                        let rows: Vec<usize> = inputs.iter().map(|input| authoring::rows(&generated_facts(input))).collect();
                        let entry = authoring::Entry { module: &GENERATED_MODULE, name: $entry };
                        let outputs = authoring::map_rows_cuda::<_, $element, OUTPUTS>(&columns, &rows, entry, cuda)?;
                        Ok(outputs.into_iter().map(generated_output).collect())
                    }
                })?
            }

            impl authoring::Cases for $kernel {
                fn case(&self, rows: usize, random: &mut authoring::Random) -> Option<$input> {
                    Some($input { $($field: Field::generate(rows, random)),+ })
                }

                fn share(&self, input: &mut $input, with: &$input) {
                    $(Field::share(&mut input.$field, &with.$field);)+
                }

                fn put_nan(&self, input: &mut $input, row: usize) {
                    $(Field::put_nan(&mut input.$field, row);)+
                }

                fn reference(&self, input: &$input) -> Vec<authoring::Expected> {
                    let row = |$($wide: f64),+| -> [(f64, f64); OUTPUTS] { $reference };
                    let rows = authoring::rows(&generated_facts(input));
                    let rows: Vec<_> = (0..rows).map(|row_| row($(Field::value(&input.$field, row_)),+)).collect();
                    authoring::expected([$(stringify!($out)),+], &rows)
                }

                fn values(&self, output: &$output) -> Vec<Vec<f64>> {
                    vec![$(output.$out.iter().map(|&value| value as f64).collect()),+]
                }
            }
        };
    };
}
