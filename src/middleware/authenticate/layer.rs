use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use http::{Method, Request, Uri};
use tower_layer::Layer;

use super::error::Challenges;
use super::{Authenticate, AuthenticateError, Credential, Denied, Identity, Verify};
use crate::request::PeerTenant;
use crate::request::limits::check_name;

/// Lets through what says who makes it. See the [module](super).
pub struct AuthenticateLayer<V> {
    policy: Arc<Policy<V>>,
}

/// What the layer and its services share.
pub(super) struct Policy<V> {
    verifier: Arc<V>,
    exempt: Option<Arc<Exempt>>,
    peers: bool,
    on_failure: Option<Arc<OnFailure>>,
    challenges: Challenges,
}

type Exempt = dyn Fn(&Method, &Uri) -> bool + Send + Sync;
type OnFailure = dyn Fn(&'static str) + Send + Sync;

impl<V: Verify> AuthenticateLayer<V> {
    /// Asks `verifier` who makes a request.
    pub fn new(verifier: V) -> Self {
        let challenges = Challenges::new("kernels").expect("visible ASCII");
        let verifier = Arc::new(verifier);
        Self { policy: Arc::new(Policy { verifier, exempt: None, peers: false, on_failure: None, challenges }) }
    }

    /// Lets requests through, whoever makes them, for which `exempt` is true: health probes, CORS preflights. The URI is
    /// the one that this layer sees, so inside `axum`'s `Router::nest` it lacks the prefix. Said twice, either counts.
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
        let mut policy = Arc::unwrap_or_clone(self.policy);
        policy.exempt = Some(match policy.exempt {
            None => Arc::new(exempt),
            Some(earlier) => Arc::new(move |method: &Method, uri: &Uri| earlier(method, uri) || exempt(method, uri)),
        });
        Self { policy: Arc::new(policy) }
    }

    /// Takes the certificate of a TLS client for the credential of every request on its connection
    /// ([`PeerTenant`](crate::request::PeerTenant), which a server has set). Credentials in such a request's headers are
    /// not looked at. Requests on other connections need a credential as before.
    #[must_use]
    pub fn client_certificates(self) -> Self {
        Self { policy: Arc::new(Policy { peers: true, ..Arc::unwrap_or_clone(self.policy) }) }
    }

    /// Tells `count` of each request that is refused: the [code](super::Denied::code) of what is wrong.
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
        let on_failure: Option<Arc<OnFailure>> = Some(Arc::new(count));
        Self { policy: Arc::new(Policy { on_failure, ..Arc::unwrap_or_clone(self.policy) }) }
    }

    /// Names the realm that `WWW-Authenticate` tells clients of; `kernels` if nothing is said.
    ///
    /// # Panics
    /// Where it holds control characters, which no header can carry.
    #[must_use]
    #[track_caller]
    pub fn realm(self, realm: &str) -> Self {
        let challenges = Challenges::new(realm).expect("a realm without control characters");
        Self { policy: Arc::new(Policy { challenges, ..Arc::unwrap_or_clone(self.policy) }) }
    }
}

impl<V: Verify> Policy<V> {
    /// Who makes `request`; `None` where it need not say.
    #[inline]
    pub(super) fn identify<B>(&self, request: &Request<B>) -> Result<Option<Identity>, AuthenticateError<Infallible>> {
        if let Some(exempt) = &self.exempt
            && exempt(request.method(), request.uri())
        {
            return Ok(None);
        }
        let peer = request.extensions().get::<PeerTenant>().filter(|_| self.peers);
        if let Some(peer) = peer.filter(|peer| peer.is_valid()) {
            return Ok(Some(Identity::new(Arc::clone(&peer.tenant))));
        }
        let denied = match Credential::read(request.headers()) {
            _ if peer.is_some() => {
                Denied::new("the client certificate has expired since the connection began").with_code("expired")
            }
            Ok(None) => return Err(self.missing(request)),
            Ok(Some(credential)) => match self.verifier.verify(credential) {
                Ok(identity) => match check_name(&identity.tenant) {
                    Ok(()) => return Ok(Some(identity)),
                    Err(error) => Denied::new(format!("the name of its tenant: {error}")),
                },
                Err(denied) => denied,
            },
            Err(denied) => denied.with_code("malformed_credential"),
        };
        self.failed(denied.code());
        // The one place where the reason is told, and it does not hold the credential.
        tracing::info!(reason = %denied, method = %request.method(), path = request.uri().path(), "credential denied");
        Err(self.challenges.denied())
    }

    #[cold]
    fn missing<B>(&self, request: &Request<B>) -> AuthenticateError<Infallible> {
        self.failed("missing_credential");
        tracing::info!(method = %request.method(), path = request.uri().path(), "no credential");
        self.challenges.missing()
    }

    fn failed(&self, code: &'static str) {
        if let Some(on_failure) = &self.on_failure {
            on_failure(code);
        }
    }
}

impl<S, V> Layer<S> for AuthenticateLayer<V> {
    type Service = Authenticate<S, V>;

    fn layer(&self, inner: S) -> Self::Service {
        Authenticate::new(inner, Arc::clone(&self.policy))
    }
}

// By hand: a clone needs no `V: Clone`, the verifier is shared.
impl<V> Clone for AuthenticateLayer<V> {
    fn clone(&self) -> Self {
        Self { policy: Arc::clone(&self.policy) }
    }
}

impl<V: fmt::Debug> fmt::Debug for AuthenticateLayer<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticateLayer").field("policy", &self.policy).finish()
    }
}

impl<V> Clone for Policy<V> {
    fn clone(&self) -> Self {
        Self {
            verifier: Arc::clone(&self.verifier),
            exempt: self.exempt.clone(),
            peers: self.peers,
            on_failure: self.on_failure.clone(),
            challenges: self.challenges.clone(),
        }
    }
}

impl<V: fmt::Debug> fmt::Debug for Policy<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verifier, exempt, peers, on_failure, challenges } = self;
        f.debug_struct("Policy")
            .field("verifier", verifier)
            .field("exempts", &exempt.is_some())
            .field("client_certificates", peers)
            .field("tells_of_failures", &on_failure.is_some())
            .field("challenges", challenges)
            .finish()
    }
}
