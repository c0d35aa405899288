//! A log whose reader is gone, full or slow, and clients that try to write to it.
