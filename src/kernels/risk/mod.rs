//! Risk: pricing of derivatives and their sensitivities.

pub mod black_scholes;
mod elementary;
mod kinds;
pub mod option_pricing;

pub use kinds::Kinds;
