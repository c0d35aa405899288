//! Risk: pricing of derivatives and their sensitivities, and the risk of books.

pub mod monte_carlo_var;
pub mod option_pricing;
