//! What every layer writes in the same way: access to the inner service, the traits that are forwarded to it, and `Clone`
//! and `Debug` with fewer bounds than a derive would ask for.

/// Writes `get_ref`, `get_mut` and `into_inner`, and forwards what [`forward_to_inner!`] does.
///
/// ```ignore
/// inner_service!(Timeout::<S> { inner });
/// inner_service!(Fallback::<S, F, R, C> { primary } where S: Service<R>);
/// ```
macro_rules! inner_service {
    ($service:ident $(::)? <S $(, $parameter:ident)*> { $inner:ident } $(where $($bounds:tt)+)?) => {
        impl<S $(, $parameter)*> $service<S $(, $parameter)*> $(where $($bounds)+)? {
            /// Returns a reference to the inner service.
            pub fn get_ref(&self) -> &S {
                &self.$inner
            }

            /// Returns a mutable reference to the inner service.
            pub fn get_mut(&mut self) -> &mut S {
                &mut self.$inner
            }

            /// Returns the inner service.
            pub fn into_inner(self) -> S {
                self.$inner
            }
        }

        $crate::middleware::inner_service::forward_to_inner!(
            $service<S $(, $parameter)*> { $inner } $(where $($bounds)+)?
        );
    };
}

/// Forwards `tower::load::Load`, so that `tower::balance` works over any stack, and with the feature `grpc` tonic's
/// `NamedService`, so that a gRPC service in layers can be added to a `tonic` server.
macro_rules! forward_to_inner {
    ($service:ident $(::)? <S $(, $parameter:ident)*> { $inner:ident } $(where $($bounds:tt)+)?) => {
        impl<S $(, $parameter)*> tower::load::Load for $service<S $(, $parameter)*>
        where
            S: tower::load::Load,
            $($($bounds)+)?
        {
            type Metric = S::Metric;

            fn load(&self) -> Self::Metric {
                self.$inner.load()
            }
        }

        #[cfg(feature = "grpc")]
        impl<S $(, $parameter)*> tonic::server::NamedService for $service<S $(, $parameter)*>
        where
            S: tonic::server::NamedService,
            $($($bounds)+)?
        {
            const NAME: &'static str = S::NAME;
        }
    };
}

/// Writes `Clone` for a service of which the inner one alone must be `Clone`. Fields are cloned, but for those that are
/// given a value: what `poll_ready` has reserved or found out for one service is not its clone's.
///
/// ```ignore
/// clone_service!(LoadShed::<S, P> { inner, policy, is_ready: false });
/// ```
macro_rules! clone_service {
    (
        $service:ident $(::)? <S $(, $parameter:ident)*> { $($field:ident $(: $value:expr)?),+ $(,)? }
        $(where $($bounds:tt)+)?
    ) => {
        impl<S $(, $parameter)*> Clone for $service<S $(, $parameter)*>
        where
            S: Clone,
            $($($bounds)+)?
        {
            fn clone(&self) -> Self {
                Self { $($field: $crate::middleware::inner_service::clone_service!(@field self $field $(: $value)?)),+ }
            }
        }
    };
    (@field $self:ident $field:ident) => {
        $self.$field.clone()
    };
    (@field $self:ident $field:ident : $value:expr) => {
        $value
    };
}

pub(super) use {clone_service, forward_to_inner, inner_service};
