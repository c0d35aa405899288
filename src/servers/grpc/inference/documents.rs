//! Descriptions of the server and of models.

use std::time::UNIX_EPOCH;

use super::proto::model_metadata_response::TensorMetadata;
use super::proto::repository_index_response::ModelIndex;
use super::proto::system_shared_memory_status_response::RegionStatus;
use super::proto::{
    DataType, InferBatchStatistics, InferStatistics, ModelConfig, ModelInput, ModelMetadataResponse, ModelOutput,
    ModelStatistics, ServerMetadataResponse, StatisticDuration,
};
use crate::servers::inference::{Model, PLATFORM, Region, UNLOADED, config_datatype, datatype_of};
use crate::service::{DurationTotal, ElementType, ExecutionTotals, Signature, TensorSpec};

pub(super) fn server(extensions: Vec<&str>) -> ServerMetadataResponse {
    ServerMetadataResponse {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: extensions.into_iter().map(str::to_owned).collect(),
    }
}

pub(super) fn metadata(model: &Model, signature: &Signature) -> ModelMetadataResponse {
    let describe = |spec: &TensorSpec| TensorMetadata {
        name: spec.name.clone(),
        datatype: datatype_of(spec.elements).to_owned(),
        shape: spec.shape.clone(),
    };
    ModelMetadataResponse {
        name: model.name().to_owned(),
        versions: vec![model.version().to_owned()],
        platform: PLATFORM.to_owned(),
        inputs: signature.inputs.iter().map(describe).collect(),
        outputs: signature.outputs.iter().map(describe).collect(),
    }
}

pub(super) fn config(model: &Model, signature: &Signature) -> ModelConfig {
    let data_type = |elements: ElementType| {
        let known = DataType::from_str_name(&config_datatype(elements));
        known.expect("the protocol has a number for each type").into()
    };
    let input = |spec: &TensorSpec| ModelInput {
        name: spec.name.clone(),
        data_type: data_type(spec.elements),
        dims: spec.shape.clone(),
        optional: spec.is_optional,
    };
    let output = |spec: &TensorSpec| ModelOutput {
        name: spec.name.clone(),
        data_type: data_type(spec.elements),
        dims: spec.shape.clone(),
    };
    ModelConfig {
        name: model.name().to_owned(),
        platform: PLATFORM.to_owned(),
        backend: PLATFORM.to_owned(),
        max_batch_size: 0,
        input: signature.inputs.iter().map(input).collect(),
        output: signature.outputs.iter().map(output).collect(),
    }
}

pub(super) fn statistics(model: &Model) -> ModelStatistics {
    let totals = model.kernel().request_statistics().totals();
    let ExecutionTotals { input, compute, output } = totals.all_executions();
    let batch = |(&size, of_size): (&u32, &ExecutionTotals)| InferBatchStatistics {
        batch_size: size.into(),
        compute_input: Some(of_size.input.into()),
        compute_infer: Some(of_size.compute.into()),
        compute_output: Some(of_size.output.into()),
    };
    let millis = |time: std::time::SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    };
    ModelStatistics {
        name: model.name().to_owned(),
        version: model.version().to_owned(),
        last_inference: totals.last.map_or(0, millis),
        inference_count: totals.inferences(),
        execution_count: totals.executions(),
        batch_stats: totals.executions.iter().map(batch).collect(),
        inference_stats: Some(InferStatistics {
            success: Some(totals.success.into()),
            fail: Some(totals.failure.into()),
            queue: Some(totals.queue.into()),
            compute_input: Some(input.into()),
            compute_infer: Some(compute.into()),
            compute_output: Some(output.into()),
            cache_hit: Some(totals.cached.into()),
            cache_miss: None,
        }),
    }
}

impl From<DurationTotal> for StatisticDuration {
    fn from(DurationTotal { count, sum }: DurationTotal) -> Self {
        Self { count, ns: u64::try_from(sum.as_nanos()).unwrap_or(u64::MAX) }
    }
}

pub(super) fn index_entry(model: &Model, is_loaded: bool) -> ModelIndex {
    let (state, reason) = if is_loaded { ("READY", "") } else { ("UNAVAILABLE", UNLOADED) };
    ModelIndex {
        name: model.name().to_owned(),
        version: model.version().to_owned(),
        state: state.to_owned(),
        reason: reason.to_owned(),
    }
}

pub(super) fn region(region: &Region) -> (String, RegionStatus) {
    let Region { name, key, offset, byte_size, .. } = region;
    let (offset, byte_size) = (*offset, *byte_size);
    (name.clone(), RegionStatus { name: name.clone(), key: key.clone(), offset, byte_size })
}
