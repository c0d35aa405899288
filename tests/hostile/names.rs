//! Names that clients choose: tenants, request ids, kernels, operations.
