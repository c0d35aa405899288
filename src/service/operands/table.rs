//! [`Table`]: the newest version of each operand.

use std::sync::Arc;

use foldhash::HashMap;

use super::version::OperandVersion;

/// The key of requests without a tenant. Servers reject an empty tenant, so no tenant has it.
pub(super) const NO_TENANT: &str = "";

pub(super) type Names = HashMap<Arc<str>, Arc<OperandVersion>>;

/// The newest versions.
#[derive(Clone, Default)]
pub(super) struct Table {
    pub(super) tenants: HashMap<Arc<str>, Arc<Names>>,
    /// The public operands of all tenants, which are in the table of their tenant as well.
    pub(super) public: Arc<Names>,
    pub(super) len: usize,
}

impl Table {
    pub(super) fn get(&self, tenant: Option<&str>, name: &str) -> Option<&Arc<OperandVersion>> {
        let own = self.tenants.get(tenant.unwrap_or(NO_TENANT)).and_then(|names| names.get(name));
        own.or_else(|| self.public.get(name))
    }

    pub(super) fn insert(&mut self, tenant: &Arc<str>, version: &Arc<OperandVersion>) {
        let names = Arc::make_mut(self.tenants.entry(Arc::clone(tenant)).or_default());
        let replaced = names.insert(version.shared_name(), Arc::clone(version));
        self.len += usize::from(replaced.is_none());
        self.unpublish(replaced.as_ref());
        if version.is_public() {
            Arc::make_mut(&mut self.public).insert(version.shared_name(), Arc::clone(version));
        }
    }

    pub(super) fn remove(&mut self, tenant: &str, name: &str) {
        let Some(names) = self.tenants.get_mut(tenant) else { return };
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
