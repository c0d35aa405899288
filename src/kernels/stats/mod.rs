//! Statistics of samples.

pub mod moments;
