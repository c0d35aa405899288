//! The OpenAPI 3.1 document, generated from the routes, the registered kernels and the types that the handlers read and
//! write.

mod document;
mod operations;
mod responses;
mod schemas;
mod security;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Method, Uri};
use tokio::sync::Mutex;

pub(crate) use self::operations::{content_or_tensors, headers, json_content, without_body};
pub(crate) use self::responses::{error_statuses, reference, response, responses};
pub(crate) use self::schemas::{Schemas, TENSORS_IN, TENSORS_OUT};
use self::security::Security;
pub use self::security::SecurityScheme;
use super::route::Operation;
use super::{Problem, RouterConfig};
use crate::error::ErrorKind;
use crate::service::{KernelRegistry, Snapshot};

/// Caches the document. It takes long to generate with thousands of kernels, so it is only generated again when the
/// registry has changed.
#[derive(Default)]
pub(crate) struct OpenApi {
    /// The last document, and the snapshot of the registry that it was generated from.
    cached: ArcSwapOption<(Snapshot, Bytes)>,
    /// Held while a document is generated. In an `Arc`, so that the blocking task can own the guard.
    generation_lock: Arc<Mutex<()>>,
    security: Option<Security>,
}

impl OpenApi {
    pub(crate) fn with_security(
        schemes: impl IntoIterator<Item = SecurityScheme>,
        exempt: impl Fn(&Method, &Uri) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { security: Some(Security::new(schemes, exempt)), ..Self::default() }
    }

    fn current(&self, registry: &KernelRegistry) -> Option<Bytes> {
        let cached = self.cached.load();
        let (snapshot, document) = cached.as_deref()?;
        snapshot.is_current(registry).then(|| document.clone())
    }

    /// Returns the document of a server with these operations.
    pub(super) async fn document(
        self: &Arc<Self>,
        registry: &Arc<KernelRegistry>,
        config: &RouterConfig,
        operations: Vec<&'static Operation>,
    ) -> Result<Bytes, Problem> {
        if let Some(document) = self.current(registry) {
            return Ok(document);
        }
        let guard = Arc::clone(&self.generation_lock).lock_owned().await;
        if let Some(document) = self.current(registry) {
            return Ok(document);
        }
        let (this, registry, config) = (Arc::clone(self), Arc::clone(registry), config.clone());
        // On a blocking thread. If the request is cancelled, the next one uses the document.
        let generate = move || {
            let _guard = guard;
            let snapshot = registry.snapshot();
            let (kernels, operands) = (snapshot.kernels(), registry.operands());
            let document = document::of(&operations, &config, kernels, operands, this.security.as_ref());
            let document = document.map_err(|error| Problem::of(&error))?;
            let document = serde_json::to_vec(&document).map_err(|error| internal(&error))?;
            let document = Bytes::from(document);
            this.cached.store(Some(Arc::new((snapshot, document.clone()))));
            Ok(document)
        };
        // A panic of a kernel's schema is logged with the id of the request.
        let span = tracing::Span::current();
        let generating = tokio::task::spawn_blocking(move || span.in_scope(generate));
        generating.await.unwrap_or_else(|error| Err(internal(&error)))
    }
}

fn internal(error: &dyn std::error::Error) -> Problem {
    Problem::new(ErrorKind::Internal, format!("the OpenAPI document cannot be generated: {error}"))
}

impl fmt::Debug for OpenApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenApi").finish_non_exhaustive()
    }
}
