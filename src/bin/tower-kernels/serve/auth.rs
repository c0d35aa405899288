//! Authentication of REST and gRPC, from the settings.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use http::{Method, Uri};
use tower_kernels::axum::{KernelRouter, SecurityScheme};
use tower_kernels::layers::{AuthenticateLayer, ErrorResponseLayer};
use tower_kernels::middleware::authenticate::{ApiKeys, Credential, Denied, Jwt, JwtKey, Verify};
use tower_kernels::requests::{RequestMetrics, Transport};
use tower_layer::Stack;

use super::docs::{RestRejections, is_docs_path};
use super::servers::is_grpc_probe;
use crate::config::{self, Algorithm, Auth, InvalidSettings, KeysFile};
use crate::suggest::for_serde_error;

/// Verifies credentials.
#[derive(Clone, Debug)]
pub(super) struct Authentication {
    verifier: Arc<dyn Verify>,
    schemes: Vec<SecurityScheme>,
    open_docs: bool,
    open_metrics: bool,
    kinds: String,
}

impl Authentication {
    /// `None` if authentication is off.
    pub(super) fn new(auth: &Auth, client_certificates: bool) -> Result<Option<Self>, InvalidSettings> {
        let (keys, tokens) = (keys(auth)?, tokens(&auth.jwt)?);
        let schemes = [
            (SecurityScheme::ApiKey, keys.is_some()),
            (SecurityScheme::Bearer, keys.is_some()),
            (SecurityScheme::Jwt, tokens.is_some()),
            (SecurityScheme::ClientCertificate, client_certificates),
        ];
        let schemes = schemes.into_iter().filter_map(|(scheme, on)| on.then_some(scheme)).collect();
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
        let (open_docs, open_metrics, kinds) = (auth.open_docs, auth.open_metrics, kinds.join(" and "));
        Ok(Some(Self { verifier, schemes, open_docs, open_metrics, kinds }))
    }

    /// Whether /docs and /openapi.json need no credentials.
    pub(super) fn has_open_docs(&self) -> bool {
        self.open_docs
    }

    /// The accepted kinds of credentials, as text.
    pub(super) fn kinds(&self) -> &str {
        &self.kinds
    }

    /// Whether a credential in a header is accepted.
    pub(super) fn has_header(&self) -> bool {
        self.kinds != "client certificates"
    }

    /// Describes authentication in the OpenAPI document of REST.
    pub(super) fn describe<S>(&self, router: KernelRouter<S>) -> KernelRouter<S> {
        router.security(self.schemes.iter().copied(), self.exempt_from_rest())
    }

    /// Authenticates requests of REST.
    pub(super) fn rest_layer(
        &self,
        requests: &RequestMetrics,
    ) -> Stack<AuthenticateLayer, ErrorResponseLayer<RestRejections>> {
        let layer = self.layer(requests, Transport::Rest, self.exempt_from_rest());
        Stack::new(layer, ErrorResponseLayer::with(RestRejections))
    }

    /// Which REST requests need no credentials: health probes, CORS preflights and what the settings open.
    fn exempt_from_rest(&self) -> impl Fn(&Method, &Uri) -> bool + Send + Sync + use<> {
        let (open_docs, open_metrics) = (self.open_docs, self.open_metrics);
        move |method, uri| {
            *method == Method::OPTIONS
                || matches!(uri.path(), "/health" | "/health/live" | "/health/ready")
                || matches!(uri.path(), "/v2/health/live" | "/v2/health/ready")
                || (open_metrics && uri.path() == "/metrics")
                || (open_docs && is_docs_path(uri.path()))
        }
    }

    /// Adds authentication to gRPC, except for health probes.
    pub(super) fn around_grpc(&self, router: Router, requests: &RequestMetrics) -> Router {
        let is_probe = |_: &Method, uri: &Uri| is_grpc_probe(uri.path());
        router.layer(Stack::new(self.layer(requests, Transport::Grpc, is_probe), ErrorResponseLayer::new()))
    }

