//! Assigns fair shares to requests and caps their priority.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU16;

use super::config::TenantsConfig;
use crate::request::{Priority, Share};
use crate::service::KernelRequest;

/// Assigns shares to requests. Tenants that are not in the configuration have no state: their key is a hash of the
/// name.
#[derive(Clone, Debug)]
pub(super) struct Tenants {
    named: HashMap<Box<str>, Tenant>,
    /// Maximum priority of tenants that are not named.
    max_priority: Priority,
    /// Whether each tenant that is not named has a share of its own.
    verified: bool,
    /// Randomly seeded, so that a client cannot choose a name that collides with another's.
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug)]
struct Tenant {
    share: Share,
    max_priority: Priority,
}

const KEYS: u32 = 1 << Share::KEY_BITS;

impl Tenants {
    pub(super) fn new(config: &TenantsConfig) -> Self {
        // Named tenants have the keys from 1 on. The range of the hashes begins after these.
        let named = config.named.iter().zip(1..KEYS).map(|((name, tenant), key)| {
            let share = Share::new(key, tenant.weight);
            (name.as_str().into(), Tenant { share, max_priority: tenant.max_priority })
        });
        let (max_priority, verified) = (config.max_priority, config.verified);
        Self { named: named.collect(), max_priority, verified, hasher: RandomState::new() }
    }

    /// Sets the share of a request and caps its priority.
    #[inline]
    pub(super) fn assign(&self, request: &mut KernelRequest) {
        let Tenant { share, max_priority } = match &request.tenant {
            Some(tenant) => self.find(tenant),
            None => self.unnamed(Share::COMMON),
        };
        request.set_share(share);
        request.priority = request.priority.min(max_priority);
    }

    fn find(&self, name: &str) -> Tenant {
        if let Some(named) = self.named.get(name) {
            return *named;
        }
        if !self.verified {
            return self.unnamed(Share::COMMON);
        }
        let first = u32::try_from(self.named.len()).unwrap_or(KEYS).saturating_add(1).min(KEYS - 1);
        let hash = self.hasher.hash_one(name) % u64::from(KEYS - first);
        self.unnamed(Share::new(first + hash as u32, NonZeroU16::MIN))
    }

    fn unnamed(&self, share: Share) -> Tenant {
        Tenant { share, max_priority: self.max_priority }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::TenantConfig;
    use crate::request::RequestContext;
    use crate::service::Payload;

    fn assigned(tenants: &Tenants, tenant: Option<&str>) -> (Share, Priority) {
        let mut request = KernelRequest::new("a", Payload::json("{}"));
        request.tenant = tenant.map(Into::into);
        request.priority = Priority::High;
        tenants.assign(&mut request);
        (request.share().unwrap(), request.priority)
    }

    fn config(verified: bool) -> TenantsConfig {
        let weight = NonZeroU16::new(4).unwrap();
        let acme = TenantConfig { weight, max_priority: Priority::High };
        let mut config = TenantsConfig::default();
        (config.max_priority, config.verified) = (Priority::Normal, verified);
        config.named.insert("acme".to_owned(), acme);
        config
    }

    #[test]
    fn verified_tenants_have_a_share_each_and_named_tenants_their_settings() {
        let tenants = Tenants::new(&config(true));
        let (acme, priority) = assigned(&tenants, Some("acme"));
        assert_eq!((acme.weight().get(), priority, acme.is_common()), (4, Priority::High, false));
        let shares: std::collections::HashSet<_> =
            (0..1000).map(|n| assigned(&tenants, Some(&format!("tenant {n}"))).0.key()).collect();
        assert!(shares.len() > 990 && !shares.contains(&acme.key()) && !shares.contains(&0));
        assert_eq!(assigned(&tenants, Some("one")), assigned(&tenants, Some("one")));
        assert_eq!(assigned(&tenants, Some("one")).1, Priority::Normal);
        assert_eq!(assigned(&tenants, None), (Share::COMMON, Priority::Normal));
    }

    #[test]
    fn unverified_tenants_have_one_share_unless_they_are_named() {
        let tenants = Tenants::new(&config(false));
        for made_up in ["one", "two", ""] {
            assert_eq!(assigned(&tenants, Some(made_up)), (Share::COMMON, Priority::Normal));
        }
        assert!(!assigned(&tenants, Some("acme")).0.is_common());
    }
}
