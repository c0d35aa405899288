//! Documents of servers and models.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::servers::inference::{Model, PLATFORM, Region, UNLOADED, config_datatype, datatype_of};
use crate::service::{DurationTotal, ExecutionTotals, RequestTotals, Signature, TensorSpec};

/// The server, and what it supports beyond the protocol's core.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "InferenceServer")]
pub(in super::super) struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    extensions: Vec<&'static str>,
}

impl ServerMetadata {
    pub(in super::super) fn new(extensions: Vec<&'static str>) -> Self {
        Self { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION"), extensions }
    }
}

/// Whether the server is alive.
#[derive(Serialize, JsonSchema)]
pub(in super::super) struct ServerLive {
    pub(in super::super) live: bool,
}

/// Whether the server is ready.
#[derive(Serialize, JsonSchema)]
pub(in super::super) struct ServerReady {
    pub(in super::super) ready: bool,
}

/// Whether a model is ready.
#[derive(Serialize, JsonSchema)]
pub(in super::super) struct ModelReady<'a> {
    pub(in super::super) name: &'a str,
    pub(in super::super) ready: bool,
}

/// An error.
#[derive(Serialize, JsonSchema)]
pub(in super::super) struct InferenceError<'a> {
    /// What is wrong.
    pub(in super::super) error: &'a str,
}

/// A model and its tensors.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "InferenceModel")]
pub(in super::super) struct ModelMetadata<'a> {
    name: &'a str,
    versions: [&'a str; 1],
    platform: &'static str,
    inputs: Vec<TensorMetadata<'a>>,
    outputs: Vec<TensorMetadata<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct TensorMetadata<'a> {
    name: &'a str,
    datatype: &'a str,
    /// Length of each dimension, -1 for any.
    shape: &'a [i64],
}

impl<'a> ModelMetadata<'a> {
    pub(in super::super) fn new(model: &'a Model, signature: &'a Signature) -> Self {
        let describe = |spec: &'a TensorSpec| TensorMetadata {
            name: &spec.name,
            datatype: datatype_of(spec.elements),
            shape: &spec.shape,
        };
        Self {
            name: model.name(),
            versions: [model.version()],
            platform: PLATFORM,
            inputs: signature.inputs.iter().map(describe).collect(),
            outputs: signature.outputs.iter().map(describe).collect(),
        }
    }
}

/// The configuration of a model, as load generators read it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "InferenceModelConfig")]
pub(in super::super) struct ModelConfig<'a> {
    name: &'a str,
    platform: &'static str,
    backend: &'static str,
    /// Always 0: no dimension of a tensor counts the requests in it.
    max_batch_size: u32,
    input: Vec<InputConfig<'a>>,
    output: Vec<OutputConfig<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct InputConfig<'a> {
    name: &'a str,
    data_type: String,
    /// Length of each dimension, -1 for any.
    dims: &'a [i64],
    /// Whether a request can omit it.
    optional: bool,
}

#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct OutputConfig<'a> {
    name: &'a str,
    data_type: String,
    /// Length of each dimension, -1 for any.
    dims: &'a [i64],
}

impl<'a> ModelConfig<'a> {
    pub(in super::super) fn new(model: &'a Model, signature: &'a Signature) -> Self {
        let input = |spec: &'a TensorSpec| InputConfig {
            name: &spec.name,
            data_type: config_datatype(spec.elements),
            dims: &spec.shape,
            optional: spec.is_optional,
        };
        let output = |spec: &'a TensorSpec| OutputConfig {
            name: &spec.name,
            data_type: config_datatype(spec.elements),
            dims: &spec.shape,
        };
        Self {
            name: model.name(),
            platform: PLATFORM,
            backend: PLATFORM,
            max_batch_size: 0,
            input: signature.inputs.iter().map(input).collect(),
            output: signature.outputs.iter().map(output).collect(),
        }
    }
}

/// The statistics of models.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "InferenceStatistics")]
pub(in super::super) struct ModelStatisticsPage {
    model_stats: Vec<ModelStatistics>,
}

/// The requests of a model over this protocol.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct ModelStatistics {
    name: String,
    version: String,
    /// When the last request ended, in milliseconds since 1970; 0 if there was none.
    last_inference: u64,
    /// Requests that were executed.
    inference_count: u64,
    /// Executions, which several requests can share.
    execution_count: u64,
    inference_stats: InferenceStatistics,
    batch_stats: Vec<BatchStatistics>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct InferenceStatistics {
    success: DurationStatistic,
    fail: DurationStatistic,
    queue: DurationStatistic,
    compute_input: DurationStatistic,
    compute_infer: DurationStatistic,
    compute_output: DurationStatistic,
    cache_hit: DurationStatistic,
    cache_miss: DurationStatistic,
}

