//! Hostile clients against the program as a process: each case is one that stopped it, or hurt other clients, before.
//!
//! CI runs small numbers against the build of the tests. At full size, against a release build:
//!
//! ```sh
//! cargo build --release --features server
//! TOWER_KERNELS_HOSTILE=full TOWER_KERNELS_HOSTILE_PROGRAM=target/release/tower-kernels \
//!     cargo test --features full --test hostile
//! ```

#![cfg(unix)]

mod connections;
mod hang_ups;
mod logs;
mod memory;
mod names;
mod panics;
mod seen;
mod slow_readers;
mod streams;
mod supply;
#[path = "../support/mod.rs"]
mod support;
mod tenants;
mod tls;
mod tokens;
mod work;

/// `small` in CI, `full` where `TOWER_KERNELS_HOSTILE=full` asks for the size of the real attack.
#[allow(dead_code, reason = "not every case has two sizes")]
fn size<T>(small: T, full: T) -> T {
    if std::env::var_os("TOWER_KERNELS_HOSTILE").is_some_and(|size| size == "full") { full } else { small }
}
