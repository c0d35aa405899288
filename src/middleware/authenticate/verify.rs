use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::Credential;
use crate::request::{Priority, Tenant};

/// Verifies a credential and returns the identity that it belongs to. Closures
/// `Fn(Credential<'_>) -> Result<Identity, Denied>` implement it.
///
/// It is called inside `Service::call`, so it must not block. A verifier that has to call another service over a
/// network needs a layer of its own.
///
/// ```
/// use tower_kernels::middleware::authenticate::{Credential, Denied, Identity, Verify};
///
/// /// Accepts the SPIFFE id that the sidecar has verified.
/// struct Sidecar;
///
/// impl Verify for Sidecar {
///     fn verify(&self, credential: Credential<'_>) -> Result<Identity, Denied> {
///         let name = credential.as_str().strip_prefix("spiffe://cluster/");
///         name.map(Identity::new).ok_or(Denied::new("an id of another cluster"))
///     }
/// }
///
/// assert_eq!(&*Sidecar.verify(Credential::new("spiffe://cluster/acme")).unwrap().tenant, "acme");
/// ```
pub trait Verify: Send + Sync {
    /// Returns the identity that `credential` belongs to.
    ///
    /// # Errors
    /// [`Denied`] if the credential is not accepted.
    fn verify(&self, credential: Credential<'_>) -> Result<Identity, Denied>;

    /// Tries `other` if this verifier denies the credential.
    fn or(self, other: impl Verify) -> impl Verify
    where
        Self: Sized,
    {
        move |credential: Credential<'_>| {
            self.verify(credential).or_else(|first| {
                let both = |second: Denied| Denied::new(format!("{first}; {second}")).with_code(second.code());
                other.verify(credential).map_err(both)
            })
        }
    }
}

impl<F> Verify for F
where
    F: Fn(Credential<'_>) -> Result<Identity, Denied> + Send + Sync,
{
    fn verify(&self, credential: Credential<'_>) -> Result<Identity, Denied> {
        self(credential)
    }
}

/// Allows to choose the verifier at run time, with an `Arc<dyn Verify>`.
impl<V: Verify + ?Sized> Verify for Arc<V> {
    fn verify(&self, credential: Credential<'_>) -> Result<Identity, Denied> {
        (**self).verify(credential)
    }
}

/// The tenant that a request is authenticated as, and the priority of its credential.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct Identity {
    /// Name of the tenant.
    pub tenant: Arc<str>,
    /// Priority of the requests. `None` leaves the choice to the client.
    pub priority: Option<Priority>,
}

impl Identity {
    /// Creates the identity of a tenant, without a priority.
    pub fn new(tenant: impl Into<Arc<str>>) -> Self {
        Self { tenant: tenant.into(), priority: None }
    }

    /// Sets the priority.
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Adds the tenant and the priority to the extensions of a request.
    pub(super) fn insert_into(self, extensions: &mut http::Extensions) {
        extensions.insert(Tenant(self.tenant));
        if let Some(priority) = self.priority {
            extensions.insert(priority);
        }
    }
}

/// The reason why a credential is denied. It is logged and never sent to the client. It must not contain the
/// credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Denied {
    reason: Cow<'static, str>,
    code: &'static str,
}

impl Denied {
    /// Creates an error with this reason and the code `denied`.
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into(), code: "denied" }
    }

    /// Sets the code that rejections are counted by.
    #[must_use]
    pub const fn with_code(mut self, code: &'static str) -> Self {
        self.code = code;
        self
    }

    /// Returns the code that rejections are counted by: `malformed_credential`, `unknown_key`, `invalid_token`,
    /// `expired`, `denied`, or one of a custom [`Verify`].
    pub const fn code(&self) -> &'static str {
        self.code
    }
}

impl fmt::Debug for dyn Verify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dyn Verify")
    }
}
