use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::Credential;
use crate::request::{Priority, Tenant};

/// Says who brings a credential, or that nobody is known by it. Closures
/// `Fn(Credential<'_>) -> Result<Identity, Denied>` implement it.
///
/// It is asked inside `call`, on the thread that drives the server, so it is to answer from memory. What has to ask over
/// a network is a layer of its own.
///
/// ```
/// use tower_kernels::middleware::authenticate::{Credential, Denied, Identity, Verify};
///
/// /// Whoever the sidecar, which has checked, says that it is.
/// struct Sidecar;
///
/// impl Verify for Sidecar {
///     fn verify(&self, credential: Credential<'_>) -> Result<Identity, Denied> {
///         let name = credential.as_str().strip_prefix("spiffe://cluster/").ok_or(Denied::new("of another cluster"))?;
///         Ok(Identity::new(name))
///     }
/// }
///
/// assert_eq!(&*Sidecar.verify(Credential::new("spiffe://cluster/acme")).unwrap().tenant, "acme");
/// ```
pub trait Verify: Send + Sync {
    /// Who brings `credential`.
    fn verify(&self, credential: Credential<'_>) -> Result<Identity, Denied>;

    /// Asks `other` where this one knows nobody.
    fn or<V: Verify>(self, other: V) -> Or<Self, V>
    where
        Self: Sized,
    {
        Or { first: self, second: other }
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

/// So that which verifier it is can be decided at run time: `Arc<dyn Verify>` is one as well.
impl<V: Verify + ?Sized> Verify for Arc<V> {
    fn verify(&self, credential: Credential<'_>) -> Result<Identity, Denied> {
        (**self).verify(credential)
    }
}

/// Two verifiers, asked in turn. See [`Verify::or`].
#[derive(Clone, Copy, Debug)]
pub struct Or<A, B> {
    first: A,
    second: B,
}

impl<A: Verify, B: Verify> Verify for Or<A, B> {
    fn verify(&self, credential: Credential<'_>) -> Result<Identity, Denied> {
        self.first.verify(credential).or_else(|first| {
            let both = |second: Denied| Denied::new(format!("{first}; {second}")).with_code(second.code());
            self.second.verify(credential).map_err(both)
        })
    }
}

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// On whose behalf it is made.
    pub tenant: Arc<str>,
    /// How much its requests matter, where that is not the client's to say.
    pub priority: Option<Priority>,
}

impl Identity {
    /// Requests of this tenant.
    pub fn new(tenant: impl Into<Arc<str>>) -> Self {
        Self { tenant: tenant.into(), priority: None }
    }

    /// With this priority.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Tells the layers and the service further in.
    #[inline]
    pub(super) fn insert_into(self, extensions: &mut http::Extensions) {
        extensions.insert(Tenant(self.tenant));
        if let Some(priority) = self.priority {
            extensions.insert(priority);
        }
    }
}

/// Why a credential is not accepted. It is for the log, never for the client, so it may say what is wrong with the
/// credential, and must not hold it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Denied {
    reason: Cow<'static, str>,
    code: &'static str,
}

impl Denied {
    /// For this reason.
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into(), code: "denied" }
    }

    /// With a code by which such refusals are counted; `denied` if nothing is said.
    #[must_use]
    pub const fn with_code(mut self, code: &'static str) -> Self {
        self.code = code;
        self
    }

    /// The code by which such refusals are counted: `missing_credential`, `malformed_credential`, `unknown_key`,
    /// `invalid_token`, or what a [`Verify`] of your own says.
    pub const fn code(&self) -> &'static str {
        self.code
    }
}

impl fmt::Debug for dyn Verify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dyn Verify")
    }
}
