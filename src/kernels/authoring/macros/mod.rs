//! The macros that implement `Kernel` from the code of a row.

mod elementwise;
mod elementwise_floats;
mod reduction;

/// Passes its input on where the crate is built with the feature `cuda`, whatever the features of the calling crate.
#[cfg(feature = "cuda")]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_cuda {
    ($($items:tt)*) => { $($items)* };
}

/// Passes its input on where the crate is built with the feature `cuda`, whatever the features of the calling crate.
#[cfg(not(feature = "cuda"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_cuda {
    ($($items:tt)*) => {};
}
