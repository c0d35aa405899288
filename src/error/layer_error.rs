//! `layer_error!`, which implements the traits of a layer's error type.

/// Implements `Display`, `Error`, `Classify` and `From` for the error of a layer, which is generic over the error of
/// the inner service.
///
/// Each of the layer's own variants is given its kind or classification, the time to retry and a text. Those in parentheses hold the
/// error of the inner service and delegate to it. thiserror's derive is not used because it requires `E: Error`, and
/// `BoxError` does not implement `Error`.
macro_rules! layer_error {
    (@from $error:ident($inner:ident $(, $more:ident)*)) => {
        /// Wraps an error of the inner service.
        impl<E> From<E> for $error<E> {
            fn from(error: E) -> Self {
                Self::$inner(error.into())
            }
        }
    };
    (
        $error:ident($($inner:ident),+) {
            $($pattern:pat => $kind:expr, $retry_after:expr, $($text:expr),+;)+
        }
    ) => {
        layer_error!(@from $error($($inner),+));

        impl<E: std::fmt::Display> std::fmt::Display for $error<E> {
            #[allow(unused_variables, reason = "the text need not use every binding")]
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $($pattern => write!(f, $($text),+),)+
                    $(Self::$inner(error) => E::fmt(error, f),)+
                }
            }
        }

        impl<E: $crate::error::AnyError> std::error::Error for $error<E> {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                $crate::error::provide(self);
                match self {
                    $(Self::$inner(error) => E::as_error(error).source(),)+
                    _ => None,
                }
            }
        }

        impl<E: $crate::error::AnyError> $crate::error::Classify for $error<E> {
            fn kind(&self) -> $crate::error::ErrorKind {
                self.classification().kind
            }

            fn retry_after(&self) -> Option<std::time::Duration> {
                self.classification().retry_after
            }

            fn challenge(&self) -> Option<http::HeaderValue> {
                self.classification().challenge
            }

            #[allow(unused_variables, reason = "the time to retry need not use every binding")]
            fn classification(&self) -> $crate::error::Classification {
                let (mut classification, retry_after) = match self {
                    $($pattern => ($crate::error::Classification::from($kind), $retry_after),)+
                    $(Self::$inner(error) => return E::classify(error),)+
                };
                classification.retry_after = retry_after;
                classification
            }
        }
    };
}
pub(crate) use layer_error;
