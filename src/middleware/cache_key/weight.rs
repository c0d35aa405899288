use std::sync::Arc;

use bytes::Bytes;

/// The memory that a cached key takes.
pub trait Weight {
    /// The heap memory in bytes, besides the size of the value.
    fn weight(&self) -> usize;
}

macro_rules! weights {
    ($($type:ty),* => $weight:expr) => {$(
        impl Weight for $type {
            fn weight(&self) -> usize {
                let weight: fn(&Self) -> usize = $weight;
                weight(self)
            }
        }
    )*};
}

weights!((), bool, char, u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize => |_| 0);
weights!(&'static str, &'static [u8] => |_| 0);
weights!(String, Vec<u8> => |value| value.capacity());
// `Bytes` are counted as if they were not a slice of a larger buffer; `Bytes::copy_from_slice` makes such.
weights!(Box<str>, Box<[u8]>, Bytes => |value| value.len());
weights!(Arc<str> => |value| value.len() + 2 * size_of::<usize>());

impl<T: Weight> Weight for Option<T> {
    fn weight(&self) -> usize {
        self.as_ref().map_or(0, Weight::weight)
    }
}

impl<A: Weight, B: Weight> Weight for (A, B) {
    fn weight(&self) -> usize {
        self.0.weight() + self.1.weight()
    }
}

impl<A: Weight, B: Weight, C: Weight> Weight for (A, B, C) {
    fn weight(&self) -> usize {
        self.0.weight() + self.1.weight() + self.2.weight()
    }
}
