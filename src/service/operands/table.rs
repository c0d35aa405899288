//! [`Table`]: the newest version of each operand.

use std::sync::Arc;

use foldhash::HashMap;

use super::reference::OperandReference;
use super::version::OperandVersion;

/// The key of requests without a tenant. Servers reject an empty tenant, so no tenant has it.
pub(super) const NO_TENANT: &str = "";

pub(super) type Names = HashMap<Arc<str>, Arc<OperandVersion>>;

/// The newest versions.
#[derive(Clone, Default)]
pub(super) struct Table {
    /// The operands without a tenant.
    without_tenant: Arc<Names>,
    /// The operands of each tenant that has any.
    tenants: HashMap<Arc<str>, Arc<Names>>,
    /// The public operands of all tenants, which are in the table of their tenant as well.
    public: Arc<Names>,
    len: usize,
}

impl Table {
    /// Returns the number of operands.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the operands of a tenant by name; `None` if a tenant has none.
    pub(super) fn own(&self, tenant: &str) -> Option<&Names> {
        match tenant {
            NO_TENANT => Some(&self.without_tenant),
            tenant => self.tenants.get(tenant).map(|names| &**names),
        }
    }

    /// Returns the public operands of all tenants by name.
    pub(super) fn public(&self) -> &Names {
        &self.public
    }

    /// Returns the version that a reference names: an operand of the tenant, else a public one.
    pub(super) fn find(&self, tenant: Option<&str>, reference: &str) -> Option<&Arc<OperandVersion>> {
        let own = self.own(tenant.unwrap_or(NO_TENANT));
        let by_name = |name| own.and_then(|own| own.get(name)).or_else(|| self.public.get(name));
        // Most references are a name alone, which need not be parsed: no operand has an invalid name.
        by_name(reference).or_else(|| {
            let OperandReference { name, version, .. } = OperandReference::parse(reference).ok()?;
            by_name(name).filter(|found| version.is_none_or(|version| version == found.version()))
        })
    }

    pub(super) fn insert(&mut self, tenant: &Arc<str>, version: &Arc<OperandVersion>) {
        let names = match &**tenant {
            NO_TENANT => &mut self.without_tenant,
            _ => self.tenants.entry(Arc::clone(tenant)).or_default(),
        };
        let replaced = Arc::make_mut(names).insert(version.shared_name(), Arc::clone(version));
        self.len += usize::from(replaced.is_none());
        self.unpublish(replaced.as_ref());
        if version.is_public() {
            Arc::make_mut(&mut self.public).insert(version.shared_name(), Arc::clone(version));
        }
    }

    pub(super) fn remove(&mut self, tenant: &str, name: &str) {
        let names = match tenant {
            NO_TENANT => Some(&mut self.without_tenant),
            tenant => self.tenants.get_mut(tenant),
        };
        let Some(names) = names else { return };
        let removed = Arc::make_mut(names).remove(name);
        if names.is_empty() {
            self.tenants.remove(tenant);
        }
        self.len -= usize::from(removed.is_some());
        self.unpublish(removed.as_ref());
    }

    fn unpublish(&mut self, version: Option<&Arc<OperandVersion>>) {
        if let Some(version) = version.filter(|version| version.is_public()) {
            Arc::make_mut(&mut self.public).remove(version.name());
        }
    }
}
