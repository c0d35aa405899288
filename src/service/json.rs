//! [`IntoJson`]: the arguments of [`Payload::json`](super::Payload::json).

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// Converts text or bytes into a JSON document: `&str`, `String`, `&[u8]`, `Vec<u8>`, [`Bytes`] and the like.
///
/// Borrowed data is copied; `Bytes::from_static` avoids that for data that is `'static`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the text of a JSON document",
    note = "use `Payload::from_serialize(&value)` to write a value as JSON"
)]
pub trait IntoJson {
    /// Returns the bytes of the document.
    fn into_json(self) -> Bytes;
}

macro_rules! into_json {
    ($($document:ident: $type:ty => $bytes:expr),+ $(,)?) => {
        $(impl IntoJson for $type {
            #[inline]
            fn into_json(self) -> Bytes {
                let $document = self;
                $bytes
            }
        })+
    };
}

into_json! {
    document: Bytes => document,
    document: BytesMut => document.freeze(),
    document: Vec<u8> => document.into(),
    document: String => document.into(),
    document: Box<[u8]> => document.into(),
    document: Box<str> => document.into_boxed_bytes().into(),
    document: &[u8] => Bytes::copy_from_slice(document),
    document: &str => Bytes::copy_from_slice(document.as_bytes()),
    document: &Bytes => document.clone(),
    document: &Vec<u8> => Bytes::copy_from_slice(document),
    document: &String => Bytes::copy_from_slice(document.as_bytes()),
}

impl<const N: usize> IntoJson for &[u8; N] {
    #[inline]
    fn into_json(self) -> Bytes {
        Bytes::copy_from_slice(self)
    }
}

impl<'a, T: ToOwned + ?Sized> IntoJson for Cow<'a, T>
where
    &'a T: IntoJson,
    T::Owned: IntoJson,
{
    fn into_json(self) -> Bytes {
        match self {
            Self::Borrowed(document) => document.into_json(),
            Self::Owned(document) => document.into_json(),
        }
    }
}
