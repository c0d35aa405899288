//! Decodes large arrays into pinned memory of the backend that runs the job.
//!
//! serde cannot pass context to a `Deserialize`, and the inputs that hold the [`Buffer`](super::Buffer)s are the kernels' own
//! types. So the memory is in a thread-local while the thread decodes.

#[cfg(feature = "cuda")]
pub(crate) use pinned::{PinnedMemory, copy_of, decode_within};

#[cfg(feature = "cuda")]
mod pinned {
    use std::cell::RefCell;

    pub(crate) use crate::cuda::PinnedMemory;
    use crate::service::{Buffer, Element};

    thread_local! {
        static MEMORY: RefCell<Option<PinnedMemory>> = const { RefCell::new(None) };
    }

    /// Runs `decode` with `memory` for large arrays that have to be copied.
    pub(crate) fn decode_within<R>(memory: Option<&PinnedMemory>, decode: impl FnOnce() -> R) -> R {
        /// Restores the previous value when `decode` ends, by a panic as well.
        struct Restore(Option<PinnedMemory>);

        impl Drop for Restore {
            fn drop(&mut self) {
                MEMORY.replace(self.0.take());
            }
        }

        let Some(memory) = memory else { return decode() };
        let _restore = Restore(MEMORY.replace(Some(memory.clone())));
        decode()
    }

    /// Copies `bytes` into the memory that this thread decodes into. `None` if there is none, if they are too few, and if
    /// none is free.
    pub(crate) fn copy_of<T: Element>(bytes: &[u8]) -> Option<Buffer<T>> {
        MEMORY.with_borrow(|memory| memory.as_ref()?.copy_of_large(bytes))
    }
}

#[cfg(not(feature = "cuda"))]
pub(crate) use none::{PinnedMemory, copy_of, decode_within};

/// Without CUDA, no backend has pinned memory.
#[cfg(not(feature = "cuda"))]
mod none {
    use crate::service::Buffer;

    #[derive(Clone, Debug)]
    pub(crate) enum PinnedMemory {}

    pub(crate) fn decode_within<R>(_: Option<&PinnedMemory>, decode: impl FnOnce() -> R) -> R {
        decode()
    }

    pub(crate) fn copy_of<T>(_: &[u8]) -> Option<Buffer<T>> {
        None
    }
}

#[cfg(all(test, feature = "cuda"))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use bytes::Bytes;
    use serde::{Deserialize, Serialize};

    use super::{PinnedMemory, decode_within};
    use crate::cuda::pinned::tests::without_device;
    use crate::service::codec::{decode_json, decode_tensors, encode_tensors};
    use crate::service::{Buffer, DType, FloatArray, RunContext, Tensor, Tensors};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Arrays {
        large: Buffer<f32>,
        small: Buffer<u32>,
        reals: FloatArray,
    }

    const LEN: usize = 1 << 18;

    fn arrays() -> Arrays {
        Arrays {
            large: (0..LEN).map(|at| at as f32 - 0.5).collect(),
            small: vec![1, 2, 3].into(),
            reals: (0..LEN).map(|at| at as f64 / 3.0).collect::<Vec<_>>().into(),
        }
    }

    fn address(array: &Buffer<f32>) -> *const u8 {
        array.as_ptr().cast()
    }

    fn in_use(memory: &PinnedMemory) -> usize {
        memory.usage().in_use
    }

    /// The same arrays at odd addresses, as in the middle of a message.
    fn unaligned(tensors: &Tensors) -> Tensors {
        let mut moved = Tensors::new();
        for (name, tensor) in tensors.iter() {
            let bytes: Bytes = [&[0], &tensor.data()[..]].concat().into();
            let tensor = Tensor::new(tensor.dtype(), tensor.shape().to_vec(), bytes.slice(1..)).unwrap();
            moved.insert(name, tensor).unwrap();
        }
        moved
    }

    #[test]
    fn large_tensors_that_are_copied_are_copied_into_the_memory_and_shared_from_then_on() {
        let memory = without_device(64 << 20);
        let tensors = encode_tensors(&arrays(), &RunContext::detached()).unwrap();
        let shared: Arrays = decode_within(Some(&memory), || decode_tensors(&tensors)).unwrap();
        assert_eq!((address(&shared.large), in_use(&memory)), (tensors.get("large").unwrap().data().as_ptr(), 0));
        let decoded: Arrays = decode_within(Some(&memory), || decode_tensors(&unaligned(&tensors))).unwrap();
        assert_eq!((&decoded, in_use(&memory)), (&arrays(), 4 << 20), "a slab for each large array");
        let again = encode_tensors(&decoded, &RunContext::detached()).unwrap();
        assert_eq!(again, tensors);
        let large = again.get("large").unwrap();
        assert_eq!((large.dtype(), large.shape()), (DType::F32, &[LEN][..]));
        assert_eq!(large.data().as_ptr(), address(&decoded.large), "copied");
        let shared: Arrays = decode_within(Some(&memory), || decode_tensors(&again)).unwrap();
        assert_eq!(address(&shared.large), address(&decoded.large), "copied");
        drop((decoded, again));
        assert_eq!(in_use(&memory), 4 << 20, "what was decoded of the tensors holds it");
        drop(shared);
        assert_eq!(in_use(&memory), 0);
    }

    #[test]
    fn the_same_comes_out_with_memory_without_and_with_too_little() {
        let tensors = unaligned(&encode_tensors(&arrays(), &RunContext::detached()).unwrap());
        let none: Arrays = decode_tensors(&tensors).unwrap();
        let little = without_device(2 << 20);
        let some: Arrays = decode_within(Some(&little), || decode_tensors(&tensors)).unwrap();
        assert_eq!((in_use(&little), little.usage().fallbacks), (2 << 20, 1));
        assert!(none == arrays() && some == arrays());
        let json = serde_json::to_vec(&arrays().large).unwrap();
        let read: Buffer<f32> = decode_within(Some(&little), || decode_json(&json)).unwrap();
        assert!(read == arrays().large);
    }

    #[test]
    fn nothing_is_left_to_the_thread_afterwards() {
        let memory = without_device(64 << 20);
        let tensors = unaligned(&encode_tensors(&arrays(), &RunContext::detached()).unwrap());
        let mut wrong = Tensors::new();
        wrong
            .insert("large", Tensor::new(DType::F32, vec![LEN], Bytes::from(vec![0; 4 * LEN + 1]).slice(1..)).unwrap())
            .unwrap();
        assert!(decode_within(Some(&memory), || decode_tensors::<Arrays>(&wrong)).is_err(), "there are two more");
        assert!(
            catch_unwind(AssertUnwindSafe(|| decode_within(Some(&memory), || panic!("as it was told to")))).is_err()
        );
        assert_eq!(in_use(&memory), 0);
        let outside: Arrays = decode_tensors(&tensors).unwrap();
        assert!(outside == arrays() && in_use(&memory) == 0);
    }
}
