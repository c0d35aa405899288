//! Linear algebra.

pub mod saxpy;
