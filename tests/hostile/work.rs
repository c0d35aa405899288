//! Requests that cost far more time than it took to send them.
