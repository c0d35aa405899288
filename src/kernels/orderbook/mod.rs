//! Order books.

pub mod matching;
