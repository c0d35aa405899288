use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Uri};
use tower_layer::Layer;

use super::error::challenges;
use super::{Authenticate, AuthenticateError, Credential, Denied, Identity, Verify};
use crate::request::PeerTenant;
use crate::request::limits::check_name;

/// Authenticates requests by their credential. See the [module](super).
#[derive(Clone, Debug)]
#[must_use]
pub struct AuthenticateLayer {
    policy: Policy,
}

/// The verifier and the settings.
#[derive(Clone)]
pub(super) struct Policy {
    verifier: Arc<dyn Verify>,
    /// A request is exempt if any of these returns true.
    exempt: Vec<Arc<Exempt>>,
    /// Whether a TLS client certificate is a credential.
    client_certificates: bool,
    on_failure: Option<Arc<OnFailure>>,
    /// `WWW-Authenticate` for a missing and a denied credential.
    challenges: (HeaderValue, HeaderValue),
}

type Exempt = dyn Fn(&Method, &Uri) -> bool + Send + Sync;
type OnFailure = dyn Fn(&'static str) + Send + Sync;

impl AuthenticateLayer {
    /// Authenticates requests with `verifier`.
    pub fn new(verifier: impl Verify + 'static) -> Self {
        let policy = Policy {
            verifier: Arc::new(verifier),
            exempt: Vec::new(),
            client_certificates: false,
            on_failure: None,
            challenges: challenges("kernels").expect("the realm is visible ASCII"),
        };
        Self { policy }
    }

    /// Passes requests on without a credential if `exempt` returns true, such as health probes and CORS preflights.
    /// Inside `axum`'s `Router::nest` the URI lacks the prefix. If called several times, a request is exempt if any of
    /// the closures returns true.
    ///
    /// ```
    /// use http::Method;
    /// use tower_kernels::layers::AuthenticateLayer;
    /// use tower_kernels::middleware::authenticate::ApiKeys;
    ///
    /// let layer = AuthenticateLayer::new(ApiKeys::default()).exempt(|method, uri| {
    ///     method == Method::OPTIONS || matches!(uri.path(), "/health/live" | "/grpc.health.v1.Health/Check")
    /// });
    /// ```
    pub fn exempt(mut self, exempt: impl Fn(&Method, &Uri) -> bool + Send + Sync + 'static) -> Self {
        self.policy.exempt.push(Arc::new(exempt));
        self
    }

    /// Accepts the TLS client certificate of a connection as the credential of its requests: the server puts it in
    /// their extensions as a [`PeerTenant`](crate::request::PeerTenant). Credentials in the headers of such a request
    /// are ignored. Requests on other connections still need a credential.
    pub fn client_certificates(mut self) -> Self {
        self.policy.client_certificates = true;
        self
    }

    /// Calls `count` for each rejected request, with the [code](super::Denied::code) of the reason.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use tower_kernels::layers::AuthenticateLayer;
    /// use tower_kernels::middleware::authenticate::ApiKeys;
    ///
    /// static FAILURES: AtomicU64 = AtomicU64::new(0);
    /// let layer = AuthenticateLayer::new(ApiKeys::default()).on_failure(|_code| {
    ///     FAILURES.fetch_add(1, Ordering::Relaxed);
    /// });
    /// ```
    pub fn on_failure(mut self, count: impl Fn(&'static str) + Send + Sync + 'static) -> Self {
        self.policy.on_failure = Some(Arc::new(count));
        self
    }

    /// Sets the realm in `WWW-Authenticate`. `kernels` by default.
    ///
    /// # Panics
    /// If the realm has control characters, which a header cannot hold.
    #[track_caller]
    pub fn realm(mut self, realm: &str) -> Self {
        self.policy.challenges = challenges(realm).expect("a realm without control characters");
        self
    }
}

impl Policy {
    /// Returns the identity that `request` authenticates as, or `None` if it is exempt.
    pub(super) fn identify<B, E>(&self, request: &Request<B>) -> Result<Option<Identity>, AuthenticateError<E>> {
        if self.exempt.iter().any(|exempt| exempt(request.method(), request.uri())) {
            return Ok(None);
        }
        let (missing, denied) = &self.challenges;
        let peer = request.extensions().get::<PeerTenant>().filter(|_| self.client_certificates);
        let identity = match peer {
            Some(peer) => identify_peer(peer),
            None => match Credential::read(request.headers()) {
                Ok(None) => {
                    self.count_failure("missing_credential");
                    tracing::info!(method = %request.method(), path = request.uri().path(), "no credential");
                    return Err(AuthenticateError::Missing { challenge: missing.clone() });
                }
                Ok(Some(credential)) => self.verifier.verify(credential).and_then(check_tenant),
                Err(malformed) => Err(malformed.with_code("malformed_credential")),
            },
        };
        identity.map(Some).map_err(|reason| {
            self.count_failure(reason.code());
            // Only the log has the reason. It does not hold the credential.
            tracing::info!(%reason, method = %request.method(), path = request.uri().path(), "credential denied");
            AuthenticateError::Denied { challenge: denied.clone() }
        })
    }

    fn count_failure(&self, code: &'static str) {
        if let Some(on_failure) = &self.on_failure {
            on_failure(code);
        }
    }
}

fn identify_peer(peer: &PeerTenant) -> Result<Identity, Denied> {
    if peer.is_valid() {
        return Ok(Identity::new(Arc::clone(&peer.tenant)));
    }
    Err(Denied::new("the client certificate has expired since the connection was opened").with_code("expired"))
}

fn check_tenant(identity: Identity) -> Result<Identity, Denied> {
    check_name(&identity.tenant).map_err(|error| Denied::new(format!("the name of its tenant: {error}")))?;
    Ok(identity)
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Authenticate::new(inner, self.policy.clone().into())
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("client_certificates", &self.client_certificates)
            .field("challenges", &self.challenges)
            .finish_non_exhaustive()
    }
}
