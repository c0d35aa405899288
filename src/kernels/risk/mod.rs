//! Risk: pricing of derivatives and their sensitivities.

pub mod option_pricing;
