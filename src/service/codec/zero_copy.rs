//! Lets [`Buffer`](super::Buffer) and the tensor codec pass bytes to each other by what owns them, where serde's data
//! model has slices only.
//!
//! Whoever has [`Bytes`] offers them for as long as it passes their slice through serde; whoever gets a slice that it
//! would copy asks whether it is the one on offer. Where it is not, as with codecs that know nothing of this, all that
//! is lost is a copy.

use std::cell::Cell;

use bytes::Bytes;

thread_local! {
    static OFFER: Cell<Option<Bytes>> = const { Cell::new(None) };
}

/// Runs `pass` with these bytes on offer, and not for longer.
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

/// What owns this very slice, where it is on offer.
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
