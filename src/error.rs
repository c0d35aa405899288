//! Error kinds, and how errors become HTTP and gRPC responses.
//!
//! The error of a layer wraps the error of the service inside it, and each of them implements [`Classify`]. A server
//! (REST, gRPC, actix, or your own) asks the outermost error for its [`ErrorKind`] and looks up the status in this
//! table:
//!
//! | kind | code | HTTP | gRPC | meaning |
//! |---|---|---|---|---|
//! | `InvalidArgument` | `invalid_argument` | 400 | 3 `INVALID_ARGUMENT` | the request is invalid; retrying does not help |
//! | `Unauthenticated` | `unauthenticated` | 401 | 16 `UNAUTHENTICATED` | credentials are missing or invalid |
//! | `NotFound` | `not_found` | 404 | 5 `NOT_FOUND` | no kernel has this id |
//! | `AlreadyExists` | `already_exists` | 409 | 6 `ALREADY_EXISTS` | the name is taken |
//! | `PreconditionFailed` | `precondition_failed` | 412 | 9 `FAILED_PRECONDITION` | the condition of the request does not hold |
//! | `TooLarge` | `too_large` | 413 | 11 `OUT_OF_RANGE` | exceeds a limit or the device's memory; retrying does not help |
//! | `Unsupported` | `unsupported` | 422 | 12 `UNIMPLEMENTED` | valid, but no backend here can run it |
//! | `RateLimited` | `rate_limited` | 429 | 8 `RESOURCE_EXHAUSTED` | a rate limit or quota is exceeded |
//! | `Cancelled` | `cancelled` | 499 | 1 `CANCELLED` | request cancelled |
//! | `Internal` | `internal` | 500 | 13 `INTERNAL` | a bug or failure in the server |
//! | `Overloaded` | `overloaded` | 503 | 14 `UNAVAILABLE` | at capacity; retry later |
//! | `Unavailable` | `unavailable` | 503 | 14 `UNAVAILABLE` | a device or worker has failed |
//! | `Quarantined` | `quarantined` | 503 | 14 `UNAVAILABLE` | the kernel is not run for a while, as it has ended its process several times |
//! | `MemoryExhausted` | `memory_exhausted` | 503 | 8 `RESOURCE_EXHAUSTED` | the memory for requests is in use; retry later |
//! | `InsufficientStorage` | `insufficient_storage` | 507 | 8 `RESOURCE_EXHAUSTED` | what is to be stored does not fit into its budget |
//! | `DeadlineExceeded` | `deadline_exceeded` | 504 | 4 `DEADLINE_EXCEEDED` | deadline exceeded |
//!
//! Boxed errors, such as those of tower's `Buffer`, `LoadShed` and `Timeout`, are classified by what is in the box: see
//! [`classify`](fn@classify). Layers and servers accept both, as [`AnyError`].

mod any;
mod chain;
mod classification;
mod client_message;
mod erased;
#[cfg(feature = "error-response")]
pub(crate) mod grpc_status;
mod kind;
mod layer_error;
#[cfg(feature = "error-response")]
pub(crate) mod problem;

pub use self::any::AnyError;
pub use self::chain::{Chain, chain};
pub use self::classification::{Classification, Classify};
pub(crate) use self::client_message::ClientMessage;
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
pub(crate) use self::client_message::{InternalMessage, find};
pub use self::erased::classify;
pub(crate) use self::erased::{classify_with, provide};
pub(crate) use self::kind::OutcomeCode;
pub use self::kind::{ErrorKind, ErrorKinds};
pub(crate) use self::layer_error::layer_error;

#[cfg(test)]
mod tests {
    use super::ErrorKind;

    #[test]
    fn the_table_in_the_docs_is_the_table_in_the_code() {
        let docs = include_str!("error.rs");
        for kind in ErrorKind::ALL {
            let row = format!("//! | `{kind:?}` | `{}` | {} | {} `", kind.code(), kind.http_status(), kind.grpc_code());
            assert!(docs.contains(&row), "no such row in the module's table: {row}");
        }
    }
}
