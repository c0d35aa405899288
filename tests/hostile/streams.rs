//! Streams of requests whose client does not read.
