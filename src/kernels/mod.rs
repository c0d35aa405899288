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

use crate::service::{KernelRegistry, RegisterError};

/// Registers every kernel of the catalogue.
///
/// # Errors
/// Where one of their names is taken.
pub fn register_all(registry: &KernelRegistry) -> Result<(), RegisterError> {
    registry.register(graph::betweenness_centrality::BetweennessCentrality)?;
    registry.register(linalg::saxpy::Saxpy)?;
    registry.register(orderbook::matching::Matching)?;
    registry.register(risk::option_pricing::OptionPricing)?;
    Ok(())
}
