//! [`elementwise_floats!`](crate::kernels::authoring::elementwise_floats).

/// Implements [`Kernel`](crate::service::Kernel) for an elementwise kernel that computes in single or double precision.
///
/// Each field is one number or an array ([`FloatArray`](crate::service::FloatArray)), or names of a set
/// ([`Choices`](crate::kernels::authoring::Choices)). The input struct has a field `precision` of type `Option<Precision>`. The
/// entries, in this order; `cuda` is optional, and those not listed are as in
/// [`elementwise!`](crate::kernels::authoring::elementwise):
///
/// | entry | |
/// |---|---|
/// | `input` | the fields of numbers, each with the range of its test values; then `choices` and the fields of names |
/// | `output` | the output struct and its fields, each a `FloatArray` |
/// | `operations` | a function without captures from the [`Precision`](crate::kernels::authoring::Precision) |
/// | `check` | a type that implements [`CheckValues`](crate::kernels::authoring::CheckValues) |
/// | `cpu` | a value that implements [`BlockFunction`](crate::kernels::authoring::BlockFunction) in both precisions |
/// | `cuda` | a [`Module`](crate::cuda::Module) and the names of its entries for single and double precision |
/// | `scales` | a function from a row's numbers to the size of the terms that cancel in each output, for tests |
#[doc(hidden)]
#[macro_export]
macro_rules! __elementwise_floats {
    (
        impl Kernel for $kernel:ident {
            info: $info:expr,
            input: $input:ident { $($field:ident: $range:expr),+ $(,)? } $(choices { $($choice:ident),+ $(,)? })?,
            output: $output:ident { $($out:ident),+ $(,)? },
            operations: $operations:expr,
            check: $check:ty,
            cpu: $function:expr,
            $(cuda: $module:expr, $single:literal, $double:literal,)?
            scales: $scales:expr $(,)?
        }
    ) => {
        const _: () = {
            use $crate::kernels::authoring::{self, FloatFields, Precision};
            use $crate::service::{
                BatchKey, Cost, FloatArray, Footprint, InvalidInput, KernelError, KernelInfo, RunContext,
            };

            $($crate::__if_cuda! {
                static GENERATED_MODULE: $crate::cuda::Module = $module;
            })?

            const FLOATS: [&str; [$(stringify!($field)),+].len()] = [$(stringify!($field)),+];
            const CHOICES: usize = { const NAMES: &[&str] = &[$($(stringify!($choice)),+)?]; NAMES.len() };
            const OUTPUTS: [&str; [$(stringify!($out)),+].len()] = [$(stringify!($out)),+];

            impl $input {
                fn fields(&self) -> FloatFields<'_, { FLOATS.len() }, CHOICES> {
                    FloatFields {
                        floats: [$((stringify!($field), &self.$field)),+],
                        choices: [$($((stringify!($choice), self.$choice.operand())),+)?],
                        precision: self.precision,
                    }
                }

                /// The number of rows: the length of the arrays, or 1 where there is none.
                pub fn rows(&self) -> usize {
                    self.fields().rows()
                }

                /// The precision of the computation.
                pub fn precision(&self) -> Precision {
                    self.fields().precision()
                }
            }

            fn generated_output([$($out),+]: [FloatArray; OUTPUTS.len()]) -> $output {
                $output { $($out),+ }
            }

            impl $crate::service::Kernel for $kernel {
                type Input = $input;
                type Output = $output;

                fn info(&self) -> KernelInfo {
                    let info = $info.pure();
                    $(let info = { let _ = $single; info.cuda() };)?
                    info
                }

                fn validate(&self, input: &$input) -> Result<(), InvalidInput> {
                    input.fields().validate::<$check>()
                }

                fn cost(&self, input: &$input) -> Cost {
                    input.fields().cost(OUTPUTS.len(), $operations)
                }

                fn footprint(&self, input: &$input) -> Option<Footprint> {
                    Some(input.fields().footprint(OUTPUTS.len()))
                }

                fn batch_key(&self, input: &$input) -> Option<BatchKey> {
                    Some(input.fields().batch_key())
                }

                fn shares_run(&self, first: &$input, other: &$input) -> bool {
                    first.fields().shares_run(&other.fields())
                }

                fn run_cpu(&self, input: &$input, context: &RunContext<'_>) -> Result<$output, KernelError> {
                    input.fields().run_cpu($function, $operations, context).map(generated_output)
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
                        let fields: Vec<_> = inputs.iter().map(|input| input.fields()).collect();
                        let outputs = FloatFields::run_cuda(&fields, &GENERATED_MODULE, [$single, $double], cuda)?;
                        Ok(outputs.into_iter().map(generated_output).collect())
                    }
                })?
            }

            impl authoring::Cases for $kernel {
                fn case(&self, rows: usize, random: &mut authoring::Random) -> Option<$input> {
                    let precision = if random.below(2) == 0 { Precision::F32 } else { Precision::F64 };
                    let mut fields = 0..;
                    let mut generate = |range| {
                        let field = fields.next().unwrap_or_default();
                        authoring::generate_floats(field, range, rows, precision, random)
                    };
                    $(let $field = generate($range);)+
                    $($(let $choice = authoring::Choices::generate(rows, random);)+)?
                    Some($input { $($field,)+ $($($choice,)+)? precision: None })
                }

                fn share(&self, input: &mut $input, with: &$input) {
                    input.precision = Some(with.precision());
                    $(authoring::share_floats(&mut input.$field, &with.$field);)+
                }

                fn put_nan(&self, input: &mut $input, row: usize) {
                    $(authoring::put_nan_floats(&mut input.$field, row);)+
                }

                fn reference(&self, input: &$input) -> Vec<authoring::Expected> {
                    let run = |fields: FloatFields<'_, { FLOATS.len() }, CHOICES>| {
                        let run = fields.run_cpu($function, $operations, &RunContext::detached());
                        run.expect("nobody cancels it")
                    };
                    input.fields().reference(OUTPUTS, run, $scales)
                }

                fn values(&self, output: &$output) -> Vec<Vec<f64>> {
                    vec![$(authoring::float_values(&output.$out)),+]
                }
            }
        };
    };
}
