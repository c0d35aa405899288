//! Who may call: what the configuration names, as a layer around REST and gRPC.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use http::{Method, Uri};
use tower_kernels::layers::{AnswerLayer, AuthenticateLayer};
use tower_kernels::middleware::authenticate::{ApiKeys, Credential, Denied, Jwt, JwtKey, Verify};
use tower_kernels::requests::{RequestMetrics, Transport};
use tower_layer::Stack;

use crate::config::{self, Algorithm, Auth, KeysFile};
use crate::exit::{Exit, Failure};

/// What checks credentials.
#[derive(Clone, Debug)]
pub(super) struct Authentication {
    verifier: Arc<dyn Verify>,
    client_certificates: bool,
    open_metrics: bool,
    kinds: String,
}

impl Authentication {
    /// `None` where nobody is asked who they are.
    pub(super) fn new(auth: &Auth, client_certificates: bool) -> Result<Option<Self>, Failure> {
        let (keys, tokens) = (keys(auth)?, tokens(&auth.jwt)?);
        let kinds = [
            ("API keys", keys.is_some()),
            ("JSON web tokens", tokens.is_some()),
            ("client certificates", client_certificates),
        ];
        let kinds: Vec<_> = kinds.into_iter().filter_map(|(kind, on)| on.then_some(kind)).collect();
        let verifier: Arc<dyn Verify> = match (keys, tokens) {
            (None, None) if !client_certificates => return Ok(None),
            (None, None) => Arc::new(|_: Credential<'_>| Err(Denied::new("only client certificates are accepted"))),
            (Some(keys), None) => Arc::new(keys),
            (None, Some(tokens)) => Arc::new(tokens),
            (Some(keys), Some(tokens)) => Arc::new(keys.or(tokens)),
        };
        let open_metrics = auth.open_metrics;
        Ok(Some(Self { verifier, client_certificates, open_metrics, kinds: kinds.join(" and ") }))
    }

    /// Its name, for people.
    pub(super) fn kinds(&self) -> &str {
        &self.kinds
    }

    /// Whether there is a credential that goes into a header.
    pub(super) fn has_header(&self) -> bool {
        self.kinds != "client certificates"
    }

    /// In front of REST. Probes have no credentials, and neither have the preflights of browsers.
    pub(super) fn around_rest(&self, router: Router, requests: &RequestMetrics) -> Router {
        let open_metrics = self.open_metrics;
        router.layer(self.layer(requests, Transport::Rest, move |method, uri| {
            *method == Method::OPTIONS
                || matches!(uri.path(), "/health" | "/health/live" | "/health/ready")
                || (open_metrics && uri.path() == "/metrics")
        }))
    }

    /// In front of gRPC. Probes have no credentials.
    pub(super) fn around_grpc(&self, router: Router, requests: &RequestMetrics) -> Router {
        router.layer(self.layer(requests, Transport::Grpc, |_, uri| uri.path().starts_with("/grpc.health.v1.Health/")))
    }

    fn layer(
        &self,
        requests: &RequestMetrics,
        transport: Transport,
        exempt: impl Fn(&Method, &Uri) -> bool + Send + Sync + 'static,
    ) -> Stack<AuthenticateLayer<Arc<dyn Verify>>, AnswerLayer> {
        let requests = requests.clone();
        let layer = AuthenticateLayer::new(Arc::clone(&self.verifier)).exempt(exempt);
        let layer = layer.on_failure(move |reason| requests.authentication_failed(transport, reason));
        let layer = if self.client_certificates { layer.client_certificates() } else { layer };
        Stack::new(layer, AnswerLayer::new())
    }
}

fn keys(auth: &Auth) -> Result<Option<ApiKeys>, Failure> {
    let mut keys = auth.api_keys.clone();
    let path = &auth.api_keys_file;
    if !path.as_os_str().is_empty() {
        let text = std::fs::read_to_string(path).map_err(|error| wrong("auth.api_keys_file", path, &error))?;
        let file: KeysFile = toml::from_str(&text).map_err(|error| wrong("auth.api_keys_file", path, &error))?;
        if file.api_keys.is_empty() {
            return Err(wrong("auth.api_keys_file", path, &"there is no key in it, so nobody could call"));
        }
        keys.extend(file.api_keys);
    }
    if keys.is_empty() {
        return Ok(None);
    }
    let keys: Result<Vec<_>, _> = keys.iter().map(config::TenantKey::api_key).collect();
    let keys = keys.and_then(|keys| ApiKeys::new(keys).map_err(|error| error.to_string()));
    keys.map(Some).map_err(|error| Exit::Usage.because(format!("auth.api_keys: {error}")))
}

fn tokens(jwt: &config::Jwt) -> Result<Option<Jwt>, Failure> {
    let Some(key) = key(jwt)? else { return Ok(None) };
    let mut tokens = Jwt::new(key).tenant_claim(&jwt.tenant_claim);
    if !jwt.issuer.is_empty() {
        tokens = tokens.issuer(&jwt.issuer);
    }
    if !jwt.audience.is_empty() {
        tokens = tokens.audience(&jwt.audience);
    }
    Ok(Some(tokens))
}

fn key(jwt: &config::Jwt) -> Result<Option<JwtKey>, Failure> {
    let path = &jwt.key_file;
    let (name, bytes) = match (path.as_os_str().is_empty(), jwt.secret_env.as_str()) {
        (true, "") => return Ok(None),
        (false, "") => {
            let bytes = std::fs::read(path).map_err(|error| wrong("auth.jwt.key_file", path, &error))?;
            (format!("auth.jwt.key_file: {}", path.display()), bytes)
        }
        (true, variable) => {
            let secret = std::env::var(variable);
            let name = format!("auth.jwt.secret_env: {variable}");
            (name.clone(), secret.map_err(|error| Exit::Usage.because(format!("{name}: {error}")))?.into_bytes())
        }
        (false, _) => {
            return Err(
                Exit::Usage.because("auth.jwt.key_file and auth.jwt.secret_env are both there: give one of the two")
            );
        }
    };
    let key = match jwt.algorithm {
        Algorithm::RS256 => JwtKey::rs256_pem(&bytes),
        Algorithm::ES256 => JwtKey::es256_pem(&bytes),
        Algorithm::EdDsa => JwtKey::eddsa_pem(&bytes),
        // Editors end a file with a line feed that nobody means.
        Algorithm::HS256 => JwtKey::hs256(bytes.trim_ascii_end()),
    };
    key.map(Some).map_err(|error| Exit::Usage.because(format!("{name}: {error}")))
}

fn wrong(key: &str, path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Exit::Usage.because(format!("{key}: {}: {error}", path.display()))
}
