//! Time series.

pub mod volatility_analysis;
