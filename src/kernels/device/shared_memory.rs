//! [`shared_memory`]: how much shared memory a block may have.

/// Returns the bytes of shared memory that a block may have, of its variables and dynamic: the table of technical
/// specifications in the CUDA programming guide.
pub const fn shared_memory(compute_capability: (u32, u32)) -> u32 {
    match compute_capability {
        (7, _) => 64 << 10,
        (8, 0 | 7) => 163 << 10,
        (9..=11, _) => 227 << 10,
        (8.., _) => 99 << 10,
        _ => 48 << 10,
    }
}
