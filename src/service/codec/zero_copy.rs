//! Passes owned bytes between [`Buffer`](super::Buffer) and the tensor codec, although serde's data model has only slices.
//!
//! The side that has [`Bytes`] offers them in a thread-local while it passes their slice through serde. The side that would
//! copy the slice takes the owner instead, if that slice is the one offered. With codecs that do not take part, the slice is
//! copied.

use std::cell::Cell;

use bytes::Bytes;

thread_local! {
    static OFFER: Cell<Option<Bytes>> = const { Cell::new(None) };
}

/// Runs `pass` while `bytes` are offered.
pub(super) fn offering<R>(bytes: Bytes, pass: impl FnOnce() -> R) -> R {
    struct Withdraw;

    impl Drop for Withdraw {
        fn drop(&mut self) {
            OFFER.take();
        }
    }

    OFFER.set(Some(bytes));
    let _withdraw = Withdraw;
    pass()
}

/// Returns the owner of this slice, if it is offered.
pub(super) fn owner_of(slice: &[u8]) -> Option<Bytes> {
    let offer = OFFER.take()?;
    // What is on offer is alive, so that nothing else can be where it is.
    (offer.as_ptr() == slice.as_ptr() && offer.len() == slice.len()).then_some(offer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_slice_on_offer_is_owned_and_only_while_it_is() {
        let bytes = Bytes::from(vec![1, 2, 3]);
        assert_eq!(owner_of(&bytes), None, "nothing was offered");
        for (slice, owned) in [(&bytes[..], true), (&bytes[..2], false), (&bytes[1..], false), (&[1, 2, 3], false)] {
            assert_eq!(offering(bytes.clone(), || owner_of(slice).is_some()), owned, "{slice:?}");
        }
        offering(bytes.clone(), || ());
        assert_eq!(owner_of(&bytes), None, "the offer has ended");
        let panicked = std::panic::catch_unwind(|| offering(Bytes::from_static(b"abc"), || panic!("half-way")));
        assert!(panicked.is_err() && OFFER.take().is_none(), "an offer ends however its pass does");
    }
}
