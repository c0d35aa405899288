use tonic_reflection::server::{Builder, v1, v1alpha};

use super::MAX_NAME_MESSAGE_BYTES;
use super::proto::FILE_DESCRIPTOR_SET;

/// `grpc.reflection.v1`: describes `tower_kernels.v1`, `inference` and `grpc.health.v1` to clients such as grpcurl.
pub fn reflection() -> v1::ServerReflectionServer<impl v1::ServerReflection> {
    let server = builder().build_v1().expect("the descriptors are checked in and tested");
    server.max_decoding_message_size(MAX_NAME_MESSAGE_BYTES)
}

/// `grpc.reflection.v1alpha`, for older clients and that of Python.
pub fn reflection_v1alpha() -> v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection> {
    let server = builder().build_v1alpha().expect("the descriptors are checked in and tested");
    server.max_decoding_message_size(MAX_NAME_MESSAGE_BYTES)
}

fn builder() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
