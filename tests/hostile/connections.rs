//! Connections that are opened and kept: limits per address, idle ones, and what is kept free for health probes.
