//! Requests whose decoded input or output takes far more memory than what was sent.
