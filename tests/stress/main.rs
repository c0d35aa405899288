//! Long and random work: chaos, overload, and a short soak.

mod chaos;
mod operands;
mod overload;
mod soak;
#[path = "../support/mod.rs"]
mod support;
