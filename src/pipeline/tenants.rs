//! Assigns fair shares and bounds priorities.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU16;

use super::config::TenantsConfig;
use crate::request::{Priority, Share};
use crate::service::KernelRequest;

/// Assigns shares to requests. A tenant that is not in the configuration has no state: its key is a hash of its name.
#[derive(Clone, Debug)]
pub(super) struct Tenants {
    named: HashMap<Box<str>, Tenant>,
    /// Of tenants that are not named.
    max_priority: Priority,
    /// Whether tenants that are not named have a share each.
    verified: bool,
    /// Seeded per process, so that no caller can choose a name that collides with the share of another.
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
        // Named tenants have the keys from 1 on; the hashes come after them.
        let named = config.named.iter().zip(1..KEYS).map(|((name, tenant), key)| {
            let share = Share::new(key, tenant.weight);
            (name.as_str().into(), Tenant { share, max_priority: tenant.max_priority })
        });
        let (max_priority, verified) = (config.max_priority, config.verified);
        Self { named: named.collect(), max_priority, verified, hasher: RandomState::new() }
    }

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
    fn each_verified_name_has_a_share_and_the_named_have_what_was_said() {
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
    fn names_that_nobody_has_verified_share_one_unless_they_are_in_the_configuration() {
        let tenants = Tenants::new(&config(false));
        for made_up in ["one", "two", ""] {
            assert_eq!(assigned(&tenants, Some(made_up)), (Share::COMMON, Priority::Normal));
        }
        assert!(!assigned(&tenants, Some("acme")).0.is_common());
    }
}
