//! The built-in catalogue, one folder a domain. A kernel is registered under `domain/name`.
//!
//! | id | module |
//! |---|---|
//! | `graph/betweenness-centrality` | [`graph::betweenness_centrality`] |
//! | `linalg/saxpy` | [`linalg::saxpy`] |
//! | `orderbook/matching` (ring) | [`orderbook::matching`] |
//! | `risk/option-pricing` | [`risk::option_pricing`] |

pub mod graph;
pub mod linalg;
pub mod orderbook;
pub mod risk;

use crate::service::{Kernel, KernelInfo, KernelRegistry, RegisterError};

/// Registers every kernel of the catalogue.
///
/// # Errors
/// Where one of their names is taken.
pub fn register_all(registry: &KernelRegistry) -> Result<(), RegisterError> {
    register_where(registry, |_| true)
}

/// Registers those kernels of the catalogue that are `wanted`.
///
/// ```
/// use tower_kernels::service::KernelRegistry;
///
/// let registry = KernelRegistry::new();
/// tower_kernels::kernels::register_where(&registry, |kernel| kernel.domain() == "graph").unwrap();
/// assert!(registry.list().iter().all(|kernel| kernel.info().domain() == "graph"));
/// ```
///
/// # Errors
/// Where one of their names is taken.
pub fn register_where(registry: &KernelRegistry, wanted: impl Fn(&KernelInfo) -> bool) -> Result<(), RegisterError> {
    let catalogue = Wanted { registry, wanted };
    catalogue.register(graph::betweenness_centrality::BetweennessCentrality)?;
    catalogue.register(linalg::saxpy::Saxpy)?;
    catalogue.register(orderbook::matching::Matching)?;
    catalogue.register(risk::option_pricing::OptionPricing)?;
    Ok(())
}

/// A registry that takes no more than what is wanted.
struct Wanted<'a, F> {
    registry: &'a KernelRegistry,
    wanted: F,
}

impl<F: Fn(&KernelInfo) -> bool> Wanted<'_, F> {
    fn register<K: Kernel>(&self, kernel: K) -> Result<(), RegisterError> {
        if (self.wanted)(&kernel.info()) { self.registry.register(kernel) } else { Ok(()) }
    }
}
