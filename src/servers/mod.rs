//! Thin adapters: one stack each, every one a client of the same Tower service.

#[cfg(feature = "actix")]
pub mod actix;
