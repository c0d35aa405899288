//! Authentication in the document.

use std::fmt;

use http::{Method, Uri};
use serde_json::{Map, Value, json};

use super::operations::json_content;
use super::responses::{self, response};
use super::schemas::Schemas;
use crate::servers::http::ErrorForm;
use crate::servers::http::inference::InferenceError;

/// A security scheme of the OpenAPI document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecurityScheme {
    /// The header `x-api-key`.
    ApiKey,
    /// `authorization: Bearer`, with an API key.
    Bearer,
    /// `authorization: Bearer`, with a JSON web token.
    Jwt,
    /// A TLS client certificate.
    ClientCertificate,
}

impl SecurityScheme {
    /// Name in the document.
    fn name(self) -> &'static str {
        match self {
            Self::ApiKey => "apiKey",
            Self::Bearer => "bearer",
            Self::Jwt => "jwt",
            Self::ClientCertificate => "clientCertificate",
        }
    }

    fn object(self) -> Value {
        match self {
            Self::ApiKey => json!({ "type": "apiKey", "in": "header", "name": "x-api-key" }),
            Self::Bearer => json!({ "type": "http", "scheme": "bearer", "description": "An API key." }),
            Self::Jwt => json!({ "type": "http", "scheme": "bearer", "bearerFormat": "JWT" }),
            Self::ClientCertificate => json!({ "type": "mutualTLS" }),
        }
    }
}

/// Decides whether a request needs no credential.
type Exempt = dyn Fn(&Method, &Uri) -> bool + Send + Sync;

/// Authentication settings of the document.
pub(super) struct Security {
    schemes: Vec<SecurityScheme>,
    exempt: Box<Exempt>,
}

impl Security {
    pub(super) fn new(
        schemes: impl IntoIterator<Item = SecurityScheme>,
        exempt: impl Fn(&Method, &Uri) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { schemes: schemes.into_iter().collect(), exempt: Box::new(exempt) }
    }

    /// `components/securitySchemes`.
    pub(super) fn components(&self) -> Value {
        self.schemes.iter().map(|scheme| (scheme.name().to_owned(), scheme.object())).collect::<Map<_, _>>().into()
    }

    /// Adds the accepted credentials and the 401 response to each operation.
    pub(super) fn describe(&self, paths: &mut Map<String, Value>, schemas: &mut Schemas) {
        for (path, item) in paths {
            let Value::Object(operations) = item else { continue };
            for (method, operation) in operations {
                if self.is_exempt(method, path) {
                    operation["security"] = json!([]);
                    continue;
                }
                // The schemes are alternatives.
                operation["security"] = self.schemes.iter().map(|scheme| json!({ (scheme.name()): [] })).collect();
                operation["responses"]["401"] = match ErrorForm::of_path(path, true) {
                    ErrorForm::Problem => responses::problem(401),
                    ErrorForm::Inference => {
                        response("An error.", json_content(&schemas.written::<InferenceError<'_>>()))
                    }
                };
            }
        }
    }

    fn is_exempt(&self, method: &str, path: &str) -> bool {
        let method = Method::from_bytes(method.to_uppercase().as_bytes());
        // A path template that is not a valid URI path is never exempt.
        let request = method.ok().zip(path.parse().ok());
        request.is_some_and(|(method, uri)| (self.exempt)(&method, &uri))
    }
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security").field("schemes", &self.schemes).finish_non_exhaustive()
    }
}
