//! Linear algebra.

pub mod dot;
pub mod saxpy;
pub mod weighted_sum_product;
