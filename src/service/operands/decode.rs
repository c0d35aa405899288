//! Gives the operands of a request to the decoding of its input.
//!
//! serde cannot pass context to a `Deserialize`, so they are in a thread-local while the thread decodes.

use std::cell::RefCell;

use super::request::RequestOperands;

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
