//! Gives the operands of a request to the decoding of its input.
//!
//! serde cannot pass context to a `Deserialize`, so they are in a thread-local while the thread decodes.

use std::cell::RefCell;
use std::sync::Arc;

use super::request::RequestOperands;
use super::version::OperandVersion;

thread_local! {
    static OPERANDS: RefCell<RequestOperands> = const { RefCell::new(RequestOperands::none()) };
}

/// Runs `decode` with the operands that references in the input may name.
pub(crate) fn within<R>(operands: &RequestOperands, decode: impl FnOnce() -> R) -> R {
    /// Restores the previous value when `decode` ends, by a panic as well.
    struct Restore(RequestOperands);

    impl Drop for Restore {
        fn drop(&mut self) {
            OPERANDS.replace(std::mem::take(&mut self.0));
        }
    }

    let _restore = Restore(OPERANDS.replace(operands.clone()));
    decode()
}

/// Returns the operands that references may name on this thread.
pub(crate) fn current() -> RequestOperands {
    OPERANDS.with_borrow(RequestOperands::clone)
}

/// Finds the version with an [id](OperandVersion::id) that another process has sent.
pub(crate) type VersionLookup = Arc<dyn Fn(u64) -> Option<Arc<OperandVersion>> + Send + Sync>;

struct Versions {
    lookup: VersionLookup,
    /// The first id that was not found.
    unknown: Option<u64>,
}

thread_local! {
    static VERSIONS: RefCell<Option<Versions>> = const { RefCell::new(None) };
}

/// Runs `read`, in which ids stand for the versions that `lookup` finds. Returns the first id that was not found as well.
pub(crate) fn with_versions<R>(lookup: &VersionLookup, read: impl FnOnce() -> R) -> (R, Option<u64>) {
    /// Restores the previous value when `read` ends, by a panic as well.
    struct Restore(Option<Versions>);

    impl Drop for Restore {
        fn drop(&mut self) {
            VERSIONS.replace(self.0.take());
        }
    }

    let _restore = Restore(VERSIONS.replace(Some(Versions { lookup: Arc::clone(lookup), unknown: None })));
    let read = read();
    (read, VERSIONS.with_borrow(|versions| versions.as_ref().and_then(|versions| versions.unknown)))
}

/// Returns the version with an id; `None` if there is none, and outside of [`with_versions`].
pub(super) fn find_version(id: u64) -> Option<Arc<OperandVersion>> {
    let lookup = VERSIONS.with_borrow(|versions| versions.as_ref().map(|versions| Arc::clone(&versions.lookup)))?;
    let found = lookup(id);
    if found.is_none() {
        VERSIONS.with_borrow_mut(|versions| {
            if let Some(versions) = versions {
                versions.unknown.get_or_insert(id);
            }
        });
    }
    found
}
