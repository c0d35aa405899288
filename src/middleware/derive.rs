//! `Clone` and `Debug` for types whose type parameters need not implement them, which the standard derives require.

/// Writes `Clone`, which clones all fields.
///
/// ```ignore
/// derive_clone!(RetryLayer::<P> { policy, is_idempotent });
/// ```
macro_rules! derive_clone {
    ($type:ident $(::)? <$($parameter:ident),+> { $($field:ident),+ }) => {
        impl<$($parameter),+> Clone for $type<$($parameter),+> {
            fn clone(&self) -> Self {
                Self { $($field: self.$field.clone()),+ }
            }
        }
    };
}

/// Writes `Debug`, which prints the given fields.
///
/// ```ignore
/// derive_debug!(Retry::<S, P> { inner, policy } where S: fmt::Debug);
/// ```
macro_rules! derive_debug {
    ($type:ident $(::)? <$($parameter:ident),+> { $($field:ident),* } $(where $($bounds:tt)+)?) => {
        impl<$($parameter),+> std::fmt::Debug for $type<$($parameter),+> $(where $($bounds)+)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($type))$(.field(stringify!($field), &self.$field))*.finish_non_exhaustive()
            }
        }
    };
}

pub(super) use {derive_clone, derive_debug};