#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct BatchStatistics {
    batch_size: u32,
    compute_input: DurationStatistic,
    compute_infer: DurationStatistic,
    compute_output: DurationStatistic,
}

#[derive(Default, Serialize, JsonSchema)]
#[schemars(inline)]
struct DurationStatistic {
    count: u64,
    ns: u64,
}

impl From<DurationTotal> for DurationStatistic {
    fn from(total: DurationTotal) -> Self {
        Self { count: total.count, ns: u64::try_from(total.sum.as_nanos()).unwrap_or(u64::MAX) }
    }
}

impl ModelStatisticsPage {
    pub(in super::super) fn new(models: &[Model]) -> Self {
        Self { model_stats: models.iter().map(ModelStatistics::new).collect() }
    }
}

impl ModelStatistics {
    fn new(model: &Model) -> Self {
        let totals = model.kernel().request_statistics().totals();
        let ExecutionTotals { input, compute, output } = totals.all_executions();
        Self {
            name: model.name().to_owned(),
            version: model.version().to_owned(),
            last_inference: totals.last.map_or(0, millis),
            inference_count: totals.inferences(),
            execution_count: totals.executions(),
            batch_stats: batches(&totals),
            inference_stats: InferenceStatistics {
                success: totals.success.into(),
                fail: totals.failure.into(),
                queue: totals.queue.into(),
                compute_input: input.into(),
                compute_infer: compute.into(),
                compute_output: output.into(),
                cache_hit: totals.cached.into(),
                cache_miss: DurationStatistic::default(),
            },
        }
    }
}

fn batches(totals: &RequestTotals) -> Vec<BatchStatistics> {
    let batch =
        |(&batch_size, &ExecutionTotals { input, compute, output }): (&u32, &ExecutionTotals)| BatchStatistics {
            batch_size,
            compute_input: input.into(),
            compute_infer: compute.into(),
            compute_output: output.into(),
        };
    totals.executions.iter().map(batch).collect()
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A model in the index.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "InferenceModelEntry")]
pub(in super::super) struct RepositoryEntry<'a> {
    name: &'a str,
    version: &'a str,
    state: &'static str,
    reason: &'static str,
}

impl<'a> RepositoryEntry<'a> {
    pub(in super::super) fn new(model: &'a Model, is_loaded: bool) -> Self {
        let (state, reason) = if is_loaded { ("READY", "") } else { ("UNAVAILABLE", UNLOADED) };
        Self { name: model.name(), version: model.version(), state, reason }
    }
}

/// Which models the index is to have.
#[derive(Default, Deserialize, JsonSchema)]
#[schemars(rename = "InferenceIndexRequest")]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RepositoryQuery {
    /// Only models that are ready.
    #[serde(default)]
    pub(in super::super) ready: bool,
}

/// A request to load or unload a model.
#[derive(Default, Deserialize, JsonSchema)]
#[schemars(rename = "InferenceRepositoryRequest")]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RepositoryRequest {
    /// Only `unload_dependents` to unload, which has no effect.
    #[serde(default)]
    pub(in super::super) parameters: BTreeMap<String, serde_json::Value>,
}

/// A registered region of shared memory.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "InferenceRegion")]
pub(in super::super) struct RegionEntry<'a> {
    name: &'a str,
    /// Name of the shared memory object.
    key: &'a str,
    /// Where the region begins in the object.
    offset: u64,
    byte_size: u64,
}

impl<'a> RegionEntry<'a> {
    pub(in super::super) fn new(region: &'a Region) -> Self {
        let Region { name, key, offset, byte_size, .. } = region;
        Self { name, key, offset: *offset, byte_size: *byte_size }
    }
}

/// The part of a shared memory object that is to be registered as a region.
#[derive(Default, Deserialize, JsonSchema)]
#[schemars(rename = "InferenceRegionRequest")]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RegionRequest {
    /// Name of the shared memory object, as for `shm_open`.
    pub(in super::super) key: Option<String>,
    /// Where the region begins in the object; default 0.
    pub(in super::super) offset: Option<u64>,
    pub(in super::super) byte_size: Option<u64>,
}
