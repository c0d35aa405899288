use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Uri};
use tower_layer::Layer;

use super::error::challenges;
use super::{Authenticate, AuthenticateError, Credential, Denied, Identity, Verify};
use crate::request::PeerTenant;
use crate::request::limits::check_name;

/// Authenticates requests by their credential. See the [module](super).
#[derive(Debug)]
pub struct AuthenticateLayer<V> {
    policy: Arc<Policy<V>>,
}

/// The verifier and the settings, which the layer and its services share.
#[derive(Debug)]
pub(super) struct Policy<V> {
    verifier: Arc<V>,
    settings: Settings,
}

#[derive(Clone)]
struct Settings {
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

impl<V: Verify> AuthenticateLayer<V> {
    /// Authenticates requests with `verifier`.
    pub fn new(verifier: V) -> Self {
        let challenges = challenges("kernels").expect("the realm is visible ASCII");
        let settings = Settings { exempt: Vec::new(), client_certificates: false, on_failure: None, challenges };
        Self { policy: Arc::new(Policy { verifier: Arc::new(verifier), settings }) }
    }

    fn set(self, set: impl FnOnce(&mut Settings)) -> Self {
        let Policy { verifier, settings } = &*self.policy;
        let mut settings = settings.clone();
        set(&mut settings);
        Self { policy: Arc::new(Policy { verifier: Arc::clone(verifier), settings }) }
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
    #[must_use]
    pub fn exempt(self, exempt: impl Fn(&Method, &Uri) -> bool + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.exempt.push(Arc::new(exempt)))
    }

    /// Accepts the TLS client certificate of a connection as the credential of its requests: the server puts it in
    /// their extensions as a [`PeerTenant`](crate::request::PeerTenant). Credentials in the headers of such a request
    /// are ignored. Requests on other connections still need a credential.
    #[must_use]
    pub fn client_certificates(self) -> Self {
        self.set(|settings| settings.client_certificates = true)
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
    #[must_use]
    pub fn on_failure(self, count: impl Fn(&'static str) + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.on_failure = Some(Arc::new(count)))
    }

    /// Sets the realm in `WWW-Authenticate`. `kernels` by default.
    ///
    /// # Panics
    /// If the realm has control characters, which a header cannot hold.
    #[must_use]
    #[track_caller]
    pub fn realm(self, realm: &str) -> Self {
        let challenges = challenges(realm).expect("a realm without control characters");
        self.set(|settings| settings.challenges = challenges)
    }
}

impl<V: Verify> Policy<V> {
    /// Returns the identity that `request` authenticates as, or `None` if it is exempt.
    pub(super) fn identify<B, E>(&self, request: &Request<B>) -> Result<Option<Identity>, AuthenticateError<E>> {
        let Settings { exempt, client_certificates, challenges: (missing, denied), .. } = &self.settings;
        if exempt.iter().any(|exempt| exempt(request.method(), request.uri())) {
            return Ok(None);
        }
        let peer = request.extensions().get::<PeerTenant>().filter(|_| *client_certificates);
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
        if let Some(on_failure) = &self.settings.on_failure {
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

impl<S, V> Layer<S> for AuthenticateLayer<V> {
    type Service = Authenticate<S, V>;

    fn layer(&self, inner: S) -> Self::Service {
        Authenticate::new(inner, Arc::clone(&self.policy))
    }
}

// A derived `Clone` would require `V: Clone`, but the verifier is shared.
impl<V> Clone for AuthenticateLayer<V> {
    fn clone(&self) -> Self {
        Self { policy: Arc::clone(&self.policy) }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("client_certificates", &self.client_certificates)
            .field("challenges", &self.challenges)
            .finish_non_exhaustive()
    }
}
