use tonic_reflection::server::{Builder, v1, v1alpha};

use super::MAX_QUESTION_BYTES;
use super::proto::FILE_DESCRIPTOR_SET;

/// `grpc.reflection.v1`: tells clients such as grpcurl what `tower_kernels.v1` and `grpc.health.v1` offer.
pub fn reflection() -> v1::ServerReflectionServer<impl v1::ServerReflection> {
    let server = builder().build_v1().expect("the descriptors are checked in and tested");
    server.max_decoding_message_size(MAX_QUESTION_BYTES)
}

/// `grpc.reflection.v1alpha`, which older clients ask for, and Python's among the newer.
pub fn reflection_v1alpha() -> v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection> {
    let server = builder().build_v1alpha().expect("the descriptors are checked in and tested");
    server.max_decoding_message_size(MAX_QUESTION_BYTES)
}

fn builder() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
