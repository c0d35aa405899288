//! TLS on the REST and gRPC ports.
