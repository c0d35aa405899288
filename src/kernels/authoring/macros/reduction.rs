//! [`reduction!`](crate::kernels::authoring::reduction).

/// Implements [`Kernel`](crate::service::Kernel) for a kernel that reduces all rows to a state of a few `f64`.
///
/// The entries, in this order; `check` and `cuda` are optional, and those not listed are as in
/// [`elementwise!`](crate::kernels::authoring::elementwise):
///
/// | entry | |
/// |---|---|
/// | `output` | the output struct and its fields, all numbers |
/// | `state` | how many `f64` a state has |
/// | `fold` | the state of up to 4096 rows: from slices of the fields to `[f64; N]` |
/// | `merge` | the state of two neighbouring parts: from two `[f64; N]` to one |
/// | `finish` | the output: a function without captures from `[f64; N]` to the output struct |
/// | `cuda` | a [`Module`](crate::cuda::Module) and the name of its entry, which `reduce.cuh` describes; the second one is `NAME_merge` |
/// | `reference` | a function without captures from the input: for each output its value and the largest error allowed |
#[doc(hidden)]
#[macro_export]
macro_rules! __reduction {
    (
        impl Kernel for $kernel:ident {
            info: $info:expr,
            input: $input:ident { $($field:ident),+ $(,)? },
            output: $output:ident { $($out:ident),+ $(,)? },
            operations: $operations:expr,
            $(check: $check:expr,)?
            state: $state:literal,
            fold: |$($arg:ident: $type:ty),+ $(,)?| $fold:expr,
            merge: $merge:expr,
            finish: $finish:expr,
            $(cuda: $module:expr, $entry:literal,)?
            reference: $reference:expr $(,)?
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

            fn generated_finish(state: [f64; $state]) -> $output {
                let finish: fn([f64; $state]) -> $output = $finish;
                finish(state)
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
                    authoring::cost::<f64>(&generated_facts(input), 0, $operations)
                }

                fn footprint(&self, _: &$input) -> Option<Footprint> {
                    Some(Footprint { output: Footprint::of_array::<f64>(OUTPUTS as u64), scratch: 0 })
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
                    authoring::reduce_rows(
                        columns,
                        rows,
                        #[inline(always)]
                        |($($arg,)+): ($($type,)+)| -> [f64; $state] { $fold },
                        $merge,
                        context,
                    )
                    .map(generated_finish)
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
                        let merge = authoring::Entry { module: &GENERATED_MODULE, name: concat!($entry, "_merge") };
                        let states = authoring::reduce_cuda::<_, $state>(&columns, &rows, entry, merge, cuda)?;
                        Ok(states.into_iter().map(generated_finish).collect())
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
                    let reference: fn(&$input) -> [(f64, f64); OUTPUTS] = $reference;
                    authoring::expected([$(stringify!($out)),+], &[reference(input)])
                }

                fn values(&self, output: &$output) -> Vec<Vec<f64>> {
                    vec![$(vec![output.$out as f64]),+]
                }
            }
        };
    };
}
