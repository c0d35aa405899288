//! [`elementwise!`] and [`reduction!`]: a `Kernel` from the code of a row.

/// Passes its input on where the crate is built with the feature `cuda`, whatever the features of the calling crate.
#[cfg(feature = "cuda")]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_cuda {
    ($($items:tt)*) => { $($items)* };
}

/// Passes its input on where the crate is built with the feature `cuda`, whatever the features of the calling crate.
#[cfg(not(feature = "cuda"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_cuda {
    ($($items:tt)*) => {};
}

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
                    fn run_cuda(
                        &self,
                        input: &$input,
                        cuda: &mut $crate::cuda::LaunchContext<'_>,
                    ) -> Result<$output, KernelError> {
                        let mut outputs = self.run_cuda_batch(&[input], cuda)?;
                        Ok(outputs.swap_remove(0))
                    }

                    fn run_cuda_batch(
                        &self,
                        inputs: &[&$input],
                        cuda: &mut $crate::cuda::LaunchContext<'_>,
                    ) -> Result<Vec<$output>, KernelError> {
                        static MODULE: $crate::cuda::Module = $module;
                        let columns: Vec<_> = inputs.iter().map(|input| generated_columns(input)).collect();
                        let rows: Vec<usize> = inputs.iter().map(|input| authoring::rows(&generated_facts(input))).collect();
                        let entry = authoring::Entry { module: &MODULE, name: $entry };
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
                    fn run_cuda(
                        &self,
                        input: &$input,
                        cuda: &mut $crate::cuda::LaunchContext<'_>,
                    ) -> Result<$output, KernelError> {
                        let mut outputs = self.run_cuda_batch(&[input], cuda)?;
                        Ok(outputs.swap_remove(0))
                    }

                    fn run_cuda_batch(
                        &self,
                        inputs: &[&$input],
                        cuda: &mut $crate::cuda::LaunchContext<'_>,
                    ) -> Result<Vec<$output>, KernelError> {
                        static MODULE: $crate::cuda::Module = $module;
                        let columns: Vec<_> = inputs.iter().map(|input| generated_columns(input)).collect();
                        let rows: Vec<usize> = inputs.iter().map(|input| authoring::rows(&generated_facts(input))).collect();
                        let entry = authoring::Entry { module: &MODULE, name: $entry };
                        let merge = authoring::Entry { module: &MODULE, name: concat!($entry, "_merge") };
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
                    fn run_cuda(
                        &self,
                        input: &$input,
                        cuda: &mut $crate::cuda::LaunchContext<'_>,
                    ) -> Result<$output, KernelError> {
                        let mut outputs = self.run_cuda_batch(&[input], cuda)?;
                        Ok(outputs.swap_remove(0))
                    }

                    fn run_cuda_batch(
                        &self,
                        inputs: &[&$input],
                        cuda: &mut $crate::cuda::LaunchContext<'_>,
                    ) -> Result<Vec<$output>, KernelError> {
                        static MODULE: $crate::cuda::Module = $module;
                        let fields: Vec<_> = inputs.iter().map(|input| input.fields()).collect();
                        let outputs = FloatFields::run_cuda(&fields, &MODULE, [$single, $double], cuda)?;
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
