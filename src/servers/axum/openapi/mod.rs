//! `GET /openapi.json`: an OpenAPI 3.1 document, generated from the routes, the registered kernels and the types that the
//! handlers read and write.

mod document;
mod operations;
mod responses;
mod schemas;
mod security;

use std::fmt;
use std::sync::Arc;

use ::axum::extract::State;
use ::axum::response::Response;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::Mutex;

pub(super) use self::security::Security;
pub use self::security::SecurityScheme;
use super::RouterConfig;
use super::router::Shared;
use crate::error::ErrorKind;
use crate::request::request_id::RequestId;
use crate::servers::http::{Problem, document};
use crate::service::{KernelRegistry, Snapshot};

/// Caches the document. It takes long to generate with thousands of kernels, so it is only generated again when the
/// registry has changed.
#[derive(Default)]
pub(super) struct OpenApi {
    /// The last document, and the snapshot of the registry that it was generated from.
    cached: ArcSwapOption<(Snapshot, Bytes)>,
    /// Held while a document is generated. In an `Arc`, so that the blocking task can own the guard.
    generation_lock: Arc<Mutex<()>>,
    security: Option<Security>,
}

impl OpenApi {
    pub(super) fn new(security: Option<Security>) -> Self {
        Self { security, ..Self::default() }
    }

    fn current(&self, registry: &KernelRegistry) -> Option<Bytes> {
        let cached = self.cached.load();
        let (snapshot, document) = cached.as_deref()?;
        snapshot.is_current(registry).then(|| document.clone())
    }

    async fn document(
        self: &Arc<Self>,
        registry: &Arc<KernelRegistry>,
        config: &RouterConfig,
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
            let document = document::of(&config, snapshot.kernels(), this.security.as_ref())
                .map_err(|error| Problem::of(&error))?;
            let document = serde_json::to_vec(&document).map_err(|error| internal(&error))?;
            let document = Bytes::from(document);
            this.cached.store(Some(Arc::new((snapshot, document.clone()))));
            Ok(document)
        };
        tokio::task::spawn_blocking(generate).await.unwrap_or_else(|error| Err(internal(&error)))
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

pub(super) async fn openapi<S>(State(shared): State<Arc<Shared<S>>>, headers: HeaderMap) -> Response {
    let request_id = RequestId::from_headers(&headers);
    match shared.openapi.document(&shared.registry, &shared.config).await {
        Ok(body) => {
            let mut response: Response = document(StatusCode::OK, "application/json", body, &request_id);
            // Kernels can be added at any time.
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            response
        }
        Err(problem) => problem.into_response(&request_id),
    }
}
