use std::sync::Arc;

use bytes::Bytes;

/// What keeping a value costs: for the keys that a closure makes.
pub trait Weigh {
    /// The bytes of memory that it holds on to, besides its own size.
    fn weigh(&self) -> usize;
}

macro_rules! no_more_than_their_size {
    ($($type:ty)*) => {$(
        impl Weigh for $type {
            fn weigh(&self) -> usize {
                0
            }
        }
    )*};
}
no_more_than_their_size! { () bool char u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize &'static str &'static [u8] }

impl Weigh for String {
    fn weigh(&self) -> usize {
        self.capacity()
    }
}

impl Weigh for Vec<u8> {
    fn weigh(&self) -> usize {
        self.capacity()
    }
}

impl Weigh for Box<str> {
    fn weigh(&self) -> usize {
        self.len()
    }
}

impl Weigh for Box<[u8]> {
    fn weigh(&self) -> usize {
        self.len()
    }
}

/// Its own bytes. It may be a slice of more, which stays in use with it: `Bytes::copy_from_slice` makes one that is not.
impl Weigh for Bytes {
    fn weigh(&self) -> usize {
        self.len()
    }
}

/// As if nobody else had it.
impl Weigh for Arc<str> {
    fn weigh(&self) -> usize {
        self.len() + 2 * size_of::<usize>()
    }
}

impl<T: Weigh> Weigh for Option<T> {
    fn weigh(&self) -> usize {
        self.as_ref().map_or(0, Weigh::weigh)
    }
}

impl<A: Weigh, B: Weigh> Weigh for (A, B) {
    fn weigh(&self) -> usize {
        self.0.weigh() + self.1.weigh()
    }
}

impl<A: Weigh, B: Weigh, C: Weigh> Weigh for (A, B, C) {
    fn weigh(&self) -> usize {
        self.0.weigh() + self.1.weigh() + self.2.weigh()
    }
}
