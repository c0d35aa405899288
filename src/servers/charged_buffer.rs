//! Appends to a buffer whose memory is charged before it is allocated.

use bytes::BytesMut;

use crate::service::{HostMemoryError, HostReservation};

/// Appends `piece`, and charges the growth of the buffer's capacity. The capacity doubles, up to `most` bytes.
///
/// # Errors
/// There is not enough memory; the buffer is as it was.
pub(super) fn append_charged(
    buffer: &mut BytesMut,
    piece: &[u8],
    most: usize,
    memory: &HostReservation,
) -> Result<(), HostMemoryError> {
    let needed = buffer.len() + piece.len();
    if needed > buffer.capacity() {
        let capacity = (2 * buffer.capacity()).min(most).max(needed);
        memory.grow((capacity - buffer.capacity()) as u64)?;
        buffer.reserve(capacity - buffer.len());
    }
    buffer.extend_from_slice(piece);
    Ok(())
}
