//! Kernels that panic, and what is left of the workers and told to the client.
