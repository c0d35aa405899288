//! Tenants that take more than their share, and what the others get.
