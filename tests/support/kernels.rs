//! Kernels that misbehave as they are told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower_kernels::service::{
    Buffer, Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, Operand, RunContext, VectorElements,
    Vectors,
};

/// How many naps are being taken, and how many have been slept out, in one server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Naps {
    now: Arc<AtomicUsize>,
    done: Arc<AtomicUsize>,
}

impl Naps {
    pub(crate) fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    pub(crate) async fn until(&self, count: usize) {
        let begun = Instant::now();
        while self.now.load(Ordering::SeqCst) != count {
            assert!(begun.elapsed() < Duration::from_secs(60), "{self:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// The catalogue, and the kernels below.
pub(crate) fn registry() -> (Arc<KernelRegistry>, Naps) {
    let (registry, naps) = (Arc::new(KernelRegistry::new()), Naps::default());
    tower_kernels::kernels::register_all(&registry).unwrap();
    registry.register(Nap(naps.clone())).unwrap();
    registry.register(Panics).unwrap();
    (registry, naps)
}

/// Runs for as long as it is told to, or until its caller has left.
struct Nap(Naps);

#[derive(Serialize, Deserialize, JsonSchema)]
struct Millis {
    millis: u64,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Slept {
    millis: Buffer<u64>,
}

impl Kernel for Nap {
    type Input = Millis;
    type Output = Slept;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/nap", "1.0.0", "Sleeps.").alias("rest/nap").alias("nap")
    }

    fn validate(&self, _: &Millis) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, input: &Millis) -> Cost {
        Cost { operations: input.millis.saturating_mul(2_000_000), ..Cost::default() }
    }

    fn run_cpu(&self, input: &Millis, context: &RunContext<'_>) -> Result<Slept, KernelError> {
        struct Awake<'a>(&'a AtomicUsize);
        impl Drop for Awake<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.0.now.fetch_add(1, Ordering::SeqCst);
        let _awake = Awake(&self.0.now);
        let end = Instant::now() + Duration::from_millis(input.millis);
        while Instant::now() < end {
            context.check()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        self.0.done.fetch_add(1, Ordering::SeqCst);
        Ok(Slept { millis: vec![input.millis].into() })
    }
}

struct Panics;

impl Kernel for Panics {
    type Input = bool;
    type Output = bool;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/panics", "1.0.0", "Panics.")
    }

    fn validate(&self, _: &bool) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &bool) -> Cost {
        Cost::default()
    }

    fn run_cpu(&self, input: &bool, _: &RunContext<'_>) -> Result<bool, KernelError> {
        assert!(!input, "told to");
        Ok(false)
    }
}

/// Returns the dot product of a query with each vector of a corpus.
pub(crate) struct RowDot;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RowDotInput {
    corpus: Operand<Vectors>,
    query: Buffer<f32>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct RowDotOutput {
    scores: Buffer<f32>,
}

impl Kernel for RowDot {
    type Input = RowDotInput;
    type Output = RowDotOutput;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/row-dot", "1.0.0", "Multiplies a query with each vector.")
    }

    fn validate(&self, RowDotInput { corpus, query }: &RowDotInput) -> Result<(), InvalidInput> {
        corpus.check().map_err(|error| InvalidInput::new(format!("corpus.{}", error.field), error.reason))?;
        let stored = corpus.value().map(|vectors| vectors.dimension());
        let dimension = stored.or_else(|| corpus.document().map(|document| document.dimension));
        if dimension == Some(query.len()) { Ok(()) } else { Err(InvalidInput::new("query", "another dimension")) }
    }

    fn cost(&self, _: &RowDotInput) -> Cost {
        Cost::default()
    }

    fn run_cpu(&self, input: &RowDotInput, context: &RunContext<'_>) -> Result<RowDotOutput, KernelError> {
        fn scores<T: Copy + Into<f32>>(rows: &[T], query: &[f32]) -> Buffer<f32> {
            let product = |row: &[T]| row.iter().zip(query).map(|(&x, y)| x.into() * y).sum();
            rows.chunks_exact(query.len()).map(product).collect()
        }
        let corpus = input.corpus.load(context)?;
        let scores = match corpus.elements() {
            VectorElements::F32(rows) => scores(rows, &input.query),
            VectorElements::F16(rows) => scores(rows, &input.query),
            VectorElements::Bf16(rows) => scores(rows, &input.query),
            _ => unreachable!("there are no other precisions"),
        };
        Ok(RowDotOutput { scores })
    }
}