    fn layer(
        &self,
        requests: &RequestMetrics,
        transport: Transport,
        exempt: impl Fn(&Method, &Uri) -> bool + Send + Sync + 'static,
    ) -> AuthenticateLayer {
        let requests = requests.clone();
        let layer = AuthenticateLayer::new(Arc::clone(&self.verifier)).exempt(exempt);
        let layer = layer.on_failure(move |reason| requests.authentication_failed(transport, reason));
        if self.schemes.contains(&SecurityScheme::ClientCertificate) { layer.client_certificates() } else { layer }
    }
}

fn keys(auth: &Auth) -> Result<Option<ApiKeys>, InvalidSettings> {
    let mut keys = auth.api_keys.clone();
    let path = &auth.api_keys_file;
    if !path.as_os_str().is_empty() {
        let text = std::fs::read_to_string(path).map_err(|error| wrong("auth.api_keys_file", path, &error))?;
        let file: KeysFile = toml::from_str(&text).map_err(|error| {
            let hint = for_serde_error(error.message()).unwrap_or_default();
            wrong("auth.api_keys_file", path, &format!("{error}{hint}"))
        })?;
        if file.api_keys.is_empty() {
            return Err(wrong("auth.api_keys_file", path, &"it contains no key, so no request could be authenticated"));
        }
        keys.extend(file.api_keys);
    }
    if keys.is_empty() {
        return Ok(None);
    }
    let keys: Result<Vec<_>, _> = keys.iter().map(config::TenantKey::api_key).collect();
    let keys = keys.and_then(|keys| ApiKeys::new(keys).map_err(|error| error.to_string()));
    keys.map(Some).map_err(|error| InvalidSettings::new(["auth.api_keys", "auth.api_keys_file"], error))
}

fn tokens(jwt: &config::Jwt) -> Result<Option<Jwt>, InvalidSettings> {
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

fn key(jwt: &config::Jwt) -> Result<Option<JwtKey>, InvalidSettings> {
    let path = &jwt.key_file;
    let (setting, name, bytes) = match (path.as_os_str().is_empty(), jwt.secret_env.as_str()) {
        (true, "") => return Ok(None),
        // Both are rejected when the settings are checked.
        (false, _) => {
            let bytes = std::fs::read(path).map_err(|error| wrong("auth.jwt.key_file", path, &error))?;
            ("auth.jwt.key_file", path.display().to_string(), bytes)
        }
        (true, variable) => ("auth.jwt.secret_env", variable.to_owned(), secret(variable)?),
    };
    let key = match jwt.algorithm {
        Algorithm::RS256 => JwtKey::rs256_pem(&bytes),
        Algorithm::ES256 => JwtKey::es256_pem(&bytes),
        Algorithm::EdDsa => JwtKey::eddsa_pem(&bytes),
        // Editors add a line feed at the end of a file.
        Algorithm::HS256 => JwtKey::hs256(bytes.trim_ascii_end()),
    };
    key.map(Some).map_err(|error| InvalidSettings::new([setting], format!("{name}: {error}")))
}

/// Reads the HS256 secret from an environment variable.
fn secret(variable: &str) -> Result<Vec<u8>, InvalidSettings> {
    let wrong =
        |why: &dyn std::fmt::Display| InvalidSettings::new(["auth.jwt.secret_env"], format!("{variable}: {why}"));
    match std::env::var(variable) {
        Ok(secret) if secret.is_empty() => Err(wrong(&"the environment variable is empty")),
        Ok(secret) => Ok(secret.into_bytes()),
        Err(error) => Err(wrong(&error)),
    }
}

fn wrong(key: &'static str, path: &Path, error: &dyn std::fmt::Display) -> InvalidSettings {
    InvalidSettings::new([key], format!("{}: {error}", path.display()))
}
